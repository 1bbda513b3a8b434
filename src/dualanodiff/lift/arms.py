"""Arms of the comparison and its cells: one inspector, trained on one arm's pictures with one seed, tested once.

    task = open_task(data, "magnetic_tile", ["blowhole"], side=plan.side)      # lift.task: real pictures, read once
    plan = read_plan("cpu")                                                    # lift.training; or read_plan("paper")
    cell = run_cell(task, "real+generated", seed=0, plan=plan, sources={"blowhole": source}, cells=out / "cells.jsonl")
    cell["all"]["pixel_ap"], cell["by_defect"]["blowhole"]["pro"], cell["far"]["pixel_ap"]

Arms: "none", "real", "generated", "real+generated", and "real+N" with N more real pictures of each type. A cell is known by
what it is made from: plan, seed, and the content of every picture that it learns from or is tested on. So one cells.jsonl
may serve many sources and commands: what stands there is not computed again, and "real" is trained once for all sources.
`run_types_cell` has the same face and trains the ResNet-18 (`cell["all"]["accuracy"]`).
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.errors import DataError, SettingsError
from dualanodiff.judge.source import Source
from dualanodiff.lift.inspectors import UNet
from dualanodiff.lift.normality import normality_maps
from dualanodiff.lift.pixel_scores import inspector_scores
from dualanodiff.lift.sheet import write_sheet
from dualanodiff.lift.task import GOOD, Task, Tests
from dualanodiff.lift.training import Plan, Pool, predict_maps, predict_types, train_resnet, train_unet
from dualanodiff.progress import progress
from dualanodiff.storage import append_jsonl, read_jsonl, sha256

METHOD = 1
"""Raised with every change of what a cell's numbers mean, so that old cells are computed again."""


@dataclass(frozen=True)
class Arm:
    """Which defect pictures an inspector learns from."""

    name: str
    real: bool
    generated: bool
    more: int = 0

    @property
    def trained(self) -> bool:
        """Whether there is anything to learn from; else the distance to normal patches is the inspector."""
        return self.real or self.generated


ARMS = {
    "none": Arm("none", real=False, generated=False),
    "real": Arm("real", real=True, generated=False),
    "generated": Arm("generated", real=False, generated=True),
    "real+generated": Arm("real+generated", real=True, generated=True),
}


def read_arm(name: str) -> Arm:
    """The arm of this name; SettingsError with the names there are."""
    if name in ARMS:
        return ARMS[name]
    count = name.removeprefix("real+")
    if count != name and count.isdecimal() and int(count) > 0:
        return Arm(f"real+{int(count)}", real=True, generated=False, more=int(count))
    msg = f"no arm {name!r}; there are: {', '.join(ARMS)}, and real+N with N more real pictures of each type"
    raise SettingsError(msg)


def run_cell(
    task: Task,
    arm: str | Arm,
    seed: int,
    plan: Plan,
    sources: Mapping[str, Source] | None = None,
    *,
    cells: Path | None = None,
    allow_unproved: bool = False,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """The U-Net (or, without defects to learn from, the distance to normal patches) of one arm and seed, tested.

    `sources` has a source for each defect type of the task, where the arm needs them. Gives `key`, `inspector`, `arm`,
    `seed`, `proved`, `trained_on` (counts), `seconds`, and metrics 0..1: `all` (null for real+N, which has learned from a part
    of the test), `by_defect`, `far` and `far_by_defect` on the far half of the held-back pictures; `as_paper`, with
    `plan.looks`, the best of the looks at the test set. `sheet` gets a PNG of some test pictures and maps. Raises DataError for test pictures among those
    learned from, and for sources that are missing or unproved.
    """
    return _Cell(task, arm, seed, plan, sources or {}, allow_unproved).kept(
        "unet", cells, lambda cell: cell.unet(sheet)
    )


def run_types_cell(
    task: Task,
    arm: str | Arm,
    seed: int,
    plan: Plan,
    sources: Mapping[str, Source] | None = None,
    *,
    cells: Path | None = None,
    allow_unproved: bool = False,
) -> dict[str, Any]:
    """The ResNet-18 of one arm and seed, which tells the task's defect types apart; as `run_cell`.

    `all`, `far` and `by_defect` hold `accuracy` on held-back defect pictures. Raises SettingsError for fewer than two types.
    """
    if len(task.defects) < 2:
        msg = f"{task.category}: telling types apart needs two or more of them, and there is {', '.join(task.defects)} only"
        raise SettingsError(msg)
    return _Cell(task, arm, seed, plan, sources or {}, allow_unproved).kept("resnet", cells, lambda cell: cell.resnet())


class _Cell:
    """What one cell learns from, checked."""

    def __init__(
        self, task: Task, arm: str | Arm, seed: int, plan: Plan, sources: Mapping[str, Source], allow_unproved: bool
    ) -> None:
        self.task, self.seed, self.plan = task, seed, plan
        self.arm = read_arm(arm) if isinstance(arm, str) else arm
        self.sources = {name: sources[name] for name in task.defects if name in sources} if self.arm.generated else {}
        if task.side != plan.side:
            msg = f"the task has pictures of {task.side} pixels and the plan {plan.side}; open the task with side={plan.side}"
            raise SettingsError(msg)
        missing = [name for name in task.defects if self.arm.generated and name not in self.sources]
        if missing:
            msg = f"{task.category}: no set for {missing[0]}; give one, or leave the type out with --defect"
            raise DataError(msg)
        if self.arm.more > task.most_more:
            msg = f"{task.root}: {self.arm.name} needs {self.arm.more} more pictures of each type, but there are {task.most_more} to spare; ask for fewer"
            raise DataError(msg)
        # All of them first: a proof that fails must not hide behind a source without one.
        proofs = [task.prove(source, allow_unproved=allow_unproved) for source in self.sources.values()]
        self.proved = all(proofs)

    def kept(self, inspector: str, cells: Path | None, compute: Callable[["_Cell"], dict[str, Any]]) -> dict[str, Any]:
        """The cell as it stands in the file, or computed and put there."""
        facts = self._facts(inspector)
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        # Not in the key: pictures that moved, or were proved later, are the same pictures.
        origin = {"sources": {name: str(source.folder) for name, source in self.sources.items()}, "proved": self.proved}
        for row in read_jsonl(cells) if cells else ():
            if row.get("key") == key:
                return {**row, **origin}
        began = time.monotonic()
        found = compute(self)
        row = {
            "key": key,
            "inspector": inspector,
            "category": self.task.category,
            "arm": self.arm.name,
            "seed": self.seed,
            **origin,
            "seconds": round(time.monotonic() - began, 1),
            **found,
        }
        if cells:
            append_jsonl(cells, row)
        return row

    def _facts(self, inspector: str) -> dict[str, Any]:
        """Everything that the numbers depend on, files by content."""
        task, plan = self.task, self.plan.facts()
        if inspector == "unet":
            plan = {name: value for name, value in plan.items() if not name.startswith("resnet")}
        return {
            "method": METHOD,
            "inspector": inspector,
            "arm": self.arm.name,
            "seed": self.seed,
            "plan": plan if self.arm.trained else {"side": self.plan.side},
            "real": {
                name: _digests(s.image for s in (*split.shots, *split.held_out)) for name, split in task.splits.items()
            },
            "truth": {
                name: _digests(s.mask for s in (*split.shots, *split.held_out)) for name, split in task.splits.items()
            },
            "shots": {name: len(split.shots) for name, split in task.splits.items()},
            "good": _digests((*task.good, *task.test_good)),
            "generated": {
                name: _digests(path for pair in source.pairs for path in (pair.image, pair.mask))
                for name, source in self.sources.items()
            },
        }

    def pools(self) -> list[list[Pool]]:
        """For each type its pools: real pictures, generated pairs, or both. Refuses test pictures among the latter."""
        found: list[list[Pool]] = []
        for name in self.task.defects:
            pools = [self.task.real(name, self.arm.more)] if self.arm.real else []
            if self.arm.generated:
                source = self.sources[name]
                made = Pool(np.stack(source.images(self.plan.side)), np.stack(source.masks(self.plan.side)))
                self.task.refuse_test_pictures(made.images, [pair.image for pair in source.pairs])
                pools.append(made)
            found.append(pools)
        return found

    def unet(self, sheet: Path | None) -> dict[str, Any]:
        """Metrics of the U-Net after its last step."""
        tests, looks = self.task.tests, list[dict[str, float]]()
        if not self.arm.trained:
            maps = normality_maps(self.task.normals.images, tests.images, self.seed)
            trained_on = {"normal": len(self.task.normals), "real": 0, "generated": 0}
        else:
            pools = self.pools()

            def look(step: int, network: UNet) -> None:  # noqa: ARG001
                scored = tests.far if self.arm.more else np.ones_like(tests.far)
                looks.append(_scores(predict_maps(network, tests.images), tests, scored))

            with progress(f"{self.arm.name}, seed {self.seed}", self.plan.steps) as bar:
                network = train_unet(
                    self.task.normals,
                    pools,
                    self.plan,
                    self.seed,
                    look=look,
                    after_step=lambda loss: bar.step(loss=loss),
                )
            maps = predict_maps(network, tests.images)
            trained_on = self._counts(pools)
        if sheet:
            write_sheet(sheet, tests, maps)
        everything = np.ones_like(tests.far)
        return {
            "trained_on": trained_on,
            **self._split_scores(lambda chosen: _scores(maps, tests, chosen), everything),
            "as_paper": max(looks, key=lambda scores: scores["pixel_ap"]) if looks else None,
        }

    def resnet(self) -> dict[str, Any]:
        """Accuracy of the ResNet-18 after its last step."""
        if not self.arm.trained:
            msg = "the arm 'none' has no defect picture to learn types from; leave it out"
            raise SettingsError(msg)
        tests, pools = self.task.tests, self.pools()
        with progress(f"types, {self.arm.name}, seed {self.seed}", self.plan.resnet_steps) as bar:
            images = [[pool.images for pool in each] for each in pools]
            network = train_resnet(images, self.plan, self.seed, after_step=lambda loss: bar.step(loss=loss))
        right = predict_types(network, tests.images) == tests.types
        bad = tests.types != GOOD
        return {
            "trained_on": self._counts(pools),
            **self._split_scores(lambda chosen: {"accuracy": float(right[chosen & bad].mean())}, bad),
        }

    def _split_scores(self, score: Callable[[np.ndarray], dict[str, float]], everything: np.ndarray) -> dict[str, Any]:
        """Scores on all held-back pictures and on their far half, together and by type."""
        tests = self.task.tests
        kinds = {name: tests.only(tests.types == number) for number, name in enumerate(self.task.defects)}
        known: dict[bytes, dict[str, float]] = {}

        def once(chosen: np.ndarray) -> dict[str, float]:
            # A task of one type asks for each twice, and sorting millions of pixels takes seconds.
            key = chosen.tobytes()
            if key not in known:
                known[key] = score(chosen)
            return known[key]

        learned = self.arm.more > 0
        return {
            "all": None if learned else once(everything),
            "by_defect": None if learned else {name: once(kind & everything) for name, kind in kinds.items()},
            "far": once(everything & tests.far),
            "far_by_defect": {name: once(kind & everything & tests.far) for name, kind in kinds.items()},
        }

    def _counts(self, pools: list[list[Pool]]) -> dict[str, int]:
        real = sum(len(each[0]) for each in pools) if self.arm.real else 0
        made = [each[-1] for each in pools] if self.arm.generated else []
        return {
            "normal": len(self.task.normals),
            "real": real,
            "generated": sum(len(pool) for pool in made),
            "generated_without_mask": int(sum((~pool.masks.any(axis=(1, 2))).sum() for pool in made)),
        }


def _scores(maps: np.ndarray, tests: Tests, chosen: np.ndarray) -> dict[str, float]:
    return {name: round(value, 5) for name, value in inspector_scores(maps[chosen], tests.masks[chosen]).items()}


def _digests(paths: Any) -> str:
    """One hash for files in an order."""
    return hashlib.sha256(" ".join(sha256(path) if path else "-" for path in paths).encode()).hexdigest()[:24]
