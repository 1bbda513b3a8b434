"""Write a base folder in Stable Diffusion's layout, with its pair and its card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn

from dualanodiff.errors import RunError
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.pretrain.unet import Training, schedule_config
from dualanodiff.storage import write_json, write_text

PAIR = "pair"
"""Folder of the pre-trained pair inside a base folder."""


@torch.no_grad()
def write_base(training: Training, vae_folder: Path, tokenizer_folder: Path, out: Path, card: str) -> None:
    """The averaged weights of `training` in fp16, the autoencoder, tokenizer, schedule, pair and card as one base."""
    model = training.model
    training.average.store(model.parameters())
    training.average.copy_to(model.parameters())
    try:
        _copy_unet(model.unet).save_pretrained(out / "unet", safe_serialization=True)
        _save_half(model.text_encoder, out / "text_encoder")
        text = TextAdapter(model.text_encoder, model.tokenizer, rank=0)
        model.text_encoder.requires_grad_(True)
        save_adapters(model.dual, text, out / PAIR, dtype=torch.float16)
    finally:
        training.average.restore(model.parameters())
    AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float16).save_pretrained(out / "vae")
    config = json.loads((out / "vae" / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # where it lay on this machine concerns nobody
    write_json(out / "vae" / "config.json", config)
    DDIMScheduler(**schedule_config(training.plan)).save_pretrained(out / "scheduler")
    model.tokenizer.save_pretrained(out / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        write_text(out / "tokenizer" / name, (tokenizer_folder / name).read_text(encoding="utf-8"))
    write_json(out / "model_index.json", MODEL_INDEX)
    write_text(out / "base.toml", card)


def begin_base(out: Path, name: str, facts: Mapping[str, Any]) -> None:
    """RunError where the folder `out` was begun with other facts than these (kept in its file `name`), or is something else."""
    if not (out / name).exists():
        if out.is_file():
            msg = f"{out}: is a file; choose another --out, a folder"
            raise RunError(msg)
        if out.exists() and any(out.iterdir()):
            msg = f"{out}: is not empty and was not begun by this command; choose another --out"
            raise RunError(msg)
        return
    before = json.loads((out / name).read_text(encoding="utf-8"))
    for key, value in facts.items():
        if before.get(key) != value:
            shown = "" if isinstance(value, list) else f" {before.get(key)!r}, now {value!r}"
            msg = f"{out}: was begun with other {key}{shown}; go on with the same, or choose another --out"
            raise RunError(msg)


MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _copy_unet(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A half-precision copy with diffusers' own processors, so that its config and keys are a plain UNet's."""
    copy = UNet2DConditionModel(**{key: value for key, value in unet.config.items() if not key.startswith("_")})
    copy.load_state_dict(unet.state_dict())
    return copy.half()


def _save_half(model: nn.Module, folder: Path) -> None:
    copy = type(model)(model.config)  # pyright: ignore[reportCallIssue]
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder, safe_serialization=True)  # pyright: ignore[reportCallIssue]
