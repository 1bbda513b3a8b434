"""The model made quick for sampling gives what the model itself gives."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from dualanodiff.model.fixed import FixedDual
from model.pairs import FORMS, draw, inputs, random_dual
from tiny import WIDTH


@pytest.mark.parametrize(("interaction", "background"), FORMS)
@torch.no_grad()
def test_multiplying_out_changes_nothing_but_rounding(
    unet: UNet2DConditionModel, interaction: str, background: str
) -> None:
    latents, moments, text, back = (item if item.dtype == torch.long else item.double() for item in inputs())
    dual, _ = random_dual(unet.double(), interaction, background)
    dual.double()
    fixed = FixedDual(dual)
    behind: list[Any] = [None] if background == "none" else [None, back[:1], back[:2], back]
    for given in behind:
        for prompts in (text[:, :1], text[:, :2], text):
            found, expected = fixed(latents, moments, prompts, given), dual(latents, moments, prompts, given)
            # The products are made in float32, the base's own precision.
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_in_bf16_it_is_as_near_to_the_exact_result_as_the_model_itself(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs()
    dual, _ = random_dual(unet, "full", "none")
    exact = dual(latents, moments, text)
    unet.to(torch.bfloat16)
    errors = [(run(latents, moments, text) - exact).square().mean().sqrt() for run in (dual, FixedDual(dual))]
    assert errors[1] < 1.2 * errors[0]


@torch.no_grad()
def test_prompts_are_projected_once_and_again_when_they_change(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "lowrank", "paper")
    fixed = FixedDual(dual)
    first = fixed(latents, moments, text[:, :1])
    assert torch.equal(fixed(latents, moments, text[:, :1]), first)
    other = draw(2, 1, 7, WIDTH, seed=9)
    torch.testing.assert_close(fixed(latents, moments, other), dual(latents, moments, other), atol=2e-5, rtol=2e-5)
    for pairs, given in ((2, None), (4, back[:1]), (4, None)):
        found = fixed(latents[:, :pairs], moments[:pairs], other, given)
        expected = dual(latents[:, :pairs], moments[:pairs], other, given)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_it_shows_the_same_queries_and_keys(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs()
    dual, _ = random_dual(unet, "lowrank", "none")
    seen: list[dict[str, Any]] = []
    for run in (dual, FixedDual(dual)):
        seen.append({})
        run(latents, moments, text, watch=lambda path, *shown: seen[-1].update({path: shown}))
    assert seen[0].keys() == seen[1].keys() and seen[0]
    for path, shown in seen[0].items():
        torch.testing.assert_close(seen[1][path], shown, atol=2e-5, rtol=2e-5)
