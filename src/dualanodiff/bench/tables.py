"""Tables out of cells: mean and spread over seeds, in Markdown and HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualanodiff.pages import Block, Cell, Figures, Table, Text, markdown, page

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A number of a cell: its column's title, how it is found, what it is multiplied with, and its decimals."""

    title: str
    find: Callable[[Row], float | None]
    scale: float = 1.0
    decimals: int = 1
    best: int = 0
    """1 where more is better, -1 where less is, 0 where neither."""


def lift_metric(title: str, name: str, arm: str) -> Metric:
    """A score of the inspector under one arm, in percent; the real shots alone stand in both columns, other methods without a set in the first."""

    def find(row: Row) -> float | None:
        arms = row["lift"]
        if arm in arms or row["judged"] or len(arms) != 1:
            return arms.get(arm, {}).get(name)
        [(own, scores)] = arms.items()
        return scores.get(name) if arm == "generated" or own == "real" else None

    return Metric(title, find, 100.0, best=1)


def judged_metric(title: str, name: str, scale: float = 1.0, decimals: int = 1, best: int = 0) -> Metric:
    """A judgement of the set, averaged over defect types; None where one of them has none."""

    def find(row: Row) -> float | None:
        values = [found.get(name) for found in row["judged"].values()]
        return float(np.mean(values)) if values and None not in values else None

    return Metric(title, find, scale, decimals, best)


SUMMARY = (
    lift_metric("pixel AP", "pixel_ap", "generated"),
    lift_metric("with the shots", "pixel_ap", "real+generated"),
    lift_metric("pixel AUROC", "pixel_auroc", "generated"),
    lift_metric("pixel F1", "pixel_f1", "generated"),
    lift_metric("PRO", "pro", "generated"),
    lift_metric("image AP", "image_ap", "generated"),
    lift_metric("accuracy", "accuracy", "generated"),
    judged_metric("KID x1e3", "kid", best=-1),
    judged_metric("IC distance", "ic_lpips", decimals=2, best=1),
    judged_metric("valid %", "valid", 100, 0, 1),
    judged_metric("realistic %", "realistic", 100, 0, 1),
    judged_metric("aligned %", "aligned", 100, 0, 1),
    judged_metric("on object %", "on_object", 100, 0, 1),
    judged_metric("copies %", "copies", 100, 0, -1),
)


def average(rows: Sequence[Row], metric: Metric, method: str, places: Sequence[str]) -> list[float] | None:
    """One number a seed: the mean over places; None where a place or seed is missing or has no such number."""
    seeds = sorted({row["seed"] for row in rows if row["method"] == method})
    known = {(row["data"], row["seed"]): metric.find(row) for row in rows if row["method"] == method}
    values = [[known.get((place, seed)) for place in places] for seed in seeds]
    if not values or any(value is None for each in values for value in each):
        return None
    return [metric.scale * float(np.mean([value for value in each if value is not None])) for each in values]


def spell(values: Sequence[float] | None, decimals: int) -> str:
    """Mean and, for two seeds and more, the spread (sample deviation); "-" for nothing.

    >>> spell([1.0, 3.0], 1), spell(None, 1)
    ('2.0 ± 1.4', '-')
    """
    if not values:
        return "-"
    mean = f"{np.mean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{decimals}f}"


def summary_tables(rows: Sequence[Row], methods: Sequence[str], places: Sequence[str]) -> list[Table]:
    """All metrics averaged over data sets, a line a method; then pixel AP by data set."""
    seeds = sorted({row["seed"] for row in rows})
    networks = sorted(
        {str(found[key]) for row in rows for found in row["judged"].values() for key in ("network", "distance")}
    )
    standard = all(found["standard"] for row in rows for found in row["judged"].values())
    spread = f"± is the spread over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed, so no spread"
    over = f"Mean over {', '.join(places)}; {spread}."
    by = f"KID and IC distance by {', '.join(networks) or 'no network'}"
    notes = [
        f"{over} Inspectors are trained on generated pairs only, but for 'with the shots'.",
        f"{by}." if standard else f"{by}: stand-ins, so no figures of publications.",
    ]
    lines = _lines(rows, SUMMARY, methods, places)
    notes += sorted({f"{row['data']}, {note}." for row in rows for note in row.get("notes", ())})
    missing = sorted(
        f"{method} on {place}"
        for method in methods
        for place in places
        if not any(row["method"] == method and row["data"] == place for row in rows)
    )
    if missing:
        notes.append(f"Not run, or failed: {', '.join(missing)}.")
    unproved = sorted({row["method"] for row in rows for arm in row["lift"].values() if not arm["proved"]})
    if unproved:
        notes.append(f"Without proof that they have not seen the test pictures: {', '.join(unproved)}.")
    tables = [Table("Generators", ("method", *(metric.title for metric in SUMMARY)), lines, tuple(notes))]
    for title, arm in (
        ("Pixel AP, generated pairs only", "generated"),
        ("Pixel AP, real shots and generated pairs", "real+generated"),
    ):
        metric = lift_metric(title, "pixel_ap", arm)
        by_place = tuple(
            (
                method,
                *(spell(average(rows, metric, method, [place]), 1) for place in places),
                spell(average(rows, metric, method, places), 1),
            )
            for method in methods
        )
        if any(cell != "-" for line in by_place for cell in line[1:]):
            tables.append(Table(title, ("method", *places, "mean"), by_place))
    tables += _far_tables(rows, methods, places)
    return tables


def _far_tables(rows: Sequence[Row], methods: Sequence[str], places: Sequence[str]) -> list[Table]:
    """Where some arm is real+N: all arms on the half of the held-back pictures that it is tested on."""
    arms = list(dict.fromkeys(name for row in rows for name, found in row["lift"].items() if "far" in found))
    if not any(row["lift"].get(arm, {}).get("tested_on") == "far" for row in rows for arm in arms):
        return []

    def far(arm: str) -> Metric:
        return Metric(arm, lambda row: row["lift"].get(arm, {}).get("far", {}).get("pixel_ap"), 100.0)

    lines = tuple((method, *(spell(average(rows, far(arm), method, places), 1) for arm in arms)) for method in methods)
    note = "real+N learns from N held-back pictures of each type; all here are tested on the other half of them only."
    return [Table("Pixel AP on the far half of the held-back pictures", ("method", *arms), lines, (note,))]


def _lines(
    rows: Sequence[Row], metrics: Sequence[Metric], methods: Sequence[str], places: Sequence[str]
) -> tuple[tuple[str | Cell, ...], ...]:
    columns: list[list[str | Cell]] = []
    for metric in metrics:
        found = [average(rows, metric, method, places) for method in methods]
        texts = [spell(values, metric.decimals) for values in found]
        means = [float(np.mean(values)) * metric.best for values in found if values]
        best = max(means) if metric.best and len(means) > 1 else None
        columns.append(
            [
                Cell(text, "best") if values and float(np.mean(values)) * metric.best == best else text
                for text, values in zip(texts, found, strict=True)
            ]
        )
    return tuple((method, *(column[i] for column in columns)) for i, method in enumerate(methods))


def to_markdown(tables: Sequence[Table], command: str) -> str:
    """All tables under the command that makes them."""
    parts = [f"    {command}\n"]
    for table in tables:
        parts.append("\n".join([f"### {table.heading}\n", markdown(table), "", *(f"{note}\n" for note in table.notes)]))
    return "\n".join(parts)


def to_html(tables: Sequence[Table], command: str, sheets: Sequence[tuple[str, str]] = ()) -> str:
    """A page of its own with all tables, and sheets of pictures as (title, file beside the page)."""
    blocks: list[Block] = [Text(command, "command"), *tables]
    blocks += [Figures((("", file),), heading=title) for title, file in sheets]
    return page("Generators compared", blocks)
