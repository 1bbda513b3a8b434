"""The comparison of generators as a whole: methods, data sets and seeds in, cells and tables out."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.bench.cells import Contest, Place
from dualanodiff.bench.detectors import Detector, maps_fingerprint, run_anomalib, score_maps
from dualanodiff.bench.methods import Method
from dualanodiff.bench.paper_tables import paper_table
from dualanodiff.bench.tables import Row, summary_tables, to_html, to_markdown
from dualanodiff.errors import DualAnoDiffError
from dualanodiff.grid import overlay, picture_grid
from dualanodiff.judge.source import open_source
from dualanodiff.lift.task import open_task
from dualanodiff.storage import append_jsonl, read_jsonl, write_text

SHEET_PAIRS, SHEET_SIDE = 5, 128


def compare_generators(
    contest: Contest,
    methods: Sequence[Method],
    places: Sequence[Place],
    *,
    detectors: Sequence[Detector] = (),
    tables: Sequence[int] = (),
    command: str = "",
) -> dict[str, Any]:
    """Make every cell that is missing, and the tables anew; returns rows, failed, and the files of both tables."""
    rows = contest.run(methods, places)
    rows += [row for place in places for row in _detector_rows(contest, detectors, place)]
    names = list(dict.fromkeys([*(method.name for method in methods), *(detector.name for detector in detectors)]))
    made = [
        *summary_tables(rows, names, [place.name for place in places]),
        *(paper_table(number, rows) for number in tables),
    ]
    markdown, page = contest.out / "tables.md", contest.out / "tables.html"
    write_text(markdown, to_markdown(made, command))
    sheets = [(place.name, write_sheet(contest.out, place.name, rows)) for place in places]
    write_text(page, to_html(made, command, [(name, file) for name, file in sheets if file]))
    return {
        "out": str(contest.out),
        "cells": len(rows),
        "failed": contest.failed,
        "markdown": str(markdown),
        "page": str(page),
        "rows": rows,
    }


def write_sheet(out: Path, place: str, rows: Sequence[Row]) -> str:
    """One picture with the first pairs of each method and defect type; its name below `out`, "" where nobody has any."""
    lines: list[list[np.ndarray]] = []
    captions: list[str] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        for defect, folder in row.get("sets", {}).items() if row["data"] == place else ():
            if (row["method"], defect) in seen or not Path(folder).is_dir():
                continue
            seen.add((row["method"], defect))
            source = open_source(Path(folder), category=place, defect=defect)
            some = replace(source, pairs=source.pairs[:SHEET_PAIRS])
            pairs = zip(some.images(SHEET_SIDE), some.masks(SHEET_SIDE), strict=True)
            lines.append([picture for image, mask in pairs for picture in (image, overlay(image, mask))])
            captions.append(f"{row['method']}: {defect}")
    if not lines:
        return ""
    file = out / "sheets" / f"{place}.png"
    picture_grid(lines, ["image", "mask on image"] * SHEET_PAIRS, file, captions=captions)
    return file.relative_to(out).as_posix()


def _detector_rows(contest: Contest, detectors: Sequence[Detector], place: Place) -> list[dict[str, Any]]:
    """A row a detector and seed; maps on disk have one seed only."""
    if not detectors:
        return []
    shots = contest.making(place).shots
    task = open_task(place.data, place.name, place.defects, side=contest.protocol.plan.side, shots=shots)
    known = {row["key"]: row for row in read_jsonl(contest.out / "cells.jsonl") if "key" in row}
    rows: list[dict[str, Any]] = []
    for detector in detectors:
        for seed in contest.seeds if detector.folder is None else contest.seeds[:1]:
            began = time.monotonic()
            try:
                folder = detector.folder
                if folder is None:
                    folder = contest.out / "maps" / detector.name / f"seed-{seed}"
                    run_anomalib(detector.name, task, folder, seed, textures=contest.making(place).textures)
                facts = [
                    detector.name,
                    place.name,
                    place.fingerprint(),
                    seed,
                    task.side,
                    shots,
                    maps_fingerprint(folder, place.name),
                ]
                key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
                if key not in known:
                    scores = {"proved": True, **score_maps(folder, task)}
                    known[key] = {
                        "key": key,
                        "method": detector.name,
                        "about": "a detector trained on good pictures",
                        "data": place.name,
                        "defects": list(place.defects),
                        "seed": seed,
                        "judged": {},
                        "lift": {"detector": scores},
                        "seconds": {"lift": round(time.monotonic() - began, 1)},
                    }
                    append_jsonl(contest.out / "cells.jsonl", known[key])
                rows.append(known[key])
            except DualAnoDiffError as error:
                where = {"method": detector.name, "data": place.name, "seed": str(seed)}
                contest.failed.append({**where, "error": str(error)})
    return rows
