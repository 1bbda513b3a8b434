from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from model.pairs import FORMS, inputs, plain, random_dual
from model.reference import reference


@pytest.mark.parametrize(("interaction", "background"), FORMS)
@torch.no_grad()
def test_the_model_computes_the_written_out_formulas(
    unet: UNet2DConditionModel, interaction: str, background: str
) -> None:
    latents, moments, text, back = inputs()
    dual, weights = random_dual(unet, interaction, background)
    calls: list[tuple[Tensor | None, str]] = [(None, "none")]
    if background != "none":
        calls.append((back, background))
    for given, form in calls:
        found = dual(latents, moments, text, given)
        expected = reference(unet, weights, latents, moments, text, given, form=form)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        without = plain(unet, latents, moments, text) if given is None else dual(latents, moments, text)
        assert (found - without).abs().max() > 1e-2
    # In float64 rounding cannot hide a small difference.
    exact = [value.double() for value in (latents, text, back)]
    unet.double()
    dual.double()
    doubled = {name: value.double() for name, value in weights.items()}
    given = None if background == "none" else exact[2]
    found = dual(exact[0], moments, exact[1], given)
    expected = reference(unet, doubled, exact[0], moments, exact[1], given, form=background)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("background", ["paper", "released"])
@torch.no_grad()
def test_every_frozen_matrix_meets_each_row_once(unet: UNet2DConditionModel, background: Any) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "full", background)
    rows: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        return lambda _module, given, _output: rows.update({name: rows.get(name, 0) + given[0].shape[0]})

    for path in dual.paths:
        attn: Any = unet.get_submodule(path)
        for name, linear in {"q": attn.to_q, "k": attn.to_k, "v": attn.to_v, "out": attn.to_out[0]}.items():
            linear.register_forward_hook(count(f"{path}.{name}"))
    dual(latents, moments, text[:, :1], back[:2])
    for name, seen in rows.items():
        of_text = name.endswith(("attn2.k", "attn2.v"))
        assert seen == (2 * 1 + 1 if of_text else 2 * 4 + 2), name


@torch.no_grad()
def test_one_background_is_shared_by_the_batch(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "full", "paper")
    moments, prompt = moments[:1].expand(4), text[0, :1]
    once = dual(latents, moments, text, back[:1], background_text=prompt)
    each = dual(latents, moments, text, back[:1].expand(4, -1, -1, -1), background_text=prompt.expand(4, -1, -1))
    torch.testing.assert_close(once, each, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
@torch.no_grad()
def test_a_guided_call_is_two_calls(unet: UNet2DConditionModel, count: int) -> None:
    latents, _, text, back = inputs(2)
    dual, _ = random_dual(unet, "full", "paper")
    moments, prompts = torch.tensor([500, 500]), text[:, :1]
    negative, positive = prompts * 0.5, prompts
    twice = latents.repeat(1, 2, 1, 1, 1)
    joint = dual(twice, moments.repeat(2), torch.cat([negative, positive], dim=1), back[:count])
    for half, prompt in zip(joint.chunk(2, dim=1), (negative, positive), strict=True):
        alone = dual(latents, moments, prompt, back[:count], background_text=positive[0])
        torch.testing.assert_close(half, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pairs_may_share_a_prompt(unet: UNet2DConditionModel) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, "full", "released")
    shared = dual(latents, moments, text[:, :2], back)
    repeated = dual(latents, moments, text[:, [0, 0, 1, 1]], back)
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("interaction", "background"), FORMS)
@torch.no_grad()
def test_a_pair_does_not_depend_on_its_batch(unet: UNet2DConditionModel, interaction: str, background: str) -> None:
    latents, moments, text, back = inputs()
    dual, _ = random_dual(unet, interaction, background)
    given = None if background == "none" else back
    together = dual(latents, moments, text, given)
    for b in range(4):
        one = slice(b, b + 1)
        alone = dual(latents[:, one], moments[one], text[:, one], None if given is None else given[one])
        torch.testing.assert_close(alone, together[:, one], atol=1e-5, rtol=1e-5)
