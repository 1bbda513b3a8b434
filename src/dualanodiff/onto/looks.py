"""What a set of defects on good parts came to: a sheet to look at, and asked against got."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff import images
from dualanodiff.grid import changed_grid
from dualanodiff.onto.judging import NAMES
from dualanodiff.sets import PairSet

SHEET_PAIRS = 8
"""Pairs on the sheet."""


def summarise(pairs: PairSet, count: int, *, made: int, seed: int) -> dict[str, Any]:
    """The set's summary, for a program and for its sheet (onto.png), which is written here."""
    rows = {index: row for index, row in pairs.rows().items() if index < count}
    sheet = pairs.folder / "onto.png"
    write_sheet(pairs, list(rows.values())[:SHEET_PAIRS], sheet)
    defects = [defect for row in rows.values() for defect in row["onto"]["defects"]]
    return {
        "set": str(pairs.folder),
        "count": len(rows),
        "made": made,
        "empty": [index for index, row in rows.items() if row["mask_empty"]],
        "given_up": [index for index, row in rows.items() if _given_up(row)],
        "met": met(defects),
        "attempts": round(float(np.mean([defect["attempts"] for defect in defects])), 2) if defects else 0.0,
        "seed": seed,
        "sheet": str(sheet),
    }


def met(defects: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Share of the defects that came out as asked, by what was asked: place, visibility, area, contrast, and all."""
    listed = list(defects)
    shares: dict[str, float] = {}
    for name in NAMES:
        values = [defect["met"][name] for defect in listed if name in defect["met"]]
        if values:
            shares[name] = round(float(np.mean(values)), 4)
    if listed:
        shares["all"] = round(float(np.mean([not defect["given_up"] for defect in listed])), 4)
    return shares


def write_sheet(pairs: PairSet, rows: list[dict[str, Any]], path: Path) -> None:
    """Good part, result, part, mask and amplified difference of these pairs whose good pictures are still there."""
    rows = [row for row in rows if Path(row["onto"]["good"]).is_file()]
    if not rows:
        return
    goods = [images.read_rgb(Path(row["onto"]["good"])) for row in rows]
    image, part, mask = ([pairs.read(kind, row["index"]) for row in rows] for kind in ("image", "part", "mask"))
    changed_grid(goods, image, part, mask, path, captions=[caption(row) for row in rows])


def caption(row: Mapping[str, Any]) -> str:
    """A pair in a few words: its size and strength, what was asked, and what it lacks."""
    words: list[str] = []
    for defect in row["onto"]["defects"]:
        asked, got = defect["asked"], defect["got"]
        parts = [f"{got['area']:.4g} {defect['unit']}" + (f" of {asked['area']:.4g}" if "area" in asked else "")]
        parts.append(f"{got['contrast']:.3g} Lab" + (f" of {asked['contrast']:.3g}" if "contrast" in asked else ""))
        parts += [f"given up: {defect['given_up']}"] if defect["given_up"] else []
        words.append(", ".join(parts))
    return f"{row['index']}: " + "; ".join(words)


def _given_up(row: Mapping[str, Any]) -> bool:
    return any(defect["given_up"] for defect in row["onto"]["defects"])
