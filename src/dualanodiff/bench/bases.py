"""Bases beside each other on fixed few-shot tasks: the same shots, steps and pairs for each, judged the same way.

Every cell (base and task) is a fit, a set and a judgement, kept under OUT and never made twice:

    OUT/  cells.jsonl  bases.json  bases.md  bases.html  runs/  sets/  [random/  adapted/]
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualanodiff.bench.bases_page import bases_page, bases_table
from dualanodiff.bench.colour import ground_faults
from dualanodiff.bench.contrast import bonds
from dualanodiff.bench.entries import Entry, base_fingerprint, base_of, fingerprint
from dualanodiff.bench.tasks import Task
from dualanodiff.data.split import FEWEST
from dualanodiff.fit_folder import fit_folder
from dualanodiff.generation import generate_set
from dualanodiff.images import read_mask, read_rgb
from dualanodiff.judge.distribution import kid
from dualanodiff.judge.diversity import cluster_diversity
from dualanodiff.judge.networks import Distance, Network, find_distance, find_network
from dualanodiff.judge.reference import Reference, read_reference
from dualanodiff.judge.scoring import judge_source
from dualanodiff.judge.source import open_source
from dualanodiff.progress import progress
from dualanodiff.runs import ADAPTED, RunFolder
from dualanodiff.storage import append_jsonl, read_jsonl, write_json, write_text

METHOD = 2
"""Raised with every change of a number's meaning, so that older cells are made again."""
REAL = "real shots"
"""The line of each task that judges the shots themselves."""


@dataclass(frozen=True)
class Budget:
    """What every base gets, and how it is judged."""

    steps: int = 300
    """Fit steps."""
    count: int = 32
    """Pairs."""
    seed: int = 0
    """Of fits and sets."""
    side: int = 128
    """Side in pixels at which pictures are judged, whatever a base draws at."""
    shots: str = "first-third"
    """Which pictures are learned from; the others are held back, and judge."""
    network: str = "auto"
    """Feature network of the KID; auto is the best at hand."""


@dataclass(frozen=True)
class Meter:
    """What pictures are measured with."""

    network: Network
    distance: Distance

    @property
    def names(self) -> dict[str, str]:
        """The networks by name, and the first digits of their weights' hash."""
        return {
            "kid": f"{self.network.name} {self.network.digest[:8]}",
            "spread": f"{self.distance.name} {self.distance.digest[:8]}",
        }


def compare_bases(
    entries: Sequence[Entry], tasks: Sequence[Task], out: Path, budget: Budget, *, weights: Path | None = None
) -> dict[str, Any]:
    """Make the cells that are missing, and write the tables. Returns cells (one a base and task) and files.

    `weights` is a folder of network weights for the distances.
    """
    meter = Meter(find_network(budget.network, weights), find_distance("auto", weights))
    log = out / "cells.jsonl"
    known = {row["key"]: row for row in read_jsonl(log) if "key" in row}
    cells: list[dict[str, Any]] = []
    with progress("bases", len(tasks) * (1 + len(entries))) as bar:
        for task in tasks:
            reference = read_reference(
                task.data,
                defect=task.defect,
                category=task.category,
                side=budget.side,
                shots=budget.shots,
                fewest=FEWEST,
            )
            judged = (METHOD, reference.fingerprint, len(reference.held_out), meter.names, asdict(budget), task.name)
            for entry in [None, *entries]:
                if entry is None:
                    base, digest, key = "", "", fingerprint(REAL, judged)
                else:
                    base = base_of(entry, entries, out)
                    digest = base_fingerprint(base)
                    key = fingerprint(digest, asdict(entry), judged)
                if key not in known:
                    row = {"key": key, "base": entry.name if entry else REAL, "task": task.name}
                    row |= (
                        _judge_real(reference, meter)
                        if entry is None
                        else _make_cell(entry, base, digest, task, out, budget, reference, meter)
                    )
                    append_jsonl(log, row)
                    known[key] = row
                cells.append(known[key])
                bar.step()
    facts = {"budget": asdict(budget), "networks": meter.names, "cells": cells}
    write_json(out / "bases.json", facts)
    write_text(out / "bases.md", bases_table(facts))
    write_text(out / "bases.html", bases_page(facts))
    files = {
        name: str(out / f"bases.{suffix}") for name, suffix in (("table", "md"), ("page", "html"), ("json", "json"))
    }
    return {**facts, **files}


def _make_cell(
    entry: Entry, base: str, digest: str, task: Task, out: Path, budget: Budget, reference: Reference, meter: Meter
) -> dict[str, Any]:
    """Fit the base of this digest, generate and judge; a run that another entry made with the same fit is shared."""
    assignments = {
        "train.max_train_steps": str(budget.steps),
        "train.preview_steps": "0",
        "seed": str(budget.seed),
        **entry.fit_assignments,
    }
    place = (
        f"{_file_name(Path(base).name)}-{fingerprint(digest, assignments, budget.shots)[:8]}/{_file_name(task.name)}"
    )
    # Named after what it is drawn from: a base that was made anew under its old name draws another set.
    drawn = f"{_file_name(entry.name)}-{fingerprint(place, entry.sample_assignments)[:8]}"
    run, folder = out / "runs" / place, out / "sets" / drawn / _file_name(task.name)
    if not RunFolder(run).finished:
        fit_folder(
            task.data,
            defect=task.defect,
            category=task.category,
            out=run,
            base=base,
            shots=budget.shots,
            assignments={"train.checkpointing_steps": "50", **assignments},
            resume=True,
            adapted=out / ADAPTED,
        )
    _, facts = RunFolder(run).load_start()
    logged = list(read_jsonl(RunFolder(run).metrics))[-1]
    began = time.monotonic()
    made = generate_set(run, count=budget.count, out=folder, assignments=entry.sample_assignments)
    seconds = (time.monotonic() - began) / made["made"] if made["made"] else None
    return {
        **judge_set(folder, reference, meter),
        "bond": _bonds_of(folder),
        "start": facts["start"],
        "resolution": facts["resolution"],
        "steps": logged["step"],
        "fit_seconds": logged["seconds"],
        "pair_seconds": None if seconds is None else round(seconds, 2),
        "sheet": str(Path(made["sheet"]).relative_to(out)),
        "run": place,
    }


def judge_set(folder: Path, reference: Reference, meter: Meter) -> dict[str, Any]:
    """Distances from the held-back real defects, spread, and the shares of pairs that pass each aspect."""
    source = open_source(folder)
    scores = judge_source(source, reference)
    names = list(scores[0].passed) if scores else []
    shares = {name: _share([score.passed[name] for score in scores]) for name in names}
    return {
        **_distances(source.images(reference.side), reference, meter),
        "pairs": len(scores),
        **ground_faults(source.images(reference.side), source.masks(reference.side), reference.normals),
        "empty": _share([not read_mask(pair.mask, size=reference.side).any() for pair in source.pairs]),
        **{name: share for name, share in shares.items() if name != "copy"},
        "good": _share([score.good for score in scores]),
        "copies": _share([not score.passed.get("copy", True) for score in scores]),
        "nearest": round(float(np.median([score.copy for score in scores])), 4) if scores else None,
    }


def _judge_real(reference: Reference, meter: Meter) -> dict[str, Any]:
    """What the shots themselves reach: no generator is asked for more."""
    images, masks = ([getattr(shot, side) for shot in reference.shots] for side in ("image", "mask"))
    faults = ground_faults(images, masks, reference.normals)
    return _distances(images, reference, meter) | faults | {"pairs": len(images)}


def _distances(made: list[np.ndarray], reference: Reference, meter: Meter) -> dict[str, float | None]:
    """KID x1000 against the held-back defects, and the spread of pictures around each shot (IC-LPIPS or its stand-in)."""
    held_out = meter.network.features([shot.image for shot in reference.held_out])
    mean, deviation = kid(held_out, meter.network.features(made))
    shots = torch.cat(list(meter.distance.embeddings([shot.image for shot in reference.shots])))
    spread = cluster_diversity(meter.distance.embeddings(made), shots).value
    return {"kid": _finite(mean), "kid_deviation": _finite(deviation), "spread": _finite(spread)}


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _bonds_of(folder: Path) -> dict[str, float | int | None]:
    """The bond of a set's pairs, at the pictures' own size."""
    pairs = [pair for pair in open_source(folder).pairs if pair.part is not None]
    images = [read_rgb(pair.image) for pair in pairs]
    parts = [read_rgb(pair.part) for pair in pairs if pair.part is not None]
    return bonds(images, parts, [read_mask(pair.mask) for pair in pairs])


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text).strip("_")
