"""Shapes: a part as a pile of layers, each a signed distance to its edge in the part's own coordinates.

A part spans about -1..1 in u (right) and v (down); the scene turns, scales and lights it. Distances are negative inside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualanodiff.synth.distances import box, circle, comb, polygon, profile, ring
from dualanodiff.synth.noise import Field, between, pick
from dualanodiff.synth.surfaces import (
    ANY,
    DULL,
    METALS,
    Material,
    glass,
    leather,
    painted,
    paper,
    plastic,
    rubber,
    wood,
)

Generator = np.random.Generator


@dataclass(frozen=True)
class Layer:
    """One solid piece of a part, painted over the pieces before it."""

    distance: Field
    paint: str = "body"
    """body: the part's material; second: another colour; dark, light: shades of the body; hole: the ground shows."""
    bevel: float = 0.06
    """Width of the rounded edge; negative for an edge that falls inwards."""
    round: Field | None = None
    """For round bodies, -1..1 across the body: lit like a cylinder that lies along v."""
    spun: bool = False
    """Turned on a lathe: fine rings and a bow-tie of light."""


Shape = Callable[[Generator, Field, Field], list[Layer]]


def _disc(form: Generator, u: Field, v: Field) -> list[Layer]:
    layers = [Layer(circle(u, v, 1), bevel=between(form, 0.02, 0.12), spun=form.random() < 0.5)]
    if form.random() < 0.5:
        layers.append(
            Layer(
                circle(u, v, between(form, 0.3, 0.85)),
                pick(form, ("body", "second", "light", "dark")),
                pick(form, (-0.05, 0.05)),
            )
        )
    return layers


def _washer(form: Generator, u: Field, v: Field) -> list[Layer]:
    hole = between(form, 0.3, 0.75)
    body = np.maximum(circle(u, v, 1), -circle(u, v, hole))
    return [Layer(body, bevel=between(form, 0.02, 0.1), spun=form.random() < 0.6)]


def _bottle_top(form: Generator, u: Field, v: Field) -> list[Layer]:
    layers, radius = [Layer(circle(u, v, 1), bevel=0.15)], 1.0
    for _ in range(int(form.integers(3, 8))):
        radius -= between(form, 0.03, 0.12)
        layers.append(
            Layer(
                circle(u, v, radius), pick(form, ("body", "second", "light", "dark")), pick(form, (-0.06, 0.06, 0.12))
            )
        )
    layers.append(Layer(circle(u, v, min(radius - 0.05, between(form, 0.35, 0.65))), "deep", -0.1))
    return layers


def _nut(form: Generator, u: Field, v: Field) -> list[Layer]:
    corners, hole = pick(form, (6, 6, 6, 4, 8)), between(form, 0.35, 0.6)
    body = np.maximum(np.maximum(polygon(u, v, corners, 0.88), circle(u, v, 1)), -circle(u, v, hole))
    layers = [Layer(body, bevel=between(form, 0.03, 0.12))]
    if form.random() < 0.6:
        layers.append(Layer(np.maximum(ring(u, v, hole + 0.03, 0.06), -circle(u, v, hole)), "dark", -0.05))
    return layers


def _gear(form: Generator, u: Field, v: Field) -> list[Layer]:
    teeth, depth, hole = int(form.integers(8, 28)), between(form, 0.06, 0.18), between(form, 0.12, 0.4)
    wave = np.clip(np.sin(np.arctan2(v, u) * teeth) * between(form, 1, 4), -1, 1)
    body = np.maximum(circle(u, v, 1 - depth) - np.float32(depth) * wave, -circle(u, v, hole))
    layers = [Layer(body, bevel=0.04)]
    if form.random() < 0.6:
        layers.append(Layer(ring(u, v, (0.9 - depth + hole) / 2, 0.5 * (0.8 - depth - hole)), "dark", -0.04))
    if form.random() < 0.4:
        count, radius = int(form.integers(3, 7)), (0.9 - depth + hole) / 2
        layers += [
            Layer(circle(u - radius * np.cos(a), v - radius * np.sin(a), 0.09), "hole")
            for a in np.arange(count) * 2 * np.pi / count
        ]
    return layers


def _plate(form: Generator, u: Field, v: Field) -> list[Layer]:
    height = between(form, 0.45, 0.95)
    body = box(u, v, 0.95, height, pick(form, (0.0, 0.05, 0.2)))
    if form.random() < 0.3:
        body = np.maximum(body, -circle(u - 0.95, v - height, between(form, 0.1, 0.4)))
    holes = pick(
        form, (((0, 0),), ((0, -0.6),), ((-0.7, -0.6), (0.7, 0.6), (0.7, -0.6), (-0.7, 0.6)), ((-0.6, 0), (0.6, 0)), ())
    )
    radius = between(form, 0.08, 0.2)
    for x, y in holes:
        body = np.maximum(body, -circle(u - x, v - y * height, radius))
    layers = [Layer(body, bevel=0.03)]
    if form.random() < 0.3:
        rim = np.maximum(box(u, v, 0.8, height * 0.8, 0.1), -box(u, v, 0.75, height * 0.75, 0.1))
        layers.append(Layer(np.maximum(rim, body), "dark", -0.03))
    if holes and form.random() < 0.5:  # the wire it hangs from
        x, y = holes[0]
        bar = np.maximum(np.abs(u - x - 0.2 * (v - y * height)) - 0.035, v - np.float32(y * height))
        layers.append(Layer(bar, "second", 0.04))
    return layers


def _capsule(form: Generator, u: Field, v: Field) -> list[Layer]:
    radius = between(form, 0.3, 0.6)
    body = box(u, v, radius, 1, radius * 0.98)
    across = np.clip(u / radius, -1, 1)
    layers = [Layer(body, "body", 0.2, across)]
    if form.random() < 0.7:
        layers.append(Layer(np.maximum(body, v), "second", 0.2, across))
    return layers


def _pill(form: Generator, u: Field, v: Field) -> list[Layer]:
    body = box(u, v, 1, between(form, 0.5, 1), between(form, 0.45, 0.5))
    layers = [Layer(body, bevel=between(form, 0.15, 0.4))]
    if form.random() < 0.5:
        layers.append(Layer(np.maximum(np.abs(u) - 0.03, body + 0.1), "dark", -0.05))
    return layers


def _screw(form: Generator, u: Field, v: Field) -> list[Layer]:
    shaft, head = between(form, 0.16, 0.3), between(form, 0.4, 0.6)
    pitch, tip = between(form, 18, 40), pick(form, (0.0, 0.4))
    countersunk = form.random() < 0.4
    top = [head, shaft] if countersunk else [head, head, shaft]
    heights = [-1, -0.65] if countersunk else [-1, -0.68, -0.67]
    _, across = profile(u, v, [-1, 1], [shaft, shaft])
    thread = np.float32(0.03) * np.sin((v + across * np.float32(0.05)) * np.float32(pitch)) * (v > -0.4)
    body, across = profile(u - thread, v, [*heights, 1 - tip, 1], [*top, shaft, 0.02 if tip else shaft])
    groove = np.maximum(
        body + 0.01,
        np.maximum(np.sin((v + across * np.float32(0.08)) * np.float32(pitch)) * 0.05, np.float32(-0.4) - v),
    )
    return [Layer(body, "body", 0.05, across), Layer(groove, "dark", -0.03, across)]


def _bottle_side(form: Generator, u: Field, v: Field) -> list[Layer]:
    wide, neck, shoulder = between(form, 0.35, 0.55), between(form, 0.12, 0.22), between(form, -0.5, -0.1)
    cap = -1 + between(form, 0.12, 0.25)
    body, across = profile(u, v, [-1, shoulder - 0.25, shoulder, 0.95, 1], [neck, neck, wide, wide, wide * 0.9])
    layers = [Layer(body, "body", 0.08, across)]
    if form.random() < 0.7:
        layers.append(
            Layer(
                np.maximum(body, np.abs(v - np.float32((shoulder + 1) / 2)) - np.float32(between(form, 0.2, 0.3))),
                "second",
                0.01,
                across,
            )
        )
    layers.append(
        Layer(
            profile(u, v, [-1, cap], [neck * 1.2, neck * 1.2])[0], pick(form, ("second", "dark", "light")), 0.03, across
        )
    )
    return layers


def _chip(form: Generator, u: Field, v: Field) -> list[Layer]:
    count, length = int(form.integers(3, 11)), between(form, 0.1, 0.25)
    half_height = between(form, 0.5, 0.85)
    pitch = 2 * half_height / count
    pins = np.maximum(comb(v, pitch), np.maximum(np.abs(u) - 0.98, np.abs(v) - np.float32(half_height)))
    if form.random() < 0.3:
        reach, edge = half_height + length, 1 - length
        more = np.maximum(
            comb(u, 2 * edge / count), np.maximum(np.abs(v) - np.float32(reach), np.abs(u) - np.float32(edge))
        )
        pins = np.minimum(pins, more)
    layers = [Layer(pins, "metal", 0.03), Layer(box(u, v, 1 - length, half_height, 0.02), bevel=0.05)]
    if form.random() < 0.7:
        layers.append(Layer(circle(u + 0.7 - length, v + half_height - 0.2, 0.07), "dark", -0.03))
    return layers


def _connector(form: Generator, u: Field, v: Field) -> list[Layer]:
    half_height, count = between(form, 0.3, 0.5), int(form.integers(2, 7))
    layers = [
        Layer(box(u, v, 1, half_height, 0.06), bevel=0.05),
        Layer(box(u, v, 0.88, half_height * 0.75, 0.04), "dark", -0.06),
    ]
    for k in range(count):
        x = -0.8 + 1.6 * (k + 0.5) / count
        layers.append(
            Layer(
                box(u - np.float32(x), v, 0.35 / count, half_height * 0.4, 0.01),
                pick(form, ("metal", "metal", "second")),
                0.03,
            )
        )
    return layers


def _cable(form: Generator, u: Field, v: Field) -> list[Layer]:
    layers = [Layer(circle(u, v, 1), bevel=0.08)]
    count, spin = pick(form, (1, 2, 3, 3, 4)), between(form, 0, 6)
    radius = {1: 0.75, 2: 0.42, 3: 0.4, 4: 0.34}[count]
    if form.random() < 0.5:
        layers.append(Layer(circle(u, v, 0.88), "light", -0.03))
    for k in range(count):
        away = 0.0 if count == 1 else 0.88 - radius
        x, y = (np.float32(away * f(spin + 2 * np.pi * k / count)) for f in (np.cos, np.sin))
        layers.append(Layer(circle(u - x, v - y, radius), pick(form, ("second", "body", "dark")), 0.05))
        strands = np.maximum(circle(u - x, v - y, radius * 0.7), -0.35 - np.cos(u * 38) * np.cos(v * 38))
        layers.append(Layer(strands, "metal", 0.05))
    return layers


def _blob(form: Generator, u: Field, v: Field) -> list[Layer]:
    angle = np.arctan2(v, u)
    edge = sum(
        (np.float32(between(form, 0, 0.12 / k)) * np.sin(angle * k + between(form, 0, 6)) for k in range(1, 9)),
        np.zeros_like(u),
    )
    layers = [Layer(circle(u, v, 0.85) + edge, bevel=between(form, 0.1, 0.35))]
    for _ in range(int(form.integers(0, 8))):
        x, y, radius = between(form, -0.5, 0.5), between(form, -0.5, 0.5), between(form, 0.04, 0.14)
        layers.append(Layer(circle(u - x, v - y, radius), pick(form, ("dark", "second")), 0.05))
    return layers


def _cap(form: Generator, u: Field, v: Field) -> list[Layer]:
    ribs = int(form.integers(24, 70))
    body = circle(u, v, 0.96) - np.float32(0.03) * np.sin(np.arctan2(v, u) * ribs)
    inner = between(form, 0.7, 0.88)
    return [
        Layer(body, "dark", 0.05),
        Layer(circle(u, v, inner), "body", pick(form, (0.06, 0.15))),
        Layer(circle(u, v, inner * between(form, 0.3, 0.9)), pick(form, ("body", "second")), pick(form, (-0.04, 0.04))),
    ]


def _bearing(form: Generator, u: Field, v: Field) -> list[Layer]:
    outer, inner, hole = between(form, 0.78, 0.86), between(form, 0.5, 0.6), between(form, 0.28, 0.4)
    solid = np.maximum(circle(u, v, 1), -circle(u, v, hole))
    layers = [Layer(solid, bevel=0.05, spun=True), Layer(ring(u, v, (outer + inner) / 2, outer - inner), "deep", -0.05)]
    if form.random() < 0.6:
        count, radius = int(form.integers(6, 13)), (outer + inner) / 2
        for k in range(count):
            a = 2 * np.pi * k / count
            layers.append(
                Layer(
                    circle(
                        u - np.float32(radius * np.cos(a)), v - np.float32(radius * np.sin(a)), (outer - inner) * 0.45
                    ),
                    "metal",
                    0.09,
                )
            )
    return layers


def _button(form: Generator, u: Field, v: Field) -> list[Layer]:
    layers = [Layer(circle(u, v, 1), bevel=0.12), Layer(circle(u, v, 0.72), "body", -0.06)]
    away = between(form, 0.15, 0.28)
    spots = ((away, 0), (-away, 0), (0, away), (0, -away)) if form.random() < 0.6 else ((away, 0), (-away, 0))
    return layers + [Layer(circle(u - np.float32(x), v - np.float32(y), 0.1), "hole") for x, y in spots]


def _rod(form: Generator, u: Field, v: Field) -> list[Layer]:
    radius, waist = between(form, 0.2, 0.5), between(form, 0.6, 1)
    body, across = profile(
        u, v, [-1, -0.5, -0.48, 0.48, 0.5, 1], [radius, radius, *[radius * waist] * 2, radius, radius]
    )
    layers = [Layer(body, "body", 0.04, across)]
    for _ in range(int(form.integers(0, 4))):  # coloured rings, as on a resistor
        layers.append(
            Layer(
                np.maximum(body, np.abs(v - np.float32(between(form, -0.8, 0.8))) - 0.05),
                pick(form, ("second", "dark", "light")),
                0.01,
                across,
            )
        )
    return layers


def _bracket(form: Generator, u: Field, v: Field) -> list[Layer]:
    leg, radius = between(form, 0.25, 0.45), between(form, 0.07, 0.13)
    body = np.minimum(box(u + 1 - np.float32(leg), v, leg, 1, 0.08), box(u, v - 1 + np.float32(leg), 1, leg, 0.08))
    for x, y in ((leg - 1, -0.7), (0.7, 1 - leg), (leg - 1, 1 - leg)):
        body = np.maximum(body, -circle(u - np.float32(x), v - np.float32(y), radius))
    return [Layer(body, bevel=0.04)]


def _tile(form: Generator, u: Field, v: Field) -> list[Layer]:
    return [Layer(box(u, v, 1, between(form, 0.6, 1), between(form, 0, 0.15)), bevel=between(form, 0.02, 0.08))]


SHAPES: dict[str, tuple[Shape, tuple[Material, ...]]] = {
    "disc": (_disc, ANY),
    "washer": (_washer, (*METALS, rubber, plastic)),
    "bottle top": (_bottle_top, (glass, glass, plastic)),
    "nut": (_nut, METALS),
    "gear": (_gear, (*METALS, plastic)),
    "plate": (_plate, ANY),
    "capsule": (_capsule, (plastic, plastic, painted)),
    "pill": (_pill, DULL),
    "screw": (_screw, METALS),
    "bottle": (_bottle_side, (glass, plastic, painted)),
    "chip": (_chip, (rubber, plastic, rubber)),
    "connector": (_connector, DULL),
    "cable section": (_cable, (rubber, plastic)),
    "cookie": (_blob, (leather, wood, paper, plastic)),
    "cap": (_cap, DULL),
    "bearing": (_bearing, METALS),
    "button": (_button, (*DULL, wood)),
    "rod": (_rod, ANY),
    "bracket": (_bracket, METALS),
    "tile": (_tile, ANY),
}
"""Every shape by name, with the materials it is made of."""
