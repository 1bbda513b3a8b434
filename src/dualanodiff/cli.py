"""The `dualanodiff` command: one function a command, each importing what it needs when it is called."""

import dataclasses
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dualanodiff.bases_cli import BaseOption, CategoryOption, DataArgument, adapt_command, card_command
from dualanodiff.bench.cli import app as bench_app
from dualanodiff.console import (
    ConfigOption,
    GuardedGroup,
    JsonOption,
    SetOption,
    VersionOption,
    command_line,
    read_assignments,
    read_mask_wishes,
    show,
)
from dualanodiff.data.catalog import category_folders, pick
from dualanodiff.distill_cli import distill_command
from dualanodiff.judge.cli import calibrate_command, evaluate_command, filter_command, render_filter
from dualanodiff.lift.cli import lift_command
from dualanodiff.onto.cli import (
    AreaOption,
    BoxOption,
    ContrastOption,
    DefectsOption,
    MixOption,
    OntoOption,
    RegionOption,
    ScaleOption,
    WhereOption,
    given_wishes,
)
from dualanodiff.pretrain.cli import app as pretrain_app
from dualanodiff.progress import duration
from dualanodiff.settings import ADAPT_STEPS

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(pretrain_app, name="pretrain")
app.add_typer(bench_app, name="bench")
app.command("evaluate")(evaluate_command)
app.command("filter")(filter_command)
app.command("calibrate")(calibrate_command)
app.command("lift")(lift_command)
app.command("adapt")(adapt_command)
app.command("distill")(distill_command)
app.command("card")(card_command)

ShotsOption = Annotated[
    str,
    typer.Option(
        "--shots", metavar="all|N|first-third|pieces|FILE", help="Which pictures of the defect to learn from."
    ),
]


@app.callback()
def root(version: VersionOption = False) -> None:
    """Defect pictures with pixel masks from a few real examples.

    `dualanodiff demo` shows the whole job. With data of your own: check, fit, generate.
    """


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything it makes is put.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws another product.")] = 0,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do the whole job on what is shipped: no network, no GPU, no data of yours."""
    assignments = read_assignments(settings)
    from dualanodiff.demo import run_demo

    result = run_demo(out, seed=seed, assignments=assignments)
    lines = [
        f"{key.replace('_', ' ')}: {value}" for key, value in result.items() if isinstance(value, str | int | float)
    ]
    lines += [
        "",
        "With a folder of your own (test/DEFECT has the pictures, ground_truth/DEFECT their masks):",
        "  dualanodiff check DATA --defect DEFECT",
        "  dualanodiff fit DATA --defect DEFECT --out runs/mine",
        "  dualanodiff generate runs/mine --count 100 --out sets/mine",
    ]
    show(result, "\n".join(lines), as_json=as_json)


@app.command()
def check(
    data: DataArgument,
    category: CategoryOption = None,
    defect: Annotated[str | None, typer.Option("--defect", help="Look at this defect only.")] = None,
    base: BaseOption = "mini",
    shots: ShotsOption = "first-third",
    config: ConfigOption = None,
    settings: SetOption = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Time a training step to foretell a run's.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Say what DATA holds, what is wrong with it by file, and what a run would cost; exit 1 on errors."""
    assignments = read_assignments(settings, config)
    several = len(category_folders(data)) > 1
    if defect and (category or not several):
        pick(data, category, defect)  # a slip of the pen is found before every picture is read
    from dualanodiff.cost import measure_cost
    from dualanodiff.data.check import check as find_problems
    from dualanodiff.data.check import render
    from dualanodiff.fit_folder import base_and_settings

    loaded, chosen = base_and_settings(base, config, assignments)
    resolution, factor = chosen.data.resolution, loaded.latent_factor
    report = find_problems(
        data, category=category, defect=defect, resolution=resolution, latent_factor=factor, shots=shots
    )
    text = render(report)
    if cost and not report.errors:
        costs = measure_cost(loaded, chosen)
        report = dataclasses.replace(report, costs=costs)
        adapting = f" (once a product {duration(costs['adapt_seconds'])} before it)" if costs["adapt_seconds"] else ""
        text += (
            f"\na run: {costs['train_steps']} steps in about {duration(costs['train_seconds'])} on this machine's "
            f"{costs['device']}{adapting}, then {costs['pair_seconds']:.1f} s a pair; adapters of {costs['adapter_bytes'] / 1e6:.0f} MB"
        )
        if costs["memory_bytes"]:
            text += f"\nit needs about {costs['memory_bytes'] / 2**30:.1f} GiB of memory and {costs['disk_bytes'] / 1e6:.0f} MB on disk"
    show(report.as_json(), text, as_json=as_json)
    if report.errors:
        raise typer.Exit(1)


@app.command()
def fit(
    data: DataArgument,
    defect: Annotated[str, typer.Option("--defect", help="The defect type to learn: a folder name under test/.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run folder to make.")],
    category: CategoryOption = None,
    base: BaseOption = "mini",
    shots: ShotsOption = "first-third",
    config: ConfigOption = None,
    settings: SetOption = None,
    normals: Annotated[
        bool | None,
        typer.Option(
            "--normals/--no-normals",
            help="First adapt the base to the product's good pictures, once for all its defects; else as the base's card says.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn one defect type from its shots."""
    assignments = read_assignments(settings, config)
    pick(data, category, defect)  # a slip of the pen is found before the slow imports
    from dualanodiff.fit_folder import fit_folder

    if normals is not None and "train.adapt_steps" not in assignments:
        assignments["train.adapt_steps"] = str(ADAPT_STEPS if normals else 0)
    result = fit_folder(
        data,
        defect=defect,
        category=category,
        out=out,
        base=base,
        shots=shots,
        config=config,
        assignments=assignments,
        resume=resume,
    )
    text = (
        f"Learned {defect} from {result['shots']} shots in {result['steps']} steps and {duration(result['seconds'])} "
        f"(loss {result['loss']:.4f}): {out}\n"
    )
    if result["object_masks"] != "not used":
        text += f"Object masks for the background: {result['object_masks']}\n"
    if any((out / "preview").glob("*.png")):
        text += f"Look at {out / 'preview'}. "
    text += f"Next: {command_line('generate', out, '--count', 100, '--out', 'SET')}"
    show(result, text, as_json=as_json)


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by fit or import-official.")],
    count: Annotated[int, typer.Option("--count", min=1, help="Pairs the set shall have in the end.")],
    out: Annotated[Path, typer.Option("--out", metavar="SET", help="The set folder to make or to fill up.")],
    seed: Annotated[
        int | None, typer.Option("--seed", help="Another seed draws other pairs; the run's if none.")
    ] = None,
    normals: Annotated[
        Path | None,
        typer.Option("--normals", help="Normal pictures whose backgrounds are used (runs with background)."),
    ] = None,
    onto: OntoOption = None,
    where: WhereOption = None,
    region: RegionOption = None,
    box: BoxOption = None,
    area: AreaOption = None,
    contrast: ContrastOption = None,
    scale: ScaleOption = None,
    mix: MixOption = None,
    defects: DefectsOption = None,
    best: Annotated[
        bool, typer.Option("--keep-best", help="Judge what is drawn, and go on until COUNT pairs are good.")
    ] = False,
    most: Annotated[
        int | None, typer.Option("--at-most", help="With --keep-best: pairs drawn at most; 4 times COUNT if none.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pairs of a defect picture and its mask, from nothing or onto good pictures; continues where it stopped."""
    assignments = read_assignments(settings)
    wishes = {"where": where, "region": region, "box": box, "area": area, "contrast": contrast, "scale": scale}
    given = given_wishes(onto or ("nothing" if normals else None), {**wishes, "mix": mix, "defects": defects}, run, out)
    from dualanodiff.generation import generate_set

    if best:
        from dualanodiff.keep_best import keep_best

        def draw(total: int, folder: Path) -> dict[str, Any]:
            return generate_set(
                run, count=total, out=folder, seed=seed, assignments=assignments, normals=normals, onto=given
            )

        result = keep_best(draw, run, count=count, out=out, most=most)
        short = (
            ""
            if result["enough"]
            else f"\nThat is fewer than {count}: {result['limit']} is the most to draw (--at-most)"
        )
        show(result, f"{result['drawn']} pairs were drawn; {render_filter(result)}{short}", as_json=as_json)
        return
    result = generate_set(run, count=count, out=out, seed=seed, assignments=assignments, normals=normals, onto=given)
    text = (
        f"{result['count']} pairs are in {out}, {result['made']} of them new: image/, mask/, part/ and manifest.jsonl\n"
        f"{len(result['empty'])} of them show no defect, and have an empty mask"
    )
    if 2 * len(result["empty"]) >= result["count"]:
        text += (
            ", which is many: train longer (`fit --resume --set train.max_train_steps=...`), and look at the pictures"
        )
    if "met" in result:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result["met"].items())
        text += (
            f"\nThe defects are on good pictures (--onto nothing draws whole parts). As asked for: {shares}; "
            f"{result['attempts']:g} attempts a defect. Look at {result['sheet']}"
        )
    show(result, text, as_json=as_json)


@app.command()
def mask(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="A set folder made by generate.")],
    method: Annotated[
        Literal["key", "u2net", "sam", "attention"] | None,
        typer.Option("--method", help="How the mask is read from the part picture; as generated if not given."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="The U2-Net onnx file, or the folder of a SAM.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the masks of a set, again or by another method; continues where it stopped."""
    wishes = read_mask_wishes(settings)
    from dualanodiff.masks.remake import remake_masks

    result = remake_masks(
        folder, **wishes | {key: value for key, value in [("method", method), ("model", model)] if value}
    )
    text = f"{result['count']} masks by {result['method']} are in {folder / 'mask'}; {len(result['empty'])} parts show no defect"
    show(result, text, as_json=as_json)


@app.command("import-official")
def import_official_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The authors' pytorch_lora_weights.bin.")],
    base: Annotated[str, typer.Option("--base", help="The base it was trained on: a folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run folder to make.")],
    as_json: JsonOption = False,
) -> None:
    """Load a checkpoint of the authors' code as a run."""
    from dualanodiff.official_run import import_official

    result = import_official(file, base=base, out=out)
    text = f"Imported {file} as {out}. Next: {command_line('generate', out, '--count', 100, '--out', 'SET')}"
    show(result, text, as_json=as_json)


@app.command("settings")
def settings_command(config: ConfigOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Print every setting with its default and what it does, as TOML to edit and pass with --config."""
    from dualanodiff.settings import Settings, read_settings, to_toml

    chosen = (read_settings(config) if config else Settings()).updated(read_assignments(settings, config), "--set")
    note = "# Keep only the lines that you change: what stands in a --config file also overrides what the base recommends.\n"
    show(chosen.to_dict(), note + to_toml(chosen).rstrip(), as_json=as_json)


def main() -> None:
    """Run the command line; libraries keep their advice to themselves."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    app(prog_name="dualanodiff")
