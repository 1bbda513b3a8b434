"""The losses and the noise schedule, against the formulas and against diffusers' own."""

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dualanodiff.diffusion.objective import Schedule, branch_losses, inclusion_loss

TYPES = ["epsilon", "v_prediction"]
DIFFUSERS = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def schedule(kind: str = "epsilon") -> Schedule:
    return Schedule(DIFFUSERS.alphas_cumprod, kind)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Clean latents and noise (2, B, c, h, w), and timesteps that differ in every pair."""
    return draw(2, 3, 4, 5, 6), draw(2, 3, 4, 5, 6, seed=1), torch.tensor([0, 417, 999])


def test_noise_is_added_as_diffusers_adds_it() -> None:
    clean, noise, moments = pairs()
    found = schedule().add_noise(clean, noise, moments)
    for branch in (0, 1):
        torch.testing.assert_close(found[branch], DIFFUSERS.add_noise(clean[branch], noise[branch], moments))


def test_a_background_without_a_branch_axis_is_noised_alike() -> None:
    clean, noise, moments = pairs()
    torch.testing.assert_close(
        schedule().add_noise(clean[0], noise[0], moments), schedule().add_noise(clean, noise, moments)[0]
    )


def test_v_is_diffusers_velocity() -> None:
    clean, noise, moments = pairs()
    found = schedule("v_prediction").target(clean, noise, moments)
    for branch in (0, 1):
        torch.testing.assert_close(found[branch], DIFFUSERS.get_velocity(clean[branch], noise[branch], moments))


def test_epsilon_asks_for_the_noise_itself() -> None:
    clean, noise, moments = pairs()
    assert torch.equal(schedule("epsilon").target(clean, noise, moments), noise)


@pytest.mark.parametrize("kind", TYPES)
def test_a_perfect_prediction_costs_nothing_and_gives_back_the_clean_latents(kind: str) -> None:
    clean, noise, moments = pairs()
    perfect = schedule(kind).target(clean, noise, moments)
    assert branch_losses(perfect, schedule(kind).target(clean, noise, moments)).tolist() == [0, 0]
    noisy = schedule(kind).add_noise(clean, noise, moments)
    torch.testing.assert_close(schedule(kind).clean_from(noisy, perfect, moments), clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TYPES)
@given(moment=st.integers(0, 999), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_clean_latents_and_prediction_imply_each_other(kind: str, moment: int, seed: int) -> None:
    noisy, predicted = draw(2, 1, 4, 3, 3, seed=seed), draw(2, 1, 4, 3, 3, seed=seed + 1)
    times = torch.tensor([moment])
    clean = schedule(kind).clean_from(noisy, predicted, times)
    back = schedule(kind).prediction_from(noisy, clean, times)
    torch.testing.assert_close(back, predicted, atol=2e-3, rtol=2e-3)


def test_the_branches_are_measured_apart_and_the_papers_loss_is_their_sum() -> None:
    target, error = draw(2, 3, 4, 5, 6), draw(2, 3, 4, 5, 6, seed=3)
    error[1] *= 10
    losses = branch_losses(target + error, target)
    torch.testing.assert_close(losses, torch.stack([error[0].square().mean(), error[1].square().mean()]))
    # Paper sec. 3.2, eq. 4: both squared errors under one sum, not their mean as in the released scripts.
    joint = error.square().mean(dim=(1, 2, 3, 4)).sum()
    torch.testing.assert_close(losses.sum(), joint)


@pytest.mark.parametrize("gamma", [0.5, 5.0, 1e6])
def test_min_snr_weighs_the_error_of_the_clean_estimate_alike_whatever_is_predicted(gamma: float) -> None:
    clean, noise, moments = pairs()
    wrong = clean[0] + 0.1 * draw(3, 4, 5, 6, seed=2)
    share = DIFFUSERS.alphas_cumprod[moments]
    expected = (wrong - clean[0]).square().mean(dim=(1, 2, 3)) * (share / (1 - share)).clamp(max=gamma)
    for kind in TYPES:
        its = schedule(kind)
        noisy = its.add_noise(clean[0], noise[0], moments)
        error = its.prediction_from(noisy, wrong, moments) - its.target(clean[0], noise[0], moments)
        found = error.square().mean(dim=(1, 2, 3)) * its.snr_weight(moments, gamma)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", TYPES)
def test_pure_noise_has_a_weight_too(kind: str) -> None:
    ends_in_noise = Schedule(torch.tensor([0.9, 0.0]), kind)
    expected = {"epsilon": [5 / 9, 1.0], "v_prediction": [0.5, 0.0]}[kind]
    torch.testing.assert_close(ends_in_noise.snr_weight(torch.tensor([0, 1]), 5), torch.tensor(expected))


@pytest.mark.parametrize("kind", TYPES)
def test_no_weighting_counts_all_alike_as_the_paper_does(kind: str) -> None:
    assert schedule(kind).snr_weight(torch.tensor([0, 417, 999]), 0).tolist() == [1, 1, 1]


def test_each_pairs_errors_are_weighed_before_they_are_averaged() -> None:
    predicted, target = draw(2, 3, 4, 5, 6), draw(2, 3, 4, 5, 6, seed=1)
    weight = torch.tensor([0.0, 2.0, 1.0])
    whole = torch.stack([branch_losses(predicted[:, i : i + 1], target[:, i : i + 1]) for i in range(3)])
    torch.testing.assert_close(branch_losses(predicted, target, weight), (whole * weight[:, None]).mean(dim=0))


def test_losses_of_half_precision_predictions_are_summed_in_full() -> None:
    target = torch.zeros(2, 1, 1, 1, 2)
    predicted = torch.full_like(target, 300.0).half()  # its square is beyond half precision
    assert branch_losses(predicted, target).tolist() == [90000, 90000]


def test_inclusion_costs_nothing_where_both_agree_inside_whatever_is_outside() -> None:
    clean, inside = draw(2, 2, 4, 6, 6), torch.zeros(2, 1, 6, 6)
    inside[..., 2:4, 2:4] = 1
    clean[1] = torch.where(inside.bool(), clean[0], 99.0)
    assert inclusion_loss(clean, inside, torch.ones(2)).item() == 0


def test_inclusion_is_the_mean_squared_difference_inside() -> None:
    clean, inside = draw(2, 2, 4, 6, 6), torch.zeros(2, 1, 6, 6)
    inside[..., 1:3, 0:5] = 1
    expected = (clean[0] - clean[1])[:, :, 1:3, 0:5].square().mean()
    torch.testing.assert_close(inclusion_loss(clean, inside, torch.ones(2)), expected)


def test_noisy_pairs_and_edge_cells_count_less_for_inclusion() -> None:
    clean = torch.zeros(2, 2, 1, 1, 2)
    clean[0, 0] = 1  # the first pair's branches differ by 1, the second's agree
    full = torch.ones(2, 1, 1, 2)
    assert inclusion_loss(clean, full, torch.tensor([1.0, 3.0])).item() == pytest.approx(0.25)
    clean = torch.zeros(2, 1, 1, 1, 2)
    clean[0, ..., 1] = 1  # differs in the second cell only, which the mask half covers
    half = torch.tensor([[[[1.0, 0.5]]]])
    assert inclusion_loss(clean, half, torch.ones(1)).item() == pytest.approx(0.25 / 1.25)


def test_inclusion_of_an_empty_mask_is_zero_and_not_a_division_by_zero() -> None:
    assert inclusion_loss(draw(2, 1, 4, 3, 3), torch.zeros(1, 1, 3, 3), torch.ones(1)).item() == 0
