"""Which pairs are worth keeping: a new folder of the good ones, and a line on each of the others that says why not."""

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualanodiff.errors import RunError, SettingsError
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.judge.reference import Reference
from dualanodiff.judge.scoring import Scores, judge_source, summarise
from dualanodiff.judge.source import Generated, Source
from dualanodiff.sets import PairSet
from dualanodiff.storage import append_jsonl, write_atomic, write_json, write_text

CHECKS = (*ASPECTS, "copy")
BEYOND = "not among the best"


def filter_source(
    source: Source,
    reference: Reference,
    out: Path | None = None,
    *,
    need: Collection[str] = CHECKS,
    most: int | None = None,
) -> dict[str, Any]:
    """Judge a source and put its good pairs into `out`, in the source's own layout; the source stays as it is.

    `need` are the checks that a pair must pass, `most` keeps no more than that many, the best. Returns what `summarise`
    does, and kept, dropped and why (pairs by reason; one pair may have several). OUT/dropped.jsonl has a line for each
    pair left out. Raises SettingsError for an unknown check, RunError where `out` holds something else.
    """
    for name in need:
        if name not in CHECKS:
            msg = f"--need {name}: not a check; there are {', '.join(CHECKS)}"
            raise SettingsError(msg)
    scores = judge_source(source, reference)
    reasons = [[name for name in each.failed if name in need] for each in scores]
    good = [i for i, why in enumerate(reasons) if not why]
    if most is not None and len(good) > most:
        ranked = sorted(good, key=lambda i: rank(scores[i], reference), reverse=True)
        for i in ranked[most:]:
            reasons[i] = [BEYOND]
        good = sorted(ranked[:most])
    if out is not None:
        _write(
            source, out, good, reasons, scores, {"reference": reference.fingerprint, "need": sorted(need), "most": most}
        )
    why = {name: sum(name in each for each in reasons) for name in (*CHECKS, BEYOND)}
    return {
        "set": str(source.folder),
        "out": None if out is None else str(out),
        "kept": len(good),
        "dropped": len(scores) - len(good),
        "why": {name: count for name, count in why.items() if count},
        **summarise(scores, reference),
    }


def rank(scores: Scores, reference: Reference) -> float:
    """How far the weakest aspect lies above its threshold, as a share of the way to 1."""
    limits = asdict(reference.thresholds)
    return min((getattr(scores, name) - limits[name]) / max(1 - limits[name], 0.05) for name in ASPECTS)


def _write(
    source: Source,
    out: Path,
    good: Sequence[int],
    reasons: Sequence[Sequence[str]],
    scores: Sequence[Scores],
    facts: dict[str, Any],
) -> None:
    """The kept pairs as files, then the lines about them, then those about the others."""
    if out.resolve() == source.folder.resolve():
        msg = f"{out}: is the set itself; choose another --out, nothing is deleted from a set"
        raise RunError(msg)
    chosen = {**facts, "filtered_from": str(source.folder)}
    pairs = [source.pairs[i] for i in good]
    try:
        if source.facts:
            _write_set(source, out, pairs, chosen)
        else:
            _write_tree(out, pairs, chosen)
        lines = [
            json.dumps({"name": pair.name, "why": list(why), **asdict(each)})
            for pair, why, each in zip(source.pairs, reasons, scores, strict=True)
            if why
        ]
        write_text(out / "dropped.jsonl", "".join(line + "\n" for line in lines))
    except OSError as error:
        msg = f"{error.filename or out}: cannot be written ({error.strerror or error}); make room, then run the same command again"
        raise RunError(msg) from error


def _write_set(source: Source, out: Path, pairs: Sequence[Generated], chosen: dict[str, Any]) -> None:
    # The set as it is now: its rows were read before the scores came into them.
    rows = PairSet(source.folder).rows()
    facts = {name: value for name, value in source.facts.items() if name not in ("format", "dualanodiff")}
    kept = PairSet.begin(out, {**facts, "filter": chosen})
    kept.manifest.unlink(missing_ok=True)
    for pair in pairs:
        row = rows[pair.row["index"]]
        for kind in ("image", "part", "mask", "attention"):
            if row.get(kind):
                _copy(source.folder / row[kind], out / row[kind])
        append_jsonl(kept.manifest, row)
    if (source.folder / "lineage.json").is_file():
        _copy(source.folder / "lineage.json", out / "lineage.json")


def _write_tree(out: Path, pairs: Sequence[Generated], chosen: dict[str, Any]) -> None:
    marker = out / "filter.json"
    if marker.is_file():
        before = json.loads(marker.read_text(encoding="utf-8"))
        if before != chosen:
            msg = f"{out}: was filtered from {before.get('filtered_from')} by other rules; choose another --out"
            raise RunError(msg)
    elif out.is_file() or (out.exists() and any(out.iterdir())):
        msg = f"{out}: is not empty; choose another --out"
        raise RunError(msg)
    write_json(marker, chosen)
    for kind in ("image", "mask", "part"):
        for pair in pairs:
            file: Path | None = getattr(pair, kind)
            if file is not None:
                _copy(file, out / kind / f"{pair.name}{file.suffix}")


def _copy(source: Path, target: Path) -> None:
    write_atomic(target, lambda temporary: shutil.copyfile(source, temporary))
