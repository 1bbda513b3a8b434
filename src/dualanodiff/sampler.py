"""Draw pairs from a fitted dual model: noise by pair -> guided denoising -> decoded pictures."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualanodiff import images
from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS, Background, Guidance, denoise_pairs
from dualanodiff.diffusion.start import start_latents
from dualanodiff.masks.attention import AttentionRecorder
from dualanodiff.model.base import Base
from dualanodiff.model.dual import DualUNet
from dualanodiff.seeds import numpy_stream, stream_seed, torch_stream
from dualanodiff.settings import SampleSettings

PAIRS_A_BACKGROUND = 50
"""Pairs in a row that share one background, as in the released scripts; sharing makes its pass nearly free."""


@dataclass(frozen=True)
class Drawn:
    """One batch: `image` and `part` uint8 (B, h, w, 3), `seeds` the pairs' own, `attention` uint8 (B, h, w) or None."""

    indices: tuple[int, ...]
    seeds: tuple[int, ...]
    image: np.ndarray
    part: np.ndarray
    attention: np.ndarray | None

    def only(self, wanted: Container[int]) -> "Drawn":
        """The pairs of the batch whose indices are wanted."""
        rows = [row for row, index in enumerate(self.indices) if index in wanted]
        return Drawn(
            tuple(self.indices[row] for row in rows),
            tuple(self.seeds[row] for row in rows),
            self.image[rows],
            self.part[rows],
            None if self.attention is None else self.attention[rows],
        )


@dataclass(frozen=True)
class PairSampler:
    """A dual model with everything that sampling needs beside it."""

    base: Base
    dual: DualUNet
    text: Tensor
    """(3, tokens, width): image, part and empty prompt."""
    mean: Tensor
    """(2, c, h, w): the shots' mean latents."""
    key_latents: Tensor | None = None
    """(c, 1, 1): latents of the flat key colour, for the inclusion law; None switches it off."""
    backgrounds: Tensor | None = None
    """(n, c, h, w): clean latents of normal pictures' backgrounds."""
    part_tokens: tuple[int, ...] = ()
    """Positions of the part prompt's own words, whose attention shows the defect."""

    def draw(
        self, indices: Sequence[int], seed: int, settings: SampleSettings, *, record_attention: bool = False
    ) -> Drawn:
        """The pairs of these indices: pair i of a seed is the same whatever the batch it is drawn in."""
        device = self.text.device
        noise = torch.stack(
            [torch.randn(self.mean.shape, generator=torch_stream(seed, "pair", index)) for index in indices], dim=1
        ).to(device)
        scheduler: Any = SCHEDULERS[settings.scheduler](dict(self.base.scheduler.config))
        scheduler.set_timesteps(settings.num_inference_steps)
        schedule = schedule_of(self.base)
        first = schedule.alphas_cumprod[int(scheduler.timesteps[0])].item()
        start = start_latents(noise, self.mean.to(device) if settings.start == "mean" else None, first)
        recorder = AttentionRecorder(self.part_tokens) if record_attention else None
        latents = denoise_pairs(
            self.dual if recorder is None else partial(self.dual, watch=recorder.add),
            scheduler,
            schedule,
            start,
            Guidance(self.text[:2], self.text[2], settings.guidance_scale),
            background=self._background(indices, seed),
            adjust_clean=self._inclusion(settings.inclusion),
            dtype=self.base.unet.dtype,
        )
        image, part = (images.to_rgb(self.base.decode(rows)) for rows in latents)
        attention = None if recorder is None else recorder.maps(len(indices), image.shape[1:3])
        seeds = tuple(stream_seed(seed, "pair", index) for index in indices)
        return Drawn(tuple(indices), seeds, image, part, attention)

    def _background(self, indices: Sequence[int], seed: int) -> Background | None:
        """Every 50 pairs in a row share a normal picture's background and its noise; one that all share is passed once."""
        if self.backgrounds is None:
            return None
        groups = [index // PAIRS_A_BACKGROUND for index in indices]
        if len(set(groups)) == 1:
            groups = groups[:1]
        choice = [int(numpy_stream(seed, "background", group).integers(len(self.backgrounds))) for group in groups]
        shape = self.backgrounds.shape[1:]
        noise = [torch.randn(shape, generator=torch_stream(seed, "background noise", group)) for group in groups]
        device = self.text.device
        return Background(self.backgrounds[choice].to(device).float(), torch.stack(noise).to(device))

    def _inclusion(self, strength: float) -> Callable[[Tensor, float], Tensor] | None:
        """Pull both predicted clean latents together where the part differs from its ground: I_a = I x M."""
        if strength == 0 or self.key_latents is None:
            return None
        key = self.key_latents.to(self.text.device)

        def adjust(clean: Tensor, progress: float) -> Tensor:
            distance = (clean[1] - key).square().mean(dim=1, keepdim=True).sqrt()
            share = ((distance - 0.35) / 0.35).clamp(0, 1) * strength * progress
            # The part leads: it knows where the defect is, and the image is asked to show it.
            middle = 0.3 * clean[0] + 0.7 * clean[1]
            return clean + share * (middle - clean)

        return adjust


def schedule_of(base: Base) -> Schedule:
    """The base's noise levels and prediction type."""
    return Schedule(base.scheduler.alphas_cumprod.float(), base.scheduler.config["prediction_type"])


def quick(settings: SampleSettings) -> SampleSettings:
    """The same look in fewer steps, for previews while training."""
    return replace(settings, scheduler="dpmsolver++", num_inference_steps=min(15, settings.num_inference_steps))
