"""CutPaste: a patch of the good picture itself, elsewhere in it.

After Li, Sohn, Yoon and Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization" (CVPR 2021): patches of 2 % to
15 % of the picture and of sides from 1 : 3.3 to 3.3 : 1; scars of 2 to 16 by 10 to 25 pixels in a picture of 256, turned up to 45
degrees; colours jittered by 0.1; pasted anywhere, off the object too. Different: the publication trains a classifier on whole pictures and
has no masks; here what was pasted is the mask.
"""

import math

import numpy as np

from dualanodiff.rivals.materials import Drawn, Materials, Stream
from dualanodiff.rivals.pieces import Piece, find_place, jitter_colors, lay_piece, turn_piece

_AREAS = (0.02, 0.15)
_WIDEST = 1 / 0.3
_JITTER = 0.1


def draw_patch(materials: Materials, stream: Stream) -> Drawn:
    """A rectangle of a good picture pasted elsewhere in it."""
    good, name = materials.good(stream)
    area = stream.uniform(*_AREAS) * materials.size**2
    # Wide and high ones are equally likely.
    aspect = stream.uniform(1, _WIDEST) ** float(stream.choice((-1, 1)))
    return _pasted(good.image, name, stream, math.sqrt(area * aspect), math.sqrt(area / aspect))


def draw_scar(materials: Materials, stream: Stream) -> Drawn:
    """A thin, turned rectangle of a good picture pasted elsewhere in it."""
    good, name = materials.good(stream)
    unit = materials.size / 256
    width, length = stream.uniform(2, 16) * unit, stream.uniform(10, 25) * unit
    return _pasted(good.image, name, stream, width, length, angle=stream.uniform(-45, 45))


def _pasted(image: np.ndarray, name: str, stream: Stream, width: float, height: float, angle: float = 0.0) -> Drawn:
    size = image.shape[0]
    columns, rows = (int(np.clip(round(side), 1, size - 1)) for side in (width, height))
    top, left = int(stream.integers(size - rows + 1)), int(stream.integers(size - columns + 1))
    patch = image[top : top + rows, left : left + columns]
    colors = jitter_colors(patch, stream, brightness=_JITTER, contrast=_JITTER, saturation=_JITTER)
    piece = Piece(colors, np.ones((rows, columns), dtype=np.float32))
    if angle:
        piece = turn_piece(piece, angle=angle)
    pasted, mask = lay_piece(image, piece, find_place(piece, np.ones(image.shape[:2], dtype=bool), stream))
    return Drawn(pasted, mask, {"good": name})
