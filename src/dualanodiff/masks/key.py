"""The mask as what differs from the key colour.

A generated part's ground is only nearly the key colour: it drifts, has shades and noise, and the decoder blurs
edges. So the ground is estimated, and the cut is laid between it and what stands out. Distances are CIE76 in Lab
over 100: 0 is the ground itself, 0.02 just noticeable, 1 black against white.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab
from dualanodiff.errors import DataError
from dualanodiff.masks.result import MaskResult, drop_specks, fill_small_holes, otsu

_REACH = 0.3
# Nothing farther from the key colour is taken for ground: 40 grey levels of drift are 0.14 to 0.19.
_CLOSENESS = 0.12
# Scale on which a colour's votes for being the ground fall with its distance from the key colour.
_BIN = 0.03
# Width of the colour cells that votes are counted in.
_LOWEST_CUT, _LOWEST_CUT_SHADE = 0.06, 0.15
# The cut is never lower than the first, nor than this share of the ground's own distance from black: a shade makes a
# colour darker by a share, so it moves green by more Lab units than grey.
_NOISIEST, _NOISIEST_SHADE = 0.16, 0.25
# A ground has no noise above this; weaker defects cannot be told from a ground as noisy.
_NOISE_FACTOR = 6.0
# The lowest cut in medians of the ground's own distances.


def key_mask(
    part: np.ndarray,
    key: tuple[int, int, int],
    *,
    threshold: float | None = None,
    calibrated: float | None = None,
    minimum_area: int = 4,
) -> MaskResult:
    """What stands out from the ground of a part uint8 (h, w, 3); pieces under `minimum_area` pixels are dropped.

    `threshold` is a distance from the ground in 0..1 (see above). Without one, or with 0, the cut lies between this
    part's ground and what is far from it (Otsu), or half-way from there to the cut `calibrated` on shots, and above
    the ground's own noise. A part without any ground is all mask.
    """
    distance, noise = ground_distance(part, key)
    cut = threshold or max(noise, otsu(distance) if calibrated is None else (otsu(distance) + calibrated) / 2)
    if not threshold and (distance > noise).all():
        cut = noise  # no ground is left to tell apart, all of it is defect
    mask = drop_specks(fill_small_holes(distance > cut), minimum_area)
    score = float(np.median(distance[mask])) if mask.any() else 0.0
    return MaskResult.found(mask, "key", score, cut)


def ground_distance(part: np.ndarray, key: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """Distance (h, w) in 0..1 of each pixel from the ground of a part, and the distance that noise and shades reach."""
    lab = to_lab(part).astype(np.float32) / 100
    ground = estimate_ground(lab, key)
    distance = np.minimum(np.linalg.norm(lab - ground, axis=-1), 1)
    from_black = float(np.linalg.norm(ground))
    low, high = max(_LOWEST_CUT, _LOWEST_CUT_SHADE * from_black), max(_NOISIEST, _NOISIEST_SHADE * from_black)
    near = distance[distance < high]
    return distance, float(np.clip(_NOISE_FACTOR * np.median(near), low, high)) if near.size else low


def estimate_ground(lab: np.ndarray, key: tuple[int, int, int]) -> np.ndarray:
    """The ground's colour (3,) in Lab/100: the commonest near the key colour, near counting more than common.

    The key colour itself where fewer than one pixel in a thousand is near it.
    """
    center = to_lab(np.array(key, dtype=np.uint8)).astype(np.float32) / 100
    away = np.linalg.norm(lab - center, axis=-1)
    near = away < _REACH
    if near.mean() < 0.001:
        return center
    pixels = lab[near]
    cells = int(_REACH / _BIN) + 2
    votes = np.zeros((2 * cells + 1,) * 3)
    places = np.round((pixels - center) / _BIN).astype(int) + cells
    np.add.at(votes, tuple(places.T), np.exp(-((away[near] / _CLOSENESS) ** 2) / 2))
    votes = ndimage.gaussian_filter(votes, 1)
    mode = center + (np.array(np.unravel_index(votes.argmax(), votes.shape)) - cells) * _BIN
    around = np.linalg.norm(pixels - mode, axis=-1) < 3 * _BIN
    return np.median(pixels[around], axis=0) if around.any() else center


def calibrate_threshold(parts: Sequence[np.ndarray], masks: Sequence[np.ndarray], key: tuple[int, int, int]) -> float:
    """The cut with the highest mean overlap (IoU) between parts uint8 (h, w, 3) and their true masks bool (h, w).

    Give parts that went through the autoencoder and back, as generated ones will. Among cuts that are as good, the
    middle one is taken.
    """
    if not parts:
        msg = "no parts to calibrate a mask threshold on; give at least one shot"
        raise DataError(msg)
    cuts = np.arange(0.03, 0.81, 0.01)
    overlaps = np.zeros(len(cuts))
    for part, mask in zip(parts, masks, strict=True):
        distance, _ = ground_distance(part, key)
        inside, outside = (np.sort(distance[where]) for where in (mask, ~mask))
        found, wrong = (len(values) - np.searchsorted(values, cuts, "right") for values in (inside, outside))
        overlaps += found / np.maximum(mask.sum() + wrong, 1) / len(parts)
    good = cuts[overlaps >= overlaps.max() - 0.002]
    return round(float(good[len(good) // 2]), 4)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; 1 when both are empty.

    >>> overlap(np.array([True, True]), np.array([True, False]))
    0.5
    """
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
