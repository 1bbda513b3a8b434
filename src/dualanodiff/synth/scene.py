"""A part under light on a ground: layers and materials put together to the picture of a good part."""

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from dualanodiff.synth.noise import (
    Canvas,
    Field,
    Rgb,
    between,
    colour,
    coordinates,
    cover,
    mix,
    moved,
    noise,
    pick,
    placed,
    relief,
    soft,
    step,
    turned,
)
from dualanodiff.synth.objects import Layer, Shape
from dualanodiff.synth.surfaces import COLOURED, FRAMES, Material, Surface

Generator = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """The picture of a good part, and what a defect needs to know about it."""

    rgb: Rgb
    part: Field
    """Share of each pixel that the part covers."""
    ground: Rgb
    """The same picture with the part taken away."""
    bare: Rgb | None
    """The same picture with the print taken away; None where there is no print."""
    light: tuple[float, float]
    """Direction towards the light."""
    material: str
    shape: str
    ground_name: str

    tint: str = ""
    """What people call the part's colour; empty for bare metal and the like."""

    @property
    def size(self) -> int:
        """Pixels on a side."""
        return len(self.part)

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of the part's pixels, in half pictures."""
        x, y = coordinates(self.size)
        whole = max(float(self.part.sum()), 1.0)
        return float((x * self.part).sum()) / whole, float((y * self.part).sum()) / whole

    @property
    def share(self) -> float:
        """Share of the picture that the part covers."""
        return float(self.part.mean())

    @property
    def caption(self) -> str:
        """What a good part's picture shows."""
        thing = " ".join(word for word in (self.tint, self.material, self.shape) if word)
        article = "an" if thing[0] in "aeiou" else "a"
        return f"{article} {thing} on {self.ground_name}" if self.ground_name else f"{article} {thing}"


@dataclass(frozen=True)
class Pose:
    """Where a part lies and how it is lit: what differs between two pictures of one product."""

    x: float
    y: float
    turn: float
    scale: float
    squeeze: float
    light: float
    brightness: float


def draw_pose(generator: Generator) -> Pose:
    """Any place, turn, size and light."""
    scale = between(generator, 0.5, 0.97)
    room = 1 - scale
    return Pose(
        x=between(generator, -room, room),
        y=between(generator, -room, room),
        turn=between(generator, 0, 2 * np.pi),
        scale=scale,
        squeeze=between(generator, 0.8, 1) if generator.random() < 0.3 else 1.0,
        light=between(generator, 0, 2 * np.pi),
        brightness=between(generator, 0.85, 1.15),
    )


def draw_ground(form: Generator, shot: Generator, size: int) -> tuple[Rgb, str]:
    """A ground (3, size, size) and its name: white, black, grey, coloured or a texture."""
    kind = pick(form, ("white", "white", "white", "grey", "grey", "black", "black", "coloured", "texture"))
    if kind == "texture":
        surface = pick(form, FRAMES)(form, shot, size)
        return surface.rgb * np.float32(between(form, 0.4, 1)), surface.name
    if kind == "coloured":
        base = colour(between(form, 0, 1), between(form, 0.35, 1), between(form, 0.3, 0.95))
        name = colour_word(base)
    else:
        tint, low, high = {"white": (0.04, 0.88, 1), "grey": (0.05, 0.35, 0.8), "black": (0.3, 0.01, 0.14)}[kind]
        base, name = colour(between(form, 0, 1), between(form, 0, tint), between(form, low, high)), kind
    field = 1 + between(form, 0, 0.05) * noise(shot, size, 3) + between(form, 0, 0.02) * noise(shot, size, 80)
    return base * field, name


HUES = (
    (0.03, "red"),
    (0.11, "orange"),
    (0.19, "yellow"),
    (0.44, "green"),
    (0.54, "cyan"),
    (0.71, "blue"),
    (0.8, "purple"),
    (0.89, "magenta"),
    (0.96, "pink"),
    (1.0, "red"),
)


def colour_word(rgb: Rgb) -> str:
    """What people call the mean colour of a picture or a colour (3, ...)."""
    red, green, blue = (float(value) for value in np.clip(rgb.reshape(3, -1).mean(axis=1), 0, 1))
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.16 or saturation < 0.16:
        return "black" if value < 0.2 else "white" if value > 0.82 else "grey"
    word = next(name for limit, name in HUES if hue <= limit)
    return "brown" if word in ("orange", "red") and value < 0.65 and saturation < 0.8 and hue < 0.12 else word


def tint(surface: Surface) -> str:
    """The colour word of a material that comes in any colour; empty for the others."""
    return colour_word(surface.rgb) if surface.name.endswith(COLOURED) else ""


def illumination(generator: Generator, size: int, light: float, strength: float) -> Field:
    """Uneven light: a ramp from the light's side, darker corners, sometimes a bright spot."""
    x, y = coordinates(size)
    field = 1 + np.float32(strength * 0.25) * (x * np.float32(np.cos(light)) + y * np.float32(np.sin(light)))
    field = field - np.float32(strength * between(generator, 0, 0.15)) * (x * x + y * y)
    if generator.random() < 0.2:
        dx, dy = x - np.float32(between(generator, -0.8, 0.8)), y - np.float32(between(generator, -0.8, 0.8))
        field = field + np.float32(strength * between(generator, 0.1, 0.5)) / (1 + 6 * (dx * dx + dy * dy))
    return field


def _glyphs(generator: Generator, size: int) -> Field:
    """A line or two of marks that look like letters and digits."""
    canvas = Canvas(size)
    height, count = between(generator, 0.12, 0.3), int(generator.integers(2, 7))
    width = height * 0.55
    nodes = np.array([[0, 0], [1, 0], [0, 0.5], [1, 0.5], [0, 1], [1, 1]]) * [width, height]
    bars = ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5), (0, 3), (2, 5))
    for row in range(pick(generator, (1, 1, 2))):
        for k in range(count):
            corner = np.array([(k - count / 2) * width * 1.5, (row - 0.5) * height * 1.4])
            for bar in generator.choice(len(bars), int(generator.integers(3, 6)), replace=False):
                canvas.stroke(nodes[list(bars[bar])] + corner, height * 0.13)
    return canvas.field()


def _print(form: Generator, size: int, below: float) -> tuple[Rgb, Field]:
    """Ink and marks of a print, letters or stripes, that show on a material of brightness `below`."""
    ink = colour(
        between(form, 0, 1),
        pick(form, (0.0, 0.0, 0.8)),
        between(form, 0.7, 0.95) if below < 0.45 else between(form, 0.03, 0.2),
    )
    x, _ = coordinates(size)
    stripes = step((np.cos((x - between(form, -1, 1)) * between(form, 2, 6)) - 0.8) * 20)
    return ink, np.float32(0.9) * (_glyphs(form, size) if form.random() < 0.75 else stripes)


def _overlay(form: Generator, size: int) -> Field:
    """Structure of a frame-filling surface, as light: seams, ribs, rivets, a border. 1 where nothing is."""
    x, y = coordinates(size)
    kind, field = (
        pick(form, (*("plain",) * 9, "seam", "grid", "ribs", "rivets", "border", "border")),
        np.ones((size, size), np.float32),
    )
    if kind == "seam":
        near = np.abs(x * between(form, 0.8, 1) + y * between(form, -0.3, 0.3) - between(form, -0.8, 0.8))
        field = 1 - 0.6 * step(1 - near / np.float32(between(form, 0.01, 0.04)))
    elif kind == "grid":
        count, width = between(form, 0.8, 3), between(form, 0.02, 0.06)
        near = np.minimum(*(np.abs(np.mod(axis * np.float32(count) + 0.3, 2) - 1) for axis in (x, y)))
        field = 1 - 0.5 * step(1.3 - near / np.float32(width))
    elif kind == "ribs":
        field = 1 + np.float32(between(form, 0.1, 0.3)) * np.sin(
            x * np.float32(between(form, 6, 22)) + between(form, 0, 6)
        )
    elif kind == "rivets":
        pitch = between(form, 2, 5)
        dots = np.hypot(*(np.mod(axis * np.float32(pitch) / 2 + 0.5, 1) - 0.5 for axis in (x, y)))
        field = 1 + 0.06 * relief(step((0.25 - dots) * 8), (-0.7, -0.7))
    elif kind == "border":
        inside = np.minimum(
            1 - np.abs(x) - np.float32(between(form, 0, 0.1)), 1 - np.abs(y) - np.float32(between(form, -0.1, 0.1))
        )
        field = step(inside / np.float32(between(form, 0.03, 0.15)) + 0.2)
    return field


def frame_scene(
    form: Generator, shot: Generator, size: int, material: Material, pose: Pose, *, plain: bool = False
) -> Scene:
    """A material that fills the frame."""
    surface = material(form, shot, size)
    if surface.bare is None and not plain and form.random() < 0.12:
        ink, marks = _print(form, size, float(surface.rgb.mean()))
        surface = Surface(mix(surface.rgb, ink, marks), surface.name, surface.rgb)
    angle = pose.turn if plain else pick(form, (0.0, np.pi / 2, np.pi / 2, pose.turn))
    rgb, bare = surface.rgb, surface.bare
    if angle:
        rgb, bare = turned(rgb, angle), None if bare is None else turned(bare, angle)
    lit = illumination(form, size, pose.light, between(form, 0, 1.2)) * np.float32(pose.brightness)
    if not plain and surface.bare is None:
        lit = lit * _overlay(form, size)
    ground = colour(0, 0, pick(form, (0.03, 0.1, 0.9))) * (1 + 0.03 * noise(shot, size, 40))
    light = (float(np.cos(pose.light)), float(np.sin(pose.light)))
    return Scene(
        rgb * lit,
        np.ones((size, size), np.float32),
        ground,
        None if bare is None else bare * lit,
        light,
        surface.name,
        "surface",
        "",
        tint(surface),
    )


def _shade(layer: Layer, pose: Pose, light: tuple[float, float], gloss: float, u: Field, v: Field) -> Field:
    """Light on one layer: its rounded edge, its round body, its lathe rings."""
    width = abs(layer.bevel)
    height = step(-layer.distance / np.float32(width * pose.scale)) * np.float32(width * pose.scale)
    shade = 1 + np.float32(np.sign(layer.bevel) * 0.35) * np.clip(relief(height, light), -2, 2)
    if layer.round is not None:
        facing = np.float32(light[0] * np.cos(pose.turn) + light[1] * np.sin(pose.turn))
        deep = np.sqrt(np.maximum(1 - layer.round * layer.round, 0))
        diffuse = np.float32(0.45) + np.float32(0.55) * np.clip(0.8 * deep + 0.6 * facing * layer.round, 0, 1)
        shine = np.exp(-(((layer.round - 0.55 * facing) * 7) ** 2)) * np.float32(gloss)
        shade = shade * diffuse * 1.15 + shine
    if layer.spun:
        radius = np.hypot(u, v)
        bow = np.cos(2 * (np.arctan2(v, u) + np.float32(pose.turn)) - np.float32(2 * np.arctan2(light[1], light[0])))
        shade = shade * (
            1
            + np.float32(0.25 * gloss + 0.08) * bow * np.abs(bow)
            + np.float32(0.05) * np.sin(radius * 90 + 2 * np.sin(radius * 31))
        )
    return shade


def object_scene(
    form: Generator,
    shot: Generator,
    size: int,
    name: str,
    shape: Shape,
    material: Material,
    pose: Pose,
    ground: tuple[Rgb, str],
    *,
    plain: bool = False,
) -> Scene:
    """A part of that shape and material, in that pose on that ground."""
    x, y = coordinates(size)
    cos, sin = np.float32(np.cos(pose.turn)), np.float32(np.sin(pose.turn))
    dx, dy = x - np.float32(pose.x), y - np.float32(pose.y)
    u, v = (cos * dx + sin * dy) / np.float32(pose.scale), (cos * dy - sin * dx) / np.float32(pose.scale * pose.squeeze)
    layers = [replace(layer, distance=(layer.distance * pose.scale).astype(np.float32)) for layer in shape(form, u, v)]
    surface = material(form, shot, size)
    body = turned(surface.rgb, pose.turn)
    second = colour(between(form, 0, 1), pick(form, (0.0, 0.3, 0.8)), between(form, 0.1, 0.95))
    gloss, lit = between(form, 0, 0.8), illumination(form, size, pose.light, between(form, 0, 0.6))
    shadow, reach = between(form, 0, 0.7), between(form, 0.01, 0.12)
    light = (float(np.cos(pose.light)), float(np.sin(pose.light)))

    covers, part = [cover(layer.distance) for layer in layers], np.zeros((size, size), np.float32)
    for layer, alpha in zip(layers, covers, strict=True):
        part = part * (1 - alpha) if layer.paint == "hole" else np.maximum(part, alpha)
    ground_rgb = ground[0] * (1 + (lit - 1) * 0.5)
    if shadow > 0.1:
        ground_rgb = ground_rgb * (
            1 - np.float32(shadow) * soft(moved(part, -light[0] * reach, -light[1] * reach), reach * 2)
        )
    rgb, lit = ground_rgb, lit * np.float32(pose.brightness)
    for layer, alpha in zip(layers, covers, strict=True):
        if layer.paint == "hole":
            rgb = mix(rgb, ground_rgb * np.float32(0.8), alpha)
            continue
        paint = {
            "body": body,
            "second": second,
            "dark": body * np.float32(0.55),
            "light": np.minimum(body * np.float32(1.35), 1),
            "deep": body * np.float32(0.2),
            "metal": colour(0.12, 0.1, 0.75),
        }[layer.paint]
        rgb = mix(rgb, paint * (lit * _shade(layer, pose, light, gloss, u, v)), alpha)
    bare = None
    if not plain and form.random() < 0.15:
        ink, marks = _print(form, size, float((rgb * part).mean() / max(float(part.mean()), 0.01)))
        bare, rgb = rgb, mix(rgb, ink * lit, placed(marks, pose.turn, pose.scale, pose.x, pose.y) * part)
    return Scene(rgb, part, ground_rgb, bare, light, surface.name, name, ground[1], tint(surface))
