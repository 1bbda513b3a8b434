"""Stage one: the autoencoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from dualanodiff.errors import RunError
from dualanodiff.pretrain.autoencoder import (
    AutoencoderPlan,
    build_autoencoder,
    draw_levels,
    draw_pictures,
    level_output,
    rate_at,
    reconstruction_loss,
    train_autoencoder,
)
from dualanodiff.pretrain.linear_start import start_linear
from dualanodiff.pretrain.pictures import Pack
from pretrain.plans import autoencoder_plan, small_pack


def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Of what comes back from the latents' means; pictures in [-1, 1]."""
    with torch.no_grad():
        found = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)  # type: ignore[union-attr]
    return float(-10 * torch.log10((found - pictures).square().mean() / 4))


def pictures(first: int = -1, count: int = 8) -> torch.Tensor:
    plan = autoencoder_plan()
    return torch.cat([draw_pictures(small_pack(), plan, first - i) for i in range(count)])


def test_the_linear_start_sees_before_any_training() -> None:
    torch.manual_seed(0)
    plan = autoencoder_plan()
    fresh, started = build_autoencoder(plan), build_autoencoder(plan)
    start_linear(started, pictures())
    unseen = pictures(first=1000)
    assert psnr(started, unseen) > psnr(fresh, unseen) + 6
    assert psnr(started, unseen) > 15


def test_the_linear_start_keeps_a_flat_pictures_colour() -> None:
    torch.manual_seed(0)
    vae = build_autoencoder(autoencoder_plan())
    start_linear(vae, pictures())
    for color in ((0.8, -0.6, -0.6), (-0.9, -0.9, -0.9), (0.0, 0.0, 0.0)):
        flat = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 64, 64)
        with torch.no_grad():
            back = vae.decode(vae.encode(flat).latent_dist.mean).sample  # type: ignore[union-attr]
        assert (back[..., 16:48, 16:48].mean(dim=(0, 2, 3)) - torch.tensor(color)).abs().max() < 0.1


def test_pictures_are_a_function_of_seed_and_step() -> None:
    plan, pack = autoencoder_plan(), small_pack()
    one, two, other = (draw_pictures(pack, plan, step) for step in (3, 3, 4))
    assert one.shape == (4, 3, 64, 64)
    assert -1 <= one.min() < one.max() <= 1
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one, draw_pictures(pack, autoencoder_plan(seed=1), 3))


def test_a_perfect_reconstruction_has_no_loss_and_a_wrong_colour_costs_more_than_a_wrong_grain() -> None:
    wanted = pictures(count=1)
    assert reconstruction_loss(wanted, wanted) == 0
    grain = 0.2 * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0)).sign()
    tint = torch.full_like(wanted, 0.2)
    without_slopes = reconstruction_loss(wanted + grain, wanted) - 0.5 * sum(
        grain.diff(dim=dim).abs().mean() for dim in (-1, -2)
    )
    assert reconstruction_loss(wanted + tint, wanted) > without_slopes


def test_the_rate_rises_holds_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 1000) for step in range(1001)]
    assert rates[0] == 0.01
    assert set(rates[99:801]) == {1.0}
    assert rates[1000] == 0
    assert all(one <= two for one, two in zip(rates[:100], rates[1:101], strict=True))
    assert all(one > two for one, two in zip(rates[800:1000], rates[801:], strict=True))


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_autoencoder(small_pack(), whole, autoencoder_plan())["steps"] == 4

    def killed(pack: Pack, plan: AutoencoderPlan, step: int) -> np.ndarray:
        if step == 3:
            raise KeyboardInterrupt
        return draw_levels(pack, plan, step)

    with monkeypatch.context() as patch:
        patch.setattr("dualanodiff.pretrain.autoencoder.draw_levels", killed)
        with pytest.raises(KeyboardInterrupt):
            train_autoencoder(small_pack(), cut, autoencoder_plan())
    assert train_autoencoder(small_pack(), cut, autoencoder_plan(), seconds=0)["steps"] == 2  # the state that was kept
    assert train_autoencoder(small_pack(), cut, autoencoder_plan())["steps"] == 4
    for name in ("autoencoder.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        one, two = load_file(whole / name), load_file(cut / name)
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_a_training_without_any_time_can_be_resumed(tmp_path: Path) -> None:
    assert train_autoencoder(small_pack(), tmp_path, autoencoder_plan(), seconds=0)["steps"] == 0
    assert train_autoencoder(small_pack(), tmp_path, autoencoder_plan(steps=1))["steps"] == 1


def test_the_result_is_an_autoencoder_in_stable_diffusions_layout_of_unit_latents(tmp_path: Path) -> None:
    train_autoencoder(small_pack(), tmp_path, autoencoder_plan(steps=1))
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae")
    with torch.no_grad():
        latents = vae.encode(pictures(count=32)).latent_dist.mean * vae.config["scaling_factor"]
    assert latents.std().item() == pytest.approx(1, abs=0.02)
    assert psnr(vae, pictures(first=1000)) > 15


def test_training_lowers_the_loss_and_says_so(tmp_path: Path) -> None:
    plan = autoencoder_plan(steps=50, batch=2, save_every=100, rate=2e-3)
    train_autoencoder(small_pack(), tmp_path, plan)
    rows = [json.loads(line) for line in (tmp_path / "autoencoder.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [25, 50]
    torch.manual_seed(0)
    before = build_autoencoder(plan)
    start_linear(before, pictures())
    after, unseen = AutoencoderKL.from_pretrained(tmp_path / "vae"), pictures(first=1000)
    assert psnr(after, unseen) > psnr(before, unseen)
    assert np.isfinite(rows[-1]["kl"])


def test_a_damaged_state_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "autoencoder.safetensors").write_bytes(b"12345")
    with pytest.raises(RunError, match=r"autoencoder.safetensors: not a readable checkpoint .*; delete it"):
        train_autoencoder(small_pack(), tmp_path, autoencoder_plan())


def test_a_decoder_trained_alone_leaves_every_latent_as_it_is(tmp_path: Path) -> None:
    train_autoencoder(small_pack(), tmp_path, autoencoder_plan(steps=2))
    before = AutoencoderKL.from_pretrained(tmp_path / "vae")
    train_autoencoder(small_pack(), tmp_path, autoencoder_plan(steps=4, size=32, decoder_only=True))
    after = AutoencoderKL.from_pretrained(tmp_path / "vae")
    for name in ("encoder", "quant_conv"):
        one, two = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert after.config["scaling_factor"] == before.config["scaling_factor"]
    assert not torch.equal(before.decoder.conv_out.weight, after.decoder.conv_out.weight)


def test_a_levelled_output_fits_best_what_went_in() -> None:
    vae = build_autoencoder(autoencoder_plan())
    start_linear(vae, pictures())
    shown = pictures(first=-50)
    before = psnr(vae, shown)
    factors, shifts = level_output(vae, shown)
    assert max(abs(factor - 1) for factor in factors) > 0.001
    assert psnr(vae, shown) >= before - 0.01  # psnr clips, the fit does not
    factors, shifts = level_output(vae, shown)
    assert factors == pytest.approx([1, 1, 1], abs=1e-3)
    assert shifts == pytest.approx([0, 0, 0], abs=1e-3)
