"""Bases to time: the shipped one, and random weights in the shapes of a toy and of Stable Diffusion 1.5."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from dualanodiff.data.shots import Shot
from dualanodiff.errors import SettingsError
from dualanodiff.model.base import Base, channels_last, load_base
from dualanodiff.seeds import numpy_stream

SIZES = ("toy", "mini", "sd15")
_TOKENS = {"toy": 16, "sd15": 77}


def size_base(size: str) -> Base:
    """`mini` as it ships; `toy` and `sd15` with random weights, on which speed does not depend. SettingsError for another."""
    if size not in SIZES:
        msg = f"--size {size}: no such size; choose from {', '.join(SIZES)}"
        raise SettingsError(msg)
    mini = load_base("mini")
    if size == "mini":
        return mini
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet, vae = _unet(size), channels_last(_vae(size))
        text = CLIPTextModel(_text_config(size, len(mini.tokenizer)))
    for part in (unet, vae, text):
        part.requires_grad_(False).eval()
    mini.tokenizer.model_max_length = _TOKENS[size]
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return replace(mini, name=size, folder=None, vae=vae, text_encoder=text, unet=unet, scheduler=scheduler, card={})


def _unet(size: str) -> UNet2DConditionModel:
    if size == "sd15":
        return sd15_unet()
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def sd15_unet() -> UNet2DConditionModel:
    """A fresh UNet of Stable Diffusion 1.5's shape, 860 M weights."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def _vae(size: str) -> AutoencoderKL:
    widths: Any
    widths, side = ((128, 256, 512, 512), 512) if size == "sd15" else ((8, 8, 16, 16), 64)
    down: Any = ("DownEncoderBlock2D",) * 4  # whose types are tuples of one
    up: Any = ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=2 if size == "sd15" else 1,
        latent_channels=4,
        norm_num_groups=32 if size == "sd15" else 4,
        sample_size=side,
    )


def _text_config(size: str, words: int) -> CLIPTextConfig:
    width, layers, heads = (768, 12, 12) if size == "sd15" else (32, 2, 4)
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=_TOKENS[size],
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def noise_shots(count: int, side: int) -> list[Shot]:
    """Pictures of noise with a square defect: what is in a picture costs no time."""
    random = numpy_stream(0, "bench speed")
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    return [Shot(random.integers(0, 256, (side, side, 3), np.uint8), mask, f"{i:03}") for i in range(count)]
