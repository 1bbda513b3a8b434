"""The guided denoising loop over pairs (Paper sec. 6.2). Pure: the model is a callable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from torch import Tensor

from dualanodiff.diffusion.objective import Schedule

SCHEDULERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    # set_alpha_to_one and the like stay the base's own choice; clipping makes no sense on latents.
    "ddim": lambda config: DDIMScheduler.from_config(config, clip_sample=False),
    "dpmsolver++": lambda config: DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    ),
    # From the very last timestep to the clean latents in even steps, the ones that `distill` teaches.
    "distilled": lambda config: DDIMScheduler.from_config(
        config, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    ),
    "pndm": lambda config: PNDMScheduler.from_config(config, skip_prk_steps=True),
}


class PairDenoiser(Protocol):
    """Anything called like a DualUNet."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None, **others: Any
    ) -> Tensor:
        """Predict for latents (2, B, c, h, w)."""
        ...


@dataclass(frozen=True)
class Guidance:
    """Prompt embeddings and how hard to pull towards them."""

    text: Tensor
    """(2, tokens, width): image and part prompt."""
    empty: Tensor
    """(tokens, width): the empty prompt, the negative of both branches."""
    scale: float
    """1 means no guidance, and half the cost."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Shares of the steps between which it is applied; outside a step costs half."""

    def applies(self, progress: float) -> bool:
        """Whether a step is guided, `progress` running from 0 at the first to 1 at the last."""
        return self.scale != 1 and self.interval[0] <= progress <= self.interval[1]

    def rows(self) -> Tensor:
        """Prompts of a guided call, (2, 2, tokens, width), negative first; the pairs of a call share them."""
        positive = self.text[:, None]
        return torch.cat([self.empty[None, None].expand_as(positive), positive], dim=1)


@dataclass(frozen=True)
class Background:
    """Clean background latents (K, c, h, w), K = 1 or one a pair, and the one noise they are noised with."""

    latents: Tensor
    noise: Tensor


@torch.inference_mode()
def denoise_pairs(
    model: PairDenoiser,
    scheduler: Any,
    schedule: Schedule,
    latents: Tensor,
    guidance: Guidance,
    *,
    background: Background | None = None,
    adjust_clean: Callable[[Tensor, float], Tensor] | None = None,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Clean latents (2, B, c, h, w) from start latents of that shape.

    `scheduler` has its timesteps set; `first` of them are left out. `adjust_clean(clean, progress)` may change the
    predicted clean latents of a step, `progress` running from 0 to 1 over all timesteps. The model is called in
    `dtype`, the scheduler works in float32.
    """
    pairs = latents.shape[1]
    both = guidance.rows().to(latents.device, dtype)
    # The same tensors at every step, so that a model may keep what it makes of them.
    prompts, own = {True: both, False: both[:, 1:]}, both[0, 1:]
    steps = scheduler.timesteps
    moved = steps.to(latents.device)  # at once: a copy at every step would make the device wait
    for i, moment in enumerate(steps[first:], start=first):
        timesteps = moved[i].expand(pairs)
        progress = i / max(1, len(steps) - 1)
        guided = guidance.applies(progress)
        inputs = latents.repeat(1, 2, 1, 1, 1) if guided else latents
        extra: dict[str, Any] = {}
        if background is not None:
            times = timesteps[: background.latents.shape[0]]
            noised = schedule.add_noise(background.latents, background.noise, times)
            # Always the image's own prompt: the background is the same for the negative and the positive rows.
            extra = {"background": noised.to(dtype), "background_text": own}
        moments = timesteps.repeat(inputs.shape[1] // pairs)
        predicted = model(inputs.to(dtype), moments, prompts[guided], **extra).float()
        if guided:
            negative, positive = predicted.chunk(2, dim=1)
            predicted = negative + guidance.scale * (positive - negative)
        if adjust_clean is not None:
            clean = schedule.clean_from(latents, predicted, timesteps)
            clean = adjust_clean(clean, progress)
            predicted = schedule.prediction_from(latents, clean, timesteps)
        flat = scheduler.step(predicted.flatten(0, 1), moment, latents.flatten(0, 1)).prev_sample
        latents = flat.view_as(latents)
    return latents
