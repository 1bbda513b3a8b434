"""What is counted without numbers is what is kept with them."""

import torch

from dualanodiff.bench.forecast import forecast_sd15, kept_bytes
from dualanodiff.model.dual import DualUNet
from dualanodiff.settings import Settings
from tiny import WIDTH, tiny_unet


def kept(place: str, pairs: int) -> int:
    with torch.device(place):
        dual = DualUNet(tiny_unet(), rank=4, interaction="lowrank", interaction_rank=4)
        latents, text = torch.zeros(2, pairs, 4, 8, 8), torch.zeros(2, 1, 7, WIDTH)
        return kept_bytes(dual, latents, torch.zeros(pairs, dtype=torch.long), text)


def test_the_count_grows_with_the_pairs_and_needs_no_numbers() -> None:
    one, three = kept("meta", 1), kept("meta", 3)
    assert 2.5 * one < three < 3 * one  # the rest belongs to the weights and to the shared prompt
    assert kept("cpu", 1) == 0 or abs(kept("cpu", 3) / three - 1) < 0.3


def test_a_fit_of_stable_diffusion_fits_a_card_of_12_gb() -> None:
    wishes = {"model.interaction": "lowrank", "train.train_batch_size": 4, "data.resolution": 512}
    plain = forecast_sd15(Settings().updated(wishes, "test"))
    assert 8 < plain["total_gib"] < 12e9 / 2**30
    half = forecast_sd15(Settings().updated({**wishes, "train.adapter_precision": "float16"}, "test"))
    assert half["adapter_bytes"] == plain["adapter_bytes"] / 2 < 60e6


def test_background_compensation_is_counted() -> None:
    wishes = {"train.train_batch_size": 2, "data.resolution": 256, "model.interaction": "lowrank"}
    plain, compensated = (
        forecast_sd15(Settings().updated({**wishes, "model.background": form}, "test")) for form in ("none", "paper")
    )
    kept = "kept for the backward pass"
    assert 1.3 < compensated["gib"][kept] / plain["gib"][kept] < 1.7  # three rows a pair where there were two
    assert compensated["learned"] > plain["learned"]
