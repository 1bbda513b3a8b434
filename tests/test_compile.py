"""torch.compile is an option that works with every setting. Traced here without its slow last stage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from dualanodiff.fitted import load
from dualanodiff.model.fixed import FixedDual
from model.pairs import FORMS, inputs, random_dual
from small import adapters, draw_normals, fit_small
from tiny import tiny_unet


@pytest.fixture(autouse=True)
def only_traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Compiles without generating code; the networks that were compiled."""
    compiled: list[Any] = []
    original = torch.compile

    def compile_traced(module: Any, **options: Any) -> Any:
        compiled.append(module)
        return original(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_traced)
    torch._dynamo.reset()
    return compiled


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny_unet().eval()


@pytest.mark.parametrize(("interaction", "background"), FORMS)
def test_a_compiled_model_computes_the_same(unet: UNet2DConditionModel, interaction: str, background: str) -> None:
    latents, moments, text, back = inputs(2)
    behind = None if background == "none" else back[:1]
    dual, _ = random_dual(unet, interaction, background)
    expected = dual(latents, moments, text, behind)
    dual.compile_unet()
    torch.testing.assert_close(dual(latents, moments, text, behind), expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        found = FixedDual(dual)(latents, moments, text, behind)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_a_compiled_fit_and_its_pairs_are_the_same(
    tiny_base_folder: Path, tmp_path: Path, only_traced: list[Any]
) -> None:
    changes = {"train__max_train_steps": 1, "model__background": "paper", "train__gradient_checkpointing": "true"}
    normals = draw_normals(tmp_path / "normals")
    plain = fit_small(tiny_base_folder, tmp_path / "plain", normals=normals, **changes)
    assert not only_traced
    compiled = fit_small(tiny_base_folder, tmp_path / "compiled", normals=normals, train__compile="true", **changes)
    assert len(only_traced) == 1
    first, second = adapters(plain), adapters(compiled)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-4)
    # With a watcher on the attention, which runs inside the compiled network.
    wishes = {"mask.method": "attention", "train.mixed_precision": "no", "sample.num_inference_steps": "1"}
    eager, traced = (
        next(load(plain.path, assignments={**wishes, "sample.compile": wish}).draw(1, 0))[0]
        for wish in ("false", "true")
    )
    assert len(only_traced) == 2
    assert np.abs(eager.image.astype(int) - traced.image).max() <= 1
    assert eager.attention is not None and traced.attention is not None
    assert np.abs(eager.attention.astype(int) - traced.attention).max() <= 1
