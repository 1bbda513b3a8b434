"""The whole job on what is shipped: draw a product, adapt the base to it, learn a defect, make pairs, look at them."""

from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.change import agreement, change_maps, contrast
from dualanodiff.errors import RunError
from dualanodiff.fit_folder import fit_folder
from dualanodiff.fitted import read_shots
from dualanodiff.generation import generate_set
from dualanodiff.images import read_rgb, resize_mask, resize_rgb
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from dualanodiff.storage import write_json
from dualanodiff.synth.product import demo_products, write_product

PRODUCT, DEFECT = "cap", "stain"
PICTURES = 24
"""Defect pictures drawn a type; the first third, eight, are the shots."""
NORMALS = 24
PAIRS = 16
SETTINGS = {"train.adapt_steps": "300", "train.max_train_steps": "400"}
"""The base is adapted to the product's good pictures first, as `fit --normals` does, in less time than that takes."""
JUDGED = 128
"""Side in pixels at which pairs are compared with good pictures, whatever a base draws: the comparison's cost grows with its fourth power."""
AGREES = 0.8
"""A mask agrees with its picture from this area under the ROC curve on; a mask of another pair scores about 0.5."""


def run_demo(out: Path, *, base: str = "mini", seed: int = 0, assignments: dict[str, str]) -> dict[str, Any]:
    """Draw the demo's products, fit, generate and judge; everything is under `out`, and a second call goes on.

    `out` becomes data/ (three products in MVTec layout), adapted/ (the base after the product's good pictures), run/ and set/
    (a RUN and a SET, with pairs.png to look at) and demo.json.
    """
    data, run, pairs = out / "data", out / "run", out / "set"
    marker = data / "seed.txt"
    if marker.exists() and marker.read_text(encoding="utf-8") != str(seed):
        msg = f"{out}: holds a demo of seed {marker.read_text(encoding='utf-8')}; choose another --out for seed {seed}"
        raise RunError(msg)
    if not marker.exists():
        for name, product in demo_products().items():
            write_product(data / name, product, normals=NORMALS, defects=PICTURES, size=256, seed=seed)
        marker.write_text(str(seed), encoding="utf-8")
    settings = {"seed": str(seed), **SETTINGS, **assignments}
    if not RunFolder(run).finished:
        resume = (run / "config.toml").exists()
        fit_folder(data, defect=DEFECT, category=PRODUCT, out=run, base=base, assignments=settings, resume=resume)
    made = generate_set(run, count=PAIRS, out=pairs, assignments={})
    shots = read_shots(RunFolder(run), JUDGED)
    normals = [read_rgb(path, size=JUDGED) for path in sorted((data / PRODUCT / "train" / "good").glob("*.png"))]
    judged = judge_set(pairs, normals)
    result = {
        "look_at": made["sheet"],
        "run": str(run),
        "set": str(pairs),
        "data": str(data),
        "product": f"{PRODUCT} with {DEFECT}",
        "pairs": PAIRS,
        **judged,
        "shots_agreement": [
            round(agreement(change, shot.mask), 3)
            for change, shot in zip(change_maps([shot.image for shot in shots], normals), shots, strict=True)
        ],
    }
    write_json(out / "demo.json", result)
    return result


def judge_set(folder: Path, normals: list[np.ndarray]) -> dict[str, Any]:
    """How many pairs show a defect, and in how many the mask agrees with what changed against good pictures (s, s, 3).

    Also the control: the same with each mask given to the next pair, which a measure worth its name scores near 0.5.
    """
    pairs = PairSet.open(folder)
    rows = pairs.rows()
    side = normals[0].shape[0]
    masks = {index: resize_mask(pairs.read("mask", index), side) for index in rows}
    images = [resize_rgb(pairs.read("image", index), side) for index in rows]
    changes = dict(zip(rows, change_maps(images, normals), strict=True))
    shown = [index for index in rows if not rows[index]["mask_empty"] and contrast(changes[index], masks[index]) > 0]
    scores = {index: agreement(changes[index], masks[index]) for index in rows}
    others = [masks[index] for index in rows][1:] + [masks[index] for index in rows][:1]
    control = [agreement(changes[index], other) for index, other in zip(rows, others, strict=True)]
    return {
        "with_a_defect": len(shown),
        "mask_agrees": sum(scores[index] >= AGREES for index in shown),
        "agreement": [round(scores[index], 3) for index in rows],
        "median_agreement": round(float(np.median(list(scores.values()))), 3),
        "median_agreement_of_swapped_masks": round(float(np.median(control)), 3),
    }
