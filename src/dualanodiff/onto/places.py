"""Where a defect shall be on a good picture, of which shape and size: drawn before anything is denoised.

A place is a shot's shape, moved, mirrored and scaled. The part branch starts from it under nearly all of the noise, and
is kept to its neighbourhood, so that the place is met and what is drawn there is still the model's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay

from dualanodiff.data.shots import Shot, part_target
from dualanodiff.images import resize_mask, resize_rgb
from dualanodiff.onto.window import Window

Where = Literal["shots", "object", "anywhere"]
ObjectFinder = Callable[[np.ndarray], "np.ndarray | None"]
"""Finds the object in a picture uint8 (h, w, 3), as a mask bool (h, w); None where there is none."""

_OBJECT_SIDE = 256
"""Objects are looked for in a copy of this size."""
_DRAWS = 40
"""Places tried until one lies in the region."""
_SPREAD = 0.25
"""Standard deviation of the logarithm of a defect's area about its shot's."""
_JITTER = 0.06
"""How far a place is from its shot's, as a share of the object's size."""
_MOST = 0.8
"""A shape fills at most this share of what the model sees, along each side."""
_TONE = 3.0
"""Light differs at most so much from that of a shot."""
_COVERS = 0.7
"""A shot's defect that covers so much of its object is one of the whole object, such as rust all over."""


@dataclass(frozen=True)
class Place:
    """One defect's place on one good picture."""

    window: Window
    hint: np.ndarray
    """uint8 (s, s, 3): a shot's defect on the key colour, where the new one shall be."""
    allowed: np.ndarray
    """bool (s, s): where the part may be drawn."""
    center: tuple[float, float]
    """x, y in the picture's pixels."""
    shot: str
    """Whose shape it is."""
    tone: float = 1.0
    """How much lighter its surroundings are than those of the shape in its shot."""


@dataclass(frozen=True)
class Shape:
    """A shot's defect cut out: picture uint8 (h, w, 3), mask bool (h, w), and where it was."""

    rgb: np.ndarray
    mask: np.ndarray
    share: float
    """Of its picture's area."""
    center: tuple[float, float]
    """y, x relative to the object (0 and 1 are its edges), or to the picture."""
    name: str
    covers: float = 0.0
    """Of its object's area; 0 where there is no object."""
    around: float = 0.0
    """Mean grey level of what surrounds it in its shot; 0 where that is not known."""


@dataclass(frozen=True)
class Shapes:
    """The shots' defects, and what they say of where defects of this kind are."""

    shapes: tuple[Shape, ...]
    on_object: bool
    """They lie on the object, so new ones shall."""

    @classmethod
    def of(cls, shots: Sequence[Shot], find_object: ObjectFinder) -> "Shapes":
        """Cut the defects out of the shots (squares of one size, with masks)."""
        shapes: list[Shape] = []
        inside: list[float] = []
        for shot in shots:
            found = find_object(shot.image)
            box = extent(shot.mask)
            if found is not None:
                inside.append(_share_in_hull(shot.mask, found))
            frame = extent(found) if found is not None else (slice(0, len(shot.mask)), slice(0, shot.mask.shape[1]))
            center = [
                ((part.start + part.stop) / 2 - whole.start) / (whole.stop - whole.start)
                for part, whole in zip(box, frame, strict=True)
            ]
            covers = 0.0 if found is None else float(shot.mask[found].mean())
            middle, share = (center[0], center[1]), float(shot.mask.mean())
            around = level_around(shot.image, shot.mask, found)
            shapes.append(Shape(shot.image[box], shot.mask[box], share, middle, shot.name, covers, around))
        return cls(tuple(shapes), len(inside) > len(shots) / 2 and float(np.mean(inside)) > 0.7)

    @property
    def colors(self) -> np.ndarray:
        """All their pixels, uint8 (n, 3)."""
        return np.concatenate([shape.rgb[shape.mask] for shape in self.shapes])


def _share_in_hull(mask: np.ndarray, found: np.ndarray) -> float:
    """How much of a mask lies in the convex hull of an object: a dark stain at its edge is no hole in it on a dark ground."""
    corners = np.argwhere(found)
    corners = corners[ConvexHull(corners).vertices]
    return float((Delaunay(corners).find_simplex(np.argwhere(mask)) >= 0).mean())


def find_object(rgb: np.ndarray, find: ObjectFinder) -> np.ndarray | None:
    """The object in a picture uint8 (h, w, 3) of any size, bool (h, w)."""
    scale = min(1.0, _OBJECT_SIDE / max(rgb.shape[:2]))
    found = find(resize_rgb(rgb, (max(8, round(scale * rgb.shape[0])), max(8, round(scale * rgb.shape[1])))))
    return None if found is None else resize_mask(found, (rgb.shape[0], rgb.shape[1]))


def level_around(rgb: np.ndarray, mask: np.ndarray, within: np.ndarray | None) -> float:
    """Mean grey level around a mask bool (h, w) in a picture uint8 (h, w, 3), on the object if there is one; 0 for no surroundings."""
    reach = max(2, round(min(mask.shape) / 24))
    near = np.asarray(ndimage.maximum_filter(mask, 1 + 2 * reach), dtype=bool)
    ring = near & ~np.asarray(ndimage.maximum_filter(mask, 1 + 2 * (reach // 2)), dtype=bool)
    ring = ring if within is None else ring & within
    return float(rgb[ring].mean()) if ring.any() else 0.0


def extent(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns from the first to the last True of a mask that has one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def draw_place(
    random: np.random.Generator,
    good: np.ndarray,
    shapes: Shapes,
    key: tuple[int, int, int],
    side: int,
    *,
    region: np.ndarray,
    frame: tuple[slice, slice] | None = None,
    share: float | None = None,
    stretch: float = 1.0,
    smallest: float = 0.0,
    flips: tuple[bool, bool] = (False, False),
) -> Place:
    """A place in `region` (bool, of the good picture's size) for a model that sees squares of `side` pixels.

    `frame` is the object's rows and columns: the place is then like one of the shots', and all of the region where the
    shot's defect covers its object; without it, anywhere in the region. `share` is the area asked for as a share of
    the picture, else it is like the shot's; `stretch` corrects it by what an earlier attempt got. `smallest` above 0
    allows a crop, in which the defect fills at least that share. `flips` are left-right and top-bottom.
    """
    shape = shapes.shapes[int(random.integers(len(shapes.shapes)))]
    turned = (flips[0] and random.random() < 0.5, flips[1] and random.random() < 0.5)
    turn = (slice(None, None, -1 if turned[1] else 1), slice(None, None, -1 if turned[0] else 1))
    if frame is not None and share is None and shape.covers >= _COVERS:
        return _cover(good, shape, turn, region, key, side)
    wanted = share if share is not None else shape.share * float(np.exp(_SPREAD * random.standard_normal()))
    wanted = min(wanted * stretch, 0.6 * float(region.mean()))
    zoom = (
        min(1.0, max((wanted / max(shape.share, smallest)) ** 0.5, 24 / min(good.shape[:2]))) if smallest > 0 else 1.0
    )
    # Sides of the shape as shares of the picture's.
    rows, columns = shape.mask.shape
    scale = (wanted / shape.mask.mean() / (rows * columns)) ** 0.5
    scale = min(scale, _MOST / max(rows, columns))
    zoom = min(1.0, max(zoom, scale * max(rows, columns) / _MOST))
    sides = (scale * rows, scale * columns)
    native = tuple(max(1, round(part * whole)) for part, whole in zip(sides, good.shape[:2], strict=True))
    outline = resize_mask(shape.mask[turn], (native[0], native[1]))
    center = _draw_center(random, shape, turned, outline, region, frame)
    window = Window.around(good.shape, _off_center(random, center, zoom, native, good.shape), zoom, side)
    # The same in the model's pixels.
    size = tuple(max(2, round(part / zoom * side)) for part in sides)
    patch = part_target(shape.rgb[turn], shape.mask[turn], key)
    hint = np.empty((side, side, 3), np.uint8)
    hint[:] = key
    drawn = np.zeros((side, side), bool)
    y = (center[0] - window.top) / window.height * side
    x = (center[1] - window.left) / window.width * side
    _paste(hint, resize_rgb(np.ascontiguousarray(patch), (size[0], size[1])), (y, x))
    _paste(drawn, resize_mask(np.ascontiguousarray(shape.mask[turn]), (size[0], size[1])), (y, x))
    room = max(2.0, 0.35 * (float(drawn.sum()) / np.pi) ** 0.5)
    near = np.asarray(ndimage.distance_transform_edt(~drawn)) <= room
    seen = window.see_mask(region)
    allowed = near & seen if drawn.any() else drawn
    level = level_around(window.see(good), drawn, seen)
    tone = float(np.clip(level / shape.around, 1 / _TONE, _TONE)) if level and shape.around else 1.0
    return Place(window, hint, allowed, (round(center[1], 1), round(center[0], 1)), shape.name, tone)


def _cover(
    good: np.ndarray, shape: Shape, turn: tuple[slice, slice], region: np.ndarray, key: tuple[int, int, int], side: int
) -> Place:
    """The whole region, in the looks of a shot's defect, which is stretched over it; holes take the nearest look."""
    box = extent(region)
    near = np.asarray(ndimage.distance_transform_edt(~shape.mask[turn], return_distances=False, return_indices=True))
    rgb = np.ascontiguousarray(shape.rgb[turn][near[0], near[1]])
    patch = resize_rgb(rgb, (box[0].stop - box[0].start, box[1].stop - box[1].start))
    rest = [(part.start, whole - part.stop) for part, whole in zip(box, region.shape, strict=True)]
    looks = np.pad(patch, (*rest, (0, 0)), mode="edge")  # its edge stays its own when it is shrunk
    middle = ((box[0].start + box[0].stop) / 2, (box[1].start + box[1].stop) / 2)
    window = Window.around(good.shape, middle, 1.0, side)
    allowed = window.see_mask(region)
    hint = part_target(window.see(looks), allowed, key)
    return Place(window, hint, allowed, (round(middle[1], 1), round(middle[0], 1)), shape.name)


def _draw_center(
    random: np.random.Generator,
    shape: Shape,
    turned: tuple[bool, bool],
    outline: np.ndarray,
    region: np.ndarray,
    frame: tuple[slice, slice] | None,
) -> tuple[float, float]:
    """The middle (y, x) in the picture's pixels of the best of some draws: the one with most of its outline in the region."""
    inside = np.flatnonzero(region)
    best, best_share = (region.shape[0] / 2, region.shape[1] / 2), -1.0
    for attempt in range(_DRAWS):
        # A place like the shots' that does not fit in is given up for any in the region.
        if frame is not None and attempt < _DRAWS // 2:
            relative = [
                (1 - value if flipped else value) + _JITTER * random.standard_normal()
                for value, flipped in zip(shape.center, turned[::-1], strict=True)
            ]
            y, x = (
                whole.start + value * (whole.stop - whole.start) for value, whole in zip(relative, frame, strict=True)
            )
        else:
            y, x = np.unravel_index(inside[random.integers(len(inside))], region.shape)
        center = tuple(
            float(np.clip(middle, length / 2, max(length / 2, whole - length / 2)))
            for middle, length, whole in zip((y, x), outline.shape, region.shape, strict=True)
        )
        places, parts = _overlap(region.shape, outline.shape, (center[0], center[1]))
        share = float((region[places] & outline[parts]).sum() / outline.sum())
        if share > best_share:
            best, best_share = (center[0], center[1]), share
        if share >= 0.98:
            break
    return best


def _off_center(
    random: np.random.Generator,
    center: tuple[float, float],
    zoom: float,
    size: tuple[int, ...],
    shape: tuple[int, ...],
) -> tuple[float, float]:
    """The middle of a crop in which the defect is not always in the middle."""
    spare = [max(0.0, 0.8 * zoom * whole - length) / 2 for whole, length in zip(shape, size, strict=False)]
    moved = [value + room * random.uniform(-1, 1) for value, room in zip(center, spare, strict=True)]
    return moved[0], moved[1]


def _paste(canvas: np.ndarray, patch: np.ndarray, center: tuple[float, float]) -> None:
    """Put a patch with its middle at (y, x), as far as it lies on the canvas."""
    places, parts = _overlap(canvas.shape, patch.shape, center)
    canvas[places] = patch[parts]


def _overlap(
    canvas: tuple[int, ...], patch: tuple[int, ...], center: tuple[float, float]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where on a canvas a patch lies whose middle is at (y, x), and what of the patch lies on it."""
    places: list[slice] = []
    parts: list[slice] = []
    for middle, length, whole in zip(center, patch[:2], canvas[:2], strict=True):
        first = round(middle - length / 2)
        start, stop = max(0, first), max(0, first, min(whole, first + length))
        places.append(slice(start, stop))
        parts.append(slice(start - first, stop - first))
    return tuple(places), tuple(parts)
