"""Teach a base one product: its good pictures under the image prompt, and its pair on those pictures with defects.

So that the pair stays alive, half of each batch are procedural defects on the good pictures, with exact masks, as (image,
part) pairs through the base's own pair. The good pictures alone go through the UNet without the pair.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dualanodiff.checkpoints import load_checkpoint, resume_training, save_checkpoint, save_training
from dualanodiff.diffusion.objective import branch_losses
from dualanodiff.errors import DataError
from dualanodiff.images import read_rgb
from dualanodiff.latents import encode_pictures
from dualanodiff.loop import Loop
from dualanodiff.memory import best_device
from dualanodiff.model.adapters import load_adapters, save_adapters
from dualanodiff.model.base import WEIGHTS, Base, copy_base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.pair_model import wants_bf16
from dualanodiff.pretrain.spoil import draw_spoiled_pair
from dualanodiff.progress import progress
from dualanodiff.sampler import schedule_of
from dualanodiff.seeds import numpy_stream, torch_stream
from dualanodiff.settings import ADAPT_STEPS, Settings
from dualanodiff.storage import write_atomic

WARMUP_STEPS = 20


@dataclass(frozen=True)
class AdaptPlan:
    """What is trained, and for how long."""

    rate: float
    """Peak AdamW rate; a base recommends one in train.adapt_rate."""
    steps: int = ADAPT_STEPS
    """Optimiser steps; the rate falls to zero over all of them."""
    singles: int = 4
    """Good pictures a step."""
    pairs: int = 4
    """Spoiled good pictures with their parts a step."""
    most_normals: int = 200
    """Good pictures that are used at most, evenly spread over all."""
    drawn: int = 256
    """Spoiled pictures to draw from."""
    prompt_dropout: float = 0.1
    """Share of rows under the empty prompt, which guidance relies on."""
    seed: int = 0
    """Every random draw comes from it."""
    save_every: int = 50
    """Steps between resumable states."""


class Adaptation:
    """One adaptation in progress; its states lie in `out`/work."""

    def __init__(self, base: Base, settings: Settings, plan: AdaptPlan, normals: Sequence[Path], out: Path) -> None:
        self.base, self.settings, self.plan, self.normals, self.out = base, settings, plan, normals, out
        self.device = best_device()
        for part in (base.vae, base.unet, base.text_encoder):
            nn.Module.to(part, self.device)
        self.schedule = schedule_of(base)
        self.dual, self.own_pair = _pair(base, plan.seed)
        base.unet.requires_grad_(True).train()
        self.dual.requires_grad_(self.own_pair)
        model = nn.ModuleDict({"unet": base.unet, "pair": self.dual})
        self.parameters = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW([weight for _, weight in self.parameters], lr=plan.rate, weight_decay=1e-2)
        prompts = [settings.model.prompt_image, settings.model.prompt_part, ""]
        with torch.no_grad():
            self.text = TextAdapter(base.text_encoder, base.tokenizer, rank=0).embed(prompts)
        self.state = out / "work" / "state.safetensors"

    def run(self) -> None:
        """Train from the newest state to the end and write all of the base but its card."""
        singles, pairs = self._latents()
        loop = Loop(
            "adapt",
            self.plan.steps,
            self.out / "adapt.jsonl",
            ("good", "image", "part"),
            self.plan.save_every,
            f"adapt into a new folder with a lower --rate, or train.adapt_rate (now {self.plan.rate:g})",
        )
        loop.run(lambda step: self._step(singles, pairs, step), self._save, start=self._resume())
        self._write()

    def _step(self, singles: Tensor, pairs: Tensor, step: int) -> Tensor:
        """One optimiser step: losses (3,) of good pictures, and of both branches of the spoiled pairs."""
        plan = self.plan
        rate = plan.rate * min((step + 1) / WARMUP_STEPS, 1 - step / plan.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        choice, noise = numpy_stream(plan.seed, "adapt", step), torch_stream(plan.seed, "adapt", step)
        alone = singles[choice.integers(len(singles), size=plan.singles)].float()
        both = pairs[choice.integers(len(pairs), size=plan.pairs)].float().transpose(0, 1)
        dropped = torch.from_numpy(choice.random(plan.singles + plan.pairs) < plan.prompt_dropout).to(self.device)
        draws = [(rows, torch.randn(rows.shape, generator=noise)) for rows in (alone, both)]
        times = torch.randint(1000, (plan.singles + plan.pairs,), generator=noise).to(self.device)
        (alone, alone_noise), (both, both_noise) = [(a.to(self.device), b.to(self.device)) for a, b in draws]
        text = torch.where(dropped[None, :, None, None], self.text[2], self.text[:2, None])
        with self._precision():
            moments = times[: plan.singles]
            noisy = self.schedule.add_noise(alone, alone_noise, moments)
            found = self.base.unet(noisy, moments, text[0, : plan.singles]).sample
            loss = (found.float() - self.schedule.target(alone, alone_noise, moments)).square().mean()
            moments = times[plan.singles :]
            noisy = self.schedule.add_noise(both, both_noise, moments)
            shown = self.dual(noisy, moments, text[:, plan.singles :])
            losses = branch_losses(shown, self.schedule.target(both, both_noise, moments))
        total = torch.cat([loss[None], losses])
        total.sum().backward()
        nn.utils.clip_grad_norm_([weight for _, weight in self.parameters], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.detach()

    def _precision(self) -> Any:
        wanted = wants_bf16(self.settings, self.device)
        return torch.autocast(self.device.type, torch.bfloat16) if wanted else nullcontext()

    def _latents(self) -> tuple[Tensor, Tensor]:
        """Good pictures in every allowed mirror image (n, c, h, w), and spoiled pairs (m, 2, c, h, w), kept in work."""
        file, side, data = self.out / "work" / "latents.safetensors", self.settings.data.resolution, self.settings.data
        if file.exists():
            groups, _ = load_checkpoint(file)
            return groups["latents"]["singles"], groups["latents"]["pairs"]
        pictures = [read_rgb(path, size=side) for path in self.normals]
        downs = (1, -1) if data.flip_vertical else (1,)
        across = (1, -1) if data.flip_horizontal else (1,)
        mirrored = [np.ascontiguousarray(rgb[::i, ::j]) for rgb in pictures for i in downs for j in across]
        rows: list[np.ndarray] = []
        with progress("adapt: draw", self.plan.drawn) as bar:
            for index in range(self.plan.drawn):
                generator = numpy_stream(self.plan.seed, "spoil", index)
                made = draw_spoiled_pair(generator, mirrored[int(generator.integers(len(mirrored)))])
                rows += [] if made is None else made[:2]
                bar.step()
        if not rows:
            msg = f"{self.normals[0].parent}: no defect shows on these pictures, so the pair cannot be kept alive; are they black?"
            raise DataError(msg)
        latents = encode_pictures(self.base, [*mirrored, *rows], name="adapt: encode")
        singles, pairs = latents[: len(mirrored)], latents[len(mirrored) :].unflatten(0, (-1, 2))
        save_checkpoint(file, {"latents": {"singles": singles.half(), "pairs": pairs.half()}}, {})
        return singles.half(), pairs.half()

    def _save(self, step: int) -> None:
        save_training(self.state, self.parameters, self.optimizer, step)

    def _resume(self) -> int:
        return resume_training(self.state, self.parameters, self.optimizer)

    @torch.no_grad()
    def _write(self) -> None:
        """All parts of the base: the new UNet and pair, and copies of what was not trained."""
        folder = self.base.folder
        assert folder is not None
        copy_base(folder, self.out, without="unet")
        dtype = _stored(folder / "unet")
        tensors = {key: value.to("cpu", dtype).contiguous() for key, value in self.base.unet.state_dict().items()}
        file = self.out / "unet" / f"{WEIGHTS['unet']}.safetensors"
        write_atomic(file, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        if self.own_pair:
            text = TextAdapter(self.base.text_encoder, self.base.tokenizer, rank=0)
            save_adapters(self.dual, text, self.out / "pair", dtype=torch.float16)


def _pair(base: Base, seed: int) -> tuple[DualUNet, bool]:
    """The base's own pair; for a base without one, branches that change nothing."""
    assert base.folder is not None
    if (base.folder / "pair").is_dir():
        return load_adapters(base.folder / "pair", base)[0], True
    return DualUNet(base.unet, rank=1, interaction="none", generator=torch_stream(seed, "adapt")), False


def _stored(folder: Path) -> torch.dtype:
    """The precision of the weights in a folder."""
    with safe_open(next(iter(sorted(folder.glob("*.safetensors")))), framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype
