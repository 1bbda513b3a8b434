"""`dualanodiff distill`: a run that draws in a few steps, made from one that takes many."""

from pathlib import Path
from typing import Annotated

import typer

from dualanodiff.console import JsonOption, SetOption, command_line, read_assignments, show
from dualanodiff.progress import duration


def distill_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, the teacher.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN2", help="The run folder to make.")],
    sampling_steps: Annotated[
        int, typer.Option("--sampling-steps", min=2, max=8, help="Denoising steps of the new run.")
    ] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 300,
    lessons: Annotated[int, typer.Option("--lessons", min=1, help="Pairs of the teacher to learn from.")] = 96,
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a run to draw in a few steps, guidance folded in: faster, and not as good; generate takes it like any run."""
    assignments = read_assignments(settings)
    from dualanodiff.runs import RunFolder

    RunFolder(run).load_start()  # that it has ended is known before the slow imports
    from dualanodiff.distilling import distill

    result = distill(
        run,
        out,
        steps=steps,
        lessons=lessons,
        sampling_steps=sampling_steps,
        assignments=assignments,
        resume=resume,
    )
    text = (
        f"Taught {out} to draw in {sampling_steps} steps what {run} draws, in {result['steps']} steps and "
        f"{duration(result['seconds'])} (loss {result['loss']:.4f}). Next: "
        f"{command_line('generate', out, '--count', 100, '--out', 'SET')}"
    )
    show(result, text, as_json=as_json)
