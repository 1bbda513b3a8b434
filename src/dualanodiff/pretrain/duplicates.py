"""Proof that no picture of an evaluation set is among the pictures that a base was trained on.

A perceptual hash says which coarse waves (cosine transform of 16 x 16 coefficients) of a picture are above their
median. It hardly changes with size, compression, brightness or contrast, so two copies of a picture differ in a few
bits of 256 and two different pictures in about half of them. Mirror images, quarter turns and large crops are tried too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from dualanodiff.data.catalog import find_pictures
from dualanodiff.errors import DataError
from dualanodiff.images import SUFFIXES, read_rgb
from dualanodiff.pretrain.pictures import load_pack
from dualanodiff.progress import progress

_WAVES, _SMALL = 16, 64
SAME = 64
"""Bits of 256 in which two copies of one picture may differ: the most seen after shrinking and strong compression."""
ALIKE = 0.975
"""Correlation of two 32 x 32 grey thumbnails from which on a picture is suspected, as smooth pictures share their coarse
waves. Copies reached 0.986 and more.
"""
DETAIL = 0.8
"""The same correlation of what a Gaussian of 1.5 px leaves out: copies reached 0.88 and more (docs/base.md)."""
_CROPS = ((0.0, 0.0, 1.0), (0.125, 0.125, 0.75), *((x, y, 0.5) for x in (0.0, 0.5) for y in (0.0, 0.5)))
"""Left, top and side, in shares of the picture, of what is looked for of each evaluation picture."""

Named = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Duplicate:
    """A picture that seems to be on both sides."""

    trained: str
    evaluated: str
    bits: int
    correlation: float
    detail: float


def picture_hash(rgb: np.ndarray) -> np.ndarray:
    """256 bits, bool, of a picture uint8 (h, w, 3).

    >>> rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    >>> int((picture_hash(rgb) != picture_hash(rgb // 2 + 60)).sum()) < 20
    True
    """
    waves = np.asarray(dctn(_grey(rgb, _SMALL), norm="ortho"))[:_WAVES, :_WAVES].ravel()
    waves[0] = 0  # the mean brightness says nothing of what is shown
    return waves > np.median(waves)


def find_duplicates(trained: Iterable[Named], evaluated: Iterable[Named]) -> list[Duplicate]:
    """The pictures of `trained` that are copies of one in `evaluated`, or of a large crop of one; each with the likest."""
    goals = [(name, turned) for name, rgb in evaluated for turned in _views(rgb)]
    if not goals:
        return []
    hashes = np.packbits([picture_hash(rgb) for _, rgb in goals], axis=1)
    thumbnails = np.stack([_thumbnail(rgb) for _, rgb in goals])
    found: list[Duplicate] = []
    for name, rgb in trained:
        bits = np.bitwise_count(hashes ^ np.packbits(picture_hash(rgb))).sum(axis=1, dtype=int)
        near = np.flatnonzero(bits <= SAME)
        coarse, fine = np.einsum("nkp,kp->kn", thumbnails[near], _thumbnail(rgb))
        both = np.flatnonzero((coarse >= ALIKE) & (fine >= DETAIL))
        if len(both):
            best = both[fine[both].argmax()]
            name_, bits_ = goals[near[best]][0], int(bits[near[best]])
            found.append(Duplicate(name, name_, bits_, round(float(coarse[best]), 4), round(float(fine[best]), 4)))
    return found


def prove_apart(corpus: Path, evaluation: Sequence[Path]) -> dict[str, Any]:
    """Compare a pack or a folder of pictures with every picture of evaluation folders; masks (ground_truth) stay out.

    Returns trained, evaluated (counts) and duplicates. Raises DataError where a side has no pictures.
    """
    sides = [list(_pictures(corpus)), [named for folder in evaluation for named in _pictures(folder)]]
    with progress("compare", len(sides[0])) as bar:

        def counted() -> Iterator[Named]:
            for named in sides[0]:
                yield named
                bar.step()

        found = find_duplicates(counted(), sides[1])
    return {
        "trained": len(sides[0]),
        "evaluated": len(sides[1]),
        "duplicates": [vars(duplicate) for duplicate in found],
    }


def _pictures(place: Path) -> Iterator[Named]:
    """Name and pixels of every picture of a pack or below a folder, no larger than they need be."""
    if place.is_file():
        pack = load_pack(place)
        yield from ((f"{place.name} #{i} ({pack.captions[i]})", pack.pixels[i]) for i in range(len(pack)))
        return
    folders = [place, *sorted(path for path in place.rglob("*") if path.is_dir() and "ground_truth" not in path.parts)]
    paths = [path for folder in folders for path in find_pictures(folder)]
    if not paths:
        msg = f"{place}: no pictures ({', '.join(SUFFIXES)}) below it; give a pack, or a folder that has some"
        raise DataError(msg)
    yield from ((str(path.relative_to(place)), read_rgb(path, size=2 * _SMALL)) for path in paths)


def _views(rgb: np.ndarray) -> Iterator[np.ndarray]:
    """The picture and large crops of it, each in its eight mirror images and quarter turns."""
    height, width = rgb.shape[:2]
    for left, top, side in _CROPS:
        rows, columns = round(top * height), round(left * width)
        crop = rgb[rows : rows + round(side * height), columns : columns + round(side * width)]
        for turns in range(4):
            turned = np.rot90(crop, turns)
            yield turned
            yield turned[:, ::-1]


def _grey(rgb: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(rgb)).convert("L")
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float32)


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    """A thumbnail and its fine detail (2, 1024), of mean 0 and length 1: a product of two is their correlation."""
    grey = _grey(rgb, 32)
    values = np.stack([grey, grey - gaussian_filter(grey, 1.5)]).reshape(2, -1)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
