"""Masks by any method: a maker for one part after the other, and the `mask` command over a whole SET."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.errors import RunError, SettingsError
from dualanodiff.masks.attention import attention_mask
from dualanodiff.masks.key import key_mask
from dualanodiff.masks.result import MaskResult
from dualanodiff.masks.saliency import U2Net, saliency_mask
from dualanodiff.progress import progress
from dualanodiff.sets import PairSet
from dualanodiff.settings import MaskSettings, Settings

MaskMaker = Callable[[np.ndarray, np.ndarray | None], MaskResult]
"""Makes the mask of a part uint8 (h, w, 3), given its attention map uint8 (h, w) where one was kept."""


def make_mask_maker(
    settings: MaskSettings, key: tuple[int, int, int], *, calibrated: float | None = None, device: str = "cpu"
) -> MaskMaker:
    """The maker that the settings ask for; its model is loaded once.

    `calibrated` is the shots' threshold for the key method, used where the settings give none. Raises ModelError or
    SettingsError when the method's model is missing or cannot be used.
    """
    threshold, area = settings.threshold or None, settings.minimum_area
    if settings.method == "key":
        return lambda part, _: key_mask(part, key, threshold=threshold, calibrated=calibrated, minimum_area=area)
    if settings.method == "attention":
        return lambda part, attention: _from_attention(part, attention, threshold, area)
    if not settings.model:
        example = {"u2net": "u2netp.onnx", "sam": "a folder or hub id such as facebook/sam-vit-base"}[settings.method]
        msg = f"mask.method is {settings.method}, which needs a model; give it as mask.model (--model): {example}"
        raise SettingsError(msg)
    if settings.method == "u2net":
        net = U2Net(settings.model)
        return lambda part, _: saliency_mask(part, net, key, threshold, minimum_area=area)
    from dualanodiff.masks.sam import Sam, sam_mask  # noqa: PLC0415  (transformers is slow to import)

    sam = Sam(settings.model, device=device)
    return lambda part, _: sam_mask(part, sam, key, threshold, minimum_area=area)


def _from_attention(part: np.ndarray, attention: np.ndarray | None, threshold: float | None, area: int) -> MaskResult:
    if attention is None:
        msg = "mask.method is attention, but this pair has no attention map; generate a set with --set mask.method=attention, or use another method"
        raise RunError(msg)
    return attention_mask([attention], (part.shape[0], part.shape[1]), threshold, minimum_area=area)


def remake_masks(
    set_folder: str | Path,
    *,
    method: str | None = None,
    model: str | Path | None = None,
    threshold: float | None = None,
    minimum_area: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make the masks of a SET again; what is not given is as the set was generated.

    Returns method, count, made, kept (by an interrupted call with the same wishes), empty (indices) and mean_area
    (share of the picture, over the masks that are not empty). A kill leaves the set consistent, and the same call goes
    on from there.
    """
    pairs = PairSet.open(set_folder)
    facts = pairs.facts()
    settings = _wanted(facts, {"method": method, "model": model, "threshold": threshold, "minimum_area": minimum_area})
    maker = make_mask_maker(settings, pairs.key(), calibrated=facts.get("threshold") or None, device=device)
    recipe = hashlib.sha256(json.dumps(dataclasses.asdict(settings)).encode()).hexdigest()[:16]
    rows, done = pairs.rows(), pairs.done()
    todo = [row for index, row in rows.items() if row.get("mask_recipe") != recipe or index not in done]
    with progress("masks", len(rows), start=len(rows) - len(todo)) as bar:
        for row in todo:
            index = row["index"]
            attention = pairs.read("attention", index) if row.get("attention") else None
            pairs.replace_mask(row, maker(pairs.read("part", index), attention), recipe)
            bar.step()
    rows = pairs.rows()
    pairs.rewrite(rows.values())
    areas = [row["mask_area"] for row in rows.values() if not row.get("mask_empty")]
    return {
        "set": str(pairs.folder),
        "method": settings.method,
        "count": len(rows),
        "made": len(todo),
        "kept": len(rows) - len(todo),
        "empty": [index for index, row in rows.items() if row.get("mask_empty")],
        "mean_area": round(float(np.mean(areas)), 6) if areas else 0.0,
    }


def _wanted(facts: dict[str, Any], wishes: dict[str, Any]) -> MaskSettings:
    """The set's own mask settings with the wishes put over them; another method starts from its own defaults."""
    stored = facts.get("settings", {}).get("mask", {})
    if wishes["method"] not in (None, stored.get("method")):
        stored = {key: value for key, value in stored.items() if key == "minimum_area"}
    given = {key: str(value) for key, value in wishes.items() if value is not None}
    return Settings().updated({"mask": {**stored, **given}}, "mask").mask
