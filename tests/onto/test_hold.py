"""The image branch held to a good picture, for every sampler."""

import pytest
import torch
from diffusers import DDIMScheduler

from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS, Guidance, denoise_pairs
from dualanodiff.diffusion.start import start_latents
from dualanodiff.onto.hold import Held

SHAPE = (2, 3, 4, 8, 8)
STEPS = 12


def stream(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def held(allowed=None):
    whole = torch.ones(SHAPE[1], 1, 8, 8)
    return Held(stream(*SHAPE[1:]), torch.full((1, *SHAPE[2:]), 0.7), whole if allowed is None else allowed)


def sample(kind, hold, freedom, *, first=0, prediction="epsilon"):
    """Clean latents, and what the model was shown at each step, with a model that knows nothing."""
    base = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, prediction_type=prediction
    )
    scheduler = SCHEDULERS[kind](dict(base.config))
    scheduler.set_timesteps(STEPS)
    schedule = Schedule(scheduler.alphas_cumprod.float(), prediction)
    seen = []

    def model(latents, timesteps, text, background=None, **others):
        seen.append((int(timesteps[0]), latents.clone()))
        return torch.tanh(latents.flip(0)) + 0.1 * stream(*latents.shape)

    noise = stream(*SHAPE)
    noise = noise - noise.mean(dim=(-2, -1), keepdim=True)
    share = schedule.alphas_cumprod[int(scheduler.timesteps[first])].item()
    start = start_latents(noise, torch.stack([hold.good, hold.ground.expand_as(hold.good)]), share)
    guidance = Guidance(torch.zeros(2, 1, 4), torch.zeros(1, 4), 1)
    clean = denoise_pairs(
        model, scheduler, schedule, start, guidance, adjust_clean=hold.adjust_clean(freedom), first=first
    )
    return clean, seen, noise, schedule


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["ddim", "dpmsolver++", "pndm"])
def test_until_it_is_free_the_image_is_the_good_picture_under_its_own_noise(kind, prediction):
    hold = held()
    clean, seen, noise, schedule = sample(kind, hold, 0.5, prediction=prediction)
    known = [moment for moment, _ in seen]
    for step, (moment, latents) in enumerate(seen):
        expected = schedule.add_noise(hold.good, noise[0], torch.tensor([moment] * SHAPE[1]))
        # PNDM mixes predictions of several noise levels, among which only the noise itself is the same.
        nearly = 0.1 if (kind, prediction) == ("pndm", "v_prediction") else 2e-3
        close = torch.allclose(latents[0], expected, atol=nearly)
        if step <= (len(known) - 1) * 0.5:
            assert close, moment
        if step == len(known) - 1:
            assert not close, "at the end it is free"
    assert not torch.allclose(clean[0], hold.good, atol=0.1)


@pytest.mark.parametrize("kind", ["ddim", "dpmsolver++"])
def test_a_start_that_leaves_steps_out_begins_at_the_right_noise(kind):
    hold = held()
    _, seen, noise, schedule = sample(kind, hold, 0.5, first=4)
    assert len(seen) == STEPS - 4
    moment, latents = seen[0]
    torch.testing.assert_close(latents[0], schedule.add_noise(hold.good, noise[0], torch.tensor([moment] * SHAPE[1])))
    moment, latents = seen[1]
    expected = schedule.add_noise(hold.good, noise[0], torch.tensor([moment] * SHAPE[1]))
    torch.testing.assert_close(latents[0], expected, atol=2e-3, rtol=1e-2)


def test_away_from_the_place_the_image_stays_good_and_the_part_bare():
    allowed = torch.zeros(SHAPE[1], 1, 8, 8)
    allowed[:, :, 2:4, 2:4] = 1
    hold = held(allowed)
    clean, _, _, _ = sample("dpmsolver++", hold, 1.0)
    far = torch.ones(8, 8, dtype=torch.bool)
    far[1:5, 1:5] = False
    torch.testing.assert_close(clean[0][..., far], hold.good[..., far])
    torch.testing.assert_close(clean[1][..., far], hold.ground.expand_as(clean[1])[..., far])
    assert not torch.allclose(clean[0][..., 2:4, 2:4], hold.good[..., 2:4, 2:4], atol=0.1)
    assert not torch.allclose(clean[1][..., 2:4, 2:4], hold.ground[..., 2:4, 2:4], atol=0.1)


def test_what_comes_after_the_last_step_is_kept_near_the_place_as_well():
    allowed = torch.zeros(SHAPE[1], 1, 8, 8)
    allowed[:, :, 2:4, 2:4] = 1
    hold = held(allowed)
    image = hold.good + 1
    kept = hold.near(image)
    assert torch.equal(kept[..., 1:5, 1:5], image[..., 1:5, 1:5])
    assert torch.equal(kept[..., 5:, :], hold.good[..., 5:, :])
    assert torch.equal(kept[..., :1, :], hold.good[..., :1, :])
