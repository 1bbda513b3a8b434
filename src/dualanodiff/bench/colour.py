"""How true the ground's colour is: the impurity that the paper cures with background compensation, as numbers.

The *ground* are the pixels that show no object in any good picture, or all pixels where good pictures are a texture. It
is found on the good pictures alone, so that a generated picture cannot choose its own.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab
from dualanodiff.masks.saliency import object_mask

_FEWEST = 0.02
"""Share of the picture that the good pictures' common ground has at least; else all pixels count."""


def common_ground(normals: Sequence[np.ndarray]) -> np.ndarray:
    """The ground bool (h, w) of good pictures uint8 (h, w, 3) of one size."""
    found = [object_mask(rgb, None)[0] for rgb in normals]
    ground = ~np.any([mask for mask in found if not mask.all()] or [np.ones_like(found[0])], axis=0)
    return ground if ground.mean() >= _FEWEST else np.ones_like(ground)


def ground_faults(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], normals: Sequence[np.ndarray]
) -> dict[str, float | None]:
    """Medians over pictures, in Lab units, 2.3 being just noticeable, pixels near a picture's own mask left out.

    `ground_offset`: how far the ground's mean colour is from the nearest good picture's; 0 where they are the same.
    `ground_spread`: how much more the ground's pixels differ from one another than on good pictures; negative for a
    ground that is flatter than any real one.
    """
    ground = common_ground(normals)
    good = [_mean_and_spread(rgb, ground) for rgb in normals]
    usual = float(np.median([spread for _, spread in good]))
    offsets: list[float] = []
    spreads: list[float] = []
    for rgb, mask in zip(images, masks, strict=True):
        own = ground & ~np.asarray(ndimage.binary_dilation(mask, iterations=3), dtype=bool)
        if own.sum() < 16:
            continue
        mean, spread = _mean_and_spread(rgb, own)
        offsets.append(min(float(np.linalg.norm(mean - other)) for other, _ in good))
        spreads.append(spread - usual)
    return {"ground_offset": _median(offsets), "ground_spread": _median(spreads)}


def _mean_and_spread(rgb: np.ndarray, ground: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean Lab colour of the ground, and the mean distance of its pixels from it."""
    lab = to_lab(rgb)[ground]
    mean = lab.mean(axis=0)
    return mean, float(np.linalg.norm(lab - mean, axis=1).mean())


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None
