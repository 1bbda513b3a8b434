"""`dualanodiff lift`: what a generated set does for an inspector, measured on held-back real pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dualanodiff.console import JsonOption, show
from dualanodiff.progress import duration


def lift_command(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...", help="A set for each defect type; DEFECT=SET where the set does not say which."
        ),
    ],
    real: Annotated[Path, typer.Option("--real", metavar="DATA", help="Real pictures, in the MVTec AD layout.")],
    category: Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")] = None,
    arms: Annotated[
        str,
        typer.Option(
            "--arms", metavar="ARM,...", help="none, real, generated, real+generated, real+N; more: two real+N."
        ),
    ] = "none,real,generated,real+generated,more",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each arm; 3 give a spread.")] = 3,
    size: Annotated[
        Literal["cpu", "paper"],
        typer.Option("--size", help="cpu: small, 15 minutes; paper: as in the paper, for a GPU."),
    ] = "cpu",
    shots: Annotated[
        str,
        typer.Option(
            "--shots",
            metavar="N|first-third|pieces|FILE",
            help="Which real pictures the sets were made from; the others test.",
        ),
    ] = "first-third",
    unproved: Annotated[
        bool,
        typer.Option("--unproved", help="Accept sets that cannot prove what they were made from; the report says so."),
    ] = False,
    as_paper: Annotated[
        bool,
        typer.Option(
            "--as-paper", help="Also report the best of ten looks at the test set, under that name: no evidence."
        ),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one number of the size, such as steps=600; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Cells, tables and a page; continues there.")
    ] = Path("runs/lift"),
    as_json: JsonOption = False,
) -> None:
    """Train inspectors with and without SETs, test them on real pictures nobody has seen, and say what the sets are worth."""
    from dualanodiff.lift.compare import measure_lift
    from dualanodiff.lift.training import read_plan
    from dualanodiff.lift.which import find_sources

    plan = read_plan(size, [*(changes or []), *(["looks=10"] if as_paper else [])])
    sources = find_sources(sets, real, category)
    names = [name for word in arms.split(",") if (name := word.strip())]
    result = measure_lift(
        sources, real, category, out=out, plan=plan, arms=names, seeds=seeds, shots=shots, allow_unproved=unproved
    )
    text = "\n".join([*result["notes"], result["sentence"]])
    text += f"\nTables: {out / 'lift.md'}; page: {out / 'lift.html'} ({duration(result['seconds'])} of computing)"
    show(result, text, as_json=as_json)
