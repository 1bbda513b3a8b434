"""Does a generated picture show the defect that its mask claims? Judged against the product's good pictures.

The change map of a picture says how far each pixel is from every good picture's pixels at about that place, less how
far good pictures are from one another there (or any mask on a part would seem right against a plain ground). Where the
mask is right, the map is high inside it and low outside. No threshold is involved: the agreement is the area under
the ROC curve of the map against the mask, 0.5 for a mask that has nothing to do with the picture, 1 for a perfect one.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab

_REACH = 3
"""A good pixel may lie this many 1/128 of the side away: parts are never placed alike."""


_COMPARED = 6
"""Good pictures that are compared with all others to learn how much they differ."""


def change_maps(pictures: Sequence[np.ndarray], normals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Change map (h, w), in Lab units, of each uint8 (h, w, 3); `normals` are two or more good ones of the same size."""
    chosen = np.linspace(0, len(normals) - 1, min(_COMPARED, len(normals))).round().astype(int)
    usual = np.mean([distance_map(normals[i], [*normals[:i], *normals[i + 1 :]]) for i in chosen], axis=0)
    smooth = ndimage.uniform_filter(usual, max(1, round(9 * usual.shape[0] / 128)))
    return [distance_map(rgb, normals) - smooth for rgb in pictures]


def distance_map(rgb: np.ndarray, normals: Sequence[np.ndarray]) -> np.ndarray:
    """Distance (h, w), in Lab units, of each pixel of uint8 (h, w, 3) from the nearest good pixel around its place."""
    scale = rgb.shape[0] / 128
    reach = max(1, round(_REACH * scale))
    blur = (0.6 * scale, 0.6 * scale, 0)
    lab = ndimage.gaussian_filter(to_lab(rgb).astype(np.float32), blur)
    nearest = np.full(rgb.shape[:2], np.inf, np.float32)
    for normal in normals:
        good = ndimage.gaussian_filter(to_lab(normal).astype(np.float32), blur)
        padded = np.pad(good, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        for down in range(0, 2 * reach + 1, max(1, reach // 3)):
            for across in range(0, 2 * reach + 1, max(1, reach // 3)):
                window = padded[down : down + rgb.shape[0], across : across + rgb.shape[1]]
                np.minimum(nearest, np.square(lab - window).sum(axis=-1), out=nearest)
    return np.sqrt(nearest)


def agreement(change: np.ndarray, mask: np.ndarray) -> float:
    """Area under the ROC curve of a change map (h, w) against a mask bool (h, w); 0.5 for an empty or a full mask.

    >>> agreement(np.array([[0.0, 1.0], [2.0, 9.0]]), np.array([[False, False], [False, True]]))
    1.0
    """
    inside = int(mask.sum())
    outside = mask.size - inside
    if inside == 0 or outside == 0:
        return 0.5
    # The rank-sum form, ties sharing their mean rank.
    _, places, counts = np.unique(change.ravel(), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    return float((ranks[mask.ravel()].sum() - inside * (inside + 1) / 2) / (inside * outside))


def contrast(change: np.ndarray, mask: np.ndarray) -> float:
    """Mean change inside the mask minus the 90th percentile outside it, in Lab units; above 0 the defect stands out."""
    if not mask.any() or mask.all():
        return 0.0
    return float(change[mask].mean() - np.percentile(change[~mask], 90))
