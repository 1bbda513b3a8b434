"""The latent bank: what the UNet is pre-trained on, drawn and encoded once, kept in shards so that it resumes.

Pairs are procedural triples (picture, part on a flat ground, mask); singles are packed pictures and things on flat
grounds. A step that had to draw and encode its own pictures would take half as long again.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dualanodiff.data.shots import part_target
from dualanodiff.errors import DataError
from dualanodiff.latents import encode_pictures
from dualanodiff.model.base import Base
from dualanodiff.pretrain.ahead import drawn_ahead
from dualanodiff.pretrain.pictures import Pack, draw_crop
from dualanodiff.pretrain.spoil import draw_key, spoil
from dualanodiff.progress import progress
from dualanodiff.seeds import numpy_stream
from dualanodiff.storage import drop_unfinished, write_atomic
from dualanodiff.synth.product import draw_part_on_ground, draw_triple

BATCH, SHARD = 32, 500
DRAWING = 2
"""Raised with every change of what is drawn, so that a bank is not filled up with pictures of another kind."""
SPOILED = 0.4
"""Share of the pairs whose good picture is a photograph of the pack, if there is one: textures that synth does not draw."""
HELD_OUT = 32
"""Pairs, and singles, that a training is checked on and never learns from."""


@dataclass(frozen=True)
class Bank:
    """Encoded pictures with their captions."""

    pairs: Tensor
    """float16 (n, 2, c, h, w): image and part."""
    coverage: Tensor
    """uint8 (n, 1, h, w): share of each cell inside the mask, in 255ths."""
    pair_captions: list[tuple[str, str]]
    singles: Tensor
    """float16 (m, c, h, w)."""
    single_captions: list[str]

    @property
    def pairs_to_learn(self) -> int:
        """The pairs after these many are held out."""
        return len(self.pairs) - min(HELD_OUT, len(self.pairs) // 4)

    @property
    def singles_to_learn(self) -> int:
        """The singles after these many are held out."""
        return len(self.singles) - min(HELD_OUT, len(self.singles) // 4)


@dataclass(frozen=True)
class DrawnPair:
    """A procedural picture with a defect, its part on a flat ground of a random key colour, mask and both captions."""

    image: np.ndarray
    part: np.ndarray
    mask: np.ndarray
    captions: tuple[str, str]


def draw_pair(generator: np.random.Generator, size: int, pack: Pack | None = None) -> DrawnPair:
    """Any pair; the generator and the pack alone decide it.

    With a pack a `SPOILED` share of the pairs are photographs with a procedural defect; the others are procedural as a whole.
    """
    spoiled, words = None, ""
    if pack is not None and generator.random() < SPOILED:
        crop, words = draw_crop(pack, generator, size)
        spoiled = spoil(generator, crop)
    if spoiled is not None:
        image, mask, defect = spoiled
        caption = f"{words} with {defect}"
    else:
        triple = draw_triple(generator, size)
        image, mask, defect = triple.image, triple.mask, triple.defect_caption
        caption = f"a {triple.caption.removeprefix('a ')}"
    part = part_target(image, mask, draw_key(generator, image, mask))
    return DrawnPair(image, part, mask, (caption, defect))


def choose_prompts(
    captions: tuple[str, str], rare: tuple[str, str], chance: float, *, dropout: float, share: float
) -> tuple[str, str]:
    """Prompts of image and part for a chance in 0..1: below `dropout` none, a `share` of the others the rare words."""
    if chance < dropout:
        return "", ""
    return rare if chance < dropout + share * (1 - dropout) else captions


def build_bank(
    base: Base,
    pack: Pack | None,
    out: Path,
    *,
    pairs: int,
    singles: int,
    size: int,
    seed: int,
    seconds: float = math.inf,
) -> bool:
    """Draw and encode everything into shards in the folder `out`, and say whether all are there; they are kept for the next call.

    Without a pack there are pairs alone, which are all procedural. After so many seconds no shard is begun. DataError for
    a shard that was made otherwise.
    """
    shards = -(-pairs // SHARD)
    codec, began = _codec(base, pack), time.monotonic()
    drop_unfinished(out)
    with progress("bank", pairs + singles) as bar:
        for shard in range(shards):
            path = out / f"{shard:04d}.safetensors"
            drawn = range(shard * SHARD, min(pairs, (shard + 1) * SHARD))
            alone = range(0)
            if pack is not None:
                alone = range(singles * shard // shards, singles * (shard + 1) // shards)
            if path.exists():
                _check_codec(path, codec)
                bar.step(len(drawn) + len(alone))
            elif time.monotonic() - began >= seconds:
                return False
            else:
                _build_shard(base, pack, path, drawn, alone, size=size, seed=seed, codec=codec, done=bar.step)
    return True


def _codec(base: Base, pack: Pack | None) -> str:
    """A fingerprint of what makes latents: the encoder's weights and their scale, the pack, and how pairs are drawn."""
    sources = "" if pack is None else json.dumps(pack.sources, sort_keys=True)
    digest = hashlib.sha256(f"{base.vae.config['scaling_factor']} {DRAWING} {sources}".encode())
    for name, weight in sorted(base.vae.state_dict().items()):
        if name.startswith(("encoder", "quant_conv")):
            digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_codec(path: Path, codec: str) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata().get("codec", codec)
    except (SafetensorError, OSError):
        return  # whoever reads it names it
    if found != codec:
        msg = f"{path.parent}: was made by another autoencoder, from other pictures or by an earlier version; delete it, and the same command makes it again"
        raise DataError(msg)


def _build_shard(
    base: Base,
    pack: Pack | None,
    out: Path,
    pairs: range,
    singles: range,
    *,
    size: int,
    seed: int,
    codec: str,
    done: Callable[[int], None],
) -> None:
    pair_rows: list[Tensor] = []
    coverage: list[Tensor] = []
    pair_captions: list[tuple[str, str]] = []
    single_rows: list[Tensor] = []
    single_captions: list[str] = []
    device = base.vae.device
    drawn = partial(_draw_pairs, pack=pack, pairs=pairs, size=size, seed=seed)
    for made in drawn_ahead(drawn, range(0, len(pairs), BATCH), device):
        both = [_encode(base, [pair.image for pair in made]), _encode(base, [pair.part for pair in made])]
        pair_rows.append(torch.stack(both, dim=1))
        masks = torch.from_numpy(np.stack([pair.mask for pair in made])).float()[:, None]
        coverage.append((avg_pool2d(masks, size // both[0].shape[-1]) * 255).to(torch.uint8))
        pair_captions += [pair.captions for pair in made]
        done(len(made))
    alone = partial(_draw_singles, pack=pack, singles=singles, size=size, seed=seed)
    for found in drawn_ahead(alone, range(0, len(singles), BATCH), device):
        single_rows.append(_encode(base, [single[0] for single in found]))
        single_captions += [single[1] for single in found]
        done(len(found))
    header = {"codec": codec, "pairs": json.dumps(pair_captions), "singles": json.dumps(single_captions)}
    rows = {
        "pairs": torch.cat(pair_rows),
        "coverage": torch.cat(coverage),
        "singles": _joined(single_rows, pair_rows[0][:0, 0]),
    }
    tensors = {name: tensor.contiguous() for name, tensor in rows.items()}
    write_atomic(out, lambda path: save_file(tensors, path, metadata=header))


def load_bank(folder: Path) -> Bank:
    """Read a bank's shards; DataError naming the first that is not one."""
    shards = [_load_shard(path) for path in sorted(folder.glob("*.safetensors"))]
    if not shards:
        msg = f"{folder}: no latent bank in it; delete it, and the same command makes it again"
        raise DataError(msg)
    return Bank(
        torch.cat([shard.pairs for shard in shards]),
        torch.cat([shard.coverage for shard in shards]),
        [captions for shard in shards for captions in shard.pair_captions],
        torch.cat([shard.singles for shard in shards]),
        [caption for shard in shards for caption in shard.single_captions],
    )


def _load_shard(path: Path) -> Bank:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            return Bank(
                file.get_tensor("pairs"),
                file.get_tensor("coverage"),
                [(image, part) for image, part in json.loads(header["pairs"])],
                file.get_tensor("singles"),
                json.loads(header["singles"]),
            )
    except (SafetensorError, KeyError, OSError, ValueError, TypeError) as error:
        msg = f"{path}: not a latent bank ({error}); delete it, and the same command makes it again"
        raise DataError(msg) from None


def _draw_pairs(begin: int, *, pack: Pack | None, pairs: range, size: int, seed: int) -> list[DrawnPair]:
    return [draw_pair(numpy_stream(seed, "bank pair", index), size, pack) for index in pairs[begin : begin + BATCH]]


def _draw_singles(
    begin: int, *, pack: Pack | None, singles: range, size: int, seed: int
) -> list[tuple[np.ndarray, str]]:
    assert pack is not None
    return [
        _draw_single(numpy_stream(seed, "bank single", index), pack, size) for index in singles[begin : begin + BATCH]
    ]


def _draw_single(generator: np.random.Generator, pack: Pack, size: int) -> tuple[np.ndarray, str]:
    if generator.random() < 0.3:
        return draw_part_on_ground(generator, size)
    return draw_crop(pack, generator, size)


def _joined(rows: list[Tensor], none: Tensor) -> Tensor:
    return torch.cat(rows) if rows else none


def _encode(base: Base, pictures: list[np.ndarray]) -> Tensor:
    with torch.autocast(base.vae.device.type, torch.bfloat16):
        return encode_pictures(base, pictures).half()
