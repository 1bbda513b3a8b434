"""The trained module of a fit: both branches' losses on one batch (Paper sec. 3.2, eq. 4; sec. 3.3, eq. 6)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dualanodiff.diffusion.objective import Schedule, branch_losses, inclusion_loss
from dualanodiff.errors import SettingsError
from dualanodiff.latents import LatentShots
from dualanodiff.model.adapters import load_adapters, read_config
from dualanodiff.model.base import Base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.seeds import numpy_stream, torch_stream
from dualanodiff.settings import ModelSettings, Settings, TrainSettings


@dataclass(frozen=True)
class Batch:
    """One step's inputs, all on one device; B pairs."""

    latents: Tensor
    """(2, B, c, h, w): clean image and part."""
    noise: Tensor
    """Like latents, independent for the branches."""
    timesteps: Tensor
    """(B,), shared by the branches of a pair."""
    coverage: Tensor
    """(B, 1, h, w)."""
    dropped: Tensor
    """bool (B,): trained under the empty prompt."""
    background: Tensor | None
    """(B, c, h, w), clean."""
    background_noise: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value if value is None else value.to(device) for name, value in vars(self).items()
        }
        return Batch(**moved)

    def split(self, pieces: int, schedule: Schedule | None = None) -> list[tuple["Batch", Tensor]]:
        """The batch in about equal pieces, and of each the share (3,) that its losses have in the whole batch's."""
        if pieces == 1:
            return [(self, torch.ones(3, device=self.latents.device))]
        size = -(-len(self.timesteps) // pieces)
        paired = {"latents", "noise"}  # whose first axis is the branch
        parts: dict[str, Any] = {
            name: None if value is None else value.split(size, dim=1 if name in paired else 0)
            for name, value in vars(self).items()
        }
        counts = range(-(-len(self.timesteps) // size))
        rows: list[dict[str, Any]] = [{k: None if v is None else v[i] for k, v in parts.items()} for i in counts]
        batches = [Batch(**row) for row in rows]
        # The branches' losses are means over pairs; the inclusion's is one over what it weighs.
        weights = [batch._inclusion_weight(schedule) for batch in batches]
        total = torch.stack(weights).sum().clamp_min(1e-6)
        by_pairs = [len(batch.timesteps) / len(self.timesteps) for batch in batches]
        return [
            (batch, torch.stack([weight.new_tensor(pairs), weight.new_tensor(pairs), weight / total]))
            for batch, weight, pairs in zip(batches, weights, by_pairs, strict=True)
        ]

    def _inclusion_weight(self, schedule: Schedule | None) -> Tensor:
        """What the inclusion loss divides by."""
        if schedule is None:
            return self.coverage.new_zeros(())
        left = schedule.alphas_cumprod.to(self.coverage.device)[self.timesteps]
        return (self.coverage.square() * left.view(-1, 1, 1, 1)).sum()


def draw_batch(shots: LatentShots, settings: Settings, step: int, *, process: int = 0) -> Batch:
    """The batch of one step and process: a function of the seed, nothing else, so a resumed run repeats it."""
    choice = numpy_stream(settings.seed, "fit", step, process)
    noise = torch_stream(settings.seed, "fit", step, process)
    size = settings.train.train_batch_size
    rows = choice.integers(shots.pairs.shape[0], size=size)
    forms = choice.integers(shots.pairs.shape[1], size=size)
    dropped = choice.random(size) < settings.train.prompt_dropout
    latents = shots.pairs[rows, forms].transpose(0, 1)
    background = None if shots.backgrounds is None else shots.backgrounds[rows, forms]
    return Batch(
        latents=latents,
        noise=torch.randn(latents.shape, generator=noise),
        timesteps=torch.randint(1000, (size,), generator=noise),
        coverage=shots.coverage[rows, forms],
        dropped=torch.from_numpy(np.asarray(dropped)),
        background=background,
        background_noise=None if background is None else torch.randn(background.shape, generator=noise),
    )


class PairModel(nn.Module):
    """The dual UNet and the text encoder's update; parameters are what a fit learns."""

    def __init__(self, dual: DualUNet, text: TextAdapter, schedule: Schedule, model: ModelSettings) -> None:
        super().__init__()
        self.dual, self.text = dual, text
        self.schedule = schedule
        self.prompts = [model.prompt_image, model.prompt_part, ""]
        self._fixed: Tensor | None = None

    def embed(self) -> Tensor:
        """(3, tokens, width): image, part and empty prompt; computed once where the text encoder does not learn."""
        if self.text.rank > 0:
            return self.text.embed(self.prompts)
        if self._fixed is None:
            self._fixed = self.text.embed(self.prompts).detach()
        return self._fixed

    def forward(self, batch: Batch, train: TrainSettings) -> Tensor:
        """Losses (3,): image branch, part branch, inclusion (0 where it is not asked for)."""
        text = self.embed()
        # One prompt a branch is projected once for all pairs; only a dropped prompt makes rows of their own.
        rows = text[:2, None]
        if train.prompt_dropout > 0:
            rows = torch.where(batch.dropped[None, :, None, None], text[2], rows)
        noisy = self.schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        background = None
        if batch.background is not None and batch.background_noise is not None:
            background = self.schedule.add_noise(batch.background, batch.background_noise, batch.timesteps)
        found = self.dual(noisy, batch.timesteps, rows, background)
        weight = self.schedule.snr_weight(batch.timesteps, train.snr_gamma)
        losses = branch_losses(found, self.schedule.target(batch.latents, batch.noise, batch.timesteps), weight)
        inclusion = losses.new_zeros(())
        if train.inclusion_weight > 0:
            clean = self.schedule.clean_from(noisy, found.float(), batch.timesteps)
            weight = self.schedule.alphas_cumprod.to(clean.device)[batch.timesteps]
            inclusion = inclusion_loss(clean, batch.coverage, weight)
        return torch.stack([*losses, inclusion])


def build_pair_model(base: Base, schedule: Schedule, settings: Settings) -> tuple[PairModel, str]:
    """The model that a fit begins with, and where its adapters start: "pretrained" or "fresh".

    Raises SettingsError where a pretrained start is asked for and the base has no pair that fits the settings.
    """
    model = settings.model
    dual = DualUNet(
        base.unet,
        rank=model.rank,
        interaction=model.interaction,
        interaction_rank=model.interaction_rank,
        interaction_zero=model.interaction_zero,
        background=model.background,
        generator=torch_stream(settings.seed, "adapters"),
    )
    text = TextAdapter(
        base.text_encoder, base.tokenizer, rank=model.text_rank, generator=torch_stream(settings.seed, "text adapter")
    )
    start = "fresh"
    if model.start != "fresh":
        misfit = _pair_misfit(base, model)
        if not misfit:
            assert base.folder is not None
            pair, _ = load_adapters(base.folder / "pair", base)
            dual.load_state_dict({**dual.state_dict(), **pair.state_dict()})
            start = "pretrained"
        elif model.start == "pretrained":
            msg = f"model.start is pretrained, but {misfit}; use model.start=fresh or auto"
            raise SettingsError(msg)
    return PairModel(dual, text, schedule, model), start


def _pair_misfit(base: Base, model: ModelSettings) -> str:
    """Why the base's pre-trained pair cannot be the start, empty if it can."""
    if base.folder is None or not (base.folder / "pair").is_dir():
        return f"the base {base.name} ships no pre-trained pair"
    config = read_config(base.folder / "pair")
    names = ["rank", "interaction"] + (["interaction_rank"] if model.interaction == "lowrank" else [])
    for name in names:
        if config[name] != getattr(model, name):
            return f"the pair of {base.name} has {name} {config[name]!r} where model.{name} is {getattr(model, name)!r}"
    return ""


def wants_bf16(settings: Settings, device: torch.device) -> bool:
    """Whether the frozen base computes in bf16: where the device has it, unless the settings say no."""
    if settings.train.mixed_precision != "auto":
        return settings.train.mixed_precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Builds without oneDNN (Apple's) do not even know the question.
    return (
        device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def rate_share(train: TrainSettings, step: int) -> float:
    """Share of the learning rate at a step: a linear warm-up, then as `lr_scheduler` says.

    >>> rate_share(TrainSettings(max_train_steps=100, lr_scheduler="linear", lr_warmup_steps=20), 60)
    0.5
    """
    if step < train.lr_warmup_steps:
        return (step + 1) / train.lr_warmup_steps
    gone = (step - train.lr_warmup_steps) / max(1, train.max_train_steps - train.lr_warmup_steps)
    return {"constant": 1.0, "linear": 1 - gone, "cosine": (1 + math.cos(math.pi * gone)) / 2}[train.lr_scheduler]
