"""Whether a kind of defect has colours that good parts have not: then the image must be made to show them."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from dualanodiff.data.keycolor import to_lab
from dualanodiff.images import read_rgb

_PICTURES, _SIDE = 24, 64
"""Good pictures that are looked at, at most, and their side: colours need no detail."""
_COLORS = 4000
"""Pixels of the defects that are looked at, at most."""


@lru_cache(maxsize=4)
def colors_of(goods: tuple[Path, ...]) -> KDTree:
    """The colours of good pictures, in Lab; PictureError for one that cannot be read."""
    chosen = goods[:: max(1, len(goods) // _PICTURES)][:_PICTURES]
    return KDTree(np.concatenate([to_lab(read_rgb(path, size=_SIDE)).reshape(-1, 3) for path in chosen]))


def strangeness(colors: np.ndarray, known: KDTree) -> float:
    """Median distance in Lab of defect pixels uint8 (n, 3) from the nearest of good parts' colours.

    2 is just noticeable; a dent shows the good part's own colours, rust on a blue plate does not.

    >>> blue = KDTree(to_lab(np.array([[[0, 0, 200]]], np.uint8))[0])
    >>> strangeness(np.array([[0, 0, 200]], np.uint8), blue), strangeness(np.array([[150, 90, 30]], np.uint8), blue) > 50
    (0.0, True)
    """
    chosen = colors[:: max(1, len(colors) // _COLORS)]
    return float(np.median(known.query(to_lab(chosen[None])[0])[0]))
