"""The UNet's training: what it grows from, what it is checked on, what its plan changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from transformers import CLIPTokenizer

from dualanodiff.errors import ModelError
from dualanodiff.pretrain.bank import Bank
from dualanodiff.pretrain.batch import draw_batch
from dualanodiff.pretrain.text import train_tokenizer
from dualanodiff.pretrain.unet import CHECK_LEVELS, Pretrained, Training, build_unet, schedule_config
from pretrain.plans import unet_plan


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return train_tokenizer(["a disc", "a hole"] * 20, tmp_path_factory.mktemp("words"), size=200)


@pytest.fixture(scope="module")
def bank() -> Bank:
    generator = torch.Generator().manual_seed(0)
    return Bank(
        torch.randn(40, 2, 4, 8, 8, generator=generator).half(),
        torch.full((40, 1, 8, 8), 90, dtype=torch.uint8),
        [("a disc with a hole", "a hole")] * 40,
        torch.randn(40, 4, 8, 8, generator=generator).half(),
        ["a disc"] * 40,
    )


@torch.no_grad()
@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_grown_unet_answers_flat_pictures_as_the_small_one_did(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path, scale_shift: bool
) -> None:
    begun = Training(unet_plan(scale_shift=scale_shift), words, bank, tmp_path / "small")
    begun.save()
    small = begun.model
    plan = unet_plan(channels=(32, 32, 64), plain_levels=1, scale_shift=scale_shift)
    large = Training(plan, words, bank, tmp_path / "large", begin=tmp_path / "small").model
    flat = torch.randn(2, 3, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    times, text = torch.tensor([3, 300, 900]), small.embed(["a disc", "a hole"])[:, None]
    expected = small.dual(flat.expand(-1, -1, -1, 16, 16), times, text)[..., 8, 8]
    found = large.dual(flat.expand(-1, -1, -1, 32, 32), times, text)[..., 16, 16]
    # Only the rims differ, where zeros are beside the picture.
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.7


@torch.no_grad()
def test_a_training_begins_where_one_of_its_shape_ended_whatever_that_predicts(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path
) -> None:
    begun = Training(unet_plan(), words, bank, tmp_path / "v")
    for average in begun.average.shadow_params:
        average.mul_(1.5)
    begun.save()
    noise = unet_plan(prediction="epsilon")
    goes_on = Training(noise, words, bank, tmp_path / "noise", begin=tmp_path / "v")
    for parameter, average in zip(goes_on.model.parameters(), begun.average.shadow_params, strict=True):
        assert torch.equal(parameter, average)
    next(goes_on.model.parameters()).add_(1)
    goes_on.save()
    resumed = Training(noise, words, bank, tmp_path / "noise", begin=tmp_path / "no longer there")
    assert torch.equal(next(resumed.model.parameters()), next(goes_on.model.parameters()))


@pytest.mark.parametrize(
    "plan",
    [
        {"channels": (32, 64, 96)},
        {"channels": (32, 96)},
        {"channels": (32, 32, 64)},  # the new level has attention
        {"plain_levels": 1},
        {"scale_shift": True},
    ],
)
def test_what_does_not_fit_is_not_begun_from(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path, plan: dict[str, Any]
) -> None:
    Training(unet_plan(), words, bank, tmp_path / "small").save()
    with pytest.raises(ModelError, match=r"unet.safetensors: its shape does not fit; give the --channels"):
        Training(unet_plan(**plan), words, bank, tmp_path / "large", begin=tmp_path / "small")


def test_what_is_no_training_is_not_begun_from_and_nothing_is_to_be_deleted(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"unet.safetensors: not a readable state .* give --begin-from"):
        Training(unet_plan(), words, bank, tmp_path / "new", begin=tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "unet.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"unet.safetensors: not a readable state .* give --begin-from"):
        Training(unet_plan(), words, bank, tmp_path / "new", begin=tmp_path / "bad")


def test_a_training_does_not_go_on_as_another(words: CLIPTokenizer, bank: Bank, tmp_path: Path) -> None:
    Training(unet_plan(), words, bank, tmp_path).save()
    Training(unet_plan(steps=9), words, bank, tmp_path)
    with pytest.raises(ModelError, match="was begun with --prediction v_prediction, now epsilon; go on with the same"):
        Training(unet_plan(prediction="epsilon"), words, bank, tmp_path)


def test_the_check_is_of_v_at_the_same_noise_whatever_is_predicted(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path
) -> None:
    plans = {name: unet_plan(prediction=name) for name in ("v_prediction", "epsilon")}
    found: dict[str, dict[str, float]] = {}
    for name, plan in plans.items():
        training = Training(plan, words, bank, tmp_path / name)
        for parameter in (training.model.unet.conv_out.weight, training.model.unet.conv_out.bias):
            nn.init.zeros_(parameter)
        training.average.shadow_params = [p.detach().clone() for p in training.model.parameters()]
        found[name] = training.check()
        assert training.check() == found[name]
    # A UNet that answers 0: v is missed by its own size, about 1 + |clean|^2; noise by 1 / abar.
    size = float(bank.singles[bank.singles_to_learn :].float().square().mean())
    levels = torch.tensor(CHECK_LEVELS)
    assert found["v_prediction"]["single"] == pytest.approx(float((levels + (1 - levels) * size).mean()), rel=0.15)
    assert found["epsilon"]["single"] == pytest.approx(float((1 / levels).mean()), rel=0.15)


def test_noise_counts_as_much_as_v_up_to_the_bound(words: CLIPTokenizer, bank: Bank) -> None:
    times = torch.tensor([0, 300, 700, 999])
    for bound in (1.0, 5.0):
        model = Pretrained(unet_plan(prediction="epsilon", noise_weight=bound), words, bank)
        share = model.schedule.alphas_cumprod[times]
        squared = model._weight(times)
        torch.testing.assert_close(squared, (1 / share).clamp(max=bound))
    assert squared.tolist() == pytest.approx([1.0, 1 / share[1].item(), 5.0, 5.0], rel=2e-3)


def test_outer_levels_have_no_attention_where_they_are_plain() -> None:
    plan = unet_plan(channels=(32, 64), plain_levels=1)
    unet = build_unet(plan, latent_channels=4, cells=8, text_width=32)
    assert [hasattr(block, "attentions") for block in unet.down_blocks] == [False, True]
    assert [hasattr(block, "attentions") for block in unet.up_blocks] == [True, False]


def test_a_schedule_of_zero_snr_ends_in_pure_noise() -> None:
    ends = [
        DDIMScheduler(**schedule_config(unet_plan(zero_snr=zero))).alphas_cumprod[-1].item() for zero in (True, False)
    ]
    assert ends[0] == 0
    assert ends[1] > 0.004


def test_the_inclusion_law_is_trained_where_it_is_asked_for(words: CLIPTokenizer, bank: Bank, tmp_path: Path) -> None:
    losses = [
        Training(unet_plan(inclusion=weight), words, bank, tmp_path / str(weight))._step() for weight in (0.0, 0.3)
    ]
    assert losses[0][3] == 0
    assert losses[1][3] > 0
    assert losses[0][:3] == pytest.approx(losses[1][:3])


def test_the_part_branch_counts_as_much_as_it_is_asked_to(
    words: CLIPTokenizer, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.Tensor] = []
    for weight in (0.0, 1.0, 3.0):
        training = Training(unet_plan(part_weight=weight), words, bank, tmp_path / str(weight))
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: None)
        monkeypatch.setattr(training.optimizer, "zero_grad", lambda: None)
        training._step()
        weights = training.model.unet.conv_out.weight
        assert weights.grad is not None
        found.append(weights.grad)
    torch.testing.assert_close(found[2] - found[1], 2 * (found[1] - found[0]), rtol=0.1, atol=0.01)
    assert (found[1] - found[0]).abs().max() > 0.1


def test_a_share_of_the_timesteps_is_drawn_where_layout_is_decided(bank: Bank) -> None:
    times = {share: draw_batch(bank, unet_plan(pairs=400, layout_share=share), 0).pair_times for share in (0, 0.5, 1)}
    inside = {share: float(((drawn >= 400) & (drawn < 900)).float().mean()) for share, drawn in times.items()}
    assert inside == {0: pytest.approx(0.5, abs=0.08), 0.5: pytest.approx(0.75, abs=0.08), 1: 1.0}
    assert float((times[0] == times[0.5]).float().mean()) == pytest.approx(0.5, abs=0.08)
