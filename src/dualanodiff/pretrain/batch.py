"""One step of the UNet's training: its plan, and the pictures, noise and words that it is drawn to see."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualanodiff.pretrain.bank import Bank, choose_prompts
from dualanodiff.seeds import numpy_stream, torch_stream
from dualanodiff.settings import ModelSettings

LAYOUT_TIMES = (400, 900)
"""Timesteps at which it is decided where a defect lies and how long it is: from 0.4 to 0.01 of the clean variance are left."""


@dataclass(frozen=True)
class UNetPlan:
    """What is trained, and for how long."""

    steps: int = 8000
    """Optimiser steps; the rate falls to zero over the last fifth."""
    size: int = 128
    """Side of the pictures in pixels."""
    pairs: int = 8
    """Procedural pairs a step, two UNet rows each."""
    singles: int = 4
    """Single pictures a step."""
    rate: float = 5e-4
    """Peak AdamW rate."""
    channels: tuple[int, ...] = (96, 192)
    """Widths of the UNet's levels."""
    plain_levels: int = 0
    """Outermost levels without attention, where it would cost more than everything else together."""
    prediction: str = "v_prediction"
    """v is well-conditioned at every noise level; epsilon's clean estimate is 14 times its error at the noisy end."""
    zero_snr: bool = False
    """Whether the last timestep is pure noise, so that the mean colour must be chosen, not read from the noise."""
    noise_weight: float = 1.0
    """Most that an error counts at timesteps where little signal is left, for epsilon: 1 / abar up to this, which is the error
    of v up to there. 1 is the plain loss, by which layout and colours are learned slowly."""
    part_weight: float = 1.0
    """Weight of the part branch's loss: a thin defect is a small share of its picture, and so of the whole loss."""
    layout_share: float = 0.0
    """Share of the pairs' timesteps that are drawn from LAYOUT_TIMES alone, not from all."""
    scale_shift: bool = False
    """Whether the noise level also scales features, not only shifts them: a v's share of the input depends on it."""
    inclusion: float = 0.0
    """Weight of the inclusion law: both branches' clean estimates agree inside the mask."""
    rank: int = 32
    """Rank of the pair's branch adapters."""
    interaction_rank: int = 64
    """Width of the pair's low-rank interaction."""
    rare_prompts: float = 0.5
    """Share of pairs under the paper's rare-word prompts, the others under their captions."""
    prompt_dropout: float = 0.1
    """Share of rows under the empty prompt, which guidance pulls away from."""
    seed: int = 0
    """Every random draw comes from it."""
    save_every: int = 500
    """Steps between resumable states."""


@dataclass(frozen=True)
class Batch:
    """One step's latents, noise, timesteps and prompts."""

    pairs: Tensor
    coverage: Tensor
    pair_noise: Tensor
    pair_times: Tensor
    image_prompts: list[str]
    part_prompts: list[str]
    singles: Tensor
    single_noise: Tensor
    single_times: Tensor
    single_prompts: list[str]

    def to(self, device: torch.device) -> "Batch":
        """The same with its tensors there."""
        return replace(
            self, **{name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        )


def draw_batch(bank: Bank, plan: UNetPlan, step: int) -> Batch:
    """The batch of one step: a function of the seed and the step; the bank's held-out rows are left out."""
    choice = numpy_stream(plan.seed, "unet", step)
    noise = torch_stream(plan.seed, "unet", step)
    prompts = ModelSettings()
    pair_rows = choice.integers(bank.pairs_to_learn, size=plan.pairs)
    single_rows = choice.integers(bank.singles_to_learn, size=plan.singles)
    rare = (prompts.prompt_image, prompts.prompt_part)
    shares = {"dropout": plan.prompt_dropout, "share": plan.rare_prompts}
    chosen = [choose_prompts(bank.pair_captions[row], rare, choice.random(), **shares) for row in pair_rows]
    pairs = bank.pairs[pair_rows].float().transpose(0, 1)
    singles = bank.singles[single_rows].float()
    return Batch(
        pairs=pairs,
        coverage=bank.coverage[pair_rows].float() / 255,
        pair_noise=torch.randn(pairs.shape, generator=noise),
        pair_times=_pair_times(plan, noise),
        image_prompts=[image for image, _ in chosen],
        part_prompts=[part for _, part in chosen],
        singles=singles,
        single_noise=torch.randn(singles.shape, generator=noise),
        single_times=torch.randint(1000, (plan.singles,), generator=noise),
        single_prompts=[
            "" if choice.random() < plan.prompt_dropout else bank.single_captions[row] for row in single_rows
        ],
    )


def _pair_times(plan: UNetPlan, noise: torch.Generator) -> Tensor:
    """Timesteps (plan.pairs,): any, and a share of them where the layout is decided."""
    times = torch.randint(1000, (plan.pairs,), generator=noise)
    if plan.layout_share == 0:
        return times
    chosen = torch.rand(plan.pairs, generator=noise) < plan.layout_share
    return torch.where(chosen, torch.randint(*LAYOUT_TIMES, (plan.pairs,), generator=noise), times)
