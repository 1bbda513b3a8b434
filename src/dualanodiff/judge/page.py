"""One HTML page about a judged set, with its pictures inside: it opens anywhere, without a network."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.data.catalog import Sample
from dualanodiff.grid import overlay
from dualanodiff.images import resize_mask, resize_rgb
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.pages import Block, Cell, Table, Text, inline, page
from dualanodiff.storage import write_text

THUMB = 112
MOST_PAIRS = 200


def write_page(
    path: Path,
    result: Mapping[str, Any],
    made: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    samples: Sequence[Sample],
    shots: Sequence[np.ndarray],
) -> None:
    """Write the page about an evaluation; pictures uint8 (h, w, 3) and masks bool (h, w) in the order of `each`."""
    title = f"{result['name']}: {result['pairs']} pairs judged"
    head = (
        f"{result['category']} / {result['defect']}, {result['side']} px; {result['held_out']} held-back real pictures, "
        f"{result['shots']} shots; apart from each other: {result['apart']}"
    )
    pictures = {sample.image.stem: shot for sample, shot in zip(samples, shots, strict=True)}
    blocks: list[Block] = [
        Text(head),
        *(Text(warning, "warning") for warning in result["warnings"]),
        _metrics(result["metrics"]),
        *_aspects(result),
        _pairs(result["each"], made, masks, pictures),
        Text(f"dualanodiff {result['dualanodiff']}", "quiet"),
    ]
    write_text(path, page(title, blocks))


def worst_first(each: Sequence[Mapping[str, Any]]) -> list[int]:
    """The order of the pairs on the page: those that fail most come first, and among them the lowest score."""
    if not each or "valid" not in each[0]:
        return sorted(range(len(each)), key=lambda i: -each[i]["distance"])
    return sorted(
        range(len(each)), key=lambda i: (sum(each[i]["passed"].values()), min(each[i][name] for name in ASPECTS))
    )


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, row in metrics.items():
        beside = "; ".join(f"{kind}: {_shown(value)}" for kind, value in row["beside"].items())
        counts = (str(row["generated"]), str(row["real"]))
        rows.append((name, _shown(row["value"]), _shown(row["spread"]), *counts, row["better"], beside))
    columns = ("metric", "value", "spread", "generated", "real", "better", "the same for")
    return Table("Distributions", columns, tuple(rows))


def _aspects(result: Mapping[str, Any]) -> Iterable[Table]:
    if not result["aspects"]:
        return
    rows = tuple(
        (
            name.replace("_", " "),
            _shown(row["mean"]),
            _shown(row["threshold"]),
            f"{row['passed']} of {result['pairs']}",
        )
        for name, row in result["aspects"].items()
    )
    note = f"{result['good']} of {result['pairs']} pass everything; {result['copies']} are copies of a shot."
    yield Table("The four aspects", ("aspect", "mean", "needed", "passed"), rows, (note,))


def _pairs(
    each: Sequence[Mapping[str, Any]],
    made: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    shots: Mapping[str, np.ndarray],
) -> Table:
    judged = bool(each) and "valid" in each[0]
    names = [*ASPECTS, "copy"] if judged else []
    thumbs = {name: inline(resize_rgb(rgb, THUMB)) for name, rgb in shots.items()}
    rows: list[tuple[str | Cell, ...]] = []
    for i in worst_first(each)[:MOST_PAIRS]:
        row = each[i]
        nearest = row.get("nearest_shot") or row["nearest_by_distance"]
        picture, mask = resize_rgb(made[i], THUMB), resize_mask(masks[i], THUMB)
        scores = [Cell(f"{row[name]:.2f}", "" if row["passed"][name] else "bad") for name in names]
        looks = [Cell(picture=inline(picture)), Cell(picture=inline(overlay(picture, mask)))]
        rows.append(
            (row["name"], *looks, Cell(nearest, picture=thumbs.get(nearest, "")), *scores, _shown(row["distance"]))
        )
    columns = ("pair", "picture", "its mask", "nearest shot", *(name.replace("_", " ") for name in names), "distance")
    lead = (
        f"The first {MOST_PAIRS} of {len(each)}; all scores are in evaluation.json." if len(each) > MOST_PAIRS else ""
    )
    return Table("Pairs, the worst first", columns, tuple(rows), lead=lead)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
