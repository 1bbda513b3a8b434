"""What a generated set is judged against: real shots, held-out defect pictures and good pictures of one product."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.cache import cache_folder, keep, read_kept
from dualanodiff.data.catalog import Sample, pick
from dualanodiff.data.shots import Shot, mask_fault, missing_mask
from dualanodiff.data.split import describe_set_aside, split_defect
from dualanodiff.errors import DataError
from dualanodiff.images import load_mask, load_rgb, read_rgb, resize_mask, resize_rgb
from dualanodiff.judge.aspects import ASPECTS, QUANTILE, REAL, Gauge, calibrate
from dualanodiff.judge.memorisation import Originals
from dualanodiff.masks.key import overlap
from dualanodiff.storage import sha256

METHOD = 7
"""Raised with every change of a score's meaning, so that scores kept with older pairs are made again."""
FEWEST_NORMALS = 4
_ON_OBJECT = 0.9
"""More than this is never asked for: outlines of objects and of masks are no better."""


@dataclass(frozen=True)
class Thresholds:
    """From where on a pair passes, one number an aspect; from where on it is a copy. Calibrated on the shots."""

    valid: float
    realistic: float
    aligned: float
    on_object: float
    copy: float
    quantile: float = QUANTILE


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures of one product and defect at `side` x `side` pixels, and what was measured on them, once."""

    category: str
    defect: str
    side: int
    shots: list[Shot]
    held_out: list[Shot]
    normals: list[np.ndarray]
    fingerprint: str
    """Of everything that scores depend on: the method, the side, shots, masks and good pictures by content."""
    note: str = ""
    """How many pictures are neither shots nor held out since they show a shot's own defect; "" for none."""

    @cached_property
    def gauge(self) -> Gauge:
        """Measures the four aspects."""
        return Gauge(self.normals, self.shots, self.originals.doubles)

    @cached_property
    def originals(self) -> Originals:
        """Finds the shot that a pair may be a copy of."""
        return Originals(self.shots)

    @cached_property
    def thresholds(self) -> Thresholds:
        """Each shot is judged as if it were none of them; controls that are no defects lie against good ones. Kept in the cache."""
        file = cache_folder("scores") / f"{self.fingerprint}-thresholds.json"
        kept = read_kept(file)
        if kept and kept.keys() == {field.name for field in fields(Thresholds)}:
            return Thresholds(**kept)
        found = self._calibrate()
        keep(file, asdict(found))
        return found

    def _calibrate(self) -> Thresholds:
        gauge = self.gauge
        found = [gauge.measure_shot(i) for i in range(len(self.shots))]
        unchanged = [gauge.valid(change, shot.mask) for shot in self.shots for change in gauge.good.spare]
        shuffled = [
            gauge.aligned(change, other.mask)
            for i, change in enumerate(gauge.changes)
            for j, other in enumerate(self.shots)
            if j not in self.originals.doubles[i] and overlap(self.shots[i].mask, other.mask) < 0.1
        ]
        controls = {"valid": unchanged, "aligned": shuffled}
        bounds = {name: calibrate([getattr(each, name) for each in found], controls.get(name, ())) for name in ASPECTS}
        bounds["realistic"] = REAL
        bounds["on_object"] = min(bounds["on_object"], _ON_OBJECT)
        return Thresholds(**bounds, copy=round(self.originals.threshold, 4))


def read_reference(
    data: str | Path,
    *,
    defect: str | None,
    category: str | None = None,
    side: int = 128,
    shots: str | Collection[str] = "first-third",
    most_normals: int = 40,
    fewest: int = 0,
) -> Reference:
    """The real pictures that sets of one defect type are judged against.

    `shots` is the rule that the set's own shots were chosen by, or their names; all other pictures of the defect are held out, but for
    those that show a shot's own defect. Good pictures are those of train/good, at most `most_normals` of them, evenly
    chosen. Raises DataError naming the file or folder at fault, and where fewer than `fewest` are held out.
    """
    found, name = pick(data, category, defect)
    if not found.defects[name]:
        msg = f"{found.root / 'test' / name}: no pictures; put the pictures of this defect there"
        raise DataError(msg)
    split = split_defect(found.defects[name], shots, fewest=fewest)
    good = found.good
    if len(good) < FEWEST_NORMALS:
        msg = f"{found.root / 'train' / 'good'}: {len(good)} good pictures, but a set is judged against {FEWEST_NORMALS} or more; put more there"
        raise DataError(msg)
    chosen = [
        good[i] for i in np.unique(np.linspace(0, len(good) - 1, min(most_normals, len(good))).round().astype(int))
    ]
    digest = hashlib.sha256(f"{METHOD} {side}".encode())
    for sample in split.shots:
        for path in (sample.image, sample.mask):
            digest.update(sha256(path).encode() if path else b"-")
    for path in chosen:
        digest.update(sha256(path).encode())
    return Reference(
        found.name,
        name,
        side,
        [_read_shot(sample, side) for sample in split.shots],
        [_read_shot(sample, side) for sample in split.held_out if sample.mask],
        [read_rgb(path, size=side) for path in chosen],
        digest.hexdigest()[:16],
        describe_set_aside(split),
    )


def reference_of_run(lineage: Mapping[str, Any], side: int) -> Reference:
    """The real pictures behind a run, by its lineage: its own shots, and the rest of their product's folder.

    Raises DataError where the run learned from nothing that is still there, or from another layout than a category's.
    """
    shots = [Path(file["path"]) for file in lineage.get("files", []) if file.get("role") == "shot"]
    if not shots or not all(path.is_file() for path in shots):
        place = shots[0].parent if shots else lineage.get("base", "this run")
        msg = f"{place}: the shots that the run learned from are not there; generate without --keep-best, then `dualanodiff filter SET --real DATA`"
        raise DataError(msg)
    category, defect = shots[0].parents[2], shots[0].parent.name
    return read_reference(category, defect=defect, side=side, shots={path.stem for path in shots})


def _read_shot(sample: Sample, side: int) -> Shot:
    if sample.mask is None:
        msg = f"{sample.image}: {missing_mask(sample)}"
        raise DataError(msg)
    (rgb, _), (mask, _) = load_rgb(sample.image), load_mask(sample.mask)
    fault = mask_fault(mask, rgb.shape)
    if fault:
        msg = f"{sample.mask}: {fault[1]}"
        raise DataError(msg)
    return Shot(resize_rgb(rgb, side), resize_mask(mask, side), sample.image.stem, sample.image, sample.mask)
