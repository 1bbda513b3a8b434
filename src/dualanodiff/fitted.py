"""A finished run, loaded: its model, ready to draw pairs in memory."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dualanodiff import images
from dualanodiff.data.catalog import find_pictures
from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError, RunError
from dualanodiff.latents import background_picture, encode_pictures
from dualanodiff.lead import Lead
from dualanodiff.masks.remake import MaskMaker, make_mask_maker
from dualanodiff.masks.result import MaskResult
from dualanodiff.masks.saliency import U2Net, object_mask
from dualanodiff.memory import best_device
from dualanodiff.model.adapters import load_adapters
from dualanodiff.model.base import Base, load_base
from dualanodiff.pair_model import wants_bf16
from dualanodiff.runs import RunFolder
from dualanodiff.sampler import Drawn, PairSampler, draw_in_parts
from dualanodiff.settings import Settings
from dualanodiff.storage import sha256


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
    led: bool = True,
) -> FittedModel:
    """The model of a finished run, on the GPU if there is one.

    `assignments` are `group.name=value` settings for sampling and masks. `normals` is a folder of good pictures
    whose backgrounds replace those kept in the run. The base is shared with `beside` where it is the same. Without `led`
    sample.lead does not count, and the shots need not be there. Raises RunError, ModelError or SettingsError.
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
        key_tint=facts.get("key_tint"),  # neither is there in a run of an earlier version
        grey=facts.get("grey", False),
        backgrounds=_backgrounds(folder, base, settings, facts, normals),
        lead=_lead(folder, base, settings, facts) if led and settings.sample.lead > 0 else None,
        # Without the start and end marks around the prompt's own words.
        part_tokens=tuple(range(1, min(len(words), prompts.shape[1]) - 1)),
    )
    return FittedModel(folder, base, sampler, settings, facts)


def read_shots(folder: RunFolder, side: int) -> list[Shot]:
    """The shots that a run learned from, at `side` pixels; none when files of theirs have moved, or there never were any."""
    files = folder.lineage()["files"]
    paths = [[Path(file["path"]) for file in files if file["role"] == role] for role in ("shot", "mask")]
    if len(paths[0]) != len(paths[1]) or not all(path.is_file() for path in (*paths[0], *paths[1])):
        return []
    return [
        Shot(images.read_rgb(path, size=side), images.read_mask(mask, size=side), path.stem, path, mask)
        for path, mask in zip(*paths, strict=True)
    ]


def find_shots_of(folder: RunFolder, side: int, what: str, way_out: str = "") -> list[Shot]:
    """The shots of a run, for `what` takes shapes from them; RunError where they are gone or have changed."""
    files = {Path(file["path"]): file for file in folder.lineage()["files"] if file["role"] in {"shot", "mask"}}
    gone = [path for path in files if not path.is_file()]
    if gone or not files:
        first = f", {gone[0]} first" if gone else ""
        msg = f"{folder.path / 'lineage.json'}: the shots that it names are not all there, and {what} takes shapes from them; put them back{first}{way_out}"
        raise RunError(msg)
    for path, file in files.items():
        if sha256(path) != file["sha256"]:
            msg = (
                f"{path}: has changed since {folder.path} learned from it, and {what} takes shapes from it; "
                f"fit again with another --out, or put it back{way_out}"
            )
            raise RunError(msg)
    return read_shots(folder, side)


def _lead(folder: RunFolder, base: Base, settings: Settings, facts: dict[str, Any]) -> Lead | None:
    """What leads pairs from nothing to the shapes of the run's shots; None for a run that has learned from no files."""
    if not any(file["role"] == "shot" for file in folder.lineage()["files"]):
        return None
    side = int(facts["resolution"])
    shots = find_shots_of(
        folder, side, "drawing whole parts (sample.lead)", ", or give --set sample.lead=0 and a new --out"
    )
    flips = (settings.data.flip_horizontal, settings.data.flip_vertical)
    return Lead(base, tuple(shots), key_of(facts), flips)


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
