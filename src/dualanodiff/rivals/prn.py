"""PRN's anomalies: real defects extended by augmentation, and simulated ones, both blended over good parts.

After Zhang, Wu, Wang, Chen and Jiang, "Prototypical Residual Networks for Anomaly Detection and Localization" (CVPR 2023). *Extended*: a real defect,
augmented in colour and place, over the object of a good picture at varied transparency. *Simulated*: Perlin masks on the object, filled with a
texture or with the good picture's own tiles in disorder. Each pair is one or the other with equal chance. Different: the publication gives no
code; the opacity (0.15 to 1), the 4 x 4 tiles and the foreground rule are those of MemSeg, which it follows; textures as in draem.py.
"""

import numpy as np

from dualanodiff.rivals.draem import augmented, blended, perlin_mask
from dualanodiff.rivals.materials import Drawn, Materials, Stream
from dualanodiff.rivals.pieces import cut_piece, find_place, fit_piece, lay_piece, turn_piece

_OPACITY = (0.15, 1.0)
_TILES = 4


def draw_prn(materials: Materials, stream: Stream) -> Drawn:
    """An extended or a simulated anomaly on a good picture."""
    return draw_extended(materials, stream) if stream.random() < 0.5 else draw_simulated(materials, stream)


def draw_extended(materials: Materials, stream: Stream) -> Drawn:
    """A real defect, changed in colour, turned, scaled and half transparent, on the object."""
    shot = materials.shot(stream)
    good, name = materials.good(stream)
    piece = cut_piece(augmented(shot.image, stream, turn=False), shot.mask)
    piece = turn_piece(
        piece, angle=stream.uniform(0, 360), scale=stream.uniform(0.7, 1.3), mirrored=bool(stream.random() < 0.5)
    )
    piece = fit_piece(piece, materials.size)
    place = find_place(piece, good.body, stream)
    image, mask = lay_piece(good.image, piece, place, opacity=stream.uniform(*_OPACITY), within=good.body)
    return Drawn(image, mask, {"kind": "extended", "shot": shot.name, "good": name})


def draw_simulated(materials: Materials, stream: Stream) -> Drawn:
    """A texture, or the picture's own tiles in disorder, through a Perlin mask on the object."""
    good, name = materials.good(stream)
    mask = perlin_mask(materials.size, stream, within=good.body)
    own = bool(stream.random() < 0.5)
    over = shuffled(augmented(good.image, stream, turn=False), stream) if own else materials.texture(stream)
    kind = "own tiles" if own else "texture"
    return Drawn(blended(good.image, over, mask, stream.uniform(*_OPACITY)), mask, {"kind": kind, "good": name})


def shuffled(rgb: np.ndarray, stream: Stream, tiles: int = _TILES) -> np.ndarray:
    """The picture uint8 (s, s, 3) cut into tiles x tiles, which are put back in another order."""
    edges = [len(rgb) * i // tiles for i in range(tiles + 1)]
    side = edges[1]
    result = rgb.copy()
    places = [(top, left) for top in edges[:-1] for left in edges[:-1]]
    for (top, left), source in zip(places, stream.permutation(places), strict=True):
        result[top : top + side, left : left + side] = rgb[source[0] : source[0] + side, source[1] : source[1] + side]
    return result
