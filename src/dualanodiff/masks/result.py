"""What every way of making a mask gives."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_NEIGHBOURS = np.ones((3, 3), dtype=bool)
# Pixels that touch at a corner belong together, or a diagonal hair scratch would be a row of specks.


@dataclass(frozen=True, eq=False)
class MaskResult:
    """A mask bool (h, w), and how far to trust it."""

    mask: np.ndarray
    empty: bool
    """Nothing was found: the mask is all False."""
    source: str
    """How it was made: key, u2net, sam or attention."""
    score: float
    """How clearly what was found stands out, in 0..1; each source has its own scale, 0 is empty."""
    threshold: float = 0.0
    """The cut that was used, on the source's own scale."""

    @property
    def area(self) -> float:
        """Share of the picture, 0..1."""
        return float(self.mask.mean())

    @classmethod
    def nothing(cls, shape: tuple[int, ...], source: str, threshold: float = 0.0) -> "MaskResult":
        """An empty part of a picture of this (h, w)."""
        return cls(np.zeros(shape[:2], dtype=bool), True, source, 0.0, threshold)

    @classmethod
    def found(cls, mask: np.ndarray, source: str, score: float, threshold: float) -> "MaskResult":
        """A mask, or nothing where it has no pixel."""
        if not mask.any():
            return cls.nothing(mask.shape, source, threshold)
        return cls(mask, False, source, float(np.clip(score, 0, 1)), threshold)


def blobs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected pieces of a mask as int labels (h, w), 0 outside, and the areas in pixels of labels 1, 2, ..."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, _NEIGHBOURS, output=labels)
    return labels, np.bincount(labels.ravel())[1:]


def drop_specks(mask: np.ndarray, minimum_area: int) -> np.ndarray:
    """The mask without pieces of fewer pixels than this.

    >>> drop_specks(np.array([[1, 0, 0, 1], [1, 0, 0, 0]], bool), 2).astype(int).tolist()
    [[1, 0, 0, 0], [1, 0, 0, 0]]
    """
    labels, areas = blobs(mask)
    return np.append(False, areas >= minimum_area)[labels]


def fill_small_holes(mask: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The mask with each hole closed that is smaller than `share` of the mask.

    A large hole is meant: a crack around a bottle's mouth is a ring.
    """
    # Holes meet at sides only, the other way round than the mask's own pieces.
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(np.asarray(ndimage.binary_fill_holes(mask)) & ~mask, output=labels)
    small = np.bincount(labels.ravel()) < share * mask.sum()
    small[0] = False
    return mask | small[labels]


def otsu(values: np.ndarray, bins: int = 128) -> float:
    """The cut that best splits values of 0 and more into two groups (Otsu's: largest variance between them)."""
    # A range of its own, because numpy refuses bins as narrow as rounding errors.
    counts, edges = np.histogram(values, bins, (0, max(float(values.max()), 0.01)))
    middles = (edges[1:] + edges[:-1]) / 2
    below, total = counts.cumsum(), (counts * middles).cumsum()
    above = below[-1] - below
    between = (total[-1] * below / below[-1] - total) ** 2 / np.maximum(below * above, 1)
    # The right edge of the last bin of the lower group; equal cuts over a gap are met in its middle.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[best + 1].mean())
