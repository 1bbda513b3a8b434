"""Make pairs from a run: adapters -> pairs -> masks -> a set folder."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dualanodiff import images
from dualanodiff.data.catalog import find_pictures
from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError, RunError
from dualanodiff.grid import pair_grid
from dualanodiff.latents import background_picture, encode_pictures
from dualanodiff.masks.remake import MaskMaker, make_mask_maker
from dualanodiff.masks.result import MaskResult
from dualanodiff.masks.saliency import NO_OBJECT, U2Net, object_mask
from dualanodiff.memory import best_device
from dualanodiff.model.adapters import load_adapters
from dualanodiff.model.base import Base, load_base
from dualanodiff.onto.looks import summarise
from dualanodiff.onto.making import Kind, make_parts, row_of
from dualanodiff.onto.places import Shapes
from dualanodiff.onto.wishes import find_goods, read_wishes
from dualanodiff.pair_model import wants_bf16
from dualanodiff.progress import progress
from dualanodiff.runs import RunFolder
from dualanodiff.sampler import Drawn, PairSampler, draw_in_parts
from dualanodiff.sets import PairSet
from dualanodiff.settings import Settings
from dualanodiff.storage import write_behind, write_json

SHEET_PAIRS = 8
"""Pairs on the sheet that every set carries to look at."""


@dataclass(frozen=True)
class Pair:
    """A generated defect picture and what belongs to it, all of one size."""

    image: Image.Image
    """RGB."""
    mask: Image.Image
    """Mode L: 255 inside the defect, 0 outside."""
    part: Image.Image
    """RGB: the defect alone, on the key colour."""
    seed: int
    """The pair's own; it follows from the set's seed and the pair's index."""
    mask_result: MaskResult
    """How the mask was found, and whether the part is empty."""


@dataclass(frozen=True)
class FittedModel:
    """A finished run, loaded and ready to draw pairs."""

    folder: RunFolder
    base: Base
    sampler: PairSampler
    settings: Settings
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[int, int, int]:
        """The colour outside the defect in its part pictures."""
        return key_of(self.facts)

    @cached_property
    def mask_maker(self) -> MaskMaker:
        """Reads a mask from a part, as `settings.mask` asks."""
        return make_mask_maker(self.settings.mask, self.key, calibrated=self.facts["key_threshold"] or None)

    def generate(self, count: int, *, seed: int | None = None, batch_size: int | None = None) -> list[Pair]:
        """The first `count` pairs of a seed (the run's if none).

        Pair i of a seed is the same whatever the count; across batch sizes it is the same to rounding.
        """
        sample = replace(self.settings.sample, batch_size=batch_size or self.settings.sample.batch_size)
        chosen = self.settings.seed if seed is None else seed
        model = replace(self, settings=replace(self.settings, sample=sample))
        return [
            Pair(
                image=images.to_pil(drawn.image[i]),
                mask=images.to_pil(mask.mask),
                part=images.to_pil(drawn.part[i]),
                seed=drawn.seeds[i],
                mask_result=mask,
            )
            for drawn, masks in model.draw(count, chosen)
            for i, mask in enumerate(masks)
        ]

    def draw(
        self, count: int, seed: int, *, done: Collection[int] = (), say: Callable[[str], None] | None = None
    ) -> Iterator[tuple[Drawn, list[MaskResult]]]:
        """The first `count` pairs but those `done`, and their masks, as arrays, batch by batch.

        Where memory ends, a batch is drawn in parts, which `say` is told.
        """
        sample = self.settings.sample
        most = sample.batch_size
        attention = self.settings.mask.method == "attention"
        for begin in range(0, count, sample.batch_size):
            batch = range(begin, begin + sample.batch_size)
            wanted = [index for index in batch if index < count and index not in done]
            if not wanted:
                continue
            # The whole batch, even for one pair of it: a batch of another size rounds differently.
            whole, able = draw_in_parts(self.sampler, batch, seed, sample, most=most, record_attention=attention)
            if able < most:
                most = able
                if say is not None:
                    say(f"not enough memory for more than {most} pairs a call; the pairs are the same")
            drawn = whole.only(wanted)
            maps = drawn.attention if drawn.attention is not None else [None] * len(wanted)
            yield drawn, [self.mask_maker(part, grey) for part, grey in zip(drawn.part, maps, strict=True)]


def key_of(facts: dict[str, Any]) -> tuple[int, int, int]:
    """The key colour among what a run keeps for sampling."""
    red, green, blue = facts["key_color"]
    return red, green, blue


def load(
    run: str | Path,
    *,
    assignments: dict[str, str] | None = None,
    normals: Path | None = None,
    beside: FittedModel | None = None,
) -> FittedModel:
    """The model of a finished run, on the GPU if there is one.

    `assignments` are `group.name=value` settings for sampling and masks. `normals` is a folder of good pictures
    whose backgrounds replace those kept in the run. The base is shared with `beside` where it is the same. Raises
    RunError, ModelError or SettingsError.
    """
    folder = RunFolder(Path(run))
    settings = folder.settings().updated(assignments or {}, "--set")
    mean, facts = folder.load_start()
    device = best_device()
    name = folder.base_name()
    base = beside.base if beside is not None and beside.base.name == name else load_base(name, device=device)
    dual, text = load_adapters(folder.adapter, base)
    if wants_bf16(settings, device):
        for part in (base.unet, base.vae):
            nn.Module.to(part, torch.bfloat16)  # past diffusers, whose own warns of nothing
    if settings.sample.compile:
        dual.compile_unet()
    with torch.no_grad():
        prompts = text.embed([settings.model.prompt_image, settings.model.prompt_part, ""])
    words = base.tokenizer([settings.model.prompt_part]).input_ids[0]
    sampler = PairSampler(
        base=base,
        dual=dual.requires_grad_(False),
        text=prompts,
        mean=mean,
        key=key_of(facts),
        backgrounds=_backgrounds(folder, base, settings, facts, normals),
        # Without the start and end marks around the prompt's own words.
        part_tokens=tuple(range(1, min(len(words), prompts.shape[1]) - 1)),
    )
    return FittedModel(folder, base, sampler, settings, facts)


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
    model = load(run, assignments=assignments, normals=normals)
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
    others = [load(run, assignments=assignments, beside=model) for run in wishes.mix]
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
    shots = read_shots(model.folder, side)
    if not shots:
        msg = f"{model.folder.path / 'lineage.json'}: the shots that it names are not there, and --onto takes places and shapes from them; put them back"
        raise RunError(msg)
    net = U2Net(Path(model.settings.data.object_model)) if model.settings.data.object_model else None

    def find_object(rgb: np.ndarray) -> np.ndarray | None:
        found, source = object_mask(rgb, net)
        return None if source.endswith(NO_OBJECT) else found

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


def read_shots(folder: RunFolder, side: int) -> list[Shot]:
    """The shots that a run learned from, at `side` pixels; none when their files have moved."""
    files = folder.lineage()["files"]
    paths = [[Path(file["path"]) for file in files if file["role"] == role] for role in ("shot", "mask")]
    if not all(path.is_file() for path in (*paths[0], *paths[1])):
        return []
    return [
        Shot(images.read_rgb(path, size=side), images.read_mask(mask, size=side), path.stem, path, mask)
        for path, mask in zip(*paths, strict=True)
    ]


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


def _backgrounds(
    folder: RunFolder, base: Base, settings: Settings, facts: dict[str, Any], normals: Path | None
) -> Tensor | None:
    """Clean latents of normal pictures' backgrounds, where the run uses background compensation."""
    if settings.model.background == "none":
        if normals is not None:
            msg = f"--normals {normals}: this run has no background compensation; fit with model.background=paper to use it"
            raise RunError(msg)
        return None
    if normals is None:
        return folder.load_backgrounds()
    side = int(facts["resolution"])
    pictures = [images.read_rgb(path, size=side) for path in find_pictures(normals)]
    if not pictures:
        msg = f"{normals}: no pictures; give a folder of good pictures of this product"
        raise DataError(msg)
    net = U2Net(Path(settings.data.object_model)) if settings.data.object_model else None
    latents = encode_pictures(base, [background_picture(rgb, object_mask(rgb, net)[0]) for rgb in pictures])
    return latents * facts.get("background_scale", 1.0)
