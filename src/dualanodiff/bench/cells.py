"""Cells of a comparison of generators: one method, one data set, one seed; made, judged, and put to an inspector's test.

DIR/ cells.jsonl    a line a finished cell, known by everything that it depends on
     lift.jsonl     the inspectors' own cells (lift/arms.py), shared by methods where they are the same
     runs/ sets/ maps/      what was made on the way, resumable by itself
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualanodiff.bench.methods import Making, Method, make_source
from dualanodiff.data.catalog import Category, category_folders, choose_name, find_pictures, read_category
from dualanodiff.errors import DualAnoDiffError, SettingsError
from dualanodiff.judge.distribution import fid, inception_score, kid
from dualanodiff.judge.diversity import cluster_diversity
from dualanodiff.judge.networks import Distance, Network, find_distance, find_network
from dualanodiff.judge.reference import Reference, read_reference
from dualanodiff.judge.scoring import judge_source
from dualanodiff.judge.source import Source
from dualanodiff.lift.arms import read_arm, run_cell, run_types_cell
from dualanodiff.lift.task import Task, open_task
from dualanodiff.lift.training import Plan
from dualanodiff.storage import append_jsonl, read_jsonl

METHOD = 2
"""Raised with every change of what a cell's numbers mean, so that old cells are made again."""
ARMS = ("generated", "real+generated")


@dataclass(frozen=True)
class Place:
    """One data set of a comparison: a category and the defect types of it that count."""

    data: Path
    category: Category
    defects: tuple[str, ...]

    @property
    def name(self) -> str:
        """The category's name."""
        return self.category.name

    def fingerprint(self) -> str:
        """Of the names and sizes of every picture and mask."""
        folders = [self.category.root / "train" / "good", self.category.root / "test" / "good"]
        for kind in ("test", "ground_truth"):
            folders += [self.category.root / kind / defect for defect in self.defects]
        files = [(path.name, path.stat().st_size) for folder in folders for path in find_pictures(folder)]
        return hashlib.sha256(json.dumps([self.defects, files]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Protocol:
    """How every cell is judged."""

    plan: Plan
    arms: tuple[str, ...] = ARMS
    network: str = "auto"
    weights: Path | None = None
    unproved: bool = False
    classify: bool = True
    """Also train the ResNet-18, where a data set has two defect types and more."""
    same_fit: bool = False
    """One fit, of the first seed, for all seeds."""

    def __post_init__(self) -> None:
        for arm in self.arms:
            read_arm(arm)
        if not self.arms:
            msg = f"--arms: names none; inspectors learn from {', '.join(ARMS)}"
            raise SettingsError(msg)

    def facts(self) -> dict[str, Any]:
        """What every cell depends on."""
        return {
            "plan": self.plan.facts(),
            "arms": list(self.arms),
            "network": self.network,
            "unproved": self.unproved,
            "classify": self.classify,
            "same_fit": self.same_fit,
        }


@dataclass
class Contest:
    """A comparison under way; what is needed by many cells is read once."""

    out: Path
    protocol: Protocol
    seeds: Sequence[int]
    making: Callable[[Place], Making]
    failed: list[dict[str, str]] = field(default_factory=list)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _references: dict[tuple[str, str], Reference] = field(default_factory=dict)
    _networks: tuple[Network, Distance] | None = None

    def run(self, methods: Sequence[Method], places: Sequence[Place]) -> list[dict[str, Any]]:
        """The row of every cell that could be made, in the order of places, methods and seeds.

        A cell that fails is named in `failed`, and tried again by the next call; the others go on.
        """
        known = {row["key"]: row for row in read_jsonl(self.out / "cells.jsonl") if "key" in row}
        rows: list[dict[str, Any]] = []
        for place in places:
            for method in methods:
                for seed in self.seeds:
                    try:
                        key = self._key(method, place, seed)
                        if key not in known:
                            made = {"key": key, **self._cell(method, place, seed)}
                            append_jsonl(self.out / "cells.jsonl", made)
                            known[key] = made
                    except DualAnoDiffError as error:
                        where = {"method": method.name, "data": place.name, "seed": str(seed)}
                        self.failed.append({**where, "error": str(error)})
                        continue
                    rows.append(known[key])
            self._tasks.clear()
            self._references.clear()
        return rows

    def _key(self, method: Method, place: Place, seed: int) -> str:
        making = self.making(place)
        facts = {
            "format": METHOD,
            **method.facts(),
            **self.protocol.facts(),
            **making.facts(method),
            "data": place.name,
            "content": place.fingerprint(),
            "seed": seed,
            "fit_seed": self._fit_seed(seed),
            "folder_content": _content(method.folder) if method.folder else "",
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]

    def _fit_seed(self, seed: int) -> int:
        return self.seeds[0] if self.protocol.same_fit else seed

    def _cell(self, method: Method, place: Place, seed: int) -> dict[str, Any]:
        began = time.monotonic()
        making = self.making(place)
        # Before anything is made: it says whether there is enough to test on.
        task = self._task(place, making)
        sources: dict[str, Source] = {}
        if not method.arm:
            fit_seed = self._fit_seed(seed)
            sources = {defect: make_source(method, making, defect, seed, fit_seed) for defect in place.defects}
        made = time.monotonic()
        found = {defect: self._judge(place, making, defect, source) for defect, source in sources.items()}
        judged = time.monotonic()
        lift = self._lift(task, method.arm, seed, sources)
        return {
            "method": method.name,
            "about": method.about,
            "data": place.name,
            "defects": list(place.defects),
            "seed": seed,
            "count": {defect: len(source.pairs) for defect, source in sources.items()},
            "sets": {defect: str(source.folder) for defect, source in sources.items()},
            "judged": found,
            "lift": lift,
            "notes": task.notes,
            "seconds": {
                "make": round(made - began, 1),
                "judge": round(judged - made, 1),
                "lift": round(time.monotonic() - judged, 1),
            },
        }

    def _judge(self, place: Place, making: Making, defect: str, source: Source) -> dict[str, Any]:
        """Distances of distributions, diversity, and the shares of pairs that pass each aspect."""
        name = (place.name, defect)
        side = self.protocol.plan.side
        if name not in self._references:
            self._references[name] = read_reference(
                place.data, defect=defect, category=place.name, side=side, shots=making.shots
            )
        reference = self._references[name]
        scores = judge_source(source, reference)
        shares = {key: float(np.mean([each.passed[key] for each in scores])) for key in scores[0].passed}
        copies = 1 - shares.pop("copy")
        if self._networks is None:
            network = find_network(self.protocol.network, self.protocol.weights)
            self._networks = network, find_distance(weights=self.protocol.weights)
        return {
            **measure_quality(source.images(side), reference, *self._networks),
            **shares,
            "good": float(np.mean([each.good for each in scores])),
            "copies": copies,
        }

    def _task(self, place: Place, making: Making) -> Task:
        if place.name not in self._tasks:
            self._tasks[place.name] = open_task(
                place.data, place.name, place.defects, side=self.protocol.plan.side, shots=making.shots
            )
        return self._tasks[place.name]

    def _lift(self, task: Task, arm: str, seed: int, sources: Mapping[str, Source]) -> dict[str, dict[str, Any]]:
        """Scores of the inspectors by arm."""
        protocol, cells = self.protocol, self.out / "lift.jsonl"
        found: dict[str, dict[str, Any]] = {}
        for name in (arm,) if arm else protocol.arms:
            cell = run_cell(task, name, seed, protocol.plan, sources, cells=cells, allow_unproved=protocol.unproved)
            # real+N has learned from one half of what is held back, and is tested on the other.
            part, by_defect = ("all", "by_defect") if cell["all"] else ("far", "far_by_defect")
            found[name] = {"proved": cell["proved"], "tested_on": part, **cell[part], "by_defect": cell[by_defect]}
            found[name]["far"] = cell["far"]
            if protocol.classify and len(task.defects) > 1 and name != "none":
                types = run_types_cell(
                    task, name, seed, protocol.plan, sources, cells=cells, allow_unproved=protocol.unproved
                )
                found[name]["accuracy"] = types[part]["accuracy"]
        return found


def measure_quality(
    images: Sequence[np.ndarray], reference: Reference, network: Network, distance: Distance
) -> dict[str, Any]:
    """KID x 1000, FID and IS by the feature network, IC-LPIPS by the distance network, with both names.

    Distances are to the held-out real pictures; null where there are too few, and IS where the network is no classifier.
    """
    real = [shot.image for shot in reference.held_out]
    enough = min(len(real), len(images)) > 1
    features = network.features(images)
    held = network.features(real) if enough else None
    classes = network.probabilities(images) if len(images) > 1 else None
    shots = torch.cat(list(distance.embeddings([shot.image for shot in reference.shots])))
    return {
        "network": network.name,
        "distance": distance.name,
        "standard": network.standard and distance.standard,
        "kid": None if held is None else _number(kid(held, features)[0]),
        "fid": None if held is None else _number(fid(held, features)),
        "is": None if classes is None else _number(inception_score(classes)[0]),
        "ic_lpips": _number(cluster_diversity(distance.embeddings(images), shots).value),
    }


def read_places(words: Sequence[str]) -> list[Place]:
    """Data sets from DATA[:CATEGORY[:DEFECT]]; a DATA of several categories stands for all of them.

    Raises DataError for what is not there, SettingsError for two data sets of one name.
    """
    found: list[Place] = []
    for word in words:
        data, category, defect = _split(word)
        folders = category_folders(data)
        names = [choose_name(category, folders, "category", data)] if category else list(folders)
        for name in names:
            product = read_category(name, folders[name])
            kinds = [choose_name(defect, product.defects, "defect", product.root / "test")] if defect else None
            found.append(Place(data, product, tuple(kinds or product.defects)))
    names = [place.name for place in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        msg = f"--data: two data sets are called {twice}; name each once, with all its defect types, or rename a folder"
        raise SettingsError(msg)
    return found


def read_seeds(text: str) -> list[int]:
    """Seeds from "0,1,2"; SettingsError for anything else.

    >>> read_seeds("0,1,2")
    [0, 1, 2]
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        msg = f"--seeds {text}: write different whole numbers with commas, such as 0,1,2"
        raise SettingsError(msg)
    return [int(word) for word in words]


def _split(word: str) -> tuple[Path, str | None, str | None]:
    """Colons may belong to the path itself, as a drive's does."""
    parts = word.split(":")
    for size in range(len(parts), 0, -1):
        data = Path(":".join(parts[:size]))
        rest = parts[size:]
        if len(rest) <= 2 and data.is_dir():
            return data, (rest[0] or None) if rest else None, (rest[1] or None) if len(rest) > 1 else None
    return Path(word), None, None


def _content(folder: Path) -> str:
    """Of the names, sizes and times of all files below a folder."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("scores.jsonl", "manifest.jsonl")
    )
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def _number(value: float) -> float | None:
    """A number that JSON knows."""
    return round(float(value), 5) if np.isfinite(value) else None
