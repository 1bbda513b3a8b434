"""Where sampling begins."""

import torch

from dualanodiff.diffusion.start import mean_latents, start_latents


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_image_mean_keeps_its_layout_and_the_part_mean_only_its_colour() -> None:
    shots = draw(5, 2, 4, 6, 6)
    mean = mean_latents(shots)
    torch.testing.assert_close(mean[0], shots[:, 0].mean(dim=0))
    assert mean[1].std(dim=(-2, -1)).max() < 1e-6
    torch.testing.assert_close(mean[1].mean(dim=(-2, -1)), shots[:, 1].mean(dim=(0, -2, -1)))


def test_the_start_has_the_shots_colour_as_the_schedule_scales_it() -> None:
    noise, mean, share = draw(2, 3, 4, 16, 16, seed=1), draw(2, 4, 16, 16, seed=2), 0.0047
    start = start_latents(noise, mean, share)
    expected = share**0.5 * mean.mean(dim=(-2, -1))
    for pair in range(3):
        torch.testing.assert_close(start[:, pair].mean(dim=(-2, -1)), expected, atol=1e-5, rtol=1e-5)


def test_the_start_is_noise_of_the_schedules_strength_over_the_mean() -> None:
    noise, mean, share = draw(2, 3, 4, 16, 16, seed=1), draw(2, 4, 16, 16, seed=2), 0.3
    rest = start_latents(noise, mean, share) - share**0.5 * mean[:, None]
    centred = noise - noise.mean(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(rest, (1 - share) ** 0.5 * centred, atol=1e-5, rtol=1e-5)


def test_pure_noise_is_left_as_it_is() -> None:
    noise = draw(2, 3, 4, 8, 8)
    assert torch.equal(start_latents(noise, None, 0.0047), noise)
