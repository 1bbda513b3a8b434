"""The plain path that speeds are compared with computes the same function."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualanodiff.bench.reference_path import PlainPath
from dualanodiff.diffusion.sampling import SCHEDULERS, Background, Guidance, denoise_pairs
from dualanodiff.model.base import load_base
from dualanodiff.model.fixed import FixedDual
from dualanodiff.pair_model import Batch, PairModel, build_pair_model
from dualanodiff.sampler import schedule_of
from dualanodiff.settings import TrainSettings
from small import small_settings

FORMS = [("full", "none"), ("lowrank", "paper"), ("full", "released")]


def build(folder: Path, interaction: str, background: str) -> tuple[PlainPath, PairModel]:
    """Both on the same weights, every one of them random."""
    base = load_base(folder)
    schedule = schedule_of(base)
    settings = small_settings(model__interaction=interaction, model__background=background)
    model, _ = build_pair_model(base, schedule, settings)
    with torch.no_grad():
        for i, weight in enumerate(model.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    return PlainPath(base, model.dual, model.text, schedule, model.prompts[:2]), model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("interaction", "background"), FORMS)
def test_a_training_step_has_the_same_losses_and_gradients(
    tiny_base_folder: Path, interaction: str, background: str
) -> None:
    plain, model = build(tiny_base_folder, interaction, background)
    pictures, parts = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    objects = np.zeros((3, 64, 64), bool)
    objects[:, 20:40, 20:40] = True
    noise, moments = draw(2, 3, 4, 8, 8), torch.tensor([3, 400, 900])
    behind: Any = (None, None, None)
    if background != "none":
        backs = np.where(objects[..., None], np.uint8(0), pictures)
        behind = objects, draw(3, 4, 8, 8, seed=1), plain._encode(backs)
    latents = torch.stack([plain._encode(pictures), plain._encode(parts)])
    batch = Batch(
        latents, noise, moments, torch.ones(3, 1, 8, 8), torch.zeros(3, dtype=torch.bool), behind[2], behind[1]
    )
    train = TrainSettings(prompt_dropout=0, inclusion_weight=0)

    results = []
    for losses in (plain.losses(pictures, parts, noise, moments, *behind[:2]), model(batch, train)[:2]):
        losses.sum().backward()
        results.append(
            (losses.detach(), [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])
        )
        model.zero_grad()
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in results[0][1])
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert (one - other).norm() < 1e-4 * one.norm() + 1e-7


@pytest.mark.parametrize(("interaction", "background"), FORMS)
@pytest.mark.parametrize("sampler", ["pndm", "ddim"])
def test_a_pair_is_the_same(tiny_base_folder: Path, interaction: str, background: str, sampler: str) -> None:
    plain, model = build(tiny_base_folder, interaction, background)
    noise = draw(2, 2, 4, 8, 8)
    behind = None if background == "none" else (draw(4, 8, 8, seed=1), draw(4, 8, 8, seed=2))
    text = model.embed().detach()
    for denoiser in (model.dual, FixedDual(model.dual)):
        scheduler = SCHEDULERS[sampler](dict(plain.base.scheduler.config))
        scheduler.set_timesteps(4)
        ours = denoise_pairs(
            denoiser,
            scheduler,
            plain.schedule,
            noise,
            Guidance(text[:2], text[2], 2.5),
            background=None if behind is None else Background(behind[0][None], behind[1][None]),
        )
        theirs = [plain.draw(noise[:, i], steps=4, scale=2.5, sampler=sampler, background=behind) for i in (0, 1)]
        torch.testing.assert_close(ours, torch.stack(theirs, dim=1), atol=1e-4, rtol=1e-5)
