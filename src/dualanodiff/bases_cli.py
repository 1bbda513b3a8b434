"""What is done with bases on the command line: adapt one to a product, and read its card."""

from pathlib import Path
from typing import Annotated

import typer

from dualanodiff.console import JsonOption, SetOption, command_line, read_assignments, show
from dualanodiff.data.catalog import category_folders
from dualanodiff.progress import duration
from dualanodiff.settings import ADAPT_STEPS

DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="A folder in the MVTec AD layout, or one category of it.")
]
CategoryOption = Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")]
BaseOption = Annotated[
    str, typer.Option("--base", help="mini (shipped), a folder in Stable Diffusion's layout, or a hub id.")
]


def adapt_command(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The base folder to make, or to go on with.")],
    category: CategoryOption = None,
    base: BaseOption = "mini",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = ADAPT_STEPS,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Peak AdamW rate; as the base's card says if none.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adapt a base to a product's good pictures, once for all its defect types: a base for `fit --base`."""
    assignments = read_assignments(settings)
    category_folders(data)
    from dualanodiff.adapt import adapt as adapt_base
    from dualanodiff.fit_folder import base_and_settings
    from dualanodiff.pretrain.adaptation import AdaptPlan

    wished = base_and_settings(base, None, assignments)[1]
    plan = AdaptPlan(steps=steps, rate=wished.train.adapt_rate if rate is None else rate)
    result = adapt_base(data, category=category, base=base, out=out, plan=plan, settings=wished)
    next_step = command_line("fit", data, "--defect", "D", "--base", out, "--out", "RUN")
    text = (
        f"Adapted {base} to {result['normals']} good pictures of {result['category']} in {result['steps']} steps and "
        f"{duration(result['seconds'])}: {out}. Next: {next_step}"
    )
    show(result, text, as_json=as_json)


def card_command(
    base: Annotated[str, typer.Argument(metavar="[BASE]", help="As --base of fit.")] = "mini",
    as_json: JsonOption = False,
) -> None:
    """Say what a base is: data, licences, steps, hardware, figures, limits, and the SHA-256 of every weight file."""
    from dualanodiff.model.base import load_base
    from dualanodiff.model.card import card_of, render_card

    result = card_of(load_base(base))
    show(result, render_card(result), as_json=as_json)
