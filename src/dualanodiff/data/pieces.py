"""Which pictures show one and the same defect: a part photographed again, in other light, moved or turned.

find_pieces(samples)     a number a sample; samples of one number show the same defect

Two pictures are laid over each other by their surroundings, outside both masks, in eight turns and at every shift. Where
these fit, the details of the defects themselves are compared there. Both must agree: all bottles have the same surroundings,
and straight edges are alike on all circuits.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import fft, ndimage

from dualanodiff.cache import cache_folder, keep, read_kept
from dualanodiff.data.catalog import Sample
from dualanodiff.data.keycolor import to_lab
from dualanodiff.errors import DataError
from dualanodiff.images import load_mask, load_rgb, resize_mask, resize_rgb
from dualanodiff.storage import sha256

METHOD = 1
"""Raised with every change of what is found, so that it is not taken from the cache."""
SURROUNDINGS, DEFECT = 0.6, 0.82
"""Correlations from which two pictures show one defect. Unlike ones on real sets reached 0.99 and 0.81, never both of these."""
_COARSE, _FINE = 48, 128
"""Longest side in pixels, of the median picture, where surroundings are laid over each other, and where defects are compared."""
_OVERLAP = 0.6
_MEETS = 0.3
"""Share of the smaller mask that must lie on the other one."""
_FLAT = 0.05
"""Variance, in squares of Lab units, of an area that shows nothing to compare."""
_PLAUSIBLE = 0.6
"""Of the correlation asked for, what a quick one must reach that knows nothing of overlaps."""
_REACH, _ROUGH = 4, 0.3
"""How far in pixels defects are looked for around where the surroundings fit, and how much lower a rough try may be."""
_LARGE = 1500
"""Pixels of an area from which a rough try looks at a quarter of them."""


def find_pieces(samples: Sequence[Sample]) -> tuple[int, ...]:
    """For each sample the index of the first one that shows the same defect: its own where none before it does.

    What is alike through a third picture counts as the same. A sample without a mask is like none. Found once for files
    that stay: kept in the cache by their contents. Raises DataError for a picture or mask that cannot be read.
    """
    return _find(tuple(samples), tuple(_stamp(sample) for sample in samples))


@dataclass(frozen=True)
class _View:
    """One picture: coarse details, zero on the defect, and where they count; fine details and masks."""

    coarse: np.ndarray
    counts: np.ndarray
    fine: np.ndarray
    mask: np.ndarray
    near: np.ndarray

    def turned(self, turn: int) -> "_View":
        """One of eight: four quarter turns, each also mirrored."""
        layers = (np.rot90(layer, turn % 4) for layer in vars(self).values())
        return _View(*(layer if turn < 4 else layer[:, ::-1] for layer in layers))


@lru_cache(maxsize=64)
def _find(samples: tuple[Sample, ...], stamps: tuple[object, ...]) -> tuple[int, ...]:  # noqa: ARG001
    pieces = list(range(len(samples)))
    masked = [i for i, sample in enumerate(samples) if sample.mask is not None]
    if len(masked) < 2:
        return tuple(pieces)
    file = cache_folder("pieces") / f"{_digest(samples)}.json"
    kept = read_kept(file)
    if kept and len(kept.get("pieces", ())) == len(samples):
        return tuple(kept["pieces"])
    album = _Album(_read([samples[i] for i in masked]))
    for turn in range(8):
        # What is known to be one piece is turned once only.
        heads = [k for k, i in enumerate(masked) if turn == 0 or pieces[i] == i]
        for place, k in enumerate(heads):
            others = [other for other in heads[place + 1 :] if pieces[masked[other]] != pieces[masked[k]]]
            for other in album.alike(k, others, turn):
                first, last = sorted((pieces[masked[k]], pieces[masked[other]]))
                pieces = [first if piece == last else piece for piece in pieces]
    keep(file, {"pieces": pieces})
    return tuple(pieces)


def _digest(samples: Sequence[Sample]) -> str:
    """Of the method and of all pictures and masks, in their order."""
    content = hashlib.sha256(f"{METHOD} {SURROUNDINGS} {DEFECT}".encode())
    for path in (path for sample in samples for path in (sample.image, sample.mask)):
        content.update(sha256(path).encode() if path and path.is_file() else b"-")
    return content.hexdigest()[:24]


class _Album:
    """All pictures of a type, and what of them correlations need, in the frequency domain."""

    def __init__(self, views: list[_View]) -> None:
        self._views = views
        longest = max(max(view.coarse.shape) for view in views)
        self._side = fft.next_fast_len(int((2 - _OVERLAP) * longest) + 2, real=True)
        layers = [(view.coarse, view.coarse**2, view.counts) for view in views]
        self._detail, self._power, self._counts = (self._spectra(kind) for kind in zip(*layers, strict=True))
        self._norms = np.array([max(float(np.linalg.norm(view.coarse)), 1e-6) for view in views])
        self._sizes = np.array([view.counts.sum() for view in views])

    def alike(self, one: int, others: Sequence[int], turn: int) -> list[int]:
        """Those of `others` that show the defect of `one`, which is turned."""
        view = self._views[one].turned(turn)
        detail, power, counts = (
            np.conj(self._spectra([layer]))[0] for layer in (view.coarse, view.coarse**2, view.counts)
        )
        rest = np.array(others, dtype=int)
        quick = self._back(self._detail[rest] * detail).max((1, 2), initial=0) / (self._norms[rest] * self._norms[one])
        rest = rest[quick >= _PLAUSIBLE * SURROUNDINGS]
        if not len(rest):
            return []
        product, own, other, shared = (
            self._back(each)
            for each in (
                self._detail[rest] * detail,
                self._counts[rest] * power,
                self._power[rest] * counts,
                self._counts[rest] * counts,
            )
        )
        enough = _OVERLAP * np.minimum(self._sizes[rest], self._sizes[one])[:, None, None]
        valid = (shared >= enough) & (own > _FLAT * shared) & (other > _FLAT * shared)
        fit = np.where(valid, product / np.sqrt(np.maximum(own * other, 1e-6)), -1).reshape(len(rest), -1)
        found = []
        for number, place, value in zip(rest, fit.argmax(1), fit.max(1), strict=True):
            shape = self._views[number].coarse.shape
            shift = [at - self._side * (at >= size) for at, size in zip(divmod(place, self._side), shape, strict=True)]
            if value >= SURROUNDINGS and _likeness(view, self._views[number], shift) >= DEFECT:
                found.append(int(number))
        return found

    def _spectra(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        spectra = [fft.rfft2(layer.astype(np.float32), (self._side, self._side)) for layer in layers]
        return np.asarray(spectra, dtype=np.complex64)

    def _back(self, spectra: np.ndarray) -> np.ndarray:
        return np.asarray(fft.irfft2(spectra, (self._side, self._side)))


def _likeness(one: _View, other: _View, shift: Sequence[int]) -> float:
    """Highest correlation -1..1 of the defects' details near a coarse shift; -1 where the masks do not meet."""
    down, across = (round(at * _FINE / _COARSE) for at in shift)
    step = 2 if min(one.near.sum(), other.near.sum()) > _LARGE else 1
    tried: dict[tuple[int, int], float] = {}
    for reach in (2, _REACH):
        grid = range(-reach, reach + 1, 2)
        places = [(down + y, across + x) for y in grid for x in grid]
        tried |= {place: _correlation(one, other, place, step) for place in places if place not in tried}
        if max(tried.values()) < DEFECT - 2 * _ROUGH:
            break
    (down, across), best = max(tried.items(), key=lambda item: item[1])
    if best < DEFECT - _ROUGH:
        return best
    return max(_correlation(one, other, (down + y, across + x)) for y in (-1, 0, 1) for x in (-1, 0, 1))


def _correlation(one: _View, other: _View, shift: tuple[int, int], step: int = 1) -> float:
    """Correlation of fine details on both defects and 4 pixels around, with `one` moved by `shift`; of every `step`th pixel."""
    rows, columns = (
        slice(max(0, -by), max(0, min(size, limit - by)), step)
        for by, size, limit in zip(shift, one.mask.shape, other.mask.shape, strict=True)
    )
    here = rows, columns
    there = tuple(slice(part.start + by, part.stop + by, step) for part, by in zip(here, shift, strict=True))
    met = (one.mask[here] & other.mask[there]).sum() * step**2
    if met < max(1, _MEETS * min(one.mask.sum(), other.mask.sum())):
        return -1.0
    area = one.near[here] | other.near[there]
    a, b = one.fine[here][area], other.fine[there][area]
    a, b = a - a.mean(), b - b.mean()
    if min(a.var(), b.var()) < _FLAT:
        return -1.0
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _read(samples: Sequence[Sample]) -> list[_View]:
    """All pictures at one scale, their own sizes kept: a crop of the same part may be a little larger."""
    pictures = []
    for sample in samples:
        (rgb, _), (mask, _) = load_rgb(sample.image), load_mask(sample.mask or sample.image)
        if mask.shape != rgb.shape[:2]:
            msg = f"{sample.mask}: {mask.shape[1]} x {mask.shape[0]} pixels and its picture {rgb.shape[1]} x {rgb.shape[0]}; make them the same size"
            raise DataError(msg)
        pictures.append((rgb, mask))
    middle = float(np.median([max(mask.shape) for _, mask in pictures]))
    return [_view(rgb, mask, middle) for rgb, mask in pictures]


def _view(rgb: np.ndarray, mask: np.ndarray, middle: float) -> _View:
    light, covered = _resized(rgb, mask, _COARSE / middle)
    outside = np.logical_not(ndimage.maximum_filter(covered, 3))
    if outside.mean() < 0.1:
        outside[:] = True
    # The defect must not shine through in what is compared without it.
    fine, small = _resized(rgb, mask, _FINE / middle)
    coarse = (_blurred(light, outside, 0.5) - _blurred(light, outside, 3)) * outside
    near = ndimage.maximum_filter(small, 9)
    return _View(coarse, outside, ndimage.gaussian_filter(fine, 0.7) - ndimage.gaussian_filter(fine, 4), small, near)


def _resized(rgb: np.ndarray, mask: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Lightness float32 and mask."""
    height, width = (max(4, round(length * scale)) for length in mask.shape)
    return to_lab(resize_rgb(rgb, (height, width)))[..., 0].astype(np.float32), resize_mask(mask, (height, width))


def _blurred(light: np.ndarray, counts: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian mean over the pixels that count."""
    weight = ndimage.gaussian_filter(counts.astype(np.float32), width)
    return ndimage.gaussian_filter(light * counts, width) / np.maximum(weight, 1e-3)


def _stamp(sample: Sample) -> tuple[object, ...]:
    return tuple(_times(path) for path in (sample.image, sample.mask))


def _times(path: Path | None) -> tuple[int, int] | None:
    if path is None or not path.is_file():
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
