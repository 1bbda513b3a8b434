"""Signed distances to plain outlines, negative inside, from the coordinates u (right) and v (down) of each pixel."""

import numpy as np

from dualanodiff.synth.noise import Field


def circle(u: Field, v: Field, radius: float) -> Field:
    """Distance to a circle."""
    return np.hypot(u, v) - np.float32(radius)


def ring(u: Field, v: Field, radius: float, width: float) -> Field:
    """Distance to a ring of that middle radius and width."""
    return np.abs(circle(u, v, radius)) - np.float32(width / 2)


def box(u: Field, v: Field, half_width: float, half_height: float, corner: float = 0.0) -> Field:
    """Distance to an upright rectangle with round corners."""
    du, dv = np.abs(u) - np.float32(half_width - corner), np.abs(v) - np.float32(half_height - corner)
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0) - np.float32(corner)


def polygon(u: Field, v: Field, corners: int, radius: float) -> Field:
    """Distance to a regular polygon whose sides lie `radius` from the middle."""
    turns = [2 * np.pi * k / corners for k in range(corners)]
    return np.maximum.reduce([np.float32(np.cos(t)) * u + np.float32(np.sin(t)) * v for t in turns]) - np.float32(
        radius
    )


def profile(u: Field, v: Field, heights: list[float], radii: list[float]) -> tuple[Field, Field]:
    """Distance to a turned body seen from the side, and where across it each pixel lies (-1..1).

    The body has radius radii[k] at v = heights[k], straight between, nothing outside.
    """
    steps = np.linspace(-1.5, 1.5, 769)
    table = np.interp(steps, heights, radii).astype(np.float32)
    radius = table[np.clip((v + 1.5) * 256, 0, 768).astype(np.int16)]
    distance = np.maximum(np.maximum(np.abs(u) - radius, np.float32(heights[0]) - v), v - np.float32(heights[-1]))
    return distance, np.clip(u / np.maximum(radius, 0.02), -1, 1)


def comb(along: Field, pitch: float) -> Field:
    """Distance to evenly spaced bars half as wide as their pitch."""
    return np.abs(np.mod(along * np.float32(1 / pitch) + 0.5, 1) - 0.5) * np.float32(pitch) - np.float32(pitch / 4)
