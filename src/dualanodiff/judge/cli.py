"""`dualanodiff evaluate`, `filter` and `calibrate`: is a generated set any good, and which of its pairs?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dualanodiff.console import JsonOption, show


def evaluate_command(
    folder: Annotated[
        Path, typer.Argument(metavar="SET", help="A set folder, or a tree of pictures and masks by another program.")
    ],
    real: Annotated[Path, typer.Option("--real", metavar="DATA", help="Real pictures, in the MVTec AD layout.")],
    defect: Annotated[
        str | None, typer.Option("--defect", help="The real defect to compare with; the set's own if not given.")
    ] = None,
    category: Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")] = None,
    shots: Annotated[
        str,
        typer.Option(
            "--shots",
            metavar="N|first-third|pieces|FILE",
            help="Which real pictures the set was made from; the others judge.",
        ),
    ] = "first-third",
    network: Annotated[
        Literal["auto", "inception-v3", "efficientnet-lite0", "mini-vae"],
        typer.Option("--network", help="For KID, FID and IS; auto takes the best at hand."),
    ] = "auto",
    distance: Annotated[
        Literal["auto", "lpips-vgg", "stlpips-alex", "mini-vae"],
        typer.Option("--distance", help="For IC-LPIPS; auto takes the best at hand."),
    ] = "auto",
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FOLDER", help="Where weight files of these networks lie.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=32, help="Pixels at which pictures are compared.")] = 256,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where evaluation.json and .html are put; SET if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge SET against held-back real pictures: KID, FID, IS, IC-LPIPS, and four aspects of each pair."""
    from dualanodiff.judge.evaluate import evaluate_set

    result = evaluate_set(
        folder,
        real=real,
        category=category,
        defect=defect,
        shots=shots,
        network=network,
        distance=distance,
        weights=weights,
        side=size,
        out=out,
    )
    show(result, _render(result), as_json=as_json)


def filter_command(
    folder: Annotated[
        Path, typer.Argument(metavar="SET", help="A set folder, or a tree of pictures and masks by another program.")
    ],
    real: Annotated[Path, typer.Option("--real", metavar="DATA", help="Real pictures, in the MVTec AD layout.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="KEPT", help="Put the good pairs here; only judge if not given.")
    ] = None,
    defect: Annotated[str | None, typer.Option("--defect", help="The real defect; the set's own if not given.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")] = None,
    shots: Annotated[
        str,
        typer.Option(
            "--shots", metavar="all|N|first-third|pieces|FILE", help="Which real pictures the set was made from."
        ),
    ] = "first-third",
    need: Annotated[
        str, typer.Option("--need", help="The checks to pass, of valid,realistic,aligned,on_object,copy.")
    ] = "valid,realistic,aligned,on_object,copy",
    most: Annotated[int | None, typer.Option("--keep", min=1, help="Keep no more than the best N.")] = None,
    size: Annotated[int, typer.Option("--size", min=32, help="Pixels at which pictures are judged.")] = 128,
    as_json: JsonOption = False,
) -> None:
    """Score each pair of SET and keep the good ones; says what is dropped and why."""
    from dualanodiff.judge.reference import read_reference
    from dualanodiff.judge.selection import filter_source
    from dualanodiff.judge.source import open_source

    source = open_source(folder)
    own = source.lineage() or {}
    reference = read_reference(
        real, defect=defect or own.get("defect"), category=category or own.get("category"), side=size, shots=shots
    )
    checks = [name.strip() for name in need.split(",") if name.strip()]
    result = filter_source(source, reference, out, need=checks, most=most)
    show(result, render_filter(result), as_json=as_json)


def render_filter(result: Mapping[str, Any]) -> str:
    """What was kept and dropped, for a person."""
    why = ", ".join(f"{count} {_WHY.get(name, name)}" for name, count in result["why"].items())
    text = f"{result['kept']} of {result['pairs']} pairs are good; {result['dropped']} are dropped{f': {why}' if why else ''}"
    likeness, shots = result["likeness"], result["likeness_of_shots"]
    text += (
        f"\nlikeness to the nearest shot: median {likeness['middle']:.2f}, highest {likeness['highest']:.2f}; among the shots "
        f"themselves {shots['middle']:.2f} and {shots['highest']:.2f}; a copy from {result['thresholds']['copy']:.2f}"
    )
    if result["out"]:
        text += f"\nThe good ones are in {result['out']}, and a line on each other one in dropped.jsonl there"
    return text


_WHY = {
    "valid": "show no defect",
    "realistic": "do not look real",
    "aligned": "have a mask that does not fit",
    "on_object": "lie off the object",
    "copy": "copy a shot",
}


def calibrate_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Real pictures, in the MVTec AD layout.")],
    defect: Annotated[str | None, typer.Option("--defect", help="Needed where there are several.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")] = None,
    shots: Annotated[
        str,
        typer.Option("--shots", metavar="N|first-third|pieces|FILE", help="Which pictures the thresholds come from."),
    ] = "first-third",
    size: Annotated[int, typer.Option("--size", min=32, help="Pixels at which pictures are judged.")] = 128,
    most: Annotated[int, typer.Option("--cases", min=1, help="Cases of each kind that are tried.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Say how well the scores of evaluate and filter tell real defects of DATA from pairs with something wrong."""
    from dualanodiff.judge.calibration import check_reference
    from dualanodiff.judge.reference import read_reference

    reference = read_reference(data, defect=defect, category=category, side=size, shots=shots)
    result = check_reference(reference, data, most=most)
    limits = ", ".join(f"{name} {value:.2f}" for name, value in result["thresholds"].items())
    lines = [
        f"{result['category']} / {result['defect']} at {size} px; thresholds from {result['shots']} shots: {limits}",
        *([result["note"]] if result["note"] else []),
        "",
        "| share that passes | pairs | valid | realistic | aligned | on object | no copy | all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, row in result["rows"].items():
        names = ("valid", "realistic", "aligned", "on_object", "copy", "good")
        lines.append(f"| {kind} | {row['pairs']} | " + " | ".join(f"{row[name]:.2f}" for name in names) + " |")
    show(result, "\n".join([*lines, "", result["conclusion"]]), as_json=as_json)


def _render(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['name']}: {result['pairs']} pairs as {result['category']} / {result['defect']}, against "
        f"{result['held_out']} held-back real pictures and {result['shots']} shots at {result['side']} px"
    ]
    for name, row in result["metrics"].items():
        spread = "" if row["spread"] is None else f" +- {row['spread']:.4g}"
        value = "none" if row["value"] is None else f"{row['value']:.4g}{spread}"
        lines.append(f"  {name:32} {value:20} {row['generated']} generated, {row['real']} real; {row['better']}")
        beside = [f"{kind} {number:.4g}" for kind, number in row["beside"].items() if number is not None]
        if beside:
            lines.append(f"  {'':32} {', '.join(beside)}")
    for name, row in result["aspects"].items():
        lines.append(
            f"  {name.replace('_', ' '):32} {row['mean']:.2f}{'':16} {row['passed']} of {result['pairs']} reach {row['threshold']:.2f}"
        )
    if result["aspects"]:
        lines.append(
            f"{result['good']} of {result['pairs']} pairs pass everything; {result['copies']} are copies of a shot"
        )
    lines += [f"not at hand: {reason}" for reason in result["not_at_hand"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join([*lines, f"Each pair beside its nearest shot, the worst first: {result['page']}"])
