"""`dualanodiff bench`: comparisons in one resumable run."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualanodiff.console import JsonOption, SetOption, read_assignments, show

if TYPE_CHECKING:
    from dualanodiff.bench.cells import Place

app = typer.Typer(no_args_is_help=True, help="Compare generators, bases or speeds in one resumable run.")
TexturesOption = Annotated[
    Path | None,
    typer.Option("--textures", metavar="FOLDER", help="Pictures as textures of DRAEM and PRN; drawn if none."),
]
ObjectOption = Annotated[
    Path | None,
    typer.Option("--object-model", metavar="FILE", help="A U^2-Net that finds the object; else its border."),
]


@app.command()
def speed(
    out: Annotated[Path, typer.Option("--out", help="Where cells.jsonl, speed.json and speed.md are put.")],
    size: Annotated[
        list[str] | None, typer.Option("--size", help="toy, mini or sd15; may be repeated (toy and mini).")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option("--background", help="none, paper or released; may be repeated (none).")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often each way is timed.")] = 5,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps where all do as many.")] = 50,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pairs a call of ours at equal steps.")] = 8,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time fit steps and generated pairs beside a plain path that works as the released scripts do."""
    assignments = read_assignments(settings)
    from dualanodiff.bench.speed import measure_speed, table

    result = measure_speed(
        out,
        sizes=size or ["toy", "mini"],
        backgrounds=background or ["none"],
        rounds=rounds,
        steps=steps,
        batch=batch,
        assignments=assignments,
    )
    show(result, table(result["cells"]), as_json=as_json)


TaskOption = Annotated[
    list[str],
    typer.Option("--data", metavar="DATA[:CATEGORY]:DEFECT", help="A task, or a folder of them; may be repeated."),
]


@app.command()
def bases(
    bases: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE...",
            help="Bases as of fit, random, or variants BASE@NAME:setting=value,train.adapt_steps=1000.",
        ),
    ],
    data: TaskOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells, sets and tables are put.")],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Fit steps, the same for every base.")] = 300,
    count: Annotated[int, typer.Option("--count", min=2, help="Pairs a base and task.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of fits and sets.")] = 0,
    side: Annotated[int, typer.Option("--side", min=32, help="Side in pixels at which all are judged.")] = 128,
    shots: Annotated[
        str, typer.Option("--shots", metavar="N|first-third|pieces|FILE", help="As for fit.")
    ] = "first-third",
    network: Annotated[
        str, typer.Option("--network", help="Feature network of the KID; auto is the best at hand.")
    ] = "auto",
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="DIR", help="A folder of the networks' weights.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare bases on fixed few-shot tasks: same shots, steps and pairs; resumable."""
    from dualanodiff.bench.bases import Budget, compare_bases
    from dualanodiff.bench.bases_page import bases_table
    from dualanodiff.bench.entries import read_entries
    from dualanodiff.bench.tasks import read_tasks

    budget = Budget(steps=steps, count=count, seed=seed, side=side, shots=shots, network=network)
    result = compare_bases(read_entries(bases), read_tasks(data), out, budget, weights=weights)
    show(result, f"{bases_table(result)}\nWith pictures: {result['page']}", as_json=as_json)


@app.command()
def survival(
    bases: Annotated[list[str], typer.Argument(metavar="BASE...", help="Bases as of fit.")],
    data: TaskOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the table and the sheets are put.")],
    side: Annotated[
        int | None, typer.Option("--side", min=32, help="Side of the pictures in pixels; each base's own if none.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Pictures a task.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Measure what a base's autoencoder leaves of real defects, by their thickness."""
    from dualanodiff.bench.survival import measure_survival, survival_table
    from dualanodiff.bench.tasks import read_tasks

    result = measure_survival(bases, read_tasks(data), out, side=side, most=most)
    show(result, f"{survival_table(result['rows'])}\nPictures: {result['sheets']}", as_json=as_json)


@app.command()
def duplicates(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A pack of `pretrain pack`, or a folder of pictures.")
    ],
    data: Annotated[
        list[Path], typer.Option("--data", metavar="DATA", help="A folder of pictures to evaluate on; may be repeated.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Look for evaluation pictures among those that a base was trained on; exit 1 if any is suspected."""
    from dualanodiff.pretrain.duplicates import prove_apart

    result = prove_apart(corpus, data)
    found = result["duplicates"]
    lines = [
        f"{pair['trained']} looks like {pair['evaluated']} ({pair['bits']} of 256 bits differ, correlation "
        f"{pair['correlation']:.3f}); look at both, or leave the first out"
        for pair in found
    ]
    lines.append(
        f"{len(found)} of {result['trained']} pictures look like one of the {result['evaluated']} to evaluate on"
    )
    show(result, "\n".join(lines), as_json=as_json)
    if found:
        raise typer.Exit(1)


@app.command()
def make(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="crop-paste, cutpaste, cutpaste-scar, draem, prn or diffaug.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder in the MVTec AD layout, or one category.")],
    count: Annotated[int, typer.Option("--count", min=1, help="Pairs the set shall have in the end.")],
    out: Annotated[Path, typer.Option("--out", metavar="SET", help="The set folder to make or to fill up.")],
    defect: Annotated[str | None, typer.Option("--defect", help="Needed where there is more than one.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="Needed where DATA has more than one.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other pairs.")] = 0,
    size: Annotated[int, typer.Option("--size", min=32, help="Side of the pictures in pixels.")] = 256,
    shots: Annotated[
        str, typer.Option("--shots", metavar="all|N|first-third|pieces|FILE", help="As for fit.")
    ] = "first-third",
    textures: TexturesOption = None,
    object_model: ObjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a set by a method that learns nothing: real defects pasted, textures blended in, shots augmented."""
    from dualanodiff.rivals.making import make_set

    result = make_set(
        method,
        data,
        defect=defect,
        category=category,
        count=count,
        out=out,
        seed=seed,
        size=size,
        shots=shots,
        textures=textures,
        object_model=object_model,
    )
    text = f"{result['count']} pairs are in {out}, {result['made']} of them new. Look at {result['sheet']}"
    show(result, text, as_json=as_json)


@app.command()
def generators(
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="DATA[:CATEGORY[:DEFECT]]", help="A data set; may be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells, sets and tables are put.")],
    methods: Annotated[
        str, typer.Option("--methods", metavar="NAME,...", help="Which methods; see the page docs/comparison.md.")
    ] = "no-defects,real-shots,crop-paste,cutpaste,draem,prn,diffaug,ours,ours-no-saim",
    others: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME=FOLDER", help="A set that others have made; may be repeated."),
    ] = None,
    detectors: Annotated[
        str, typer.Option("--detectors", metavar="NAME,...", help="patchcore, cfa, rd4ad, draem-detector (anomalib).")
    ] = "",
    maps: Annotated[
        list[str] | None,
        typer.Option("--maps", metavar="NAME=FOLDER", help="Anomaly maps of a detector; may be repeated."),
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N,...", help="Each makes sets and inspectors anew.")
    ] = "0,1,2",
    count: Annotated[int, typer.Option("--count", min=2, help="Pairs a defect type.")] = 64,
    size: Annotated[str, typer.Option("--size", metavar="cpu|paper", help="Of the inspectors and pictures.")] = "cpu",
    arms: Annotated[
        str, typer.Option("--arms", metavar="ARM,...", help="What inspectors learn from; as for lift.")
    ] = "generated,real+generated",
    tables: Annotated[
        str | None,
        typer.Option("--tables", metavar="1,2,...", help="Also in the layouts of these tables of the paper."),
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Of our fits.")] = "mini",
    shots: Annotated[
        str, typer.Option("--shots", metavar="N|first-third|pieces|FILE", help="As for fit.")
    ] = "first-third",
    same_fit: Annotated[
        bool, typer.Option("--same-fit", help="One fit for all seeds; the spread is then of sampling and inspectors.")
    ] = False,
    unproved: Annotated[
        bool, typer.Option("--unproved", help="Accept sets that cannot prove what they were made from.")
    ] = False,
    inspector: Annotated[
        list[str] | None,
        typer.Option(
            "--inspector", metavar="KEY=VALUE", help="Change one number of the inspectors, such as steps=600."
        ),
    ] = None,
    network: Annotated[str, typer.Option("--network", help="Feature network of the distances.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FOLDER", help="Where weights of the networks lie.")
    ] = None,
    textures: TexturesOption = None,
    object_model: ObjectOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare generators by what their sets are and what they do for inspectors; resumable, exit 1 if a cell failed."""
    assignments = read_assignments(settings)
    from dualanodiff.bench.cells import Contest, Protocol, read_places, read_seeds
    from dualanodiff.bench.detectors import read_detectors
    from dualanodiff.bench.generators import compare_generators
    from dualanodiff.bench.methods import Making, read_methods
    from dualanodiff.bench.paper_tables import read_table_numbers
    from dualanodiff.lift.training import read_plan

    plan = read_plan(size, inspector or [])
    protocol = Protocol(
        plan=plan,
        arms=tuple(word for word in arms.split(",") if word),
        network=network,
        weights=weights,
        unproved=unproved,
        same_fit=same_fit,
    )

    def making(place: "Place") -> Making:
        return Making(
            data=place.data,
            category=place.category,
            out=out,
            count=count,
            size=plan.side,
            base=base,
            shots=shots,
            assignments=assignments,
            textures=textures,
            object_model=object_model,
        )

    result = compare_generators(
        Contest(out, protocol, read_seeds(seeds), making),
        read_methods([*(word for word in methods.split(",") if word), *(others or [])]),
        read_places(data),
        detectors=read_detectors([word for word in detectors.split(",") if word], maps or []),
        tables=read_table_numbers(tables) if tables else [],
        command=shlex.join(["dualanodiff", *sys.argv[1:]]),
    )
    lines = [Path(result["markdown"]).read_text(encoding="utf-8")]
    lines += [
        f"failed: {cell['method']} on {cell['data']}, seed {cell['seed']}: {cell['error']}" for cell in result["failed"]
    ]
    show(result, "\n".join([*lines, f"As a page: {result['page']}"]), as_json=as_json)
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def growth(
    out: Annotated[Path, typer.Option("--out", help="Where growth.json, growth.md and growth.svg are put.")],
    size: Annotated[str, typer.Option("--size", help="toy, mini or sd15.")] = "mini",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often each is timed.")] = 3,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time how work grows with the batch, the resolution and the number of shots."""
    assignments = read_assignments(settings)
    from dualanodiff.bench.growth import growth_table, measure_growth

    result = measure_growth(out, size=size, rounds=rounds, assignments=assignments)
    show(result, growth_table(result), as_json=as_json)


@app.command()
def memory(settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Count what a fit at Stable Diffusion 1.5's size would take on a GPU; none is needed."""
    assignments = read_assignments(settings)
    from dualanodiff.bench.forecast import forecast_sd15
    from dualanodiff.settings import Settings

    result = forecast_sd15(Settings().updated(assignments, "--set"))
    lines = [f"{size:6.2f} GiB  {name}" for name, size in result["gib"].items()]
    lines += [
        f"{result['total_gib']:6.2f} GiB  together, to which the GPU's own context and buffers come",
        f"{result['adapter_bytes'] / 1e6:.0f} MB of adapters on disk",
    ]
    show(result, "\n".join(lines), as_json=as_json)
