"""What is asked for: good pictures, places, sizes, strengths and kinds; read from words, checked, kept in the set."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.data.catalog import find_pictures, read_category
from dualanodiff.errors import DataError, DualAnoDiffError, SettingsError
from dualanodiff.images import read_mask, resize_mask
from dualanodiff.onto.places import Where
from dualanodiff.storage import sha256


@dataclass(frozen=True)
class Span:
    """A number asked for, or a span from which each defect draws its own."""

    low: float
    high: float

    @classmethod
    def read(cls, text: str, option: str) -> "Span":
        """From "40" or "40:200"; SettingsError naming the option.

        >>> Span.read("40:200", "--area")
        Span(low=40.0, high=200.0)
        """
        try:
            numbers = [float(word) for word in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or not 0 < numbers[0] <= numbers[-1] < float("inf"):
            msg = f"{option} {text}: write a number above 0, or a span such as 40:200"
            raise SettingsError(msg)
        return cls(numbers[0], numbers[-1])

    def draw(self, random: np.random.Generator) -> float:
        """A number of the span, evenly by its logarithm."""
        return float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True)
class Wishes:
    """What a set of defects on good parts shall be."""

    goods: tuple[Path, ...]
    where: Where = "shots"
    region: Path | None = None
    """A mask file: the defect lies in what it marks. Scaled to each good picture's size."""
    box: tuple[int, int, int, int] | None = None
    """x, y, width, height in the good picture's pixels."""
    area: Span | None = None
    """In the good picture's pixels, or mm2 with a scale."""
    contrast: Span | None = None
    """Mean change inside the mask, in Lab units."""
    scale: float | None = None
    """Millimetres a pixel."""
    mix: Mapping[Path, float] = field(default_factory=dict)
    """Further runs, and the share of the defects that each makes."""
    defects: int = 1
    """On one part."""

    @property
    def unit(self) -> float:
        """Area of a pixel in the unit that is asked and reported in."""
        return self.scale**2 if self.scale else 1.0

    def facts(self) -> dict[str, Any]:
        """What a set keeps of them, to refuse to be mixed with others."""
        return {
            "goods": len(self.goods),
            "folder": str(self.goods[0].parent),
            "where": self.where,
            "region": sha256(self.region) if self.region else "",
            "box": list(self.box or ()),
            "area": [self.area.low, self.area.high] if self.area else [],
            "contrast": [self.contrast.low, self.contrast.high] if self.contrast else [],
            "scale": self.scale or 0,
            "mix": list(self.mix.values()),
            "defects": self.defects,
        }

    def region_of(self, shape: tuple[int, ...], path: Path) -> np.ndarray | None:
        """Where a defect may lie on the good picture (h, w) of this file, bool (h, w); None where nothing was asked.

        Raises DataError for a box or region that holds nothing of it.
        """
        if self.box is None and self.region is None:
            return None
        allowed = np.ones(shape[:2], dtype=bool)
        if self.region is not None:
            allowed = resize_mask(read_mask(self.region), (shape[0], shape[1]))
        if self.box is not None:
            x, y, width, height = self.box
            inside = np.zeros_like(allowed)
            inside[y : y + height, x : x + width] = True
            allowed = allowed & inside
        if not allowed.any():
            what = "--box " + ",".join(map(str, self.box)) if self.box else f"--region {self.region}"
            msg = f"{path}: nothing of {what} lies in this picture of {shape[1]} x {shape[0]} pixels; give a place inside it"
            raise DataError(msg)
        return allowed


def read_wishes(
    goods: Sequence[Path],
    *,
    where: Where = "shots",
    region: Path | None = None,
    box: str | None = None,
    area: str | None = None,
    contrast: str | None = None,
    scale: float | None = None,
    mix: Sequence[str] = (),
    defects: int = 1,
) -> Wishes:
    """Wishes from the words of a command line; SettingsError naming the first that cannot be."""
    if scale is not None and not scale > 0:
        msg = f"--scale {scale:g}: must be the millimetres that a pixel measures, above 0"
        raise SettingsError(msg)
    return Wishes(
        tuple(goods),
        where,
        region,
        _read_box(box) if box else None,
        Span.read(area, "--area") if area else None,
        Span.read(contrast, "--contrast") if contrast else None,
        scale,
        _read_mix(mix),
        defects,
    )


def find_goods(onto: str, lineage: Mapping[str, Any]) -> tuple[Path, ...]:
    """Good pictures of a folder, or with "good" those of the product that the run has learned from.

    Raises DataError where there are none.
    """
    if onto != "good":
        found = find_pictures(Path(onto))
        if not found:
            msg = f"--onto {onto}: no pictures; give a folder of good pictures, or `good` for the product's own train/good"
            raise DataError(msg)
        return found
    root = _product_of(lineage) or Path()
    found = read_category(root.name, root).good if (root / "train").is_dir() else ()
    if not found:
        msg = f"--onto good: no good pictures in {root / 'train' / 'good'}, where this run's product was; give their folder"
        raise DataError(msg)
    return found


def has_goods(lineage: Mapping[str, Any]) -> bool:
    """Whether the product that a run of this lineage has learned from has good pictures, where they were.

    DataError where the product's folder is gone, so that nobody knows.
    """
    root = _product_of(lineage)
    if root is not None and not root.is_dir():
        msg = f"{root}: is gone, where this run's shots and good pictures were; put it back, or draw whole parts with --onto nothing"
        raise DataError(msg)
    try:
        return bool(find_goods("good", lineage))
    except DualAnoDiffError:
        return False


def _product_of(lineage: Mapping[str, Any]) -> Path | None:
    """The folder of the product whose shots a run of this lineage has learned from; None for shots that were no files."""
    shots = [Path(file["path"]) for file in lineage["files"] if file["role"] == "shot"]
    return shots[0].parents[2] if shots and len(shots[0].parents) > 2 else None


def begun_from_nothing(out: Path) -> bool:
    """Whether `out` is a set whose pairs were not put onto good pictures."""
    try:
        return "onto" not in json.loads((out / "set.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _read_box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        x = y = width = height = -1
    if min(x, y) < 0 or min(width, height) < 1:
        msg = f"--box {text}: write x,y,width,height as whole pixels of the good picture, such as 40,60,100,80"
        raise SettingsError(msg)
    return x, y, width, height


def _read_mix(words: Sequence[str]) -> dict[Path, float]:
    mix: dict[Path, float] = {}
    for word in words:
        run, _, share = word.rpartition("=")
        try:
            mix[Path(run)] = float(share)
        except ValueError:
            mix[Path(run)] = -1.0
        if not run or not 0 < mix[Path(run)] <= 1:
            msg = f"--mix {word}: write RUN=SHARE with a share between 0 and 1, such as runs/dent=0.3"
            raise SettingsError(msg)
    if sum(mix.values()) > 1 + 1e-9:
        msg = f"--mix: the shares add up to {sum(mix.values()):g}; they must leave 0 or more of 1 to the first run"
        raise SettingsError(msg)
    return mix
