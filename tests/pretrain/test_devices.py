"""Pre-training on another device than the processor, which torch's meta device stands for: it mixes with none, and holds no numbers."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from dualanodiff.model.base import load_base
from dualanodiff.preparing import recommended
from dualanodiff.pretrain import autoencoder, pair, unet
from dualanodiff.pretrain.bank import Bank
from dualanodiff.pretrain.text import train_tokenizer
from pretrain.plans import autoencoder_plan, small_pack, unet_plan

META = torch.device("meta")
UNREADABLE = r"item\(\) cannot be called on meta tensors"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (autoencoder, pair, unet):
        monkeypatch.setattr(module, "best_device", lambda: META)
    for training in (unet.Training, pair.PairTraining):
        monkeypatch.setattr(training, "_precision", lambda _: nullcontext())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    plain = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, **named: plain(weights, **{**named, "fused": False}))


def bank(channels: int) -> Bank:
    return Bank(
        torch.randn(40, 2, channels, 8, 8).half(),
        torch.full((40, 1, 8, 8), 90, dtype=torch.uint8),
        [("a disc with a hole", "a hole")] * 40,
        torch.randn(40, channels, 8, 8).half(),
        ["a disc"] * 40,
    )


def test_the_unet_learns_and_is_checked_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = train_tokenizer(["a disc", "a hole"] * 20, tmp_path / "words", size=200)
    training = unet.Training(unet_plan(inclusion=0.3), words, bank(4), tmp_path)
    assert training._step().device == META
    for name in ("store", "restore"):  # which keep the weights on the processor meanwhile
        monkeypatch.setattr(training.average, name, lambda _: None)
    with pytest.raises(RuntimeError, match=UNREADABLE):  # all is computed, and only reading the result is not possible
        training.check()


def test_the_pair_learns_where_the_base_is(tiny_base_folder: Path, tmp_path: Path) -> None:
    base = load_base(tiny_base_folder)
    plain = {"train.mixed_precision": "no", "model.rank": "4", "model.background": "none", "model.text_rank": "0"}
    settings = recommended(base).updated({**plain, "model.start": "fresh"}, "test")
    training = pair.PairTraining(base, settings, pair.PairPlan(batch=2), tmp_path)
    losses = training.step(bank(base.latent_channels), 0)
    assert losses.device == META
    assert losses.shape == (2,)


def test_the_autoencoder_learns_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "drawn_ahead", lambda draw, indices, _: map(draw, indices))
    with pytest.raises(
        NotImplementedError, match="Cannot copy out of meta tensor"
    ):  # to keep the state, after all steps
        autoencoder.train_autoencoder(small_pack(), tmp_path, autoencoder_plan())
