"""How much of a defect a picture shows: of a real one after an autoencoder, or of the one that its part draws.

A defect's *contrast* is how its pixels differ from the picture just around it. Against a wanted contrast, a picture's
own is split in two: which share of it is there (1 all of it, 0 none, negative its opposite), and how alike the two are
whatever their strength (their cosine, 1 the same, 0 nothing in common).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FAINT = 4.0
"""Grey levels (root mean square) under which a contrast is too weak to be measured."""


@dataclass(frozen=True)
class Shown:
    """How much of a wanted contrast is there, and how alike it looks."""

    share: float
    likeness: float


def ring_around(region: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The pixels around a region bool (h, w), a little apart from it and outside of every defect of the mask.

    >>> region = np.zeros((64, 64), bool); region[30:34, 30:34] = True
    >>> ring = ring_around(region, region)
    >>> bool(ring.any()), bool((ring & region).any())
    (True, False)
    """
    scale = max(1, round(region.shape[0] / 128))
    return _grown(region, 4 * scale) & ~_grown(mask, scale)


def shown_contrast(found: np.ndarray, wanted: np.ndarray) -> Shown | None:
    """Compare contrasts (n, 3) in grey levels; None where the wanted one is too faint.

    >>> wanted = np.array([[-40.0, -40, -40], [-20, -20, -20]])
    >>> shown_contrast(wanted / 2, wanted)
    Shown(share=0.5, likeness=1.0)
    """
    strength = float(np.square(wanted).sum())
    if not len(wanted) or strength < FAINT**2 * wanted.size:
        return None
    common, own = float((found * wanted).sum()), float(np.square(found).sum())
    return Shown(round(common / strength, 4), round(common / max((own * strength) ** 0.5, 1e-9), 4))


def bond_of(image: np.ndarray, part: np.ndarray, mask: np.ndarray) -> Shown | None:
    """Whether an image uint8 (h, w, 3) shows, in place and in look, the defect that a part draws inside a mask.

    The wanted contrast is the part's pixels against what surrounds the mask in the image; an image that ignores the
    part looks there as it does around. The mask's edge, which is tinted by the key colour, stays out. None where the
    mask is empty or full, or the part draws what the image looks like anyway.
    """
    ring = ring_around(mask, mask)
    if not mask.any() or not ring.any():
        return None
    core: np.ndarray = np.asarray(ndimage.binary_erosion(mask), dtype=bool)
    core = core if core.sum() >= 0.2 * mask.sum() else mask
    level = image[ring].mean(axis=0, dtype=float)
    return shown_contrast(image[core] - level, part[core] - level)


def bonds(
    images: Sequence[np.ndarray], parts: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> dict[str, float | int | None]:
    """Median share and likeness of pairs, and the same with each image judged against the next pair's part.

    Swapped parts say what a picture reaches that knows nothing of its part: a bond is real as far as it is above that.
    `bond_pairs` counts the pairs whose part draws something that can be told from the image's own surroundings.
    """
    usable = [i for i, mask in enumerate(masks) if mask.any() and not mask.all()]
    own = [bond_of(images[i], parts[i], masks[i]) for i in usable]
    others = [usable[(place + 1) % len(usable)] for place in range(len(usable))] if len(usable) > 1 else []
    swapped = [bond_of(images[i], parts[j], masks[j]) for i, j in zip(usable, others, strict=False)]
    return {
        "bond_share": _median([found.share for found in own if found]),
        "bond_likeness": _median([found.likeness for found in own if found]),
        "swapped_share": _median([found.share for found in swapped if found]),
        "swapped_likeness": _median([found.likeness for found in swapped if found]),
        "bond_pairs": sum(found is not None for found in own),
    }


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 4) if values else None


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=pixels))
