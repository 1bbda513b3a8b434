"""Stage two from end to end: autoencoder and pack -> tokenizer, latent bank, UNet with its pair -> base folder."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import nn
from transformers import CLIPTokenizer

from dualanodiff.errors import ModelError
from dualanodiff.images import to_rgb, write_png
from dualanodiff.memory import best_device
from dualanodiff.model.base import Base
from dualanodiff.pretrain.bank import Bank, build_bank, load_bank
from dualanodiff.pretrain.batch import UNetPlan
from dualanodiff.pretrain.begin import find_training
from dualanodiff.pretrain.folder import write_base
from dualanodiff.pretrain.pictures import Pack
from dualanodiff.pretrain.text import train_tokenizer
from dualanodiff.pretrain.unet import Training, schedule_config
from dualanodiff.sampler import PairSampler
from dualanodiff.settings import SampleSettings
from dualanodiff.storage import write_atomic


def train_unet(
    pack: Pack,
    folder: Path,
    plan: UNetPlan,
    *,
    bank_pairs: int = 12000,
    bank_singles: int = 6000,
    begin: Path | None = None,
    card: str = "",
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """Train in `folder`, which holds the autoencoder of stage one, and write the base to `folder`/base.

    Everything that takes long is kept in `folder` and resumed. `begin` is the folder of a finished training, of the same
    shape or at half the size, with the same autoencoder, whose weights this one begins from and whose words it keeps. ModelError where either is not there.
    """
    if not (folder / "vae" / "config.json").exists():
        msg = (
            f"{folder}/vae: no autoencoder; train it first with `dualanodiff pretrain autoencoder PACK --out {folder}`"
        )
        raise ModelError(msg)
    if begin is not None and not (folder / "unet.safetensors").exists():
        _take_words(begin, folder)
    vae = AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False).eval()
    nn.Module.to(vae, best_device())
    shards = folder / f"bank-{plan.size}"
    began = time.monotonic()
    counts = {"pairs": bank_pairs, "singles": bank_singles}
    if not build_bank(_only_vae(vae), pack, shards, **counts, size=plan.size, seed=plan.seed, seconds=seconds):
        return {"steps": 0, "seconds": 0.0, "base": str(folder / "base")}
    bank, words = load_bank(shards), folder / "words"
    tokenizer = _tokenizer(bank, words)
    training = Training(plan, tokenizer, bank, folder, begin)
    for step in training.run(seconds - (time.monotonic() - began)):
        preview(training, vae, folder / "samples" / f"step-{step:08d}.png")
    preview(training, vae, folder / "samples" / f"step-{training.step:08d}.png")
    write_base(training, folder / "vae", words, folder / "base", card)
    return {"steps": training.step, "seconds": training.seconds, "base": str(folder / "base")}


@torch.no_grad()
def preview(training: Training, vae: AutoencoderKL, path: Path, count: int = 8) -> None:
    """A picture of `count` pairs under the rare-word prompts, images above parts, with the averaged weights."""
    model, bank = training.model, training.bank
    training.average.store(model.parameters())
    training.average.copy_to(model.parameters())
    try:
        text = model.embed(["a vfx with sks", "sks", ""])
        base = replace(_only_vae(vae, training.plan), unet=model.unet)
        drawn: list[tuple[np.ndarray, np.ndarray]] = []
        for i in range(count):
            # Each pair starts from the colours of another picture of the bank.
            row = bank.pairs[i * 37 % len(bank.pairs)].float()
            mean = row.mean(dim=(2, 3), keepdim=True).expand_as(row)
            sampler = PairSampler(base=base, dual=model.dual, text=text, mean=mean)
            settings = SampleSettings(scheduler="dpmsolver++", num_inference_steps=20, guidance_scale=1.5)
            pair = sampler.draw([i], training.plan.seed, settings)
            drawn.append((pair.image[0], pair.part[0]))
    finally:
        training.average.restore(model.parameters())
    rows = [np.concatenate([pair[branch] for pair in drawn], axis=1) for branch in (0, 1)]
    truth = torch.stack([bank.pairs[i * 37 % len(bank.pairs)].float() for i in range(count)])
    decoded = [np.concatenate(list(to_rgb(base.decode(truth[:, branch].to(vae.device)))), axis=1) for branch in (0, 1)]
    write_png(path, np.concatenate([*rows, *decoded], axis=0))


def _only_vae(vae: AutoencoderKL, plan: UNetPlan | None = None) -> Base:
    """A base of which only the autoencoder exists yet."""
    config = schedule_config(plan or UNetPlan())
    scheduler = DDPMScheduler.from_config({key: value for key, value in config.items() if key != "set_alpha_to_one"})
    missing: Any = None
    return Base("", None, vae, missing, missing, missing, scheduler)  # pyright: ignore[reportArgumentType]


def _take_words(begin: Path, folder: Path) -> None:
    """Copy the words that the other training's text encoder knows; ModelError where that is no training."""
    find_training(begin)
    (folder / "words").mkdir(parents=True, exist_ok=True)
    # The tokenizer's own file is the last one: with it the folder is whole.
    for path in sorted((begin / "words").iterdir(), key=lambda path: path.name == "tokenizer.json"):
        write_atomic(folder / "words" / path.name, lambda temporary, path=path: shutil.copyfile(path, temporary))


def _tokenizer(bank: Bank, folder: Path) -> CLIPTokenizer:
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    captions = [caption for pair in bank.pair_captions for caption in pair]
    return train_tokenizer([*captions, *bank.single_captions], folder)
