"""Adapt a base to one product before its few shots come: good pictures, of which there are plenty -> a base folder.

The result is a base like any other, shared by all defect types of the product: `fit --base FOLDER`. What is trained, and
on what, stands in pretrain/adaptation.py.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from dualanodiff.data.catalog import Category, category_folders, choose_name, read_category
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.model.base import Base, load_base
from dualanodiff.preparing import base_files, recommended
from dualanodiff.pretrain.adaptation import Adaptation, AdaptPlan
from dualanodiff.pretrain.folder import begin_base
from dualanodiff.runs import file_record, make_lineage
from dualanodiff.settings import Settings
from dualanodiff.stopping import one_clear_line
from dualanodiff.storage import read_jsonl, write_json, write_text


def adapt(
    data: Path,
    *,
    category: str | None = None,
    base: str = "mini",
    out: Path,
    plan: AdaptPlan | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Write the base folder `out`, going on where an earlier call stopped; a finished one is returned as it is.

    Of the settings, the base's own if none, data.resolution, the flips and the prompts matter, and train.adapt_rate where
    no plan is given. Returns base, category, normals, steps, loss and seconds. Raises DataError without good pictures,
    SettingsError for a rate that teaches nothing, and RunError where `out` holds another base.
    """
    loaded = load_base(base)
    settings = settings or recommended(loaded)
    plan = plan or AdaptPlan(rate=settings.train.adapt_rate)
    if not 0 < plan.rate < 1:
        msg = f"the rate of an adaptation (--rate, train.adapt_rate) is {plan.rate:g} but must be between 0 and 1, such as 1e-3"
        raise SettingsError(msg)
    product = find_product(data, category)
    normals = choose_normals(product, plan.most_normals)
    files = [file_record(path, "normal") for path in normals]
    files += [file_record(path, "base") for path in base_files(loaded)]
    lineage = make_lineage(base=base, seed=plan.seed, files=files, category=product.name, defect=None)
    facts = _facts(settings, plan, files)
    begin_base(out, "adapt.json", facts)
    if not (out / "base.toml").exists():
        with one_clear_line(
            out, go_on="give the same command again", smaller="Adapt into a new folder with a lower data.resolution"
        ):
            write_json(out / "adapt.json", facts)
            Adaptation(loaded, settings, plan, normals, out).run()
            write_json(out / "lineage.json", {**lineage, "plan": asdict(plan)})
            # Last of all: a folder with it is finished.
            write_text(out / "base.toml", _card(loaded, product, len(normals), plan))
        shutil.rmtree(out / "work", ignore_errors=True)
    last = list(read_jsonl(out / "adapt.jsonl"))[-1]
    return {
        "base": str(out),
        "category": product.name,
        "normals": len(normals),
        "steps": last["step"],
        "loss": last["loss"],
        "seconds": last["seconds"],
    }


def adapted_base(
    data: Path,
    *,
    category: str | None,
    base: Base,
    folder: Path,
    settings: Settings,
) -> str:
    """The base adapted to this product below `folder`, made unless it is there; the same for all defect types.

    It is adapted for train.adapt_steps at train.adapt_rate. Its folder is named after a hash of base, good pictures, plan
    and settings, so that another of these makes another.
    """
    plan = AdaptPlan(steps=settings.train.adapt_steps, rate=settings.train.adapt_rate)
    product = find_product(data, category)
    files = [file_record(path, "normal") for path in choose_normals(product, plan.most_normals)]
    files += [file_record(path, "base") for path in base_files(base)]
    digest = hashlib.sha256(json.dumps(_facts(settings, plan, files), sort_keys=True).encode()).hexdigest()
    out = folder / f"{product.name}-{digest[:12]}"
    if (out / "base.toml").exists():
        return str(out)
    return adapt(data, category=product.name, base=base.name, out=out, plan=plan, settings=settings)["base"]


def find_product(data: Path, category: str | None) -> Category:
    """The category asked for, which need not have defects; DataError where there is none."""
    folders = category_folders(data)
    name = choose_name(category, folders, "category", Path(data))
    return read_category(name, folders[name])


def choose_normals(product: Category, most: int) -> list[Path]:
    """At most `most` good pictures of train/good, evenly spread; DataError where there are none."""
    if not product.good:
        msg = f"{product.root / 'train' / 'good'}: no good pictures to adapt to; put the product's good pictures there"
        raise DataError(msg)
    places = np.linspace(0, len(product.good) - 1, min(most, len(product.good))).round().astype(int)
    return [product.good[i] for i in places]


def _facts(settings: Settings, plan: AdaptPlan, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What an adapted base is made from, by name; files by content, so that they may be moved."""
    return {
        "data.resolution": settings.data.resolution,
        "data.flip_horizontal": settings.data.flip_horizontal,
        "data.flip_vertical": settings.data.flip_vertical,
        "model.prompt_image": settings.model.prompt_image,
        "model.prompt_part": settings.model.prompt_part,
        **{f"plan {key}": value for key, value in asdict(plan).items()},
        "normal pictures": [file["sha256"] for file in files if file["role"] == "normal"],
        "base files": [file["sha256"] for file in files if file["role"] == "base"],
    }


def _card(base: Base, product: Category, normals: int, plan: AdaptPlan) -> str:
    """The base's own card, with what was done to it; it is not to be adapted a second time."""
    done = {
        "adapted_from": base.name,
        "adapted_to": f"{normals} good pictures of {product.name}, {plan.steps} steps; the licence of those pictures holds for it, too",
    }
    recommends = dict(base.card.get("settings", {}))
    recommends["train"] = {**recommends.get("train", {}), "adapt_steps": 0}
    return tomli_w.dumps({**base.card, "card": {**base.card.get("card", {}), **done}, "settings": recommends})
