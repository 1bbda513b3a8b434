"""Shots as latents: encoded once for every allowed flip, kept in the run, never encoded again."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dualanodiff import images
from dualanodiff.data.shots import Shot, flips, part_target
from dualanodiff.errors import DataError
from dualanodiff.model.base import Base
from dualanodiff.progress import progress
from dualanodiff.storage import write_atomic

ENCODED_TOGETHER = 8


@dataclass(frozen=True)
class LatentShots:
    """What training draws from: n shots in f mirrored forms."""

    pairs: Tensor
    """float32 (n, f, 2, c, h, w): image and part."""
    coverage: Tensor
    """float32 (n, f, 1, h, w): share of each latent cell inside the mask."""
    backgrounds: Tensor | None
    """float32 (n, f, c, h, w): pictures whose object is black, where the run uses background compensation."""


def encode_shots(
    base: Base,
    shots: Sequence[Shot],
    key: tuple[int, int, int],
    *,
    horizontal: bool,
    vertical: bool,
    objects: Sequence[np.ndarray] | None = None,
    cache: Path,
) -> LatentShots:
    """Encode pictures, parts on the key colour and, with `objects` (bool (h, w) a shot), backgrounds.

    Reads `cache` instead when it holds the latents of exactly these inputs, and writes it otherwise.
    """
    fingerprint = _fingerprint(base, shots, key, horizontal, vertical, objects)
    cached = _read(cache, fingerprint)
    if cached is not None:
        return cached
    pictures: list[np.ndarray] = []
    coverage: list[Tensor] = []
    cells = shots[0].image.shape[0] // base.latent_factor
    for i, shot in enumerate(shots):
        forms = flips(shot, horizontal=horizontal, vertical=vertical)
        if objects is not None:
            plain = Shot(background_picture(shot.image, objects[i]), shot.mask, shot.name)
            backs = flips(plain, horizontal=horizontal, vertical=vertical)
        for j, form in enumerate(forms):
            pictures += [form.image, part_target(form.image, form.mask, key)]
            if objects is not None:
                pictures.append(backs[j].image)  # pyright: ignore[reportPossiblyUnboundVariable]
            mask = torch.from_numpy(form.mask)[None].float()
            coverage.append(adaptive_avg_pool2d(mask, cells))
    streams = 2 if objects is None else 3
    count = len(pictures) // (len(shots) * streams)
    encoded = encode_pictures(base, pictures).unflatten(0, (len(shots), count, streams))
    latents = LatentShots(
        pairs=encoded[:, :, :2].contiguous(),
        coverage=torch.stack(coverage).unflatten(0, (len(shots), count)),
        backgrounds=None if objects is None else encoded[:, :, 2].contiguous(),
    )
    tensors = {"pairs": latents.pairs, "coverage": latents.coverage}
    if latents.backgrounds is not None:
        tensors["backgrounds"] = latents.backgrounds
    write_atomic(cache, lambda path: save_file(tensors, path, metadata={"fingerprint": fingerprint}))
    return latents


def encode_pictures(base: Base, pictures: Sequence[np.ndarray], *, name: str = "") -> Tensor:
    """Latents (n, c, h, w) on the CPU of uint8 pictures of one size, under a bar of this name where there is one."""
    device = next(base.vae.parameters()).device
    rows: list[Tensor] = []
    with progress(name, len(pictures)) if name else nullcontext() as bar:
        for begin in range(0, len(pictures), ENCODED_TOGETHER):
            some = pictures[begin : begin + ENCODED_TOGETHER]
            batch = torch.stack([images.to_tensor(picture) for picture in some])
            rows.append(base.encode(batch.to(device)).cpu())
            if bar:
                bar.step(len(some))
    return torch.cat(rows)


def allowed_cells(masks: Sequence[np.ndarray], latents: Tensor) -> Tensor:
    """Masks bool (s, s), one a row of latents (B, c, h, w), as shares (B, 1, h, w) in 0..1 of the cells that may be drawn in.

    A cell that a mask only touches may be drawn in: a defect's edge lies in it.
    """
    pixels = torch.stack([torch.from_numpy(mask) for mask in masks])[:, None].float()
    return (2 * adaptive_avg_pool2d(pixels, (latents.shape[-2], latents.shape[-1]))).clamp(0, 1)


def background_picture(rgb: np.ndarray, object_mask: np.ndarray) -> np.ndarray:
    """The background alone, the object black: I_b = (1 - M_f) x I (Paper sec. 3.3)."""
    return np.where(object_mask[..., None], np.uint8(0), rgb)


def check_resolution(base: Base, shots: Sequence[Shot]) -> int:
    """The shots' side in pixels; DataError unless all are equal squares that the base's levels divide."""
    sizes = {shot.image.shape[:2] for shot in shots}
    side = shots[0].image.shape[0]
    if sizes != {(side, side)}:
        msg = f"shots have sizes {sorted(sizes)}; read them with find_shots at one square resolution"
        raise DataError(msg)
    check_side(base, side)
    return side


def check_side(base: Base, side: int) -> None:
    """DataError where the base's levels do not divide a picture's side in pixels."""
    step = base.latent_factor * 2 ** (len(base.unet.config["block_out_channels"]) - 1)
    if side % step:
        near = max(step, round(side / step) * step)
        msg = (
            f"data.resolution is {side}, which this base cannot halve evenly; use a multiple of {step}, such as {near}"
        )
        raise DataError(msg)


def _fingerprint(
    base: Base,
    shots: Sequence[Shot],
    key: tuple[int, int, int],
    horizontal: bool,
    vertical: bool,
    objects: Sequence[np.ndarray] | None,
) -> str:
    digest = hashlib.sha256(repr((base.name, key, horizontal, vertical, str(base.vae.dtype))).encode())
    for i, shot in enumerate(shots):
        digest.update(shot.image.tobytes() + shot.mask.tobytes())
        if objects is not None:
            digest.update(objects[i].tobytes())
    return digest.hexdigest()


def _read(cache: Path, fingerprint: str) -> LatentShots | None:
    """The cached latents if they are of these inputs; a damaged cache is as good as none."""
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            names = set(file.keys())
            backgrounds = file.get_tensor("backgrounds") if "backgrounds" in names else None
            return LatentShots(file.get_tensor("pairs"), file.get_tensor("coverage"), backgrounds)
    except (SafetensorError, OSError):
        return None
