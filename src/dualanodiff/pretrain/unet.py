"""Train the base's UNet and text encoder, and with them a pair: generic branch adapters and their interaction.

The pair learns once, from endless procedural (picture, part) pairs, that the part branch shows what is wrong in the
image branch. A fit then starts from that bond instead of learning it from eight pictures. Single pictures go through
the UNet without the pair, so that the base stands alone as well.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dualanodiff.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from dualanodiff.diffusion.objective import Schedule, branch_losses, inclusion_loss
from dualanodiff.errors import ModelError
from dualanodiff.memory import best_device
from dualanodiff.model.dual import DualUNet
from dualanodiff.pretrain.autoencoder import rate_at
from dualanodiff.pretrain.bank import Bank
from dualanodiff.pretrain.batch import Batch, UNetPlan, draw_batch
from dualanodiff.pretrain.begin import begin_from
from dualanodiff.pretrain.text import TOKENS, build_text_encoder
from dualanodiff.progress import progress
from dualanodiff.seeds import torch_stream
from dualanodiff.storage import append_jsonl

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
_FIXED = ("channels", "plain_levels", "scale_shift", "prediction", "zero_snr")
"""What a training keeps from its first step to its last."""
CHECK_LEVELS = (0.98, 0.9, 0.75, 0.55, 0.35, 0.2, 0.1, 0.05)
"""Shares of the clean latents' variance at which a UNet is checked: the same noise for every schedule."""


def schedule_config(plan: UNetPlan) -> dict[str, Any]:
    """The scheduler's settings as the base folder keeps them."""
    return SCHEDULE | {"prediction_type": plan.prediction, "rescale_betas_zero_snr": plan.zero_snr}


def build_unet(plan: UNetPlan, *, latent_channels: int, cells: int, text_width: int) -> UNet2DConditionModel:
    """A fresh UNet whose attention heads are 32 wide, which this field's CPUs compute fastest."""
    levels = len(plan.channels) - plan.plain_levels
    heads: Any = tuple(max(1, width // 32) for width in plan.channels)  # diffusers types it too narrowly
    return UNet2DConditionModel(
        sample_size=cells,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=plan.channels,
        down_block_types=("DownBlock2D",) * plan.plain_levels + ("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels + ("UpBlock2D",) * plan.plain_levels,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=heads,  # which diffusers reads as the number of heads
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift" if plan.scale_shift else "default",
    )


class Pretrained(nn.Module):
    """Everything that stage two trains: the UNet, the text encoder and the pair."""

    def __init__(self, plan: UNetPlan, tokenizer: CLIPTokenizer, bank: Bank) -> None:
        super().__init__()
        self.tokenizer, self.plan = tokenizer, plan
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer)
        channels, cells = bank.pairs.shape[2], bank.pairs.shape[-1]
        self.unet = build_unet(
            plan, latent_channels=channels, cells=cells, text_width=self.text_encoder.config.hidden_size
        )
        self.dual = DualUNet(self.unet, rank=plan.rank, interaction="lowrank", interaction_rank=plan.interaction_rank)
        self.unet.requires_grad_(True)
        config = DDIMScheduler(**schedule_config(plan))
        self.schedule = Schedule(config.alphas_cumprod, config.config.prediction_type)  # pyright: ignore[reportAttributeAccessIssue]

    def embed(self, prompts: list[str]) -> Tensor:
        """(n, tokens, width); equal prompts are computed once."""
        distinct = sorted(set(prompts))
        ids = self.tokenizer(
            distinct, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        rows = self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state
        return rows[[distinct.index(prompt) for prompt in prompts]]

    def forward(self, batch: "Batch") -> Tensor:
        """Losses (4,): image branch, part branch, single pictures, inclusion (0 where it is not asked for)."""
        text = self.embed([*batch.image_prompts, *batch.part_prompts, *batch.single_prompts])
        pairs = len(batch.image_prompts)
        noisy = self.schedule.add_noise(batch.pairs, batch.pair_noise, batch.pair_times)
        found = self.dual(noisy, batch.pair_times, text[: 2 * pairs].unflatten(0, (2, pairs)))
        wanted = self.schedule.target(batch.pairs, batch.pair_noise, batch.pair_times)
        losses = branch_losses(found, wanted, self._weight(batch.pair_times))
        inclusion = losses.new_zeros(())
        if self.plan.inclusion > 0:
            clean = self.schedule.clean_from(noisy, found.float(), batch.pair_times)
            weight = self.schedule.alphas_cumprod.to(clean.device)[batch.pair_times]
            inclusion = inclusion_loss(clean, batch.coverage, weight)
        noisy = self.schedule.add_noise(batch.singles, batch.single_noise, batch.single_times)
        alone = self.unet(noisy, batch.single_times, text[2 * pairs :]).sample
        wanted = self.schedule.target(batch.singles, batch.single_noise, batch.single_times)
        [single] = branch_losses(alone[None], wanted[None], self._weight(batch.single_times))
        return torch.stack([*losses, single, inclusion])

    def _weight(self, times: Tensor) -> Tensor:
        """What squared errors of the prediction count, (B,); the plan's noise_weight is the most."""
        return (1 / self.schedule.alphas_cumprod.to(times.device)[times]).clamp(max=self.plan.noise_weight)


class Training:
    """The state of stage two: weights, their running average, the optimiser and the step.

    `begin` is the folder of a training, of the same shape or at half the size, whose weights a new one begins from (pretrain/begin.py).
    """

    def __init__(
        self, plan: UNetPlan, tokenizer: CLIPTokenizer, bank: Bank, folder: Path, begin: Path | None = None
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.bank, self.folder = plan, bank, folder
        self.model = Pretrained(plan, tokenizer, bank)
        self.state = folder / "unet.safetensors"
        if begin is not None and not self.state.exists():
            begin_from(self.model, self.model.unet, begin / "unet.safetensors")
        self.device = best_device()
        self.model.to(self.device)
        # Fused on a processor alone: on a GPU it wants the step counter there, which a resumed state has not.
        fused = True if self.device.type == "cpu" else None
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=fused
        )
        self.average = EMAModel(self.model.parameters(), decay=0.9995, use_ema_warmup=True, power=0.75, foreach=True)
        self.step, self.seconds = 0, 0.0
        if self.state.exists():
            self._resume()

    def run(self, seconds: float) -> Iterator[int]:
        """Train, yielding the step at every save; ends with the plan's steps or after `seconds`."""
        began = time.monotonic()
        before = self.seconds
        recent: list[Tensor] = []
        with progress("unet", self.plan.steps, start=self.step) as bar:
            while self.step < self.plan.steps and time.monotonic() - began < seconds:
                losses = self._step()
                recent.append(losses)
                self.seconds = before + time.monotonic() - began
                if self.step % 10 == 0:  # reading a loss makes a GPU wait
                    bar.step(self.step - bar.done, loss=float(losses.sum()))
                if self.step % 50 == 0:
                    means = torch.stack(recent).double().mean(dim=0).cpu().numpy().round(5).tolist()
                    row = dict(zip(("image", "part", "single", "inclusion"), means, strict=True))
                    append_jsonl(self.folder / "unet.jsonl", {"step": self.step, **row, "seconds": self.seconds})
                    recent = []
                if self.step % self.plan.save_every == 0:
                    self.save()
                    append_jsonl(self.folder / "check.jsonl", {"step": self.step, **self.check()})
                    yield self.step
        self.save()

    def _step(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * rate_at(self.step, self.plan.steps, warmup=300)
        with self._precision():
            losses = self.model(draw_batch(self.bank, self.plan, self.step).to(self.device))
        weights = losses.new_tensor([1.0, self.plan.part_weight, 1.0, self.plan.inclusion])
        (losses * weights).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.model.parameters())
        self.step += 1
        return losses.detach()

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Errors of v (image, part, single) on held-out rows under fixed noise at CHECK_LEVELS, averaged weights.

        Of v whatever the UNet predicts, and at fixed noise levels, so that every plan can be compared with every other.
        """
        schedule, bank = self.model.schedule, self.bank
        distance = (schedule.alphas_cumprod[:, None] - torch.tensor(CHECK_LEVELS)).abs()
        times = distance.argmin(dim=0)
        noise = torch_stream(self.plan.seed, "unet check")
        pairs = bank.pairs[bank.pairs_to_learn :].float().transpose(0, 1).to(self.device)
        singles = bank.singles[bank.singles_to_learn :].float().to(self.device)
        self.average.store(self.model.parameters())
        self.average.copy_to(self.model.parameters())
        errors: list[Tensor] = []
        try:
            texts = self.model.embed([words for pair in bank.pair_captions[bank.pairs_to_learn :] for words in pair])
            text = texts.unflatten(0, (-1, 2)).transpose(0, 1)
            alone = self.model.embed(bank.single_captions[bank.singles_to_learn :])
            for time_ in times:
                steps = time_.expand(pairs.shape[1]).to(self.device)
                noisy = schedule.add_noise(pairs, torch.randn(pairs.shape, generator=noise).to(self.device), steps)
                sigma = schedule.levels(steps, noisy)[1]
                with self._precision():
                    found = self.model.dual(noisy, steps, text).float()
                error = (schedule.clean_from(noisy, found, steps) - pairs) / sigma
                steps = time_.expand(len(singles)).to(self.device)
                noisy = schedule.add_noise(singles, torch.randn(singles.shape, generator=noise).to(self.device), steps)
                sigma = schedule.levels(steps, noisy)[1]
                with self._precision():
                    found = self.model.unet(noisy, steps, alone).sample.float()
                single = ((schedule.clean_from(noisy, found, steps) - singles) / sigma).square().mean()
                errors.append(torch.stack([*error.square().mean(dim=(1, 2, 3, 4)), single]))
        finally:
            self.average.restore(self.model.parameters())
        means = torch.stack(errors).mean(dim=0)
        return {name: round(value.item(), 5) for name, value in zip(("image", "part", "single"), means, strict=True)}

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def save(self) -> None:
        """Write the resumable state."""
        names = [name for name, _ in self.model.named_parameters()]
        groups = {
            "model": dict(self.model.named_parameters()),
            "average": dict(zip(names, self.average.shadow_params, strict=True)),
            "optimizer": optimizer_tensors(self.optimizer, self.model.named_parameters()),
        }
        save_checkpoint(self.state, groups, {"step": self.step, "seconds": self.seconds, "plan": asdict(self.plan)})

    def _resume(self) -> None:
        groups, meta = load_checkpoint(self.state)
        mine = asdict(self.plan) | {"channels": list(self.plan.channels)}
        for name in _FIXED:
            if (before := meta["plan"].get(name, mine[name])) != mine[name]:
                option = "--" + name.replace("_", "-")
                msg = f"{self.state}: was begun with {option} {before}, now {mine[name]}; go on with the same, or choose another --out"
                raise ModelError(msg)
        self.model.load_state_dict(groups["model"], strict=False)
        self.average.shadow_params = [
            groups["average"][name].to(self.device) for name, _ in self.model.named_parameters()
        ]
        self.average.optimization_step = meta["step"]
        restore_optimizer(self.optimizer, self.model.named_parameters(), groups.get("optimizer", {}))
        self.step, self.seconds = meta["step"], meta["seconds"]
