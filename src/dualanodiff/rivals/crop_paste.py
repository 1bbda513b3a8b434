"""Crop-Paste: a real defect, cut out of a shot by its mask, on a good part.

After Lin, Cao, Zhu and Li, "Few-Shot Defect Segmentation Leveraging Abundant Normal Training Samples Through Normal Background
Regularization and Crop-and-Paste Operation" (ICME 2021). Different: the publication weighs its training loss by how real a pasted
picture looks to a network, which is a matter of the inspector; where an object is found, the piece is put
on it, and what overhangs is cut off.
"""

from dualanodiff.rivals.materials import Drawn, Materials, Stream
from dualanodiff.rivals.pieces import Piece, cut_piece, find_place, fit_piece, jitter_colors, lay_piece, turn_piece

_SCALES = (0.7, 1.3)


def draw_crop_paste(materials: Materials, stream: Stream) -> Drawn:
    """A shot's whole defect, turned, scaled and jittered, on the object of a good picture."""
    shot = materials.shot(stream)
    good, name = materials.good(stream)
    piece = turn_piece(
        cut_piece(shot.image, shot.mask),
        angle=stream.uniform(0, 360),
        scale=stream.uniform(*_SCALES),
        mirrored=bool(stream.random() < 0.5),
    )
    piece = fit_piece(
        Piece(jitter_colors(piece.rgb, stream, brightness=0.1, contrast=0.1), piece.cover), materials.size
    )
    image, mask = lay_piece(good.image, piece, find_place(piece, good.body, stream), within=good.body)
    return Drawn(image, mask, {"shot": shot.name, "good": name})
