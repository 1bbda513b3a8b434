"""The whole comparison: every arm with every seed, then tables, a verdict for each defect type and one for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualanodiff.errors import DataError, SettingsError
from dualanodiff.judge.source import Source
from dualanodiff.lift.arms import ARMS, Arm, read_arm, run_cell, run_types_cell
from dualanodiff.lift.pixel_scores import METRICS
from dualanodiff.lift.report import write_reports
from dualanodiff.lift.task import GOOD, Task, open_task
from dualanodiff.lift.training import Plan
from dualanodiff.lift.verdict import MEASURE, Summary, decide, summarise
from dualanodiff.storage import write_json

DEFAULT_ARMS = (*ARMS, "more")


def measure_lift(
    sources: Mapping[str, Source],
    data: str | Path,
    category: str | None = None,
    *,
    out: str | Path,
    plan: Plan | None = None,
    arms: Sequence[str] = DEFAULT_ARMS,
    seeds: int = 3,
    shots: str = "first-third",
    allow_unproved: bool = False,
) -> dict[str, Any]:
    """Train and test every arm with seeds 0..seeds-1 on the defect types of `sources`, and say what the sets are worth.

    Writes OUT/cells.jsonl line by line, then lift.json, lift.md and lift.html; a killed call goes on where it was.
    `arms` are names of arms; "more" stands for real+N with half and all of the pictures there are for it. Gives what
    lift.json holds. Raises DataError before any training when a source has seen a test picture.
    """
    plan, out = plan or Plan(), Path(out)
    if seeds < 1:
        msg = f"--seeds {seeds}: must be 1 or more; 3 give a spread"
        raise SettingsError(msg)
    task = open_task(data, category, list(sources), side=plan.side, shots=shots)
    chosen = _read_arms(arms, task)
    proofs = {name: task.prove(source, allow_unproved=allow_unproved) for name, source in sources.items()}
    cells, sheets = out / "cells.jsonl", out / "maps"
    rows = [
        run_cell(
            task,
            arm,
            seed,
            plan,
            sources,
            cells=cells,
            allow_unproved=allow_unproved,
            sheet=sheets / f"{arm.name}.png" if seed == 0 else None,
        )
        for seed in range(seeds)
        for arm in chosen
    ]
    if len(task.defects) > 1:
        rows += [
            run_types_cell(task, arm, seed, plan, sources, cells=cells, allow_unproved=allow_unproved)
            for seed in range(seeds)
            for arm in chosen
            if arm.trained
        ]
    result = _result(task, rows, chosen, plan, seeds)
    result["split"] = {"shots": shots, "proved": proofs}
    result["sources"] = {name: {"folder": str(s.folder), "pairs": len(s.pairs)} for name, s in sources.items()}
    result["out"] = str(out)
    write_json(out / "lift.json", result)
    write_reports(out, result)
    return result


def _read_arms(names: Sequence[str], task: Task) -> list[Arm]:
    """The arms of these names, each once; "more" becomes two rungs of real+N, or none where no picture is to spare."""
    found: dict[str, Arm] = {}
    for name in names:
        rungs = {task.most_more // 2, task.most_more} - {0} if name == "more" else set()
        for arm in [read_arm(f"real+{n}") for n in sorted(rungs)] if name == "more" else [read_arm(name)]:
            found[arm.name] = arm
    if not found:
        msg = f"{task.root}: no arm is left to train (asked for: {', '.join(names) or 'none'}); name some with --arms"
        raise DataError(msg)
    return list(found.values())


def _result(
    task: Task, rows: Sequence[Mapping[str, Any]], arms: Sequence[Arm], plan: Plan, seeds: int
) -> dict[str, Any]:
    names = [arm.name for arm in arms]
    unet = {name: [row for row in rows if row["inspector"] == "unet" and row["arm"] == name] for name in names}
    resnet = {name: [row for row in rows if row["inspector"] == "resnet" and row["arm"] == name] for name in names}
    tests = task.tests
    verdicts = {}
    for number, defect in enumerate(task.defects):
        scores = {
            name: [row["by_defect"][defect][MEASURE] for row in found if row["all"]] for name, found in unet.items()
        }
        far = {name: [row["far_by_defect"][defect][MEASURE] for row in found] for name, found in unet.items()}
        verdicts[defect] = decide(scores, far, name=defect, held_back=int((tests.types == number).sum()))
    scores = {name: [row["all"][MEASURE] for row in found if row["all"]] for name, found in unet.items()}
    far = {name: [row["far"][MEASURE] for row in found] for name, found in unet.items()}
    bad = tests.types != GOOD
    verdict = decide(scores, far, name=task.category, held_back=int(bad.sum()))
    return {
        "category": task.category,
        "defects": {
            name: {
                "shots": len(split.shots),
                "held_back": len(split.held_out),
                "set_aside": len(split.set_aside),
                "far": int((tests.far & (tests.types == number)).sum()),
            }
            for number, (name, split) in enumerate(task.splits.items())
        },
        "notes": task.notes,
        "normal": {"trained": len(task.good), "tested": len(task.test_good)},
        "plan": plan.facts(),
        "seeds": seeds,
        "arms": {name: {"trained_on": found[0]["trained_on"]} for name, found in unet.items()},
        "all": {name: _summaries(found, "all") for name, found in unet.items() if found[0]["all"]},
        "by_defect": {
            defect: {name: _summaries(found, "by_defect", defect) for name, found in unet.items() if found[0]["all"]}
            for defect in task.defects
        },
        "far": {name: _summaries(found, "far") for name, found in unet.items()},
        "as_paper": {
            name: max((row["as_paper"] for row in found), key=lambda scores: scores[MEASURE])
            for name, found in unet.items()
            if all(row.get("as_paper") for row in found)
        },
        "accuracy": {
            part: {
                name: _facts(summarise([row[part]["accuracy"] for row in found]))
                for name, found in resnet.items()
                if found and found[0][part]
            }
            for part in ("all", "far")
        },
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "verdicts": {defect: found.facts() for defect, found in verdicts.items() if found},
        "verdict": verdict.facts() if verdict else None,
        "sentence": verdict.sentence
        if verdict
        else "no verdict: it needs the arms real and real+generated (or generated)",
    }


def _summaries(rows: Sequence[Mapping[str, Any]], part: str, defect: str | None = None) -> dict[str, Any]:
    found = [row[part][defect] if defect else row[part] for row in rows]
    return {metric: _facts(summarise([scores[metric] for scores in found])) for metric in METRICS}


def _facts(summary: Summary) -> dict[str, Any]:
    return {"mean": round(summary.mean, 5), "spread": None if summary.spread is None else round(summary.spread, 5)}
