"""A piece of a picture cut out, turned, and laid on another."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dualanodiff.rivals.materials import Stream

_MARGIN = 3
"""Pixels kept around a cut-out, so that turning it mixes in what was there and no black."""
_TRIES = 60
_ON_BODY = 0.9
"""Share of a piece that should lie on the object; the best of the tries is taken where none reaches it."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Colours float32 (h, w, 3) in 0..255, and how much of each pixel belongs to the piece, float32 (h, w) in 0..1."""

    rgb: np.ndarray
    cover: np.ndarray


def cut_piece(rgb: np.ndarray, mask: np.ndarray) -> Piece:
    """What lies under a mask bool (h, w) that is not empty, in the smallest box with a margin."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (
        slice(max(0, rows[0] - _MARGIN), rows[-1] + 1 + _MARGIN),
        slice(max(0, columns[0] - _MARGIN), columns[-1] + 1 + _MARGIN),
    )
    return Piece(rgb[box].astype(np.float32), mask[box].astype(np.float32))


def turn_piece(piece: Piece, *, angle: float = 0.0, scale: float = 1.0, mirrored: bool = False) -> Piece:
    """The piece mirrored, scaled, and turned by `angle` degrees; a tiny one never vanishes."""
    height, width = piece.cover.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def turned(values: np.ndarray, border: float) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(values[:, ::-1] if mirrored else values))
        image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=border))

    cover = turned(piece.cover, 0.0)
    channels = [turned(piece.rgb[..., i], float(piece.rgb[..., i].mean())) for i in range(3)]
    # Half a pixel of a hair is all that turning may leave of it.
    return Piece(np.stack(channels, axis=-1), np.clip(cover / min(1.0, max(float(cover.max()), 1e-3)), 0, 1))


def fit_piece(piece: Piece, side: int, share: float = 0.95) -> Piece:
    """The piece, shrunk where it is larger than `share` of a picture of `side` pixels."""
    largest = max(piece.cover.shape)
    return piece if largest <= side * share else turn_piece(piece, scale=side * share / largest)


def find_place(piece: Piece, body: np.ndarray, stream: Stream) -> tuple[int, int]:
    """Top and left corner at which the piece lies within the picture and on its object, bool (s, s)."""
    solid = piece.cover > 0.5
    height, width = solid.shape
    best, place = -1.0, (0, 0)
    for _ in range(_TRIES):
        top = int(stream.integers(max(1, body.shape[0] - height + 1)))
        left = int(stream.integers(max(1, body.shape[1] - width + 1)))
        share = float(body[top : top + height, left : left + width][solid].mean())
        if share > best:
            best, place = share, (top, left)
        if share >= _ON_BODY:
            break
    return place


def lay_piece(
    image: np.ndarray,
    piece: Piece,
    place: tuple[int, int],
    *,
    opacity: float = 1.0,
    within: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 (h, w, 3) with the piece over it, and the piece's mask bool (h, w).

    `within` bool (h, w) cuts off what overhangs the object; a piece that has no pixel on it stays whole.
    """
    top, left = place
    height, width = min(piece.cover.shape[0], image.shape[0] - top), min(piece.cover.shape[1], image.shape[1] - left)
    box = (slice(top, top + height), slice(left, left + width))
    cover = piece.cover[:height, :width]
    if within is not None and (cover * within[box] > 0.5).any():
        cover = cover * within[box]
    result, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    weight = opacity * cover[..., None]
    mixed = (1 - weight) * image[box] + weight * piece.rgb[:height, :width]
    result[box] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    mask[box] = cover > 0.5
    return result, mask


def jitter_colors(
    rgb: np.ndarray, stream: Stream, *, brightness: float, contrast: float, saturation: float = 0.0
) -> np.ndarray:
    """Float colours (h, w, 3) in 0..255 with each property changed by a factor of 1 plus or minus its strength."""
    factors = 1 + stream.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    values = rgb.astype(np.float32) * factors[0]
    values = (values - values.mean()) * factors[1] + values.mean()
    grey = values.mean(axis=-1, keepdims=True)
    return np.clip((values - grey) * factors[2] + grey, 0, 255).astype(np.float32)
