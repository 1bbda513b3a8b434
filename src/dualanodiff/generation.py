"""Make pairs from a run: adapters -> pairs -> masks -> a set folder."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.fitted import FittedModel, find_shots_of, load, read_shots
from dualanodiff.grid import pair_grid
from dualanodiff.masks.saliency import NO_OBJECT, U2Net, object_mask
from dualanodiff.onto.looks import summarise
from dualanodiff.onto.making import Kind, make_parts, row_of
from dualanodiff.onto.places import ObjectFinder, Shapes
from dualanodiff.onto.wishes import find_goods, read_wishes
from dualanodiff.progress import progress
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from dualanodiff.settings import Settings
from dualanodiff.storage import write_behind, write_json

SHEET_PAIRS = 8
"""Pairs on the sheet that every set carries to look at."""


def generate_set(
    run: Path,
    *,
    count: int,
    out: Path,
    seed: int | None = None,
    assignments: dict[str, str],
    normals: Path | None = None,
    onto: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fill the set `out` up to `count` pairs, going on where an earlier call stopped.

    With `onto` the defects are put onto good pictures: its `goods` is their folder, or "good" for the product's own;
    the rest are words for `onto.wishes.read_wishes`. Returns set, count, made (by this call), empty (indices of pairs
    whose part shows no defect), seed and sheet (a picture of the first pairs); onto adds met, how much of what was
    asked for was got. A batch is written while the next is drawn. Raises RunError when the set was begun
    with another run, seed or settings.
    """
    model = load(run, assignments=assignments, normals=normals, led=onto is None)
    if onto is not None:
        return _generate_onto(model, onto, count=count, out=out, seed=seed, assignments=assignments)
    chosen = model.settings.seed if seed is None else seed
    pairs = PairSet.begin(out, _facts(model, run, chosen, normals))
    write_json(out / "lineage.json", model.folder.lineage())
    done = pairs.done()
    missing = len(set(range(count)) - done)
    with progress("generate", count, start=count - missing) as bar, write_behind() as write:
        for drawn, masks in model.draw(count, chosen, done=done, say=bar.note):
            for i, index in enumerate(drawn.indices):
                row = {"seed": drawn.seeds[i], "run": str(run), "set_seed": chosen}
                attention = None if drawn.attention is None else drawn.attention[i]
                write(pairs.add, index, drawn.image[i], drawn.part[i], masks[i], row, attention)
            bar.step(len(drawn.indices))
            bar.foretell(f"at most {missing * 7 * drawn.image[0].size / 3e6:.0f} MB on disk")
    rows = pairs.rows()
    empty = [index for index, row in rows.items() if index < count and row.get("mask_empty")]
    sheet = out / "pairs.png"
    shots = read_shots(model.folder, int(model.facts["resolution"]))
    first = list(rows)[:SHEET_PAIRS]
    image, mask, part = ([pairs.read(kind, index) for index in first] for kind in ("image", "mask", "part"))
    pair_grid(image, mask, part, sheet, shots[:SHEET_PAIRS], key=model.key)
    return {
        "set": str(out),
        "count": len(rows),
        "made": missing,
        "empty": empty,
        "seed": chosen,
        "sheet": str(sheet),
    }


def _generate_onto(
    model: FittedModel,
    words: Mapping[str, Any],
    *,
    count: int,
    out: Path,
    seed: int | None,
    assignments: dict[str, str],
) -> dict[str, Any]:
    """Fill the set `out` with defects on good pictures."""
    lineage = model.folder.lineage()
    wishes = read_wishes(
        find_goods(words["goods"], lineage), **{name: value for name, value in words.items() if name != "goods"}
    )
    others = [load(run, assignments=assignments, beside=model, led=False) for run in wishes.mix]
    shares = [max(0.0, 1 - sum(wishes.mix.values())), *wishes.mix.values()]
    kinds = [(kind_of(item), share) for item, share in zip([model, *others], shares, strict=True)]
    chosen = model.settings.seed if seed is None else seed
    facts = _facts(model, model.folder.path, chosen, None)
    facts["settings"]["onto"] = model.settings.to_dict()["onto"]
    ids = [run_id(item) for item in others]
    pairs = PairSet.begin(out, {**facts, "onto": {**wishes.facts(), "mix_ids": ids}})
    write_json(
        out / "lineage.json", {**lineage, "files": joined_files([model.folder, *(item.folder for item in others)])}
    )
    done = pairs.done()
    missing = [index for index in range(count) if index not in done]
    size = model.settings.sample.batch_size
    with progress("generate", count, start=count - len(missing)) as bar:
        for begin in sorted({index - index % size for index in missing}):
            # The whole batch, even for one pair of it: a batch of another size rounds differently.
            for made in make_parts(kinds, wishes, range(begin, begin + size), chosen):
                if made.index in missing:
                    row = {**row_of(made, chosen), "run": str(model.folder.path), "set_seed": chosen}
                    pairs.add(made.index, made.image, made.part, made.mask_result, row, made.attention)
                    bar.step()
    return summarise(pairs, count, made=len(missing), seed=chosen)


def kind_of(model: FittedModel) -> Kind:
    """A run as a maker of defects on good parts; RunError where the shots, whose shapes it needs, are gone."""
    side = int(model.facts["resolution"])
    shots = find_shots_of(model.folder, side, "--onto")
    find_object = _object_finder(model.settings)
    compensated = model.settings.model.background != "none"
    return Kind(
        run=str(model.folder.path),
        sampler=model.sampler,
        settings=model.settings,
        mask_maker=model.mask_maker,
        shapes=Shapes.of(shots, find_object),
        key=model.key,
        side=side,
        find_object=find_object,
        background_scale=model.facts.get("background_scale", 1.0) if compensated else None,
    )


def _object_finder(settings: Settings) -> ObjectFinder:
    """Finds objects as the settings ask: by U^2-Net, or by the border's colour."""
    net = U2Net(Path(settings.data.object_model)) if settings.data.object_model else None

    def find(rgb: np.ndarray) -> np.ndarray | None:
        found, source = object_mask(rgb, net)
        return None if source.endswith(NO_OBJECT) else found

    return find


def _facts(model: FittedModel, run: Path, seed: int, normals: Path | None) -> dict[str, Any]:
    """What a set is made from: a call that would mix another into it is refused."""
    settings = model.settings.to_dict()
    return {
        "run": str(run),
        "run_id": run_id(model),
        "seed": seed,
        "base": model.base.name,
        "normals": str(normals or ""),
        "key": list(model.key),
        "threshold": model.facts["key_threshold"],
        "key_tint": model.facts.get("key_tint"),
        "grey": model.facts.get("grey") or None,
        "settings": {group: settings[group] for group in ("sample", "mask", "model")},
    }


def run_id(model: FittedModel) -> str:
    """A hash of what a run has learned, by which it is known again wherever it lies."""
    # Of the numbers, not of the files: safetensors writes the entries of a header in any order.
    digest = hashlib.sha256(model.sampler.mean.numpy().tobytes())
    for name, value in model.sampler.dual.state_dict().items():
        if ".to_q." in name:
            digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def joined_files(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """The files of several runs' lineages, each once."""
    files = {(file["path"], file["role"]): file for run in runs for file in run.lineage()["files"]}
    return list(files.values())
