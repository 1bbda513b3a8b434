"""Defects that are areas, and the list of all defects.

Every defect gets the scene, the place it starts from and the share of the picture it may take, and gives back the changed
picture and how much each pixel belongs to the defect. What the eye can see of it becomes the mask (photograph.py).
"""

from collections.abc import Callable

import numpy as np

from dualanodiff.synth.marks import (
    Change,
    Place,
    brightness,
    crack,
    cut,
    fibre,
    filled,
    fold,
    lip,
    outline,
    scratch,
    walk,
)
from dualanodiff.synth.noise import (
    Canvas,
    Field,
    Points,
    Rgb,
    between,
    colour,
    coordinates,
    fractal,
    mix,
    moved,
    noise,
    pick,
    relief,
    soft,
    step,
)
from dualanodiff.synth.scene import Scene
from dualanodiff.synth.surfaces import SOFT

Generator = np.random.Generator


def _blob(shot: Generator, place: Place, size: int, rough: float = 0.5, jag: float = 0.0) -> Field:
    return filled(outline(shot, place, rough, jag), size)


def _near(place: Place, size: int) -> Field:
    """1 in a disc that holds any blob of the place's area, soft towards its edge."""
    x, y = coordinates(size)
    distance = np.hypot(x - np.float32(place.x), y - np.float32(place.y))
    return step((np.float32(2.2 * place.radius + 0.08) - distance) * 8)


def _below(scene: Scene, cover: Field) -> Rgb:
    """Mean colour (3, 1, 1) of the part under the cover."""
    return ((scene.rgb * cover).sum(axis=(1, 2)) / max(float(cover.sum()), 1e-3))[:, None, None].astype(np.float32)


def _tone(form: Generator, saturations: tuple[float, ...], values: tuple[float, ...]) -> Rgb:
    """A colour of any hue."""
    return colour(between(form, 0, 1), pick(form, saturations), pick(form, values))


def blowhole(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """One to three round pits with a lit wall and a rim."""
    canvas, depth, glow = Canvas(scene.size), between(form, 0.6, 0.95), between(form, 0.25, 0.5)
    count = pick(shot, (1, 1, 1, 2, 3))
    area = float(np.clip(place.area, 0.001, 0.03)) / count
    for dx, dy in shot.normal(0, 2.5 * np.sqrt(area), (count, 2)) * (count > 1):
        canvas.polygon(outline(shot, Place(place.x + dx, place.y + dy, area), 0.25, 0.03, 24))
    pit = canvas.field()
    around = soft(pit, 0.05)
    rim = np.clip(np.clip(around * 2, 0, 1) - pit, 0, 1)
    rgb = (
        scene.rgb
        * (1 - np.float32(depth) * np.clip(pit - lip(scene, around, 0.6), 0, 1) * pit)
        * (1 + np.float32(0.25) * rim)
    )
    if brightness(scene, pit) < 0.15:  # a dark part shows a pit by its lit wall
        rgb = rgb + np.float32(glow) * pit * np.clip(0.6 + lip(scene, around, 1.2), 0, 1)
    return Change(rgb, np.maximum(pit, rim), "blowhole")


def spots(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A swarm of small dark or pale spots."""
    canvas, spread = Canvas(scene.size), max(place.radius * 1.4, 0.12)
    pale, dark = between(form, 0.75, 1), between(form, 0, 0.25)
    hue, saturation, strength = between(form, 0, 1), between(form, 0, 0.5), np.float32(between(form, 0.7, 1))
    for dx, dy in shot.normal(0, spread / 2, (int(shot.integers(5, 30)), 2)):
        canvas.spot(place.x + dx, place.y + dy, between(shot, 0.015, 0.04))
    cover = canvas.field()
    tone = colour(hue, saturation, pale if brightness(scene, cover) < 0.4 else dark)
    return Change(mix(scene.rgb, tone, cover * strength), cover, "spot cluster")


def dent(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A smooth hollow, seen by its light side and its dark side."""
    x, y = coordinates(scene.size)
    angle, stretch = between(shot, 0, np.pi), np.sqrt(between(shot, 1, 2.5))
    dx, dy = (x - np.float32(place.x)) / np.float32(place.radius), (y - np.float32(place.y)) / np.float32(place.radius)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    far = np.hypot((dx * cos + dy * sin) / np.float32(stretch), (dy * cos - dx * sin) * np.float32(stretch))
    hollow = step(np.float32(1.15) - far + np.float32(0.12) * noise(shot, scene.size, max(3, round(2 / place.radius))))
    slope = relief(hollow, (-scene.light[0], -scene.light[1])) * np.float32(place.radius * 0.55)
    slope = np.clip(slope, -1, 1) * np.float32(between(form, 0.45, 0.85))
    rgb = scene.rgb * (1 + slope) + np.float32(0.18) * slope - np.float32(0.06) * hollow
    return Change(mix(scene.rgb, rgb, np.minimum(hollow * 4, 1)), hollow, "dent", whole=True)


def stain(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A blot of another colour, opaque or translucent, often with a darker edge."""
    tone = _tone(form, (0.1, 0.5, 0.8), (0.1, 0.3, 0.6, 0.9))
    strength, blur = np.float32(between(form, 0.45, 0.95)), between(form, 0.02, 0.08)
    opaque, ringed = form.random() < 0.5, form.random() < 0.4
    blot = soft(_blob(shot, place, scene.size, 0.7), blur) + np.float32(0.12) * fractal(shot, scene.size, 8, 64)
    blot = step(blot * 3 - 1) * _near(place, scene.size)
    rgb = (
        mix(scene.rgb, tone, blot * strength)
        if opaque
        else scene.rgb * (1 - blot * strength * (1 - tone * np.float32(0.8)))
    )
    if ringed:
        rgb = rgb * (1 - np.float32(0.7) * np.clip(blot - soft(blot, 0.06), 0, 1))
    return Change(rgb, blot, "stain")


def rust(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """Patches of orange-brown with a rough grain."""
    tone = colour(between(form, 0.03, 0.09), between(form, 0.55, 0.9), between(form, 0.25, 0.6))
    field = fractal(shot, scene.size, 8, 128, 0.75)
    patch = soft(_blob(shot, place, scene.size, 0.8), 0.12) * 2.2 - 0.9 + np.float32(0.45) * field
    patch = step(patch * 2.5) * _near(place, scene.size)
    return Change(mix(scene.rgb, tone * (1 + np.float32(0.3) * field), patch * np.float32(0.92)), patch, "rust")


def peeled(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """Coating gone in flakes or scrapes; other material shows."""
    below = colour(between(form, 0.02, 0.15), between(form, 0, 0.5), between(form, 0.3, 0.85))
    stretched = pick(form, ((20, 20), (8, 40), (40, 8)))
    flakes = (
        soft(_blob(shot, place, scene.size, 0.8), 0.1) * 2 - 1 + np.float32(0.7) * noise(shot, scene.size, stretched)
    )
    flakes = step(flakes * 5) * _near(place, scene.size)
    rgb = mix(scene.rgb, below * (1 + np.float32(0.15) * noise(shot, scene.size, 60)), flakes)
    return Change(rgb + lip(scene, flakes, 0.12), flakes, "peeled coating")


def discolouration(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A soft cloud that is paler, darker or of another hue."""
    tint = colour(between(form, 0, 1), between(form, 0.1, 0.7), 1.0) * np.float32(between(form, 0.45, 0.75))
    dark, pale, edge = form.random() < 0.6, between(form, 0.3, 0.6), between(form, 0.15, 0.6)
    cloud = step(soft(_blob(shot, place, scene.size, 0.5), place.radius * edge) * 1.3 - 0.1)
    return Change(
        mix(scene.rgb, scene.rgb * tint if dark else mix(scene.rgb, np.ones_like(tint), pale), cloud),
        cloud,
        "discolouration",
    )


def hole(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """An opening with a shaded wall through which the ground, or dark, is seen."""
    jag, through = pick(form, (0.0, 0.08)), form.random() < 0.6
    gap = _blob(shot, place, scene.size, 0.4, jag)
    below = scene.ground if through else np.float32(0.04) + scene.ground * np.float32(0.1)
    wall = np.clip(gap - moved(gap, -scene.light[0] * 0.05, -scene.light[1] * 0.05), 0, 1)
    return Change(mix(scene.rgb, mix(below, scene.rgb * np.float32(0.3), wall), gap), gap, "hole")


def _facets(shot: Generator, size: int, place: Place) -> Field:
    """Flat pieces of different brightness, as on a fracture."""
    canvas = Canvas(size)
    for middle in shot.normal(0, place.radius * 0.6, (16, 2)):
        canvas.polygon(shot.normal(0, place.radius, (3, 2)) + middle + [place.x, place.y], between(shot, 0.1, 1))
    return canvas.field()


def _arc(shot: Generator, scene: Scene, place: Place) -> Points:
    """A ragged outline that follows a circle around the part's middle, as glass rims break."""
    x, y = scene.middle
    away = max(float(np.hypot(place.x - x, place.y - y)), 0.15)
    deep = between(shot, 0.1, 0.35) * away
    turn = np.arctan2(place.y - y, place.x - x)
    half = float(np.clip(2 * place.area / (away * deep), 0.15, 1.4))
    angle = np.linspace(turn - half, turn + half, 14)
    radius = np.concatenate(
        [away + deep / 2 + shot.normal(0, deep * 0.12, 14), away - deep / 2 + shot.normal(0, deep * 0.16, 14)]
    )
    angle = np.concatenate([angle, angle[::-1]])
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def broken(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A large torn piece: facets of the fracture, glints, dark depth."""
    dark, light = np.float32(between(form, 0.1, 0.4)), np.float32(between(form, 0.1, 0.4))
    round_part = scene.shape in ("bottle top", "washer", "cap", "bearing", "button", "disc")
    torn = filled(
        _arc(shot, scene, place) if round_part and shot.random() < 0.6 else outline(shot, place, 0.6, 0.12, 26),
        scene.size,
    )
    facets = _facets(shot, scene.size, place)
    body = _below(scene, torn)
    face = mix(body * dark, np.minimum(body * np.float32(1.3) + light, 1), facets * facets)
    return Change(
        mix(scene.rgb, face * (1 + np.float32(0.08) * noise(shot, scene.size, 50)), torn) + lip(scene, torn, 0.15),
        torn,
        "broken piece",
    )


def chip(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A piece gone from the edge: ground, and the ragged inner face."""
    tone, depth = np.float32(pick(form, (0.35, 0.5, 0.65, 1.4))), between(form, 0.15, 0.5)
    points = outline(shot, place, 0.4, 0.1, 22)
    gone = filled(points, scene.size)
    near, size = soft(scene.part, 0.1), scene.size
    row, column = (min(size - 2, max(1, int((value + 1) * size / 2))) for value in (place.y, place.x))
    inward = np.array([near[row, column + 1] - near[row, column - 1], near[row + 1, column] - near[row - 1, column]])
    inward = inward / max(float(np.hypot(*inward)), 1e-4) * place.radius * depth
    face = gone - np.minimum(gone, filled(points - inward, scene.size))
    fracture = scene.rgb * tone * (np.float32(0.6) + np.float32(0.8) * _facets(shot, scene.size, place))
    return Change(mix(scene.rgb, mix(scene.ground, fracture, face), gone), gone, "chipped edge")


def contamination(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A foreign lump or flake that lies on the part and throws a shadow."""
    tone, jag = _tone(form, (0.1, 0.4, 0.8), (0.15, 0.4, 0.7, 0.95)), pick(form, (0.0, 0.1))
    lump = _blob(shot, place, scene.size, 0.6, jag)
    slope = relief(soft(lump, place.radius * 0.5), scene.light) * np.float32(place.radius * 0.5)
    shade = 1 + np.clip(slope, -0.5, 0.6) + np.float32(0.1) * noise(shot, scene.size, 40)
    shadow = np.clip(moved(lump, -scene.light[0] * 0.04, -scene.light[1] * 0.04) - lump, 0, 1)
    return Change(
        mix(scene.rgb * (1 - np.float32(0.4) * shadow), tone * shade, lump), np.maximum(lump, shadow), "contamination"
    )


def warp(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """Structure pushed aside, as bent pins or pulled threads."""
    reach, size = between(form, 0.08, 0.2), scene.size
    pull = step(soft(_blob(shot, place, size, 0.3), place.radius * 0.6) * 1.2 - 0.1)
    angle = between(shot, 0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size]
    rows = np.clip(rows - np.round(pull * (reach * np.sin(angle) * size / 2)).astype(np.int64), 0, size - 1)
    columns = np.clip(columns - np.round(pull * (reach * np.cos(angle) * size / 2)).astype(np.int64), 0, size - 1)
    flat = rows * size + columns
    return Change(np.stack([plane.ravel()[flat] for plane in scene.rgb]), pull, "deformation", whole=True)


def missing_print(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """A part of the print or of a track that is not there."""
    gap = _blob(shot, place, scene.size, 0.4, between(form, 0, 0.08))
    return Change(mix(scene.rgb, scene.rgb if scene.bare is None else scene.bare, gap), gap, "missing print")


def smear(form: Generator, shot: Generator, scene: Scene, place: Place) -> Change:
    """Ink or metal where none belongs: spots and short bridges in the print's own colour."""
    canvas, jag = Canvas(scene.size), between(form, 0, 0.08)
    canvas.polygon(outline(shot, place, 0.6, jag, 26))
    if shot.random() < 0.5:
        canvas.stroke(walk(shot, place, 5 * place.radius, 0.5, 0.1), place.radius * 0.6)
    ink = canvas.field()
    apart = np.abs(scene.rgb - (scene.rgb if scene.bare is None else scene.bare)).sum(axis=0)
    tone = scene.rgb.reshape(3, -1)[:, int(apart.argmax())][:, None, None]
    return Change(mix(scene.rgb, tone, ink * np.float32(0.95)), ink, "excess print")


Defect = Callable[[Generator, Generator, Scene, Place], Change]
DEFECTS: dict[str, tuple[Defect, float]] = {
    "scratch": (scratch, 3.2),
    "crack": (crack, 4.0),
    "blowhole": (blowhole, 1.2),
    "spot cluster": (spots, 0.8),
    "dent": (dent, 1.0),
    "stain": (stain, 1.2),
    "rust": (rust, 0.9),
    "discolouration": (discolouration, 0.9),
    "hole": (hole, 0.9),
    "broken piece": (broken, 2.0),
    "chipped edge": (chip, 1.8),
    "foreign fibre": (fibre, 1.4),
    "cut": (cut, 1.8),
    "fold": (fold, 1.5),
    "contamination": (contamination, 1.2),
    "missing print": (missing_print, 4.0),
    "excess print": (smear, 3.0),
    "peeled coating": (peeled, 3.0),
    "deformation": (warp, 2.5),
}
"""Every defect by name, with how often it is drawn where it may occur."""
COATED = ("painted metal", "ceramic", "leather")
STRUCTURED = ("cloth", "circuit", "perforated metal", "perforated plastic", "perforated steel", "wood")


def suits(name: str, scene: Scene) -> bool:
    """Whether that defect may occur on that part."""
    match name:
        case "missing print" | "excess print":
            return scene.bare is not None
        case "chipped edge":
            return scene.shape != "surface"
        case "fold":
            return scene.material.endswith(SOFT)
        case "rust":
            return not scene.material.endswith((*SOFT, "glass", "wood", "ceramic", "circuit"))
        case "peeled coating":
            return scene.material.endswith(COATED)
        case "deformation":
            return scene.shape in ("gear", "chip", "screw", "connector", "bracket") or scene.material.endswith(
                STRUCTURED
            )
        case "crack":
            return not scene.material.endswith(("cloth", "carpet", "foam"))
    return True


def size_factor(scene: Scene) -> float:
    """How the usual size of a defect changes with the part: small parts and fine tracks have small defects."""
    return 0.35 if scene.material == "printed circuit" and scene.shape == "surface" else min(1.0, 0.3 + scene.share)
