"""What the tests of the dual model are fed: random pairs, and models whose every weight is random."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dualanodiff.model.dual import DualUNet
from model.reference import Weights, put, random_weights
from tiny import WIDTH

FORMS = [("full", "none"), ("full", "released"), ("lowrank", "paper"), ("none", "paper")]


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(pairs: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, timesteps, text and background of some pairs, different in every row."""
    moments = torch.tensor([1, 300, 700, 999])[:pairs]
    return draw(2, pairs, 4, 8, 8), moments, draw(2, pairs, 7, WIDTH, seed=2), draw(pairs, 4, 8, 8, seed=3)


def plain(unet: UNet2DConditionModel, latents: Tensor, moments: Tensor, text: Tensor) -> Tensor:
    return torch.stack([unet(latents[i], moments, text[i]).sample for i in (0, 1)])


def random_dual(
    unet: UNet2DConditionModel, interaction: Any, background: Any, seed: int = 0
) -> tuple[DualUNet, Weights]:
    weights = random_weights(
        unet,
        rank=4,
        width=6 if interaction == "lowrank" else None,
        interaction=interaction != "none",
        background=background != "none",
        seed=seed,
    )
    dual = DualUNet(unet, rank=4, interaction=interaction, interaction_rank=6, background=background)
    put(dual, weights)
    return dual, weights
