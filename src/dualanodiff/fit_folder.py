"""The `fit` command: a data folder and settings from four layers -> a run."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualanodiff.adapt import adapted_base
from dualanodiff.data.catalog import pick
from dualanodiff.data.shots import find_shots
from dualanodiff.errors import DataError, RunError
from dualanodiff.fitting import fit, recommended
from dualanodiff.latents import check_resolution
from dualanodiff.memory import best_device
from dualanodiff.model.base import Base, load_base
from dualanodiff.pair_model import wants_bf16
from dualanodiff.runs import ADAPTED, RunFolder
from dualanodiff.settings import Settings, read_settings
from dualanodiff.storage import read_jsonl

FEWEST_GOOD = 8
"""Good pictures that a product must have for its base to be adapted to them."""


def fit_folder(
    data: Path,
    *,
    defect: str | None,
    category: str | None = None,
    out: Path,
    base: str = "mini",
    shots: str = "first-third",
    config: Path | None = None,
    assignments: dict[str, str],
    resume: bool = False,
    adapted: Path | None = None,
) -> dict[str, Any]:
    """Learn `defect` from the shots of a data folder; returns run, shots, steps, loss, seconds and what was chosen.

    Where train.adapt_steps asks for it and the product has good pictures, the base is adapted to them first: into the folder
    `adapted`, which is `adapted` beside the run if it is not given, unless it is there already. A run that was begun keeps its own.
    Raises DataError, SettingsError, ModelError or RunError, each naming what is wrong and the way out.
    """
    product, name = pick(data, category, defect)
    loaded, settings = base_and_settings(base, config, assignments)
    found = find_shots(data, defect=name, category=product.name, rule=shots, resolution=settings.data.resolution)
    enough = len(product.good) >= FEWEST_GOOD
    if settings.train.adapt_steps and not enough and "train.adapt_steps" in assignments:
        place = product.root / "train" / "good"
        msg = f"{place}: {len(product.good)} good pictures, but a base is adapted to {FEWEST_GOOD} or more; put more there, or give --no-normals"
        raise DataError(msg)
    if settings.train.adapt_steps and enough:
        run = RunFolder(out)
        run.check_free(resume=resume)
        check_resolution(loaded, found)
        begun = run.base_name() if run.begun else ""
        if Path(begun).parent.name == ADAPTED:
            base = begun  # a run goes on with the base that it has, however it would be adapted today
        else:
            beside = adapted or out.parent / ADAPTED
            base = adapted_base(data, category=product.name, base=loaded, folder=beside, settings=settings)
        loaded = base_and_settings(base, config, assignments)[0]
    folder = fit(found, loaded, out, settings, normals=product.good, category=product.name, defect=name, resume=resume)
    return summarise(folder)


def base_and_settings(name: str, config: Path | None, assignments: dict[str, str]) -> tuple[Base, Settings]:
    """The base in the precision that the settings ask for, and the settings of all four layers."""
    base = load_base(name)
    settings = recommended(base)
    if config is not None:
        settings = read_settings(config, settings)
    settings = settings.updated(assignments, "--set")
    device = best_device()
    if wants_bf16(settings, device):
        nn.Module.to(base.unet, torch.bfloat16)  # past diffusers, whose own warns of nothing
    return base, settings


def summarise(folder: RunFolder) -> dict[str, Any]:
    """What a finished fit has to say: run, shots, steps, last loss, seconds, start, key colour."""
    _, facts = folder.load_start()
    rows = list(read_jsonl(folder.metrics))
    if not rows:
        msg = f"{folder.metrics}: empty, so nothing is known of this run's training; fit it again into a new folder"
        raise RunError(msg)
    kept = ("shots", "steps", "start", "key_color", "object_masks")
    return {
        "run": str(folder.path),
        "loss": rows[-1]["loss"],
        "seconds": rows[-1]["seconds"],
        **{key: facts[key] for key in kept},
    }
