"""Plans small enough for tests, and pictures to train on."""

from typing import Any

import numpy as np

from dualanodiff.pretrain.autoencoder import AutoencoderPlan
from dualanodiff.pretrain.batch import UNetPlan
from dualanodiff.pretrain.pictures import PACKED_SIDE, Pack


def small_pack(count: int = 6) -> Pack:
    """Blocks of random colours."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    pixels = blocks.repeat(PACKED_SIDE // 8, axis=1).repeat(PACKED_SIDE // 8, axis=2)
    return Pack(
        pixels, tuple(f"blocks number {word}" for word in ("one", "two", "three", "four", "five", "six")[:count]), {}
    )


def autoencoder_plan(**changes: Any) -> AutoencoderPlan:
    small: dict[str, Any] = {"steps": 4, "batch": 4, "size": 64, "channels": (16, 16, 24, 32), "latent_channels": 4}
    return AutoencoderPlan(**small | {"save_every": 2} | changes)


def unet_plan(**changes: Any) -> UNetPlan:
    small: dict[str, Any] = {"steps": 4, "pairs": 2, "singles": 2, "channels": (32, 64), "plain_levels": 0, "rank": 4}
    return UNetPlan(**small | {"size": 64, "interaction_rank": 4, "save_every": 2} | changes)
