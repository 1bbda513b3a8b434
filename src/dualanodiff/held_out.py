"""When to stop, by evidence: the loss on a shot that is not learned from, always under the same noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dualanodiff.errors import DataError
from dualanodiff.latents import LatentShots
from dualanodiff.pair_model import Batch, PairModel
from dualanodiff.seeds import torch_stream
from dualanodiff.settings import Settings, TrainSettings

DRAWS = 8
"""Noises at evenly spread timesteps that a held-out shot is judged under."""


@dataclass
class HeldOut:
    """A shot that is only looked at, and the weights that did best on it so far."""

    batches: list[Batch]
    loss: float = float("inf")
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def judge(self, model: PairModel, train: TrainSettings, step: int) -> float:
        """Both branches' loss of the weights after `step`, which are kept if they are the best."""
        plain = replace(train, prompt_dropout=0.0, inclusion_weight=0.0)
        found = torch.stack([model(batch, plain)[:2] for batch in self.batches]).float().mean(dim=0)
        loss = float(found[0] + train.part_weight * found[1])
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return loss

    def says_stop(self, step: int, patience: int) -> bool:
        """Whether nothing has become better for so many steps."""
        return step - self.step >= patience

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {"loss": self.loss, "step": self.step}

    def restore(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.loss, self.step, self.weights = float(facts["loss"]), int(facts["step"]), dict(weights)


def hold_out(latents: LatentShots, settings: Settings, device: torch.device) -> tuple[LatentShots, HeldOut]:
    """The shots to learn from, and the last one held out; DataError where nothing would be left to learn from."""
    if len(latents.pairs) < 2:
        msg = "train.stop is held-out, but one shot cannot be both learned from and held out; give two or more shots"
        raise DataError(msg)
    stream = torch_stream(settings.seed, "held out")
    size = settings.train.train_batch_size
    forms = latents.pairs.shape[1]
    rows = torch.arange(DRAWS) % forms
    clean = latents.pairs[-1, rows].transpose(0, 1)
    backgrounds = None if latents.backgrounds is None else latents.backgrounds[-1, rows]
    whole = Batch(
        latents=clean,
        noise=torch.randn(clean.shape, generator=stream),
        timesteps=(torch.arange(DRAWS) * 1000 + 500) // DRAWS,
        coverage=latents.coverage[-1, rows],
        dropped=torch.zeros(DRAWS, dtype=torch.bool),
        background=backgrounds,
        background_noise=None if backgrounds is None else torch.randn(backgrounds.shape, generator=stream),
    ).to(device)
    kept = None if latents.backgrounds is None else latents.backgrounds[:-1]
    learned = LatentShots(latents.pairs[:-1], latents.coverage[:-1], kept)
    return learned, HeldOut([part for part, _ in whole.split(max(1, DRAWS // size))])
