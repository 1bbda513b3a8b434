"""Random fields, coordinates and the few pixel operations that every procedural picture is made of.

Pictures are channel-first float32 (3, size, size) in 0..1, fields are float32 (size, size). Lengths are in half
pictures: x and y run from -1 (left, top) to 1 (right, bottom), so that a picture looks the same at every size.
"""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

T = TypeVar("T")
Field = NDArray[np.floating]
"""One value a pixel, (size, size), float32."""
Rgb = NDArray[np.floating]
"""Three values a pixel in 0..1, (3, size, size), or one colour (3, 1, 1), float32."""
Points = NDArray[np.float64]
"""Positions (n, 2) as x, y in half pictures."""


@lru_cache(maxsize=8)
def coordinates(size: int) -> tuple[Field, Field]:
    """The x and y of every pixel's centre, -1..1; y grows downwards. Read-only."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    x = np.ascontiguousarray(np.broadcast_to(line, (size, size)))
    y = np.ascontiguousarray(x.T)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def resized(field: Field, size: int) -> Field:
    """A field of any shape stretched smoothly to (size, size)."""
    return np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))


def noise(generator: np.random.Generator, size: int, cells: int | tuple[int, int]) -> Field:
    """Smooth noise of mean 0 and deviation near 0.7, with `cells` (or rows, columns) bumps across the picture.

    Grain (96 cells and more) stays fine in pictures over 256 pixels.
    """
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    finer = max(1, size // 256)
    shape = (rows * finer if rows >= 96 else rows, columns * finer if columns >= 96 else columns)
    return resized(generator.standard_normal(shape, dtype=np.float32), size)


def fractal(generator: np.random.Generator, size: int, first: int = 4, last: int = 64, falloff: float = 0.6) -> Field:
    """Cloudy noise of mean 0 and deviation 1: bumps from `first` to `last` a picture, each octave `falloff` as strong."""
    field = generator.standard_normal((first, first), dtype=np.float32)
    strength, cells = 1.0, first
    while cells * 2 <= last:
        cells, strength = cells * 2, strength * falloff
        field = resized(field, cells) + np.float32(strength) * generator.standard_normal(
            (cells, cells), dtype=np.float32
        )
    field = resized(field, size)
    return (field - field.mean()) / (field.std() + 1e-6)


def soft(field: Field, radius: float) -> Field:
    """The field blurred over about `radius` half pictures, by shrinking and stretching it."""
    size = len(field)
    cells = max(2, min(size, round(2 / max(radius, 1e-3))))
    if cells >= size:
        return field
    small = np.asarray(Image.fromarray(field).resize((cells, cells), Image.Resampling.BOX))
    return resized(small, size)


def mix(first: Rgb, second: Rgb, share: Field | float) -> Rgb:
    """`first` where the share is 0, `second` where it is 1."""
    return first + (second - first) * share


def step(field: Field) -> Field:
    """A soft step: 0 below 0, 1 above 1, smooth between."""
    value = np.clip(field, 0, 1)
    return value * value * (3 - 2 * value)


def cover(distance: Field) -> Field:
    """Share of each pixel that lies inside a shape, from the signed distance to its edge in half pictures."""
    return np.clip(0.5 - distance * (len(distance) / 2), 0, 1)


def relief(height: Field, light: tuple[float, float]) -> Field:
    """Slope of a height towards the light, per half picture: positive where a surface faces it."""
    scale = np.float32(len(height) / 4)
    slope = np.zeros_like(height)
    slope[:, 1:-1] = (height[:, :-2] - height[:, 2:]) * (scale * np.float32(light[0]))
    slope[1:-1] += (height[:-2] - height[2:]) * (scale * np.float32(light[1]))
    return slope


def moved(field: Field, dx: float, dy: float) -> Field:
    """The field shifted by (dx, dy) half pictures; its border value follows."""
    size = len(field)
    columns = np.clip(np.arange(size) - round(dx * size / 2), 0, size - 1)
    rows = np.clip(np.arange(size) - round(dy * size / 2), 0, size - 1)
    return field[rows[:, None], columns]


def turned(rgb: Rgb, angle: float) -> Rgb:
    """The picture turned by `angle` radians and enlarged just enough to leave no empty corner."""
    size = rgb.shape[-1]
    zoom = abs(np.cos(angle)) + abs(np.sin(angle))
    picture = Image.fromarray(to_bytes(rgb)).transform(
        (size, size), Image.Transform.AFFINE, _affine(size, angle, zoom, 0, 0), Image.Resampling.BILINEAR
    )
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def placed(field: Field, angle: float, scale: float, x: float, y: float) -> Field:
    """The field turned, scaled and moved so that its middle lies at (x, y); 0 where it does not reach."""
    size = len(field)
    image = Image.fromarray(field).transform(
        (size, size), Image.Transform.AFFINE, _affine(size, angle, scale, x, y), Image.Resampling.BILINEAR
    )
    return np.asarray(image)


def _affine(size: int, angle: float, scale: float, x: float, y: float) -> tuple[float, ...]:
    """Where each pixel of a turned, scaled, moved picture comes from, in Pillow's order."""
    cos, sin, centre = np.cos(angle) / scale, np.sin(angle) / scale, size / 2
    left, top = centre * (1 + x), centre * (1 + y)
    return (cos, sin, centre - left * cos - top * sin, -sin, cos, centre + left * sin - top * cos)


def to_bytes(rgb: Rgb) -> NDArray[np.uint8]:
    """The picture as uint8 (size, size, 3)."""
    return np.ascontiguousarray(
        (np.clip(rgb, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
    )


def colour(hue: float, saturation: float, value: float) -> Rgb:
    """One colour (3, 1, 1) from hue, saturation and value in 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)), np.float32)[:, None, None]


def between(generator: np.random.Generator, low: float, high: float) -> float:
    """A number between low and high, all equally likely."""
    return float(generator.uniform(low, high))


def pick(generator: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, all equally likely."""
    return items[int(generator.integers(len(items)))]


class Canvas:
    """Polygons, strokes and spots drawn with smooth edges: in four-fold size, then reduced."""

    def __init__(self, size: int) -> None:
        self._size, self._scale = size, 4 if size <= 256 else 2
        self._image = Image.new("L", (size * self._scale, size * self._scale))
        self._draw = ImageDraw.Draw(self._image)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        scaled = (np.asarray(points) + 1) * (self._size * self._scale / 2) - 0.5
        return [(float(x), float(y)) for x, y in scaled]

    def polygon(self, points: Points, value: float = 1.0) -> None:
        """Fill a closed polygon."""
        self._draw.polygon(self._pixels(points), fill=round(255 * value))

    def stroke(self, points: Points, width: float, value: float = 1.0) -> None:
        """Draw an open line, `width` half pictures wide."""
        pixels = max(1, round(width * self._size * self._scale / 2))
        self._draw.line(self._pixels(points), fill=round(255 * value), width=pixels, joint="curve")

    def spot(self, x: float, y: float, radius: float, value: float = 1.0) -> None:
        """Fill a disc."""
        (left, top), (right, bottom) = self._pixels(np.array([[x - radius, y - radius], [x + radius, y + radius]]))
        self._draw.ellipse((left, top, right, bottom), fill=round(255 * value))

    def field(self) -> Field:
        """What was drawn, 0..1."""
        return np.asarray(self._image.reduce(self._scale), dtype=np.float32) / np.float32(255)
