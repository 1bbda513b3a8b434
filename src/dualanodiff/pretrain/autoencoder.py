"""Train the base's autoencoder: pictures to latents an eighth of the size, and back."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dualanodiff.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from dualanodiff.images import to_tensor
from dualanodiff.memory import best_device
from dualanodiff.pretrain.ahead import drawn_ahead
from dualanodiff.pretrain.linear_start import start_linear
from dualanodiff.pretrain.pictures import Pack, draw_crop
from dualanodiff.progress import progress
from dualanodiff.seeds import numpy_stream
from dualanodiff.storage import append_jsonl
from dualanodiff.synth.product import draw_part_on_ground, draw_triple


@dataclass(frozen=True)
class AutoencoderPlan:
    """What is trained, and for how long."""

    steps: int = 4000
    """Optimiser steps; the rate falls to zero over the last fifth."""
    batch: int = 8
    """Pictures a step."""
    size: int = 128
    """Side of the pictures in pixels."""
    rate: float = 6e-4
    """Peak AdamW rate."""
    channels: tuple[int, ...] = (16, 48, 96, 128)
    """Widths from full to an eighth of the resolution."""
    latent_channels: int = 8
    """Numbers a latent cell holds."""
    kl_weight: float = 1e-4
    """Pull of the latents towards unit variance, against a mean absolute error."""
    synthetic: float = 0.45
    """Share of procedural pictures among the packed ones."""
    decoder_only: bool = False
    """Leave the encoder, and with it every latent already made, as it is."""
    seed: int = 0
    """Every random draw comes from it."""
    save_every: int = 250
    """Steps between resumable states."""


def build_autoencoder(plan: AutoencoderPlan) -> AutoencoderKL:
    """A fresh autoencoder of the plan's widths, without attention so that any resolution costs the same a pixel."""
    blocks = len(plan.channels)
    # In a dict, because diffusers types its tuples too narrowly.
    levels: dict[str, Any] = {
        "block_out_channels": plan.channels,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
    }
    return AutoencoderKL(
        **levels,
        layers_per_block=1,
        latent_channels=plan.latent_channels,
        # Large groups: one of two channels would normalise a flat picture's colour away.
        norm_num_groups=2,
        sample_size=plan.size,
        mid_block_add_attention=False,
    )


def draw_pictures(pack: Pack, plan: AutoencoderPlan, step: int) -> Tensor:
    """The pictures of one step, float32 (batch, 3, size, size) in [-1, 1]; a function of the seed and the step."""
    return to_tensor(draw_levels(pack, plan, step))


def draw_levels(pack: Pack, plan: AutoencoderPlan, step: int) -> np.ndarray:
    """The same, uint8 (batch, size, size, 3)."""
    generator = numpy_stream(plan.seed, "autoencoder", step)
    rows: list[np.ndarray] = []
    for _ in range(plan.batch):
        if generator.random() >= plan.synthetic:
            rows.append(draw_crop(pack, generator, plan.size)[0])
        elif generator.random() < 0.3:
            rows.append(draw_part_on_ground(generator, plan.size)[0])
        else:
            rows.append(draw_triple(generator, plan.size).image)
    return np.stack(rows)


def reconstruction_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error of the picture, absolute of its slopes (thin lines), squared of 8 x 8 means.

    Absolute error alone is content with grey for every colour for thousands of steps; squared error is not.
    """
    error = found - wanted
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squares = error.square().mean() + avg_pool2d(error, 8).square().mean()
    return error.abs().mean() + 0.5 * slopes + 4 * squares


def rate_at(step: int, steps: int, warmup: int = 100, decay: float = 0.2) -> float:
    """Share of the peak rate: a linear rise, a plateau, and a linear fall over the last `decay` of the steps.

    >>> [round(rate_at(step, 1000), 2) for step in (0, 99, 500, 900, 1000)]
    [0.01, 1.0, 1.0, 0.5, 0.0]
    """
    return max(0.0, min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps)))


def train_autoencoder(pack: Pack, out: Path, plan: AutoencoderPlan, *, seconds: float = float("inf")) -> dict[str, Any]:
    """Train until the plan's steps or `seconds` are over, resuming from `out`; write `out/vae` in SD layout.

    The state in `out/autoencoder.safetensors` is replaced every `save_every` steps, so a kill loses at most those.
    """
    torch.manual_seed(plan.seed)
    state, step, spent = out / "autoencoder.safetensors", 0, 0.0
    device = best_device()
    vae: Any = build_autoencoder(plan)
    if not state.exists():
        start_linear(vae, torch.cat([draw_pictures(pack, plan, -1 - i) for i in range(-(-128 // plan.batch))]))
    vae.to(device)
    # A short stage of its own must not drown in the average of the long one before it.
    decay = 0.98 if plan.decoder_only else 0.999
    average = EMAModel(vae.parameters(), decay=decay, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    names = [name for name, _ in vae.named_parameters()]
    if state.exists():
        step, spent = _resume(state, vae, average, optimizer, plan)
    if plan.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    began = time.monotonic()

    def save() -> None:
        groups = {
            "model": vae.state_dict(),
            "average": dict(zip(names, average.shadow_params, strict=True)),
            "optimizer": optimizer_tensors(optimizer, vae.named_parameters()),
        }
        spent_now = spent + time.monotonic() - began
        save_checkpoint(state, groups, {"step": step, "seconds": spent_now, "plan": asdict(plan)})

    with progress("autoencoder", plan.steps, start=step) as bar:
        for drawn in drawn_ahead(partial(draw_levels, pack, plan), range(step, plan.steps), device):
            if time.monotonic() - began >= seconds:
                break
            pictures = to_tensor(drawn).to(device)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * rate_at(step, plan.steps)
            with torch.autocast(device.type, torch.bfloat16):
                posterior = vae.encode(pictures).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(device)
                found = vae.decode(posterior.mean + posterior.std * noise).sample
            kl = (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean() / 2
            loss = reconstruction_loss(found.float(), pictures) + plan.kl_weight * kl
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.step(vae.parameters())
            step += 1
            if step % 25 == 0:  # reading a loss makes a GPU wait
                bar.step(step - bar.done, loss=loss.item())
                error = (found.detach().float().clamp(-1, 1) - pictures).square().mean().item() / 4
                row = {"step": step, "loss": loss.item(), "kl": kl.item(), "psnr": -10 * np.log10(error)}
                append_jsonl(out / "autoencoder.jsonl", row)
            if step % plan.save_every == 0:
                save()
    save()
    average.copy_to(vae.parameters())
    vae.cpu()
    level_output(vae, torch.cat([draw_pictures(pack, plan, -1 - i) for i in range(-(-48 // plan.batch))]))
    vae.register_to_config(**latent_statistics(vae, pack, plan, out / "vae"))
    vae.save_pretrained(out / "vae", safe_serialization=True)
    return {"steps": step, "seconds": spent + time.monotonic() - began}


def _resume(
    state: Path, vae: AutoencoderKL, average: EMAModel, optimizer: torch.optim.Optimizer, plan: AutoencoderPlan
) -> tuple[int, float]:
    """Put a kept state back; its step, and the seconds spent until then."""
    groups, meta = load_checkpoint(state)
    vae.load_state_dict(groups["model"])
    average.shadow_params = [groups["average"][name].to(vae.device) for name, _ in vae.named_parameters()]
    average.optimization_step = meta["step"]
    restore_optimizer(optimizer, vae.named_parameters(), groups.get("optimizer", {}))
    if plan.decoder_only and not meta["plan"].get("decoder_only"):
        average.copy_to(vae.parameters())  # vae/ holds the averaged encoder, so that one stays
    return meta["step"], meta["seconds"]


@torch.no_grad()
def level_output(vae: AutoencoderKL, pictures: Tensor) -> tuple[list[float], list[float]]:
    """Scale and shift the decoder's output so that it fits `pictures` best, by least squares for each colour channel.

    Group norms see more of a small picture's rim than of a large one's, so an autoencoder trained on small crops gives
    a large white picture back as light grey (0.90 of 1 at 256 px after 64 and 128 px). Returns factors and shifts.
    """
    found = torch.cat([vae.decode(vae.encode(rows).latent_dist.mean).sample for rows in pictures.split(4)])  # pyright: ignore[reportAttributeAccessIssue]
    last: Any = vae.decoder.conv_out
    factors: list[float] = []
    shifts: list[float] = []
    for channel in range(3):
        y, x = found[:, channel].flatten(), pictures[:, channel].flatten()
        factor = ((x - x.mean()) * (y - y.mean())).sum() / (y - y.mean()).square().sum().clamp_min(1e-6)
        shift = x.mean() - factor * y.mean()
        last.weight[channel] *= factor
        last.bias[channel] = factor * last.bias[channel] + shift
        factors.append(factor.item())
        shifts.append(shift.item())
    return factors, shifts


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pack: Pack, plan: AutoencoderPlan, before: Path) -> dict[str, float]:
    """The factor that gives the latents unit variance, measured on 128 pictures (SD's `scaling_factor`).

    Where only the decoder was trained it stays what it was `before`.
    """
    if plan.decoder_only and before.is_dir():
        config: Any = AutoencoderKL.load_config(before)
        return {"scaling_factor": config["scaling_factor"]}
    pictures = torch.cat([draw_pictures(pack, plan, -1 - i) for i in range(-(-128 // plan.batch))])
    means = torch.cat([vae.encode(rows).latent_dist.mean for rows in pictures.split(16)])  # pyright: ignore[reportAttributeAccessIssue]
    return {"scaling_factor": round(1 / means.std().item(), 5)}
