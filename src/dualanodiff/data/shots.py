"""Shots: the few real defect pictures, with masks, that a run learns from."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dualanodiff.data.catalog import Sample, pick
from dualanodiff.errors import DataError
from dualanodiff.images import load_mask, load_rgb, resize_mask, resize_rgb


@dataclass(frozen=True, eq=False)
class Shot:
    """A defect picture uint8 (h, w, 3) and its mask bool (h, w) at one resolution, and the files they came from."""

    image: np.ndarray
    mask: np.ndarray
    name: str
    path: Path | None = None
    mask_path: Path | None = None


def find_shots(
    data: str | Path, *, defect: str | None, category: str | None = None, rule: str = "first-third", resolution: int
) -> list[Shot]:
    """The shots of one defect type, squashed to `resolution` x `resolution` pixels as the paper does.

    Raises DataError naming the first file that cannot be used.
    """
    found, name = pick(data, category, defect)
    samples = found.defects[name]
    if not samples:
        msg = f"{found.root / 'test' / name}: no pictures; put the pictures of this defect there"
        raise DataError(msg)
    return [_read_shot(sample, resolution, Path(data)) for sample in choose_samples(samples, rule)]


def choose_samples(samples: Sequence[Sample], rule: str = "first-third") -> tuple[Sample, ...]:
    """Samples to learn from, in the order of their file names.

    `rule` is "first-third" (the first floor(n/3), so that the rest is a clean test), "all", a number N
    (the first N), "pieces" (every picture of the first third of the parts photographed, where several show one), or a
    text file with one picture name a line, where # starts a comment.

    >>> pictures = [Sample(Path(f"{i}.png"), None, "hole") for i in range(8)]
    >>> [sample.image.stem for sample in choose_samples(pictures)]
    ['0', '1']
    """
    ordered = tuple(sorted(samples, key=lambda sample: sample.image.name))
    place = ordered[0].image.parent if ordered else "no pictures"
    if rule == "first-third":
        # AnomalyDiffusion's split: floor(n/3) train, the rest tests; the released scripts leak one picture.
        if len(ordered) < 3:
            msg = f"{place}: {len(ordered)} pictures, a third of which is no shot; use --shots all to learn from all"
            raise DataError(msg)
        return ordered[: len(ordered) // 3]
    if rule == "pieces":
        from dualanodiff.data.pieces import find_pieces  # noqa: PLC0415 - scipy takes its time, and few ask for this

        pieces = find_pieces(ordered)
        if len(set(pieces)) < 3:
            msg = f"{place}: {len(set(pieces))} parts are shown, a third of which is no shot; use --shots all to learn from all"
            raise DataError(msg)
        first = sorted(set(pieces))[: len(set(pieces)) // 3]
        return tuple(sample for sample, piece in zip(ordered, pieces, strict=True) if piece in first)
    if rule == "all":
        return ordered
    if rule.isdecimal():
        if not 1 <= int(rule) <= len(ordered):
            msg = f"{place}: --shots {rule}, but there are {len(ordered)} pictures; ask for 1 to {len(ordered)}"
            raise DataError(msg)
        return ordered[: int(rule)]
    return _listed_samples(ordered, Path(rule))


def part_target(rgb: np.ndarray, mask: np.ndarray, key: tuple[int, int, int]) -> np.ndarray:
    """The picture inside the mask and `key` outside, uint8 (h, w, 3).

    >>> part_target(np.full((1, 2, 3), 9, np.uint8), np.array([[True, False]]), (0, 255, 0)).tolist()
    [[[9, 9, 9], [0, 255, 0]]]
    """
    # Paper sec. 3.2: I_a = I * M, which is key (0, 0, 0); the released scripts' is (128, 128, 128).
    return np.where(mask[..., None], rgb, np.array(key, dtype=np.uint8))


def flips(shot: Shot, *, horizontal: bool, vertical: bool) -> list[Shot]:
    """The shot and its allowed mirror images, 1, 2 or 4 in all; picture and mask always turn together."""
    turns = [
        (slice(None, None, down), slice(None, None, across))
        for down in ((1, -1) if vertical else (1,))
        for across in ((1, -1) if horizontal else (1,))
    ]
    return [
        dataclasses.replace(
            shot, image=np.ascontiguousarray(shot.image[turn]), mask=np.ascontiguousarray(shot.mask[turn])
        )
        for turn in turns
    ]


def mask_fault(mask: np.ndarray, picture: tuple[int, ...] | None = None) -> tuple[str, str] | None:
    """Why a mask bool (h, w) cannot be learned from, as (kind, text), or None; `picture` is its picture's shape."""
    height, width = mask.shape
    if picture is not None and mask.shape != picture[:2]:
        turned = mask.shape == picture[1::-1]
        hint = "turn it by 90 degrees" if turned else "save it at the picture's size"
        return "mask-size", f"mask of {width} x {height} pixels on a picture of {picture[1]} x {picture[0]}; {hint}"
    if not mask.any():
        return "empty-mask", "empty mask, no pixel is marked; mark the defect or leave the picture out"
    if mask.all():
        return "full-mask", "full mask, every pixel is marked; mark the defect only (is the mask inverted?)"
    return None


def missing_mask(sample: Sample) -> str:
    """Text for a picture without a mask: which file must be there."""
    expected = sample.image.parents[2] / "ground_truth" / sample.defect / f"{sample.image.stem}_mask.png"
    return f"no mask; it must be {expected} (or {sample.image.stem}.png, or another picture suffix)"


def _read_shot(sample: Sample, resolution: int, data: Path) -> Shot:
    everything = f"`dualanodiff check {data}` lists every problem"
    if sample.mask is None:
        msg = f"{sample.image}: {missing_mask(sample)}; {everything}"
        raise DataError(msg)
    rgb, _ = load_rgb(sample.image)
    mask, _ = load_mask(sample.mask)
    fault = mask_fault(mask, rgb.shape)
    if fault:
        msg = f"{sample.mask}: {fault[1]}; {everything}"
        raise DataError(msg)
    return Shot(
        resize_rgb(rgb, resolution), resize_mask(mask, resolution), sample.image.stem, sample.image, sample.mask
    )


def _listed_samples(samples: tuple[Sample, ...], file: Path) -> tuple[Sample, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        msg = f"--shots {file}: not first-third, pieces, all or a number, and no such file"
        raise DataError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"--shots {file}: cannot be read as a list ({error}); write one picture name a line, in UTF-8"
        raise DataError(msg) from None
    by_name = {name: sample for sample in samples for name in (sample.image.stem, sample.image.name)}
    chosen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        if name and name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            msg = f"{file}: line {number}: no picture {name!r}{hint}"
            raise DataError(msg)
        if name:
            chosen.add(by_name[name].image.name)
    if not chosen:
        msg = f"{file}: names no picture; write one picture name a line"
        raise DataError(msg)
    return tuple(sample for sample in samples if sample.image.name in chosen)
