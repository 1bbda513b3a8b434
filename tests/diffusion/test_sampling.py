"""The guided loop, with models that know the answer."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS, Background, Guidance, denoise_pairs

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
TYPES = ["epsilon", "v_prediction"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(name: str, kind: str = "epsilon", steps: int = 20, **config: Any) -> tuple[Any, Schedule]:
    """A sampler made as from a base's scheduler config, and the base's schedule."""
    base = DDPMScheduler(**CONFIG, prediction_type=kind, **config)
    scheduler: Any = SCHEDULERS[name](dict(base.config))
    scheduler.set_timesteps(steps)
    return scheduler, Schedule(base.alphas_cumprod, kind)


def guidance(scale: float = 1.0) -> Guidance:
    return Guidance(draw(2, 5, 8, seed=7), draw(5, 8, seed=8), scale)


class Oracle:
    """Predicts exactly, because it knows the clean latents; notes how it was called."""

    def __init__(self, clean: Tensor, schedule: Schedule) -> None:
        self.clean, self.schedule = clean, schedule
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None, **others: Any
    ) -> Tensor:
        self.calls.append(
            {"latents": latents, "timesteps": timesteps, "text": text, "background": background, **others}
        )
        clean = self.clean.repeat(1, latents.shape[1] // self.clean.shape[1], 1, 1, 1)
        return self.schedule.prediction_from(latents.float(), clean, timesteps).to(latents.dtype)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_model_that_knows_the_answer_gives_it(name: str, scale: float, kind: str) -> None:
    clean = draw(2, 3, 4, 8, 8, seed=5)
    scheduler, schedule = build(name, kind)
    found = denoise_pairs(Oracle(clean, schedule), scheduler, schedule, draw(2, 3, 4, 8, 8), guidance(scale))
    assert (found - clean).abs().max() < (0.2 if name == "pndm" else 1e-3)
    assert (found - clean).square().mean().sqrt() < 0.05


@pytest.mark.parametrize("name", ["ddim", "pndm"])
def test_the_base_says_whether_the_last_step_ends_at_no_noise_or_at_the_first_timesteps(name: str) -> None:
    # A DDIM config read through the training scheduler keeps what only a sampler knows.
    for choice in (True, False):
        base = DDPMScheduler.from_config({**CONFIG, "_class_name": "DDIMScheduler", "set_alpha_to_one": choice})
        scheduler: Any = SCHEDULERS[name](dict(base.config))
        assert scheduler.final_alpha_cumprod.item() == (1.0 if choice else base.alphas_cumprod[0].item())


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 3), (2.5, 6)])
def test_no_guidance_halves_the_rows_of_every_call(scale: float, rows: int) -> None:
    scheduler, schedule = build("ddim", steps=4)
    oracle = Oracle(draw(2, 3, 4, 8, 8), schedule)
    denoise_pairs(oracle, scheduler, schedule, draw(2, 3, 4, 8, 8), guidance(scale))
    assert len(oracle.calls) == 4
    assert {call["latents"].shape[1] for call in oracle.calls} == {rows}
    assert {call["text"].shape[1] for call in oracle.calls} == {rows // 3}
    assert all(call["timesteps"].shape == (rows,) for call in oracle.calls)


def test_guidance_starts_at_the_empty_prompt_and_goes_beyond_the_prompt() -> None:
    """The rows of one call are negatives then positives, and are combined as n + s (p - n) in each branch."""
    scheduler, schedule = build("ddim", steps=1)
    prompts = guidance(2.5)
    outputs: dict[str, Tensor] = {"negative": draw(2, 3, 4, 8, 8, seed=21), "positive": draw(2, 3, 4, 8, 8, seed=22)}

    def model(latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None, **_: Any) -> Tensor:
        halves = latents.chunk(2, dim=1)
        assert torch.equal(halves[0], halves[1])
        assert torch.equal(text[:, 0], prompts.empty.expand(2, -1, -1))
        assert torch.equal(text[:, 1], prompts.text)
        return torch.cat([outputs["negative"], outputs["positive"]], dim=1)

    start = draw(2, 3, 4, 8, 8)
    found = denoise_pairs(model, scheduler, schedule, start, prompts)
    guided = outputs["negative"] + 2.5 * (outputs["positive"] - outputs["negative"])
    plain, _ = build("ddim", steps=1)
    expected = plain.step(guided.flatten(0, 1), plain.timesteps[0], start.flatten(0, 1)).prev_sample
    torch.testing.assert_close(found.flatten(0, 1), expected)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("count", [1, 3])
def test_the_background_is_noised_to_each_step_under_the_images_own_prompt(scale: float, count: int) -> None:
    scheduler, schedule = build("ddim", steps=3)
    oracle = Oracle(draw(2, 3, 4, 8, 8), schedule)
    given = Background(draw(count, 4, 8, 8, seed=11), draw(count, 4, 8, 8, seed=12))
    denoise_pairs(oracle, scheduler, schedule, draw(2, 3, 4, 8, 8), guidance(scale), background=given)
    for call, moment in zip(oracle.calls, scheduler.timesteps, strict=True):
        share = schedule.alphas_cumprod[moment]
        noised = share.sqrt() * given.latents + (1 - share).sqrt() * given.noise
        torch.testing.assert_close(call["background"], noised)
        assert torch.equal(call["background_text"], guidance().text[:1])


def test_clean_latents_may_be_changed_on_the_way() -> None:
    scheduler, schedule = build("ddim", steps=5)
    seen: list[float] = []
    wanted = draw(2, 3, 4, 8, 8, seed=31)

    def adjust(clean: Tensor, progress: float) -> Tensor:
        seen.append(progress)
        return wanted

    oracle = Oracle(draw(2, 3, 4, 8, 8, seed=5), schedule)
    found = denoise_pairs(oracle, scheduler, schedule, draw(2, 3, 4, 8, 8), guidance(), adjust_clean=adjust)
    assert (found - wanted).abs().max() < 1e-3
    assert seen == [0, 0.25, 0.5, 0.75, 1]


def test_a_model_in_half_precision_is_fed_in_it_and_stepped_in_full() -> None:
    scheduler, schedule = build("ddim", steps=3)
    oracle = Oracle(draw(2, 3, 4, 8, 8, seed=5), schedule)
    found = denoise_pairs(oracle, scheduler, schedule, draw(2, 3, 4, 8, 8), guidance(2.5), dtype=torch.bfloat16)
    assert found.dtype == torch.float32
    assert {call[name].dtype for call in oracle.calls for name in ("latents", "text")} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("interval", "rows"), [((0.0, 1.0), [2, 2, 2, 2, 2]), ((0.25, 0.75), [1, 2, 2, 2, 1]), ((0.6, 0.4), [1] * 5)]
)
def test_guidance_costs_only_where_it_is_applied(interval: tuple[float, float], rows: list[int]) -> None:
    clean = draw(2, 3, 4, 8, 8, seed=5)
    scheduler, schedule = build("ddim", steps=5)
    oracle = Oracle(clean, schedule)
    found = denoise_pairs(
        oracle, scheduler, schedule, draw(2, 3, 4, 8, 8), Guidance(draw(2, 5, 8), draw(5, 8, seed=8), 2.5, interval)
    )
    assert [call["latents"].shape[1] // 3 for call in oracle.calls] == rows
    assert [call["text"].shape[1] for call in oracle.calls] == rows
    assert (found - clean).abs().max() < 1e-3


def test_outside_the_interval_the_prompts_themselves_are_followed() -> None:
    scheduler, schedule = build("ddim", steps=4)
    seen: list[Tensor] = []

    def note(latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None, **_: Any) -> Tensor:
        seen.append(text)
        return latents

    texts = guidance(2.5)
    denoise_pairs(note, scheduler, schedule, draw(2, 1, 4, 8, 8), Guidance(texts.text, texts.empty, 2.5, (0.5, 1.0)))
    assert torch.equal(seen[0][:, 0], texts.text) and torch.equal(seen[-1][:, 1], texts.text)
    assert torch.equal(seen[-1][0, 0], texts.empty)
