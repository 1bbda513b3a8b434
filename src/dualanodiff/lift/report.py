"""The comparison for people: OUT/lift.md and OUT/lift.html, which hold the same tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualanodiff.lift.pixel_scores import METRICS
from dualanodiff.pages import Block, Figures, Table, Text, inline_png, markdown, page
from dualanodiff.storage import write_text

_TITLES = {
    "pixel_ap": "pixel AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_f1": "pixel F1-max",
    "pro": "PRO",
    "image_ap": "image AP",
    "image_auroc": "image AUROC",
    "image_f1": "image F1-max",
}
_WORDS = {
    "none": "no anomaly data: distance to the nearest normal patches (15 hand-made features), nothing trained",
    "real": "the real shots only",
    "generated": "the generated pairs only",
    "real+generated": "half from the shots, half from the generated pairs",
}


def write_reports(out: Path, result: Mapping[str, Any]) -> None:
    """Write lift.md and lift.html into `out` from what `measure_lift` gives; sheets of maps/ go into the page."""
    tables, lines = _tables(result), _introduction(result)
    endings = [found["sentence"] for found in result["verdicts"].values()] if len(result["verdicts"]) > 1 else []
    write_text(out / "lift.md", _markdown(result["category"], lines, tables, [*endings, result["sentence"]]))
    sheets = [(name, out / "maps" / f"{name}.png") for name in result["arms"]]
    write_text(out / "lift.html", _page(result["category"], lines, tables, [*endings, result["sentence"]], sheets))


def _introduction(result: Mapping[str, Any]) -> list[str]:
    plan, proved = result["plan"], result["split"]["proved"]
    counts = [
        f"{name}: {facts['shots']} shots to learn from, {facts['held_back']} held back to test on"
        for name, facts in result["defects"].items()
    ]
    lines = [
        "; ".join(counts)
        + f"; normal: {result['normal']['trained']} to learn from, {result['normal']['tested']} to test on.",
        f"U-Net of widths {'-'.join(map(str, plan['widths']))} on {plan['side']} x {plan['side']} pixels, {plan['steps']} "
        f"steps of {plan['batch']}, tested after the last step, {_seeds(result['seeds'])}, in percent. "
        "Half of what it learns from is normal, half shows defects, evenly over types and over real and generated.",
    ]
    lines += [f"{note}." for note in result.get("notes", ())]
    unproved = [name for name, known in proved.items() if not known]
    if unproved:
        lines.append(
            f"NOT PROVED: the sets for {', '.join(unproved)} have no lineage; nothing shows that they were made without the test pictures."
        )
    if set(proved) - set(unproved):
        lines.append(
            "Proved by SHA-256 from lineage.json: no test picture went into the other sets."
            if unproved
            else "Proved by SHA-256 from lineage.json: no test picture went into the sets."
        )
    lines += [
        f"{name}: {result['sources'][name]['pairs']} generated pairs of {result['sources'][name]['folder']}."
        for name in result["sources"]
    ]
    return lines


def _seeds(count: int) -> str:
    return "one seed, so no spread" if count == 1 else f"{count} seeds: mean and standard deviation"


def _tables(result: Mapping[str, Any]) -> list[Table]:
    head = ("arm", *(_TITLES[metric] for metric in METRICS))

    def metrics(title: str, note: str, part: Mapping[str, Any]) -> Table:
        rows = tuple((name, *(_cell(found[metric]) for metric in METRICS)) for name, found in part.items())
        return Table(title, head, rows, lead=note)

    arms = tuple((name, _describe(name), _counts(facts["trained_on"])) for name, facts in result["arms"].items())
    tables = [Table("Arms", ("arm", "learns defects from", "pictures"), arms)]
    tables.append(metrics("All held-back pictures", "", result["all"]))
    if len(result["by_defect"]) > 1:
        tables += [
            metrics(f"{name}, against all good pictures", "", part) for name, part in result["by_defect"].items()
        ]
    if any(name not in result["all"] for name in result["far"]):
        note = "real+N learns from N held-back pictures of each type, and is tested, as all here, on the other half of them."
        tables.append(metrics("How much more real defects would do", note, result["far"]))
    for part, title in (
        ("all", "Telling types apart: ResNet-18"),
        ("far", "The same on the other half of the held-back pictures"),
    ):
        if result["accuracy"][part]:
            rows = tuple((name, _cell(found)) for name, found in result["accuracy"][part].items())
            tables.append(Table(title, ("arm", "accuracy"), rows))
    if result["as_paper"]:
        rows = tuple(
            (name, *(f"{100 * found[metric]:.1f}" for metric in METRICS)) for name, found in result["as_paper"].items()
        )
        note = "The epoch picked on the test set, the best of all seeds: not comparable with the tables above, and no evidence."
        tables.append(Table("As the paper does it", head, rows, lead=note))
    return tables


def _describe(name: str) -> str:
    return _WORDS.get(name) or f"the real shots and {name.removeprefix('real+')} more real pictures of each type"


def _counts(trained_on: Mapping[str, int]) -> str:
    empty = trained_on.get("generated_without_mask", 0)
    parts = [f"{trained_on['normal']} normal", f"{trained_on['real']} real", f"{trained_on['generated']} generated"]
    return ", ".join(parts) + (f" ({empty} of them with an empty mask)" if empty else "")


def _cell(found: Mapping[str, Any]) -> str:
    spread = "" if found["spread"] is None else f" ± {100 * found['spread']:.1f}"
    return f"{100 * found['mean']:.1f}{spread}"


def _markdown(category: str, lines: Sequence[str], tables: Sequence[Table], sentences: Sequence[str]) -> str:
    parts = [f"# Lift: {category}", *lines]
    for table in tables:
        parts += [f"## {table.heading}", *([table.lead] if table.lead else []), markdown(table)]
    return "\n\n".join([*parts, "## In one sentence", *(f"**{sentence}**" for sentence in sentences)]) + "\n"


def _page(
    category: str,
    lines: Sequence[str],
    tables: Sequence[Table],
    sentences: Sequence[str],
    sheets: Sequence[tuple[str, Path]],
) -> str:
    """One file that needs no other: pictures are inside."""
    blocks: list[Block] = [Text(sentence, "sentence") for sentence in sentences]
    blocks += [*(Text(line) for line in lines), *tables]
    shown = tuple((name, inline_png(path)) for name, path in sheets if path.is_file())
    if shown:
        blocks.append(Figures(shown, heading="Test pictures and what each inspector marks (seed 0)"))
    return page(f"Lift: {category}", blocks)
