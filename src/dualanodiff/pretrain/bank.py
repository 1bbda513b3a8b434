"""The latent bank: what the UNet is pre-trained on, drawn and encoded once, kept in one file.

Pairs are procedural triples (picture, part on a flat ground, mask); singles are packed pictures and things on flat
grounds. A step that had to draw and encode its own pictures would take half as long again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.data.shots import part_target
from dualanodiff.errors import DataError
from dualanodiff.model.base import Base
from dualanodiff.pretrain.pictures import Pack, draw_crop
from dualanodiff.progress import progress
from dualanodiff.seeds import numpy_stream
from dualanodiff.storage import write_atomic
from dualanodiff.synth.product import draw_part_on_ground, draw_triple

BATCH = 32


@dataclass(frozen=True)
class Bank:
    """Encoded pictures with their captions."""

    pairs: Tensor
    """float16 (n, 2, c, h, w): image and part."""
    pair_captions: list[tuple[str, str]]
    singles: Tensor
    """float16 (m, c, h, w)."""
    single_captions: list[str]


def draw_pair(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """A procedural picture with a defect, its part on a flat ground of a random key colour, and both captions."""
    triple = draw_triple(generator, size)
    inside = triple.image[triple.mask].mean(axis=0)
    colors = [np.array(color) for color in KEY_COLORS.values()]
    far = [color for color in colors if np.abs(color - inside).max() > 90] or colors
    key = far[int(generator.integers(len(far)))]
    part = part_target(triple.image, triple.mask, (int(key[0]), int(key[1]), int(key[2])))
    return triple.image, part, (f"a {triple.caption.removeprefix('a ')}", triple.defect_caption)


def build_bank(base: Base, pack: Pack, out: Path, *, pairs: int, singles: int, size: int, seed: int) -> None:
    """Draw and encode everything, and write it to `out` whole or not at all."""
    pair_rows: list[Tensor] = []
    pair_captions: list[tuple[str, str]] = []
    single_rows: list[Tensor] = []
    single_captions: list[str] = []
    with progress("bank", pairs + singles) as bar:
        for begin in range(0, pairs, BATCH):
            made = [
                draw_pair(numpy_stream(seed, "bank pair", index), size)
                for index in range(begin, min(begin + BATCH, pairs))
            ]
            rows = [_encode(base, [pair[branch] for pair in made]) for branch in (0, 1)]  # pyright: ignore[reportArgumentType]
            pair_rows.append(torch.stack(rows, dim=1))
            pair_captions += [pair[2] for pair in made]
            bar.step(len(made))
        for begin in range(0, singles, BATCH):
            drawn = [
                _draw_single(numpy_stream(seed, "bank single", index), pack, size)
                for index in range(begin, min(begin + BATCH, singles))
            ]
            single_rows.append(_encode(base, [single[0] for single in drawn]))
            single_captions += [single[1] for single in drawn]
            bar.step(len(drawn))
    header = {"pairs": json.dumps(pair_captions), "singles": json.dumps(single_captions)}
    tensors = {"pairs": torch.cat(pair_rows).contiguous(), "singles": torch.cat(single_rows).contiguous()}
    write_atomic(out, lambda path: save_file(tensors, path, metadata=header))


def load_bank(path: Path) -> Bank:
    """Read a bank; DataError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            pair_captions = [(image, part) for image, part in json.loads(header["pairs"])]
            return Bank(
                file.get_tensor("pairs"), pair_captions, file.get_tensor("singles"), json.loads(header["singles"])
            )
    except (SafetensorError, KeyError, OSError, ValueError, TypeError) as error:
        msg = f"{path}: not a latent bank ({error}); delete it, and `dualanodiff pretrain unet` makes it again"
        raise DataError(msg) from None


def _draw_single(generator: np.random.Generator, pack: Pack, size: int) -> tuple[np.ndarray, str]:
    if generator.random() < 0.3:
        return draw_part_on_ground(generator, size)
    return draw_crop(pack, generator, size)


def _encode(base: Base, pictures: list[np.ndarray]) -> Tensor:
    rows = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.autocast("cpu", torch.bfloat16):
        return base.encode(rows).half()
