"""Draw pairs from a fitted dual model: noise by pair -> guided denoising -> decoded pictures."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualanodiff import images
from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS, Background, Guidance, PairDenoiser, denoise_pairs
from dualanodiff.diffusion.start import start_latents
from dualanodiff.inclusion import show
from dualanodiff.masks.attention import AttentionRecorder
from dualanodiff.memory import is_out_of_memory, release
from dualanodiff.model.base import Base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.fixed import FixedDual
from dualanodiff.seeds import numpy_stream, stream_seed, torch_stream
from dualanodiff.settings import SampleSettings

Leader = Callable[[Sequence[int], int, float], Callable[[Tensor, float], Tensor]]
"""For pairs' indices, a seed and a share of the steps: what to make of each step's clean latents."""

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
    key: tuple[int, int, int] | None = None
    """The key colour, for the inclusion law; None switches it off."""
    key_tint: tuple[float, float] | None = None
    """How much of the key colour's hue a defect may have, in grey levels; None where nothing is known."""
    grey: bool = False
    """Whether a monochrome camera took the shots: then images have no colour either."""
    backgrounds: Tensor | None = None
    """(n, c, h, w): clean latents of normal pictures' backgrounds."""
    lead: Leader | None = None
    """What leads the parts of pairs from nothing to the shots' shapes, where sample.lead asks for it."""
    part_tokens: tuple[int, ...] = ()
    """Positions of the part prompt's own words, whose attention shows the defect."""

    @cached_property
    def denoiser(self) -> PairDenoiser:
        """The dual model as it is now, made quick for many steps with the same weights and prompts."""
        return FixedDual(self.dual) if isinstance(self.dual, DualUNet) else self.dual

    def draw(
        self, indices: Sequence[int], seed: int, settings: SampleSettings, *, record_attention: bool = False
    ) -> Drawn:
        """The pairs of these indices: pair i of a seed is the same whatever the batch it is drawn in."""
        latents, maps = self.denoise(
            self.noise(seed, [("pair", index) for index in indices]),
            self.mean if settings.start == "mean" else None,
            settings,
            background=self.background(indices, seed),
            adjust_clean=self.lead(indices, seed, settings.lead) if self.lead and settings.lead > 0 else None,
            record_attention=record_attention,
        )
        latents, part = self.show_part(latents, settings)
        image = self.base.decode(latents[0])
        if self.grey:
            image = image.mean(dim=1, keepdim=True).expand_as(image)
        part = self.base.decode(latents[1]) if part is None else part
        seeds = tuple(stream_seed(seed, "pair", index) for index in indices)
        return Drawn(tuple(indices), seeds, images.to_rgb(image), images.to_rgb(part), maps)

    def noise(self, seed: int, names: Sequence[tuple[str | int, ...]]) -> Tensor:
        """Noise (2, B, c, h, w) of the streams of these names, one a pair."""
        rows = [torch.randn(self.mean.shape, generator=torch_stream(seed, *name)) for name in names]
        return torch.stack(rows, dim=1).to(self.text.device)

    def denoise(
        self,
        noise: Tensor,
        mean: Tensor | None,
        settings: SampleSettings,
        *,
        background: Background | None = None,
        adjust_clean: Callable[[Tensor, float], Tensor] | None = None,
        begin: float = 0.0,
        record_attention: bool = False,
    ) -> tuple[Tensor, np.ndarray | None]:
        """Clean latents (2, B, c, h, w) from noise over `mean`, and attention maps uint8 (B, h, w) where asked for.

        `begin` is the share of the steps that are left out, for a start that is known better than by its mean; the
        pndm sampler counts its steps and leaves none out.
        """
        scheduler: Any = SCHEDULERS[settings.scheduler](dict(self.base.scheduler.config))
        scheduler.set_timesteps(settings.num_inference_steps)
        schedule = schedule_of(self.base)
        first = (
            0
            if settings.scheduler == "pndm"
            else min(int(begin * len(scheduler.timesteps)), len(scheduler.timesteps) - 1)
        )
        signal = schedule.alphas_cumprod[int(scheduler.timesteps[first])].item()
        recorder = AttentionRecorder(self.part_tokens) if record_attention else None
        latents = denoise_pairs(
            self.denoiser if recorder is None else partial(self.denoiser, watch=recorder.add),
            scheduler,
            schedule,
            start_latents(noise, None if mean is None else mean.to(noise.device), signal),
            Guidance(
                self.text[:2],
                self.text[2],
                settings.guidance_scale,
                (settings.guidance_from, settings.guidance_until),
            ),
            background=background,
            adjust_clean=adjust_clean,
            first=first,
            dtype=self.base.unet.dtype,
        )
        side = tuple(cells * self.base.latent_factor for cells in latents.shape[-2:])
        return latents, None if recorder is None else recorder.maps(latents.shape[1], (side[0], side[1]))

    def background(self, indices: Sequence[int], seed: int) -> Background | None:
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

    @torch.no_grad()
    def show_part(self, latents: Tensor, settings: SampleSettings) -> tuple[Tensor, Tensor | None]:
        """Clean latents (2, B, c, h, w) whose image shows what the part draws (I_a = I x M), and the parts (B, 3, h, w).

        The latents as they are, and None, where the settings do not ask for it. In pixels, because a latent cell on the
        defect's edge holds key colour as well, which must not come along. At the end, because doing it in earlier steps
        too made no difference that could be seen or measured, and costs two steps each.
        """
        if settings.inclusion == 0 or self.key is None or settings.scheduler == "distilled":  # which has learned it
            return latents, None
        image, part = self.base.decode(latents.flatten(0, 1)).unflatten(0, (2, -1))
        shown = show(image, part, self.key, settings.inclusion, self.key_tint)
        # As a difference, so that what the autoencoder loses of the rest of the picture is not lost here.
        change = self.base.encode(shown) - self.base.encode(image)
        return torch.stack([latents[0] + change, latents[1]]), part


def draw_in_parts(
    sampler: PairSampler,
    indices: Sequence[int],
    seed: int,
    settings: SampleSettings,
    *,
    most: int,
    record_attention: bool = False,
) -> tuple[Drawn, int]:
    """The pairs of these indices, `most` a call and fewer where memory ends; and how many a call could take."""
    while True:
        groups = [indices[begin : begin + most] for begin in range(0, len(indices), most)]
        try:
            drawn = [sampler.draw(group, seed, settings, record_attention=record_attention) for group in groups]
            return joined(drawn), most
        except (MemoryError, RuntimeError) as error:
            if most == 1 or not is_out_of_memory(error):
                raise
        most = most // 2
        release(sampler.text.device)


def joined(parts: Sequence[Drawn]) -> Drawn:
    """Several batches as one."""
    maps = [part.attention for part in parts if part.attention is not None]
    return Drawn(
        tuple(index for part in parts for index in part.indices),
        tuple(seed for part in parts for seed in part.seeds),
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.part for part in parts]),
        np.concatenate(maps) if maps else None,
    )


def schedule_of(base: Base) -> Schedule:
    """The base's noise levels and prediction type."""
    return Schedule(
        base.scheduler.alphas_cumprod.float().to(base.unet.device), base.scheduler.config["prediction_type"]
    )


def quick(settings: SampleSettings) -> SampleSettings:
    """The same look in fewer steps, for previews while training."""
    return replace(settings, scheduler="dpmsolver++", num_inference_steps=min(15, settings.num_inference_steps))
