"""A whole Stable Diffusion at toy size with random weights, in the real one's layout: it loads in a blink."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 32
TOKENS = 12


def tiny_unet() -> UNet2DConditionModel:
    """Two levels with self- and cross-attention in each, 14 attention layers."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def tiny_vae() -> AutoencoderKL:
    """64 px pictures to 4 x 8 x 8 latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=0.5,
    )


def tiny_text_encoder(vocabulary: int) -> CLIPTextModel:
    """Two layers of 32 numbers a token."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def save_tiny_tokenizer(folder: Path) -> int:
    """Write a CLIP tokenizer that knows single letters; the size of its vocabulary."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(source / "vocab.json"),
        str(source / "merges.txt"),
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=TOKENS,
    ).save_pretrained(folder / "tokenizer")
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    return len(words)


def save_tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """Write the toy base into `folder` in Stable Diffusion's layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_unet().save_pretrained(folder / "unet")
        tiny_vae().save_pretrained(folder / "vae")
        tiny_text_encoder(save_tiny_tokenizer(folder)).save_pretrained(folder / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    return folder
