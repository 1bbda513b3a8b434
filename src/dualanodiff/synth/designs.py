"""Shapes and materials of the demo products: none of them is among those that pre-training draws from."""

import numpy as np

from dualanodiff.synth.distances import box, circle, ring
from dualanodiff.synth.noise import Field, colour, coordinates, fractal, noise, relief, step
from dualanodiff.synth.objects import Layer
from dualanodiff.synth.surfaces import Surface

Generator = np.random.Generator


def keyed_washer(_: Generator, u: Field, v: Field) -> list[Layer]:
    """A washer with two key slots and a groove."""
    body = np.maximum(circle(u, v, 1), -circle(u, v, 0.42))
    body = np.maximum(body, -np.minimum(box(u - 1, v, 0.14, 0.1, 0.03), box(u + 1, v, 0.14, 0.1, 0.03)))
    return [Layer(body, bevel=0.05, spun=True), Layer(np.maximum(ring(u, v, 0.72, 0.05), body + 0.05), "dark", -0.03)]


def turned_steel(_: Generator, shot: Generator, size: int) -> Surface:
    """Grey steel without grain lines."""
    field = np.float32(0.02) * noise(shot, size, 110) + np.float32(0.03) * noise(shot, size, 4)
    return Surface(colour(0.58, 0.05, 0.66) * (1 + field), "turned steel")


def ribbed_tile(_: Generator, shot: Generator, size: int) -> Surface:
    """Grey ceramic with shallow slanted ribs and dark speckles."""
    x, y = coordinates(size)
    ribs = relief(np.sin((x + y * np.float32(0.5)) * np.float32(14)) * np.float32(0.01), (-0.7, -0.7))
    speckle = step(noise(shot, size, 100) * 3 - 3.9)
    return Surface(
        colour(0.09, 0.05, 0.62)
        * (1 + ribs + np.float32(0.02) * fractal(shot, size, 4, 64) - np.float32(0.35) * speckle),
        "ribbed ceramic",
    )


def starred_cap(_: Generator, u: Field, v: Field) -> list[Layer]:
    """A knurled bottle cap with a raised star."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    star = radius * (1 - np.float32(0.28) * np.cos(5 * angle)) - np.float32(0.36)
    return [
        Layer(radius - np.float32(0.97) - np.float32(0.025) * np.sin(angle * 44), "dark", 0.06),
        Layer(circle(u, v, 0.84), "body", 0.09),
        Layer(ring(u, v, 0.66, 0.06), "body", 0.03),
        Layer(star.astype(np.float32), "light", 0.05),
    ]


def cap_plastic(_: Generator, shot: Generator, size: int) -> Surface:
    """Orange plastic with a faint grain."""
    return Surface(colour(0.045, 0.82, 0.8) * (1 + np.float32(0.02) * noise(shot, size, 100)), "moulded plastic")
