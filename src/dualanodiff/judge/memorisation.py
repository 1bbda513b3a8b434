"""Is a generated defect a copy of one that was learned from, turned, mirrored, moved or cut?

The defect's area, if it is small with some of its surroundings, is laid over every shot's defect, in eight turns and at every
shift, and compared by normalised correlation of lightness, freed of slow shades: brightness and contrast do not count.
The search runs at half size (64 px at least) by FFT; the best few are measured again at full size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft, ndimage

from dualanodiff.data.keycolor import to_lab
from dualanodiff.data.shots import Shot
from dualanodiff.images import resize_mask, resize_rgb

_AREA, _REACH = 0.018, 8
"""Share of the picture that is compared at least, so that a speck is compared with its surroundings (a speck alone is
like any other), and how far these reach at most, in 1/128 of the side."""
_MEETS = 0.3
"""Share of the compared area that must lie on the shot's defect: likeness of plain background is no copy."""
_FINALISTS = 10
_COARSE = 64
"""Pixels a side of the search, at least."""
_SCALES = (1.0, 0.9, 0.8)
"""A crop that was enlarged again is compared at its old size."""
_WAYS = [(scale, turn) for scale in _SCALES for turn in range(8)]
_FLAT = 0.05
"""Variance, in squares of Lab units, of an area that shows nothing to compare."""
_LOWEST, _HIGHEST = 0.8, 0.95
"""Below the first nothing is a copy; from the second on everything is: copies through blur and noise keep 0.96."""

_DOUBLE = 0.85
"""Rough similarity from which two shots are taken to show one and the same defect: on real ones, doubles had 0.86 to 0.99 and
others 0.83 at most."""


@dataclass(frozen=True)
class Nearest:
    """The shot whose defect is most like a pair's, and how alike they are, 0..1."""

    shot: str
    similarity: float


class Originals:
    """The shots that a set learned from, ready to be compared with."""

    def __init__(self, shots: Sequence[Shot]) -> None:
        self.shots = list(shots)
        images, masks = [shot.image for shot in shots], [shot.mask for shot in shots]
        self._sides = max(_COARSE, images[0].shape[0] // 2), images[0].shape[0]
        half = self._sides[0]
        self._full = _Originals(images, masks)
        self._half = _Originals([resize_rgb(rgb, half) for rgb in images], [resize_mask(mask, half) for mask in masks])

    @cached_property
    def baseline(self) -> list[float]:
        """Similarity of each shot to the nearest of the others: what chance and the product itself bring about."""
        return [self.nearest(shot.image, shot.mask, without=i).similarity for i, shot in enumerate(self.shots)]

    @cached_property
    def doubles(self) -> list[frozenset[int]]:
        """For each shot itself and all others that show the same defect: one part photographed several times."""
        found = [self._search(shot.image, shot.mask, range(len(self.shots))).max(0) for shot in self.shots]
        alike = np.maximum(found, np.transpose(found))
        return [frozenset(np.flatnonzero(row >= _DOUBLE).tolist()) | {i} for i, row in enumerate(alike)]

    @cached_property
    def threshold(self) -> float:
        """From this similarity on a pair is a copy: far above the usual among shots, whatever doubles are in them."""
        if len(self.shots) < 3:
            return 0.95
        values = np.arctanh(np.clip(self.baseline, 0, 0.999))
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        return float(np.clip(np.tanh(middle + 3 * max(spread, 0.1)), _LOWEST, _HIGHEST))

    def nearest(self, image: np.ndarray, mask: np.ndarray, *, without: int | None = None) -> Nearest:
        """The shot that a picture uint8 (s, s, 3) is nearest to on its mask bool (s, s), leaving one shot out."""
        others = [i for i in range(len(self.shots)) if i != without]
        if not mask.any() or not others:
            return Nearest("", 0.0)
        rough, fine, best = self._search(image, mask, others), _patches(image, mask, self._sides[1]), Nearest("", 0.0)
        for place in rough.argsort(axis=None)[::-1][:_FINALISTS]:
            way, i = divmod(int(place), len(others))
            scale, turn = _WAYS[way]
            [found] = self._full.similarities(fine[scale].turned(turn), [others[i]])
            if found > best.similarity or not best.shot:
                best = Nearest(self.shots[others[i]].name, max(0.0, float(found)))
        return best

    def _search(self, image: np.ndarray, mask: np.ndarray, among: Sequence[int]) -> np.ndarray:
        """Rough similarities (ways, shots) by the small pictures."""
        patches = _patches(image, mask, self._sides[0])
        return np.stack([self._half.similarities(patches[scale].turned(turn), among) for scale, turn in _WAYS])


def _patches(image: np.ndarray, mask: np.ndarray, side: int) -> dict[float, "_Patch"]:
    """The defect's area at each scale of a picture of `side` pixels."""
    sizes = {scale: round(scale * side) for scale in _SCALES}
    return {scale: _Patch(resize_rgb(image, size), resize_mask(mask, size)) for scale, size in sizes.items()}


class _Patch:
    """A defect's area cut out of its picture: details (h, w), and weights 0 or 1 of what is compared."""

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        unit = mask.shape[0] / 128
        for reach in (1, 2, 3, 4, 6, _REACH):
            weights = ndimage.maximum_filter(mask, 2 * round(reach * unit) + 1)
            if weights.mean() >= _AREA:
                break
        rows, columns = np.flatnonzero(weights.any(1)), np.flatnonzero(weights.any(0))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        self._detail, self._weights = _details(image)[window], weights[window].astype(np.float32)

    def turned(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """One of eight: four quarter turns, each also mirrored."""
        detail, weights = (np.rot90(each, turn % 4) for each in (self._detail, self._weights))
        return (detail, weights) if turn < 4 else (detail[:, ::-1], weights[:, ::-1])


class _Originals:
    """Details of all shots, and what of them correlations need, in the frequency domain."""

    def __init__(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
        details = np.stack([_details(image) for image in images])
        self._shape = details.shape[1:]
        # Mirrored beyond its border: what is compared may reach a little over it.
        edge = [(0, 0), *[(self._shape[0] // 16,) * 2] * 2]
        details, marked = np.pad(details, edge, mode="reflect"), np.pad(np.stack(masks).astype(np.float32), edge)
        self._shape = details.shape[1:]
        layers = (details, details * details, marked)
        self._detail, self._square, self._mask = (np.asarray(fft.rfft2(each)) for each in layers)

    def similarities(self, patch: tuple[np.ndarray, np.ndarray], among: Sequence[int]) -> np.ndarray:
        """Highest correlation -1..1 of a patch's details with each shot's, over all shifts that meet the shot's defect."""
        detail, weights = patch
        total = float(weights.sum())
        centred = (detail - (detail * weights).sum() / total) * weights
        norm = float(np.square(centred).sum())
        if norm < _FLAT * total:
            return np.zeros(len(among))
        pattern, window = (np.conj(np.asarray(fft.rfft2(each, self._shape))) for each in (centred, weights))
        # Without wrapping round: only shifts that keep the patch inside.
        valid = (
            slice(None),
            *(slice(0, whole - part + 1) for whole, part in zip(self._shape, detail.shape, strict=True)),
        )
        shots = list(among)
        products = (
            self._detail[shots] * pattern,
            self._detail[shots] * window,
            self._square[shots] * window,
            self._mask[shots] * window,
        )
        product, mean, square, met = (np.asarray(fft.irfft2(each, self._shape))[valid] for each in products)
        power = square - mean * mean / total
        least = np.minimum(_MEETS * total, 0.9 * met.max(axis=(1, 2), keepdims=True))
        counts = (power > _FLAT * total) & (met >= least)
        return np.where(counts, product / np.sqrt(np.maximum(power, _FLAT * total) * norm), -1).max(axis=(1, 2))


def _details(rgb: np.ndarray) -> np.ndarray:
    """Lightness float32 (s, s) without slow shades and the finest noise."""
    light, unit = to_lab(rgb)[..., 0].astype(np.float32), rgb.shape[0] / 128
    return ndimage.gaussian_filter(light, 0.5 * unit) - ndimage.gaussian_filter(light, 8 * unit)
