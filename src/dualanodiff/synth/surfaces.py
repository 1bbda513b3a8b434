"""Materials: what a part is made of, as an unlit picture that fills the frame.

Every material takes `form`, which decides what the product is (colours, coarseness), and `shot`, which decides what
differs between two pictures of it (grain). One generator may serve as both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualanodiff.synth.noise import (
    Canvas,
    Field,
    Rgb,
    between,
    colour,
    coordinates,
    fractal,
    mix,
    noise,
    pick,
    relief,
    step,
)

Generator = np.random.Generator
LIGHT = (-0.7, -0.7)
"""Where the light of a material's own fine relief comes from."""


@dataclass(frozen=True)
class Surface:
    """A material: its picture without light, and its print if it has one."""

    rgb: Rgb
    name: str
    bare: Rgb | None = None
    """The same without its print or traces; None where there is none."""


def _metal_colour(form: Generator) -> tuple[Rgb, str]:
    name = pick(form, ("steel", "steel", "steel", "aluminium", "iron", "brass", "copper", "zinc"))
    hue, saturation, low, high = {
        "steel": (0.58, 0.06, 0.45, 0.75),
        "aluminium": (0.6, 0.03, 0.6, 0.85),
        "iron": (0.07, 0.05, 0.25, 0.45),
        "brass": (0.13, 0.45, 0.6, 0.8),
        "copper": (0.055, 0.5, 0.55, 0.8),
        "zinc": (0.55, 0.08, 0.5, 0.7),
    }[name]
    return colour(
        hue + between(form, -0.01, 0.01), saturation * between(form, 0.3, 1.3), between(form, low, high)
    ), name


def brushed_metal(form: Generator, shot: Generator, size: int) -> Surface:
    """Metal with fine parallel lines."""
    base, name = _metal_colour(form)
    strength, length = between(form, 0.03, 0.09), int(form.integers(1, 5))
    lines = noise(shot, size, (128, length)) + 0.6 * noise(shot, size, (48, length)) + 0.4 * noise(shot, size, 3)
    return Surface(base * (1 + strength * lines), f"brushed {name}")


def rough_metal(form: Generator, shot: Generator, size: int) -> Surface:
    """Cast or blasted metal: a grainy relief."""
    base, name = _metal_colour(form)
    strength, coarse = between(form, 0.01, 0.03), pick(form, (16, 32))
    height = fractal(shot, size, coarse, 128, 0.8)
    return Surface(
        base * (0.9 + strength * np.clip(relief(height, LIGHT), -8, 8) * 0.3 + 0.04 * noise(shot, size, 5)),
        f"rough {name}",
    )


def polished_metal(form: Generator, shot: Generator, size: int) -> Surface:
    """Metal that mirrors soft bands."""
    base, name = _metal_colour(form)
    bands = noise(form, size, (int(form.integers(3, 7)), 1)) + 0.3 * noise(form, size, 3)
    return Surface(base * (1 + between(form, 0.08, 0.25) * bands + 0.01 * noise(shot, size, 96)), f"polished {name}")


def magnetic_tile(form: Generator, shot: Generator, size: int) -> Surface:
    """Grey ground ferrite: upright lines of uneven strength, dull clouds."""
    value, strength = between(form, 0.25, 0.5), between(form, 0.05, 0.16)
    lines = noise(shot, size, (3, 110)) * (0.6 + 0.5 * step(noise(shot, size, 3) + 0.5))
    field = 1 + strength * lines + 0.08 * fractal(shot, size, 3, 16) + 0.05 * noise(shot, size, 120)
    return Surface(colour(0.6, 0.0, value) * field, "ground ferrite")


def concrete(form: Generator, shot: Generator, size: int) -> Surface:
    """Concrete or plaster: clouds, grain, small pores."""
    base = colour(between(form, 0.05, 0.15), between(form, 0, 0.15), between(form, 0.4, 0.8))
    pores = step((noise(shot, size, 90) - between(form, 1.3, 1.9)) * 2)
    return Surface(
        base * (1 + 0.09 * fractal(shot, size, 4, 64, 0.7) + 0.05 * noise(shot, size, 128) - 0.35 * pores), "concrete"
    )


def granite(form: Generator, shot: Generator, size: int) -> Surface:
    """Stone with grains of two other tones."""
    hue = between(form, 0, 1)
    base = colour(hue, between(form, 0, 0.25), between(form, 0.35, 0.75))
    dark, light = step(noise(shot, size, 48) * 3 - 1.2), step(noise(shot, size, 64) * 3 - 1.5)
    rgb = mix(mix(base, base * 0.35, dark * 0.8), np.minimum(base * 1.6, 1), light * 0.8)
    return Surface(rgb * (1 + 0.06 * noise(shot, size, 128)), "granite")


def wood(form: Generator, shot: Generator, size: int) -> Surface:
    """Wood grain with rings that bend."""
    base = colour(between(form, 0.05, 0.11), between(form, 0.35, 0.65), between(form, 0.35, 0.8))
    x, y = coordinates(size)
    bend = noise(shot, size, (2, 4)) * between(form, 0.1, 0.35)
    rings = np.sin((y + bend) * between(form, 12, 40) + 0.15 * x)
    pores = noise(shot, size, (110, 8))
    return Surface(base * (1 + between(form, 0.06, 0.16) * rings + 0.08 * pores + 0.05 * noise(shot, size, 3)), "wood")


def woven_cloth(form: Generator, shot: Generator, size: int) -> Surface:
    """Cloth of crossing threads."""
    base = colour(between(form, 0, 1), between(form, 0, 0.6), between(form, 0.25, 0.85))
    x, y = coordinates(size)
    threads = between(form, 45, 90)
    wobble = 0.01 * noise(shot, size, 12)
    warp, weft = np.sin((x + wobble) * threads), np.sin((y + wobble) * threads)
    over = warp * weft
    return Surface(
        base
        * (0.85 + between(form, 0.08, 0.2) * over + 0.05 * noise(shot, size, (80, 12)) + 0.05 * noise(shot, size, 6)),
        "woven cloth",
    )


def carpet(form: Generator, shot: Generator, size: int) -> Surface:
    """Short fibres seen from above."""
    base = colour(between(form, 0, 1), between(form, 0, 0.5), between(form, 0.3, 0.75))
    return Surface(
        base * (1 + between(form, 0.1, 0.2) * fractal(shot, size, 32, 128, 0.9) + 0.04 * noise(shot, size, 6)), "carpet"
    )


def leather(form: Generator, shot: Generator, size: int) -> Surface:
    """Leather: a relief of round cells with furrows between them."""
    base = colour(between(form, 0.0, 0.12), between(form, 0.2, 0.7), between(form, 0.2, 0.7))
    cells = int(form.integers(24, 50))
    furrow = np.abs(noise(shot, size, cells)) ** 0.6 + 0.3 * np.abs(noise(shot, size, cells * 2))
    return Surface(
        base * (0.8 + 0.2 * np.clip(furrow, 0, 1) + 0.012 * relief(furrow, LIGHT) + 0.05 * noise(shot, size, 4)),
        "leather",
    )


def ceramic(form: Generator, shot: Generator, size: int) -> Surface:
    """Glazed or bisque ceramic with speckles."""
    base = colour(between(form, 0, 1), between(form, 0, 0.2), between(form, 0.55, 0.95))
    speckle = step((noise(shot, size, int(form.integers(60, 128))) - between(form, 1.0, 1.7)) * 3)
    spot_tone = between(form, 0.3, 0.8)
    return Surface(base * (1 + 0.03 * fractal(shot, size, 4, 16)) * (1 - (1 - spot_tone) * speckle), "ceramic")


def painted(form: Generator, shot: Generator, size: int) -> Surface:
    """Even paint with a faint orange skin."""
    base = colour(between(form, 0, 1), between(form, 0.4, 0.95), between(form, 0.3, 0.95))
    return Surface(
        base * (1 + between(form, 0.0005, 0.002) * relief(noise(shot, size, 40), LIGHT) + 0.02 * noise(shot, size, 4)),
        "painted metal",
    )


def plastic(form: Generator, shot: Generator, size: int) -> Surface:
    """Plain plastic of any colour."""
    base = colour(between(form, 0, 1), pick(form, (0.0, 0.1, 0.5, 0.8)), between(form, 0.15, 0.95))
    return Surface(base * (1 + 0.02 * noise(shot, size, 128) + 0.02 * noise(shot, size, 3)), "plastic")


def rubber(form: Generator, shot: Generator, size: int) -> Surface:
    """Dark dull rubber."""
    base = colour(between(form, 0, 1), between(form, 0, 0.2), between(form, 0.12, 0.3))
    return Surface(base * (1 + 0.1 * fractal(shot, size, 16, 128, 0.9) + 0.08 * noise(shot, size, 4)), "rubber")


def paper(form: Generator, shot: Generator, size: int) -> Surface:
    """Paper or cardboard: pale fibres, often faint ribs."""
    base = colour(between(form, 0.07, 0.15), between(form, 0, 0.45), between(form, 0.6, 0.95))
    ribs = np.sin(coordinates(size)[0] * between(form, 30, 80)) * pick(form, (0.0, 0.03))
    return Surface(
        base * (1 + 0.03 * noise(shot, size, (40, 100)) + 0.03 * fractal(shot, size, 4, 128, 0.8) + ribs), "cardboard"
    )


def rusty_metal(form: Generator, shot: Generator, size: int) -> Surface:
    """Metal under patches of rust, all over."""
    base, _ = _metal_colour(form)
    field = fractal(shot, size, 4, 128, 0.65)
    rust = colour(between(form, 0.03, 0.08), between(form, 0.5, 0.8), between(form, 0.3, 0.5)) * (
        1 + 0.25 * noise(shot, size, 60)
    )
    return Surface(mix(base * (0.7 + 0.05 * field), rust, step(field + between(form, 0.0, 1.0))), "rusty metal")


def glass(form: Generator, shot: Generator, size: int) -> Surface:
    """Dark or tinted glass."""
    base = colour(between(form, 0, 1), between(form, 0, 0.5), between(form, 0.1, 0.8))
    return Surface(base * (1 + 0.1 * noise(form, size, (1, 4)) + 0.01 * noise(shot, size, 64)), "glass")


def foam(form: Generator, shot: Generator, size: int) -> Surface:
    """Open foam or sponge: dark pores among walls."""
    base = colour(between(form, 0, 0.2), between(form, 0.0, 0.7), between(form, 0.5, 0.9))
    pores = step(noise(shot, size, int(form.integers(30, 70))) * 1.5 - 0.2)
    return Surface(base * (1 - 0.45 * pores) * (1 + 0.05 * noise(shot, size, 100)), "foam")


def _traces(form: Generator, size: int) -> Field:
    """Bundles of tracks with 45 degree bends, and pads with holes."""
    canvas = Canvas(size)
    pitch, width = between(form, 0.08, 0.3), between(form, 0.025, 0.1)
    for _ in range(int(form.integers(2, 5))):
        start, run = np.array([between(form, -1.2, 1), between(form, -1, 1)]), between(form, 0.2, 0.8)
        up = form.random() < 0.5
        bends = np.array([[0, 0], [run, 0], [run + 0.4, 0.4 * pick(form, (-1, 1))], [3, 0]])
        bends[3, 1] = bends[2, 1]
        for lane in range(int(form.integers(1, 6))):
            line = bends + start + np.array([0, lane * pitch])
            canvas.stroke(line[:, ::-1] if up else line, width)
    for _ in range(int(form.integers(1, 9))):
        x, y, radius = between(form, -1, 1), between(form, -1, 1), between(form, 0.05, 0.16)
        canvas.spot(x, y, radius)
        canvas.spot(x, y, radius * between(form, 0.3, 0.6), 0)
    return canvas.field()


def printed_board(form: Generator, shot: Generator, size: int) -> Surface:
    """A circuit board: tracks and pads on a plain ground."""
    traces = _traces(form, size)
    kind = pick(form, ("green", "green", "blue", "binary", "binary", "brown"))
    if kind == "binary":
        ground, metal = (
            (colour(0, 0, 0.97), colour(0, 0, 0.04))
            if form.random() < 0.6
            else (colour(0, 0, 0.04), colour(0, 0, 0.95))
        )
        return Surface(mix(ground, metal, traces), "printed circuit", np.broadcast_to(ground, (3, size, size)))
    hue = {"green": 0.38, "blue": 0.6, "brown": 0.08}[kind] + between(form, -0.04, 0.04)
    ground = colour(hue, between(form, 0.5, 0.9), between(form, 0.2, 0.5)) * (1 + 0.04 * noise(shot, size, (100, 60)))
    metal = (
        colour(between(form, 0.09, 0.14), between(form, 0.1, 0.6), between(form, 0.6, 0.9))
        if form.random() < 0.5
        else ground * 1.5
    )
    return Surface(mix(ground, metal * (1 + 0.04 * noise(shot, size, 80)), traces), "printed circuit", ground)


def solar_cell(form: Generator, shot: Generator, size: int) -> Surface:
    """A solar cell: dark crystals under fine fingers and wide bars."""
    base = colour(between(form, 0.56, 0.68), pick(form, (0.0, 0.5, 0.7)), between(form, 0.25, 0.55))
    x, y = coordinates(size)
    crystals = np.round(noise(shot, size, 9) * 2) * 0.06
    fingers = step(np.cos(y * between(form, 40, 60)) * 4 - 3)
    bars = step((np.cos(x * pick(form, (4.7, 6.3, 9.4))) - 0.985) * 200)
    return Surface(mix(base * (1 + crystals), colour(0, 0, 0.75), np.maximum(0.35 * fingers, 0.9 * bars)), "solar cell")


def perforated_sheet(form: Generator, shot: Generator, size: int) -> Surface:
    """A sheet or grid with a regular pattern of holes."""
    base = pick(form, (brushed_metal, painted, plastic))(form, shot, size)
    x, y = coordinates(size)
    count = between(form, 14, 32)
    holes = step((np.cos(x * count) * np.cos(y * count) - between(form, 0.2, 0.6)) * 4)
    return Surface(base.rgb * (1 - between(form, 0.6, 0.9) * holes), f"perforated {base.name.split()[-1]}")


Material = Callable[[Generator, Generator, int], Surface]
METALS: tuple[Material, ...] = (brushed_metal, brushed_metal, rough_metal, polished_metal, painted)
DULL: tuple[Material, ...] = (plastic, plastic, rubber, painted, ceramic)
ANY: tuple[Material, ...] = (*METALS, *DULL, wood, concrete, leather, glass, rusty_metal, paper)
FRAMES: tuple[Material, ...] = (
    brushed_metal,
    brushed_metal,
    rough_metal,
    polished_metal,
    magnetic_tile,
    magnetic_tile,
    concrete,
    granite,
    wood,
    woven_cloth,
    woven_cloth,
    carpet,
    leather,
    ceramic,
    painted,
    plastic,
    rubber,
    paper,
    rusty_metal,
    glass,
    foam,
    printed_board,
    printed_board,
    printed_board,
    solar_cell,
    perforated_sheet,
)
"""What may fill the frame; a name that occurs twice is drawn twice as often."""
SOFT = ("cloth", "carpet", "leather", "rubber", "cardboard", "foam", "plastic")
"""Ends of the names of materials that fold."""
COLOURED = ("painted metal", "plastic", "ceramic", "cloth", "carpet", "leather", "glass", "foam", "rubber", "granite")
"""Ends of the names of materials that come in any colour."""
