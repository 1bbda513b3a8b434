"""What a run would cost on this machine: a step and a call are timed on the model that would be trained."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dualanodiff.data.shots import Shot
from dualanodiff.latents import check_resolution
from dualanodiff.memory import best_device, forget_peak, in_use, peak
from dualanodiff.model.base import Base
from dualanodiff.pair_model import Batch, build_pair_model
from dualanodiff.sampler import schedule_of
from dualanodiff.settings import Settings

ADAPTING = 1.8
"""Cost of a step of adaptation in steps of a fit, as measured at the size of `mini`: it trains all weights, and single pictures as well."""


def measure_cost(base: Base, settings: Settings) -> dict[str, Any]:
    """Seconds for training and for one generated pair, learned weights, bytes of the adapter files, of memory and of disk.

    Takes as long as two steps and two calls. One pair is timed on the CPU, where a batch is no faster a pair. Raises
    DataError where the base cannot work at the settings' resolution.
    """
    side = settings.data.resolution
    check_resolution(base, [Shot(np.empty((side, side, 3), np.uint8), np.empty((side, side), bool), "any")])
    device = best_device()
    model, start = build_pair_model(base, schedule_of(base), settings)
    parts: list[nn.Module] = [base.unet, base.text_encoder, model]
    for part in parts:
        part.to(device)
    pairs = settings.train.train_batch_size if device.type == "cuda" else 1
    batch = _empty_batch(base, settings, pairs).to(device)

    def train() -> None:
        model(batch, settings.train).sum().backward()

    text = model.embed().detach()
    rows = text[:2, None] if settings.sample.guidance_scale == 1 else torch.stack([text[[2, 2]], text[:2]], dim=1)
    guided = batch.latents[:, :1].expand(-1, rows.shape[1], -1, -1, -1)
    background = None if batch.background is None else batch.background[:1]

    @torch.no_grad()
    def sample() -> None:
        model.dual(guided, batch.timesteps[0], rows, background)

    forget_peak(device)
    before = in_use(device)
    step = _seconds(train, device) * settings.train.train_batch_size / pairs
    weights = sum(parameter.numel() for parameter in model.parameters())
    # Gradients are there already; the optimiser keeps two more numbers a weight.
    most, memory = peak(device), None
    if before is not None and most is not None:
        memory = before + (most - before) * settings.train.train_batch_size // pairs + 8 * weights
    return {
        "device": str(device),
        "start": start,
        "adapt_seconds": round(ADAPTING * step * settings.train.adapt_steps, 1),
        "train_steps": settings.train.max_train_steps,
        "train_seconds": round(step * settings.train.max_train_steps, 1),
        "pair_seconds": round(_seconds(sample, device) * settings.sample.num_inference_steps, 2),
        "weights": weights,
        "adapter_bytes": getattr(torch, settings.train.adapter_precision).itemsize * weights,
        "memory_bytes": memory,
        "disk_bytes": 7 * 4 * weights,  # adapters, and two states of weights and optimiser
    }


def _empty_batch(base: Base, settings: Settings, pairs: int) -> Batch:
    side = settings.data.resolution // base.latent_factor
    latents = torch.zeros(2, pairs, base.latent_channels, side, side)
    background = None if settings.model.background == "none" else latents[0]
    return Batch(
        latents=latents,
        noise=torch.ones_like(latents),
        timesteps=torch.full((pairs,), 500),
        coverage=torch.ones(pairs, 1, side, side),
        dropped=torch.zeros(pairs, dtype=torch.bool),
        background=background,
        background_noise=background,
    )


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Duration of the second of two calls; the first one warms up."""
    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - began
