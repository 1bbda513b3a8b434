from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dualanodiff.errors import ModelError
from dualanodiff.model.dual import DualUNet
from model.pairs import draw, inputs
from tiny import WIDTH

SD15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def test_the_counts_on_stable_diffusion_are_the_papers() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15)
    full = DualUNet(unet, background="paper")
    assert len(full.paths) == 32
    # method.md: 12.75 M and 124.08 M; the two Linear layers of 16 self-attention layers, and their scalar.
    assert full.parameter_counts() == {"lora": 12_754_944, "interaction": 124_078_720, "background": 8_004_816}
    assert DualUNet(unet, interaction="lowrank").parameter_counts()["interaction"] == 1_774_720
    assert DualUNet(unet, interaction="none").parameter_counts()["interaction"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given | {"latents": draw(8, 4, 8, 8)}, r"latents are \(8, 4, 8, 8\) but must be \(2, pairs"),
        (lambda given: given | {"text": draw(2, 3, 7, WIDTH)}, r"text is \(2, 3, 7, 32\) .* divides the 4 pairs"),
        (lambda given: given | {"timesteps": torch.tensor([1, 2])}, r"timesteps are \(2,\) but must be \(4,\)"),
        (lambda given: given | {"background": draw(3, 4, 8, 8)}, r"background is \(3, 4, 8, 8\) .*\(K, 4, 8, 8\)"),
        (lambda given: given | {"background": draw(2, 4, 4, 4)}, r"background is \(2, 4, 4, 4\) .*\(K, 4, 8, 8\)"),
        (
            lambda given: given | {"background_text": draw(3, 7, WIDTH)},
            r"background_text is \(3, 7, 32\) but must be \(4 or 1, 7, 32\)",
        ),
    ],
)
def test_wrong_shapes_are_named(
    unet: UNet2DConditionModel, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    given = dict(zip(("latents", "timesteps", "text", "background"), inputs(), strict=True))
    with pytest.raises(ModelError, match=message):
        DualUNet(unet, rank=4, background="paper")(**change(given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": "some"}, "interaction is 'some' but must be one of full, lowrank, none"),
        ({"background": "some"}, "background is 'some' but must be one of none, paper, released"),
    ],
)
def test_an_unknown_form_is_refused(unet: UNet2DConditionModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        DualUNet(unet, **options)


def test_a_background_needs_a_model_that_takes_one(unet: UNet2DConditionModel) -> None:
    with pytest.raises(ModelError, match="without background compensation; build it with background='paper'"):
        DualUNet(unet, rank=4)(*inputs())


def test_a_unet_of_another_kind_is_refused() -> None:
    small: dict[str, Any] = {"block_out_channels": (32, 32), "cross_attention_dim": WIDTH, "norm_num_groups": 8}
    none = UNet2DConditionModel(
        **small,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        mid_block_type=None,
    )
    with pytest.raises(ModelError, match="the UNet has no attention layers; choose a base in the layout of"):
        DualUNet(none)
    other = UNet2DConditionModel(
        **small,
        down_block_types=("SimpleCrossAttnDownBlock2D",) * 2,
        up_block_types=("SimpleCrossAttnUpBlock2D",) * 2,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )
    with pytest.raises(ModelError, match=r"attentions\.0: not an attention layer as in Stable Diffusion 1 and 2"):
        DualUNet(other)
