"""The key colour that survives this base's autoencoder best, for these shots.

What a mask can be read from is the part after decoding, and autoencoders blur some colours into one another: through
the shipped base, green lost half of a small pit's mask that white kept. So each candidate is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dualanodiff.data.keycolor import KEY_COLORS, parse_key_color
from dualanodiff.data.shots import Shot, part_target
from dualanodiff.images import to_rgb
from dualanodiff.latents import encode_pictures
from dualanodiff.masks.key import ground_distance, key_mask, overlap
from dualanodiff.model.base import Base
from dualanodiff.seeds import torch_stream

TRIED_SHOTS = 6
NOISE = 0.1
"""Standard deviation added to the latents, as generated ones are never quite a picture's own."""


LEVEL = 0.005
"""Overlaps that differ by no more are level; then the defects' contrast with the key colour decides."""


@dataclass(frozen=True)
class KeyTrial:
    """How one key colour did."""

    overlap: float
    """Mean overlap (IoU) of the mask read from each decoded part with the true one."""
    contrast: float
    """Mean distance in 0..1 of the defects from the ground there: a dark crack hardly shows on black."""


def try_keys(base: Base, shots: Sequence[Shot], *, seed: int = 0) -> dict[str, KeyTrial]:
    """Each key colour by name, on decoded parts of some shots."""
    chosen = [shots[i] for i in np.linspace(0, len(shots) - 1, min(TRIED_SHOTS, len(shots))).round().astype(int)]
    device = next(base.vae.parameters()).device
    found: dict[str, KeyTrial] = {}
    for name, color in KEY_COLORS.items():
        latents = encode_pictures(base, [part_target(shot.image, shot.mask, color) for shot in chosen])
        noise = torch.randn(latents.shape, generator=torch_stream(seed, "key colour"))
        parts = to_rgb(base.decode((latents + NOISE * noise).to(device)))
        scores = [overlap(key_mask(part, color).mask, shot.mask) for part, shot in zip(parts, chosen, strict=True)]
        away = [
            float(ground_distance(part, color)[0][shot.mask].mean()) for part, shot in zip(parts, chosen, strict=True)
        ]
        found[name] = KeyTrial(round(float(np.mean(scores)), 4), round(float(np.mean(away)), 4))
    return found


def choose_key(
    name: str, base: Base, shots: Sequence[Shot], *, seed: int = 0
) -> tuple[tuple[int, int, int], dict[str, float]]:
    """The key colour of that name or #rrggbb; for auto the one with the highest overlap, and the overlaps of all.

    Of colours that are level the one that the defects stand out from most.
    """
    if name != "auto":
        return parse_key_color(name), {}
    trials = try_keys(base, shots, seed=seed)
    best = max(trial.overlap for trial in trials.values())
    level = [name for name, trial in trials.items() if trial.overlap >= best - LEVEL]
    chosen = max(level, key=lambda name: trials[name].contrast)
    return KEY_COLORS[chosen], {name: trial.overlap for name, trial in trials.items()}
