"""What defects are drawn with, and the defects that are lines: scratches, cracks, cuts, fibres, folds.

Every defect takes `form`, which decides its kind of look (tone, width), and `shot`, which decides where and how it runs;
one generator may serve as both.
"""

from dataclasses import dataclass

import numpy as np

from dualanodiff.synth.noise import (
    Canvas,
    Field,
    Points,
    Rgb,
    between,
    colour,
    coordinates,
    mix,
    moved,
    noise,
    pick,
    relief,
    step,
)
from dualanodiff.synth.scene import Scene

Generator = np.random.Generator


@dataclass(frozen=True)
class Change:
    """A picture with a defect."""

    rgb: Rgb
    """Counts only where `cover` is above 0."""
    cover: Field
    """How much each pixel belongs to the defect, 0..1."""
    caption: str
    whole: bool = False
    """The mask is all of the cover, also where little changes (a dent's flat bottom)."""


@dataclass(frozen=True)
class Place:
    """Where a defect goes and how much of the picture it takes."""

    x: float
    y: float
    area: float
    """Share of the picture, 0..1."""

    @property
    def radius(self) -> float:
        """Radius of a disc of that area, in half pictures."""
        return float(np.sqrt(4 * self.area / np.pi))


def walk(shot: Generator, place: Place, length: float, bend: float, jitter: float, count: int = 24) -> Points:
    """A line through the place that bends slowly and, with jitter, shakes."""
    heading = between(shot, 0, 2 * np.pi) + np.cumsum(np.full(count, between(shot, -bend, bend) / count))
    heading = heading + shot.normal(0, 1, count) * jitter
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / count), axis=0)
    return points - points[count // 2] + [place.x, place.y]


def tapered(canvas: Canvas, points: Points, width: float) -> None:
    """Draw a stroke that is thin at both ends."""
    quarter = len(points) // 4
    canvas.stroke(points, width * 0.45)
    canvas.stroke(points[quarter:-quarter], width)


def outline(shot: Generator, place: Place, rough: float, jag: float, corners: int = 40) -> Points:
    """A closed blob of the place's area: `rough` bends it, `jag` makes its edge ragged."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = np.ones(corners)
    for wave in range(2, 6):
        radius += shot.normal(0, rough / wave) * np.cos(wave * angle + between(shot, 0, 6))
    radius = np.clip(radius + shot.normal(0, jag, corners), 0.3, 2)
    stretch, turn = np.sqrt(between(shot, 1, 2.2)), between(shot, 0, np.pi)
    points = np.stack([radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch], axis=1)
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) * place.radius / np.sqrt((radius**2).mean()) + [
        place.x,
        place.y,
    ]


def filled(points: Points, size: int) -> Field:
    """The inside of a closed outline."""
    canvas = Canvas(size)
    canvas.polygon(points)
    return canvas.field()


def lip(scene: Scene, cover: Field, strength: float) -> Field:
    """Light on the walls of something cut into the part: bright away from the light, dark towards it."""
    return np.float32(strength) * np.clip(relief(cover, (-scene.light[0], -scene.light[1])) * np.float32(0.03), -1, 1)


def brightness(scene: Scene, cover: Field) -> float:
    """Mean brightness of the part under the cover, 0..1."""
    return float((scene.rgb * cover).sum()) / max(3 * float(cover.sum()), 1e-3)


def scratch(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """One to five thin strokes, bright or dark, roughly side by side."""
    canvas, width, mood = Canvas(scene.size), between(form, 0.014, 0.045), form.random()
    count = pick(shot, (1, 1, 1, 2, 3, 5))
    points = walk(shot, place, float(np.clip(4 * place.area / (width * count), 0.2, 1.6)), 0.8, 0.02)
    for _ in range(count):
        tapered(canvas, points + shot.normal(0, 0.06, 2) * (count > 1), width * between(shot, 0.6, 1))
    line = canvas.field()
    bright = mood < (0.7 if brightness(scene, line) < 0.55 else 0.25)
    tone = colour(
        between(form, 0, 1), between(form, 0, 0.15), between(form, 0.8, 1) if bright else between(form, 0.0, 0.25)
    )
    alpha = (
        line
        * np.float32(between(form, 0.55, 0.95))
        * (np.float32(0.85) + np.float32(0.25) * noise(shot, scene.size, 24))
    )
    return Change(mix(scene.rgb, tone, np.clip(alpha, 0, 1)) + lip(scene, line, 0.12), line, "scratch")


def crack(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A dark jagged line with branches; pale on a part that is nearly black."""
    canvas, width = Canvas(scene.size), between(form, 0.016, 0.04)
    length = float(np.clip(4 * place.area / width * 0.7, 0.3, 1.8))
    points = walk(shot, place, length, 1.0, 0.5, 36)
    tapered(canvas, points, width)
    for _ in range(int(shot.integers(0, 4))):
        branch = walk(shot, place, length * between(shot, 0.15, 0.45), 0.8, 0.5, 14)
        canvas.stroke(branch - branch[0] + points[int(shot.integers(4, 32))], width * 0.55)
    line, depth = canvas.field(), np.float32(between(form, 0.02, 0.35))
    inside = scene.rgb * depth if brightness(scene, line) > 0.2 else scene.rgb + (np.float32(0.5) - depth)
    return Change(mix(scene.rgb, inside, line) + lip(scene, line, 0.1), line, "crack")


def fibre(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A thin thread or hair that lies on the part."""
    canvas, width = Canvas(scene.size), between(form, 0.016, 0.05)
    tone = colour(between(form, 0, 1), pick(form, (0.0, 0.2, 0.8)), pick(form, (0.05, 0.5, 0.95)))
    canvas.stroke(walk(shot, place, float(np.clip(4 * place.area / width, 0.5, 2.2)), 5.0, 0.08, 40), width)
    line = canvas.field()
    shadow = moved(line, -scene.light[0] * width, -scene.light[1] * width)
    rgb = mix(
        scene.rgb * (1 - np.float32(0.35) * shadow), tone * (1 + np.float32(0.15) * noise(shot, scene.size, 60)), line
    )
    return Change(rgb, np.maximum(line, shadow), "foreign fibre")


def cut(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A long straight slit with a lit lip."""
    canvas, width = Canvas(scene.size), between(form, 0.02, 0.06)
    points = walk(shot, place, float(np.clip(4 * place.area / width, 0.4, 1.8)), 0.1, 0.0)
    tapered(canvas, points, width)
    line = canvas.field()
    canvas.stroke(points - np.array(scene.light) * width * 0.8, width * 0.6)
    both = canvas.field()
    inside = scene.rgb * np.float32(0.15) if brightness(scene, line) > 0.15 else scene.rgb + np.float32(0.35)
    edge = mix(scene.rgb, scene.rgb * np.float32(1.3) + np.float32(0.15), np.clip(both - line, 0, 1))
    return Change(mix(edge, inside, line), both, "cut")


def fold(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A crease: a light flank beside a dark one."""
    x, y = coordinates(scene.size)
    width, strength = between(form, 0.05, 0.14), np.float32(between(form, 0.4, 0.7))
    angle = between(shot, 0, np.pi)
    dx, dy, cos, sin = (
        x - np.float32(place.x),
        y - np.float32(place.y),
        np.float32(np.cos(angle)),
        np.float32(np.sin(angle)),
    )
    along, across = dx * cos + dy * sin, dy * cos - dx * sin + np.float32(0.06) * noise(shot, scene.size, 4)
    length = float(np.clip(2 * place.area / width, 0.25, 1.0))
    flank = np.clip(1 - np.abs(across) / np.float32(width), 0, 1) * step((length - np.abs(along)) * 6)
    shade = strength * flank * np.sign(across)
    return Change(scene.rgb * (1 + shade) + np.float32(0.12) * shade, np.minimum(flank * 2, 1), "fold", whole=True)
