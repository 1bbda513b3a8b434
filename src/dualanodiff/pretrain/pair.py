"""Teach a finished base a pair: branch adapters and interaction, learned once on procedural (picture, part, mask) triples.

The base stays as it is, UNet and text encoder; the result is a copy of it with `pair/` beside, where fits begin
(`model.start`). `pretrain unet` learns a pair together with its base; this is for a base that exists already, such as
Stable Diffusion 1.5.
"""

import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor, nn

from dualanodiff.checkpoints import resume_training, save_training
from dualanodiff.diffusion.objective import branch_losses
from dualanodiff.latents import check_side
from dualanodiff.loop import Loop
from dualanodiff.memory import best_device
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import Base, copy_base
from dualanodiff.pair_model import build_pair_model, wants_bf16
from dualanodiff.preparing import base_files, make_optimizer
from dualanodiff.pretrain.bank import Bank, build_bank, choose_prompts, load_bank
from dualanodiff.pretrain.folder import PAIR, begin_base
from dualanodiff.runs import file_record
from dualanodiff.sampler import schedule_of
from dualanodiff.seeds import numpy_stream, torch_stream
from dualanodiff.settings import Settings
from dualanodiff.stopping import one_clear_line
from dualanodiff.storage import read_jsonl, write_json, write_text

WARMUP_STEPS = 50
OPTIONS = {"steps": "--steps", "batch": "--batch-pairs", "rate": "--learning-rate", "drawn": "--pairs"}
"""Names of a plan's fields on the command line."""


@dataclass(frozen=True)
class PairPlan:
    """What is trained, and for how long."""

    steps: int = 3000
    """Optimiser steps; the rate falls to zero over all of them."""
    batch: int = 4
    """Procedural pairs a step, two UNet rows each."""
    rate: float = 2e-4
    """Peak AdamW rate."""
    drawn: int = 4000
    """Procedural pairs to draw from."""
    rare_prompts: float = 0.5
    """Share of pairs under the prompts of the fits to come, the others under their captions."""
    prompt_dropout: float = 0.1
    """Share of pairs under the empty prompt, which guidance pulls away from."""
    seed: int = 0
    """Every random draw comes from it."""
    save_every: int = 100
    """Steps between resumable states."""


def pretrain_pair(
    base: Base, out: Path, plan: PairPlan, settings: Settings, *, seconds: float = float("inf")
) -> dict[str, Any]:
    """Write the base folder `out`: `base` with a pair. Goes on where an earlier call stopped, for so many seconds at most.

    Of the settings, data.resolution, the prompts and those of the adapters and of memory matter. Returns base, steps, done
    (false where time ran out), loss and seconds. RunError where `out` holds something else or was begun otherwise.
    """
    model = replace(settings.model, start="fresh", background="none", text_rank=0)
    settings = replace(settings, model=model, seed=plan.seed)
    check_side(base, settings.data.resolution)
    facts = {
        "--set data.resolution": settings.data.resolution,
        **{f"--set model.{name}": getattr(model, name) for name in ("rank", "interaction", "interaction_rank")},
        **{f"--set model.{name}": getattr(model, name) for name in ("prompt_image", "prompt_part")},
        "--set train.optimizer": settings.train.optimizer,
        **{OPTIONS.get(key, key): value for key, value in asdict(plan).items()},
        "base files": [file_record(path, "base")["sha256"] for path in base_files(base)],
    }
    begin_base(out, "pair.json", facts)
    if not (out / "base.toml").exists():
        with one_clear_line(
            out,
            go_on="give the same command again",
            smaller="Give the same command with --set train.gradient_checkpointing=true, or a lower --batch-pairs and another --out",
        ):
            training = PairTraining(base, settings, plan, out)
            write_json(out / "pair.json", facts)
            training.run(seconds)
    done = (out / "base.toml").exists()
    if done:
        shutil.rmtree(out / "work", ignore_errors=True)
    rows = list(read_jsonl(out / "pair.jsonl"))
    last = rows[-1] if rows else {"step": 0, "loss": None, "seconds": 0.0}
    return {"base": str(out), "done": done, **{name: last[name] for name in ("step", "loss", "seconds")}}


class PairTraining:
    """One training in progress; its latents and state lie in `out`/work."""

    def __init__(self, base: Base, settings: Settings, plan: PairPlan, out: Path) -> None:
        self.base, self.settings, self.plan, self.out = base, settings, plan, out
        self.device = best_device()
        for part in (base.vae, base.unet, base.text_encoder):
            nn.Module.to(part, self.device)
        if wants_bf16(settings, self.device):
            nn.Module.to(base.unet, torch.bfloat16)  # past diffusers, whose own warns of nothing
        if settings.train.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()
        self.schedule = schedule_of(base)
        model, _ = build_pair_model(base, self.schedule, settings)
        self.model = model.to(self.device)
        self.parameters = [(name, value) for name, value in self.model.dual.named_parameters() if value.numel()]
        self.optimizer = make_optimizer(settings.train, [value for _, value in self.parameters])
        self.state = out / "work" / "state.safetensors"

    def run(self, seconds: float) -> None:
        """Draw the bank, train from the newest state on, for so many seconds at most; at the end write the base."""
        began = time.monotonic()
        size, folder = self.settings.data.resolution, self.out / "work" / "bank"
        wanted = {"pairs": self.plan.drawn, "singles": 0, "size": size, "seed": self.plan.seed}
        if not build_bank(self.base, None, folder, **wanted, seconds=seconds):
            return
        bank = load_bank(folder)
        loop = Loop(
            "pair",
            self.plan.steps,
            self.out / "pair.jsonl",
            ("image", "part"),
            self.plan.save_every,
            f"begin a new folder with a lower --learning-rate (now {self.plan.rate:g})",
        )
        left = seconds - (time.monotonic() - began)
        made = loop.run(lambda step: self.step(bank, step), self._save, start=self._resume(), seconds=left)
        if made == self.plan.steps:
            self._write()

    def step(self, bank: Bank, step: int) -> Tensor:
        """One optimiser step; the losses (2,) of both branches, left on the device."""
        plan = self.plan
        for group in self.optimizer.param_groups:
            group["lr"] = plan.rate * min((step + 1) / WARMUP_STEPS, 1 - step / plan.steps)
        choice, random = numpy_stream(plan.seed, "pair", step), torch_stream(plan.seed, "pair", step)
        rows = choice.integers(bank.pairs_to_learn, size=plan.batch)
        rare = (self.settings.model.prompt_image, self.settings.model.prompt_part)
        shares = {"dropout": plan.prompt_dropout, "share": plan.rare_prompts}
        prompts = [choose_prompts(bank.pair_captions[row], rare, choice.random(), **shares) for row in rows]
        clean = bank.pairs[rows].float().transpose(0, 1)
        noise = torch.randn(clean.shape, generator=random).to(self.device)
        times = torch.randint(len(self.schedule.alphas_cumprod), (plan.batch,), generator=random).to(self.device)
        clean = clean.to(self.device)
        with torch.no_grad():
            embedded = self.model.text.embed([prompt for branch in zip(*prompts, strict=True) for prompt in branch])
        text = embedded.unflatten(0, (2, plan.batch))
        noisy = self.schedule.add_noise(clean, noise, times)
        with self._precision():
            found = self.model.dual(noisy, times, text)
        losses = branch_losses(found, self.schedule.target(clean, noise, times))
        losses.sum().backward()
        nn.utils.clip_grad_norm_([value for _, value in self.parameters], self.settings.train.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach()

    def _precision(self) -> Any:
        mixed = wants_bf16(self.settings, self.device) and self.base.unet.dtype == torch.float32
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    def _save(self, step: int) -> None:
        save_training(self.state, self.parameters, self.optimizer, step)

    def _resume(self) -> int:
        return resume_training(self.state, self.parameters, self.optimizer)

    def _write(self) -> None:
        """The base's own files, the pair, and last of all the card: a folder with it is finished."""
        folder, model = self.base.folder, self.settings.model
        assert folder is not None
        copy_base(folder, self.out)
        save_adapters(self.model.dual, self.model.text, self.out / PAIR, dtype=torch.float16)
        card, recommends = dict(self.base.card.get("card", {})), dict(self.base.card.get("settings", {}))
        card["name"] = f"{card.get('name', self.base.name)} with a pair of its own"
        card["pair"] = (
            f"{self.plan.steps} steps of {self.plan.batch} on {self.plan.drawn} procedural pairs at "
            f"{self.settings.data.resolution} px, over the frozen base {self.base.name}"
        )
        names = ("rank", "interaction", "interaction_rank", "prompt_image", "prompt_part")
        recommends["model"] = {**recommends.get("model", {}), **{name: getattr(model, name) for name in names}}
        recommends["data"] = {**recommends.get("data", {}), "resolution": self.settings.data.resolution}
        write_text(self.out / "base.toml", tomli_w.dumps({**self.base.card, "card": card, "settings": recommends}))
