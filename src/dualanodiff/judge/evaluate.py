"""The whole judgement of a generated set: distributions against held-back real pictures, diversity, each pair's aspects.

Real pictures are those of the same defect that are no shots. A set that learned from one of them is refused.
"""

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualanodiff import __version__
from dualanodiff.cache import keep, read_kept
from dualanodiff.data.catalog import Category, Sample, category_folders, pick, read_category
from dualanodiff.data.split import Split, describe_set_aside, split_defect, trained_test_pictures
from dualanodiff.errors import DataError
from dualanodiff.images import read_rgb
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.judge.distribution import SPLITS, fid, inception_score, kid
from dualanodiff.judge.diversity import Diversity, cluster_diversity
from dualanodiff.judge.networks import Distance, Network, content, find_distance, find_network
from dualanodiff.judge.page import write_page
from dualanodiff.judge.reference import read_reference
from dualanodiff.judge.scoring import Scores, judge_source
from dualanodiff.judge.source import Source, open_source
from dualanodiff.progress import progress
from dualanodiff.storage import write_json

SIDE = 256
"""Pixels that LPIPS is measured at in this field."""
FEW_REAL = 50
"""Below so many pictures on a side a KID says little: its spread is mostly larger than it."""
FEW_IN_SPLIT = 50
MOST_NORMALS = 60


@dataclass(frozen=True, eq=False)
class Real:
    """Real pictures uint8 (side, side, 3) of one product and defect."""

    category: Category
    split: Split
    shots: list[np.ndarray]
    held_out: list[np.ndarray]
    normals: list[np.ndarray]


@dataclass
class Report:
    """What is found, as it is found: values by the name under which they are printed."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, spread: float | None, network: str, warning: str = "", **facts: Any) -> None:
        """One value; a warning is kept beside it and in the list of all."""
        row = {"value": _number(value), "spread": _number(spread), "network": network, **facts}
        self.metrics[name] = row | ({"warning": warning} if warning else {})
        if warning:
            self.warnings.append(f"{name}: {warning}")


def evaluate_set(
    folder: Path,
    *,
    real: Path,
    category: str | None = None,
    defect: str | None = None,
    shots: str = "first-third",
    network: str = "auto",
    distance: str = "auto",
    weights: Path | None = None,
    side: int = SIDE,
    out: Path | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Judge the pairs under `folder`, and write evaluation.json and evaluation.html there, or into `out`.

    `shots` is the rule that the set's shots were chosen by. Raises DataError where there is nothing to judge with, or
    the set learned from a picture that it would be judged by; ModelError where a network that was asked for is missing.
    """
    source = open_source(folder, category=category, defect=defect)
    lineage = source.lineage() or {}
    if category is None and lineage.get("category") in category_folders(real):
        category = lineage["category"]
    if defect is None:
        defect = _same_defect(source, real, category, lineage)
    with progress("evaluate", 4) as bar:
        found = read_real(real, category=category, defect=defect, shots=shots, side=side)
        bar.step()
        report = Report(warnings=[note] if (note := describe_set_aside(found.split)) else [])
        proved = _look_at_lineage(source, found, lineage, report)
        made = source.images(side)
        _look_for_copies(source, made, found, report)
        _look_at_sizes(source, side, report)
        bar.step()
        nets = find_network(network, weights, cache=cache), find_distance(distance, weights, cache=cache)
        compare(made, found, nets[0], report)
        diversity = spread_out(made, found, nets[1], report)
        bar.step()
        scores, aspects = _aspects(source, real, found, shots, report)
        bar.step()
    result = {
        "dualanodiff": __version__,
        "set": str(folder),
        "name": source.name,
        "real": str(real),
        "category": found.category.name,
        "defect": found.split.defect,
        "side": side,
        "pairs": len(made),
        "shots": len(found.shots),
        "held_out": len(found.held_out),
        "set_aside": len(found.split.set_aside),
        "apart": "proved by lineage.json" if proved else "not proved",
        "metrics": report.metrics,
        **aspects,
        "warnings": report.warnings,
        "not_at_hand": [reason for net in nets for reason in net.left_out],
        "each": [
            {
                "name": pair.name,
                **(asdict(scores[i]) if scores else {}),
                "nearest_by_distance": found.split.shots[diversity.nearest[i]].image.stem,
                "distance": round(diversity.distances[i], 4),
            }
            for i, pair in enumerate(source.pairs)
        ],
    }
    place = out or source.folder
    write_json(place / "evaluation.json", result)
    write_page(place / "evaluation.html", result, made, source.masks(side), found.split.shots, found.shots)
    return result | {"page": str(place / "evaluation.html"), "file": str(place / "evaluation.json")}


def _look_at_lineage(source: Source, found: Real, lineage: Mapping[str, Any], report: Report) -> bool:
    """Warn where the set was made of something else, or nothing is known of it; whether it is proved apart."""
    for kind, name in (("category", found.category.name), ("defect", found.split.defect)):
        if lineage.get(kind) not in (None, name):
            report.warnings.append(f"the set was made of {lineage[kind]!r} and is judged as {name!r}")
    proved = prove_apart(source, found.split)
    if not proved:
        report.warnings.append(
            f"{source.folder}: no lineage.json, so nothing proves that it never learned from the held-back pictures"
        )
    return proved


def _same_defect(source: Source, real: Path, category: str | None, lineage: Mapping[str, Any]) -> str | None:
    """The defect that the set was made of; DataError where the real pictures have none of that name."""
    if (defect := lineage.get("defect")) is None:
        return None
    folders = category_folders(real)
    asked = [category] if category in folders else list(folders)
    known = {name for one in asked for name in read_category(one, folders[one]).defects}
    if defect in known:
        return defect
    msg = (
        f"{source.folder}: was made of {lineage.get('category')} / {defect}, and {real} has no such defect; give that "
        f"product's pictures as --real, or say with --defect what it is judged as ({', '.join(sorted(known))})"
    )
    raise DataError(msg)


def read_real(real: Path, *, category: str | None, defect: str | None, shots: str, side: int) -> Real:
    """Shots, held-back pictures and at most 60 good ones; DataError where the split leaves nothing to judge by."""
    found, name = pick(real, category, defect)
    split = split_defect(found.defects[name], shots)
    good = found.test_good or found.good
    some = [good[i] for i in np.unique(np.linspace(0, len(good) - 1, min(MOST_NORMALS, len(good))).round().astype(int))]

    def pictures(samples: Sequence[Sample]) -> list[np.ndarray]:
        return [read_rgb(sample.image, size=side) for sample in samples]

    return Real(
        found, split, pictures(split.shots), pictures(split.held_out), [read_rgb(path, size=side) for path in some]
    )


def prove_apart(source: Source, split: Split) -> bool:
    """Whether the lineage proves that the set never saw a held-back picture; DataError naming the first that it saw."""
    lineage = source.lineage()
    if lineage is None:
        return False
    seen = trained_test_pictures(lineage, [sample.image for sample in split.held_out])
    if seen:
        path, used = seen[0]
        msg = (
            f"{path}: the set {source.folder} learned from this picture (as {used}), the first of {len(seen)} by which it "
            "would be judged; name its shots with --shots FILE, or make a set from the shots alone"
        )
        raise DataError(msg)
    return True


def compare(made: Sequence[np.ndarray], real: Real, network: Network, report: Report) -> None:
    """KID, FID and IS, each beside what real pictures get from the same network."""
    name = network.name
    features, held_out = network.features(made), network.features(real.held_out)
    known = {"shots": real.shots, "good pictures": real.normals}
    others = {kind: network.features(pictures) for kind, pictures in known.items() if len(pictures) > 1}
    n, m, width = len(made), len(held_out), features.shape[1]
    counts = {"generated": n, "real": m}
    few = f"{min(n, m)} pictures on the smaller side" if min(n, m) < FEW_REAL else ""
    value, spread = kid(held_out, features)
    beside = {kind: _number(kid(held_out, rows)[0]) for kind, rows in others.items()}
    warning = f"{few}; believe differences well above the spread only" if few else ""
    report.add(_named("KID", network), value, spread, name, warning, **counts, beside=beside, better="lower is better")
    few = (
        f"{min(n, m)} pictures for {width} features, so it is biased upwards by far and compares only sets of one size"
    )
    beside = {kind: _number(fid(held_out, rows)) for kind, rows in others.items()}
    warning = few if min(n, m) <= width else ""
    report.add(
        _named("FID", network),
        fid(held_out, features),
        None,
        name,
        warning,
        **counts,
        beside=beside,
        better="lower is better",
    )
    classes = network.probabilities(made)
    if classes is None:
        report.warnings.append(f"IS is left out: it needs a classifier, and {name} is none; give one with --weights")
        return
    value, spread = inception_score(classes)
    beside = {}
    if (truth := network.probabilities(real.held_out)) is not None:
        beside["held-back real pictures"] = _number(inception_score(truth)[0])
    few = f"{n} pictures in {SPLITS} splits, and it never looks at real pictures: nonsense can score high"
    warning = few if n < SPLITS * FEW_IN_SPLIT else ""
    report.add(
        _named("IS", network),
        value,
        spread,
        name,
        warning,
        generated=n,
        real=0,
        beside=beside,
        better="higher is better",
    )


def spread_out(made: Sequence[np.ndarray], real: Real, distance: Distance, report: Report) -> Diversity:
    """IC-LPIPS or its stand-in, beside that of the held-back real pictures."""
    found, truth = (_diversity(pictures, real.shots, distance) for pictures in (made, real.held_out))
    used = sum(size > 1 for size in found.clusters)
    warning = (
        f"only {used} of {len(real.shots)} shots have two pictures nearest to them" if used < len(real.shots) else ""
    )
    report.add(
        "IC-LPIPS" if distance.standard else f"IC-distance[{distance.name}]",
        found.value,
        found.spread,
        distance.name,
        warning,
        generated=len(made),
        real=len(real.shots),
        beside={"held-back real pictures": _number(truth.value)},
        better="the nearer to real pictures the better",
    )
    return found


def _diversity(made: Sequence[np.ndarray], shots: Sequence[np.ndarray], distance: Distance) -> Diversity:
    """As `cluster_diversity`, kept on disk under the pictures' content: embedding is what takes the time."""
    key = hashlib.sha256("".join([*map(content, shots), "|", *map(content, made)]).encode()).hexdigest()[:32]
    file = distance.cache / f"{key}.json"
    if kept := read_kept(file):
        with contextlib.suppress(TypeError, KeyError):  # damaged, and made again
            for name in ("clusters", "nearest", "distances"):
                kept[name] = tuple(kept[name])
            return Diversity(**kept)
    found = cluster_diversity(distance.embeddings(made), torch.cat(list(distance.embeddings(shots))))
    keep(file, asdict(found))
    return found


def _aspects(
    source: Source, real: Path, found: Real, shots: str, report: Report
) -> tuple[list[Scores], dict[str, Any]]:
    """The scores of each pair, and their summary; empty where the product has too few good pictures to judge with."""
    try:
        reference = read_reference(real, category=found.category.name, defect=found.split.defect, shots=shots)
    except DataError as error:
        report.warnings.append(f"the four aspects are left out: {error}")
        return [], {"aspects": {}}
    scores = judge_source(source, reference)
    limits = asdict(reference.thresholds)
    aspects = {
        name: {
            "mean": round(float(np.mean([getattr(score, name) for score in scores])), 4),
            "passed": sum(score.passed[name] for score in scores),
            "threshold": round(limits[name], 4),
        }
        for name in ASPECTS
    }
    copies = sum(not score.passed["copy"] for score in scores)
    return scores, {"aspects": aspects, "good": sum(score.good for score in scores), "copies": copies}


def _look_for_copies(source: Source, made: Sequence[np.ndarray], real: Real, report: Report) -> None:
    """Generated pictures that are real ones, pixel by pixel."""
    for kind, samples, pictures in (
        ("a held-back real picture", real.split.held_out, real.held_out),
        ("a shot", real.split.shots, real.shots),
    ):
        names = {content(picture): sample.image for sample, picture in zip(samples, pictures, strict=True)}
        same = [
            (pair.image, names[key]) for pair, key in zip(source.pairs, map(content, made), strict=True) if key in names
        ]
        if same:
            report.warnings.append(
                f"{same[0][0]} is {kind} itself ({same[0][1]}), the first of {len(same)} such pictures; no figure here means anything"
            )


def _look_at_sizes(source: Source, side: int, report: Report) -> None:
    own = max(read_rgb(source.pairs[0].image).shape)
    if own < side:
        report.warnings.append(
            f"the generated pictures have {own} pixels and are enlarged to {side}, which counts against them; "
            f"--size {own} compares at their own size"
        )


def _named(metric: str, network: Network) -> str:
    return metric if network.standard else f"{metric}[{network.name}]"


def _number(value: float | None) -> float | None:
    """A rounded number, None for what is none: JSON knows no nan."""
    return None if value is None or not math.isfinite(value) else round(value, 4)
