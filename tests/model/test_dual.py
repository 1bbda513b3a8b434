from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dualanodiff.model.dual import DualUNet
from model.pairs import inputs, plain, random_dual
from model.reference import reference


@pytest.mark.parametrize("kind", ["lowrank", "none", "zero"])
@torch.no_grad()
def test_a_fresh_zero_output_model_computes_exactly_the_base(unet: UNet2DConditionModel, kind: Any) -> None:
    latents, moments, text, background = inputs()
    before = plain(unet, latents, moments, text)
    options: dict[str, Any] = (
        {"interaction": "full", "interaction_zero": True} if kind == "zero" else {"interaction": kind}
    )
    dual = DualUNet(unet, rank=4, background="released", **options)
    assert (dual(latents, moments, text) - before).abs().max() < 2e-6
    assert (dual(latents, moments, text, background) - before).abs().max() < 2e-6


@torch.no_grad()
def test_a_fresh_full_interaction_perturbs_the_base(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs()
    assert (DualUNet(unet, rank=4)(latents, moments, text) - plain(unet, latents, moments, text)).abs().max() > 1e-3


def test_without_interaction_no_gradient_crosses_branches(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs()
    dual, _ = random_dual(unet, "none", "none")
    dual(latents, moments, text)[0].square().mean().backward()
    for name, parameter in dual.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad[0].abs().max() > 0, name
        assert parameter.grad[1].abs().max() == 0, name


@pytest.mark.parametrize("interaction", ["full", "lowrank"])
@torch.no_grad()
def test_each_branch_sees_the_other(unet: UNet2DConditionModel, interaction: Any) -> None:
    latents, moments, text, _ = inputs()
    dual, _ = random_dual(unet, interaction, "none")
    alone, _ = random_dual(unet, "none", "none")
    for branch in (0, 1):
        nudged = latents.clone()
        nudged[branch] += 0.1
        other = 1 - branch
        assert (dual(nudged, moments, text) - dual(latents, moments, text))[other].abs().max() > 1e-3
        assert torch.equal(alone(nudged, moments, text)[other], alone(latents, moments, text)[other])


@pytest.mark.parametrize("background", ["paper", "released"])
@torch.no_grad()
def test_background_of_strength_zero_is_the_identity(unet: UNet2DConditionModel, background: Any) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "full", background)
    assert (dual(latents, moments, text, back) - dual(latents, moments, text)).abs().max() > 1e-3
    for path in dual.paths:
        injection = dual.layer(path).background
        if injection is not None:
            injection.strength.zero_()
    torch.testing.assert_close(dual(latents, moments, text, back), dual(latents, moments, text), atol=2e-6, rtol=0)


@torch.no_grad()
def test_the_background_reaches_the_part_only_through_the_interaction(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    for interaction, reaches in (("none", False), ("full", True)):
        dual, _ = random_dual(unet, interaction, "paper")
        change = (dual(latents, moments, text, back) - dual(latents, moments, text)).abs().amax((1, 2, 3, 4))
        assert change[0] > 1e-3
        assert (change[1] > 1e-4) == reaches


@torch.no_grad()
def test_a_plain_call_of_the_same_unet_is_unchanged(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    before = plain(unet, latents, moments, text)
    first, weights_one = random_dual(unet, "full", "released", seed=1)
    second, weights_two = random_dual(unet, "full", "none", seed=2)
    one, two = first(latents, moments, text, back), second(latents, moments, text)
    assert torch.equal(plain(unet, latents, moments, text), before)
    expected = reference(unet, weights_one, latents, moments, text, back, form="released")
    torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)
    expected = reference(unet, weights_two, latents, moments, text)
    torch.testing.assert_close(two, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_another_processor_put_over_ours_does_not_silence_the_adapters(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs()
    dual, _ = random_dual(unet, "full", "none")
    before = dual(latents, moments, text)
    unet.set_attention_slice(1)
    assert torch.equal(dual(latents, moments, text), before)


@pytest.mark.parametrize(("interaction", "background"), [("full", "paper"), ("lowrank", "released")])
def test_gradient_checkpointing_gives_the_same_gradients(
    unet: UNet2DConditionModel, interaction: str, background: str
) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, interaction, background)

    def gradients() -> dict[str, Tensor | None]:
        dual.zero_grad()
        dual(latents, moments, text, back).square().mean().backward()
        return {name: None if value.grad is None else value.grad.clone() for name, value in dual.named_parameters()}

    expected = gradients()
    unet.enable_gradient_checkpointing()
    found = gradients()
    for name, gradient in expected.items():
        assert gradient is not None, name  # every weight is used, which distributed training relies on
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_only_adapters_are_learned_and_saved(unet: UNet2DConditionModel) -> None:
    dual = DualUNet(unet, rank=4, background="paper")
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert all(parameter.requires_grad for parameter in dual.parameters())
    assert set(dual.state_dict()) == {name for name, _ in dual.named_parameters()}
    assert sum(dual.parameter_counts().values()) == sum(parameter.numel() for parameter in dual.parameters())
    dual.to(torch.float64)
    assert next(dual.parameters()).dtype == torch.float64
    assert next(unet.parameters()).dtype == torch.float32


def test_fresh_weights_come_from_the_generator_alone(unet: UNet2DConditionModel) -> None:
    state = torch.random.get_rng_state()
    one, two, other = (DualUNet(unet, rank=4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second, third = (
        torch.cat([value.detach().flatten() for value in dual.parameters()]) for dual in (one, two, other)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_fresh_low_rank_updates_have_the_papers_spread(unet: UNet2DConditionModel) -> None:
    layer = DualUNet(unet, rank=8).layer("down_blocks.1.attentions.0.transformer_blocks.0.attn1")
    assert layer.to_q.down.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert layer.to_q.up.abs().max() == 0


@torch.no_grad()
def test_a_bf16_base_computes_nearly_the_same_with_float32_adapters(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "full", "paper")
    expected = dual(latents, moments, text, back)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = dual(latents, moments, text, back)
    unet.to(torch.bfloat16)
    found = dual(latents, moments, text, back)
    assert found.dtype == torch.float32
    assert next(dual.parameters()).dtype == torch.float32
    for result in (mixed, found):
        assert (result - expected).square().mean().sqrt() < 0.05 * expected.std()


@torch.no_grad()
def test_a_watcher_sees_the_queries_and_keys_of_every_cross_attention_layer(unet: UNet2DConditionModel) -> None:
    latents, moments, text, _ = inputs(2)
    dual, _ = random_dual(unet, "full", "none")
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    watched = dual(latents, moments, text, watch=lambda path, query, key: seen.update({path: (query, key)}))
    assert torch.equal(watched, dual(latents, moments, text))
    assert set(seen) == {path for path in dual.paths if path.endswith("attn2")}
    query, key = seen["down_blocks.0.attentions.0.transformer_blocks.0.attn2"]
    assert query.shape == (4, 4, 64, 8)
    assert key.shape == (4, 4, 7, 8)
