"""Is a picture as sharp, and as rough, as good ones are in the same places?"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab

_SIZES = (0.7, 1.4, 2.8, 5.6)
"""Deviations of the Gaussians between which each scale lies, in pixels at 128."""
_LEAST = np.array([0.1] * 4 + [0.05] * 3)
"""Good pictures are taken to vary at least this much, however alike they are."""


class Texture:
    """The texture of good pictures uint8 (s, s, 3): the strength of lightness at four scales, and how it falls.

    The fall from one scale to the next tells a blurred picture from one that shows little: it hardly depends on what
    the picture shows.
    """

    def __init__(self, normals: Sequence[np.ndarray]) -> None:
        self._bands = np.stack([_bands(rgb) for rgb in normals])

    def distance(self, rgb: np.ndarray, where: np.ndarray) -> float:
        """How unlike the good pictures a picture is inside `where` bool (s, s), in their deviations; the worst scale counts."""
        known = _strengths(self._bands, where)
        return float(np.abs((_strengths(_bands(rgb), where) - known.mean(0)) / np.maximum(known.std(0), _LEAST)).max())


def _bands(rgb: np.ndarray) -> np.ndarray:
    """Float32 (4, s, s): how much lightness differs from itself a little more blurred."""
    light, unit = to_lab(rgb)[..., 0].astype(np.float32), rgb.shape[0] / 128
    blurred = [light, *(ndimage.gaussian_filter(light, size * unit, truncate=3) for size in _SIZES)]
    return np.abs(np.stack([fine - coarse for fine, coarse in zip(blurred, blurred[1:], strict=False)]))


def _strengths(bands: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(..., 7): logarithms of the mean strength of each scale inside `where`, and their differences."""
    found = np.log(bands[..., where].mean(axis=-1) + 0.1)
    return np.concatenate([found, np.diff(found, axis=-1)], axis=-1)
