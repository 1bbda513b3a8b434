"""The trained module: its batches, its losses and where it starts."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dualanodiff.diffusion.objective import Schedule, branch_losses
from dualanodiff.errors import ModelError, SettingsError
from dualanodiff.latents import LatentShots
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import Base, load_base
from dualanodiff.pair_model import Batch, build_pair_model, draw_batch
from dualanodiff.sampler import schedule_of
from dualanodiff.settings import TrainSettings
from small import small_settings


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    return load_base(tiny_base_folder)


def latent_shots(backgrounds: bool = False) -> LatentShots:
    """Three shots in two forms; every number says which shot, form and branch it belongs to."""
    number = torch.arange(3 * 2 * 2).float().view(3, 2, 2, 1, 1, 1).expand(-1, -1, -1, 4, 8, 8)
    plain = torch.arange(3 * 2).float().view(3, 2, 1, 1, 1).expand(-1, -1, 4, 8, 8)
    return LatentShots(number, plain[:, :, :1], plain if backgrounds else None)


def batch_of(seed: int = 0, **changes: Any) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Any] = {
        "latents": torch.randn(2, 2, 4, 8, 8, generator=generator),
        "noise": torch.randn(2, 2, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([100, 700]),
        "coverage": torch.ones(2, 1, 8, 8),
        "dropped": torch.tensor([False, False]),
        "background": None,
        "background_noise": None,
    }
    return Batch(**values | changes)


# -- batches


def test_a_batch_depends_on_seed_step_and_process_and_nothing_else() -> None:
    settings, shots = small_settings(train__train_batch_size=4), latent_shots(backgrounds=True)
    one, two = draw_batch(shots, settings, 3), draw_batch(shots, settings, 3)
    assert all(torch.equal(value, getattr(two, name)) for name, value in vars(one).items())
    others = [
        draw_batch(shots, settings, 4),
        draw_batch(shots, settings, 3, process=1),
        draw_batch(shots, small_settings(train__train_batch_size=4, seed=1), 3),
    ]
    assert not any(torch.equal(one.noise, other.noise) for other in others)


def test_a_pairs_image_part_mask_and_background_are_of_one_shot_and_form() -> None:
    settings, shots = small_settings(train__train_batch_size=64), latent_shots(backgrounds=True)
    batch = draw_batch(shots, settings, 0)
    assert batch.background is not None
    numbers = batch.latents[..., 0, 0, 0]
    assert torch.equal(numbers[1], numbers[0] + 1)
    assert torch.equal(numbers[0], 2 * batch.coverage[:, 0, 0, 0])
    assert torch.equal(batch.coverage[:, 0, 0, 0], batch.background[:, 0, 0, 0])
    assert set(batch.coverage[:, 0, 0, 0].tolist()) == {0, 1, 2, 3, 4, 5}  # every shot in every form


def test_branches_share_the_timestep_and_not_the_noise() -> None:
    batch = draw_batch(latent_shots(backgrounds=True), small_settings(train__train_batch_size=64), 0)
    assert batch.timesteps.shape == (64,)
    assert batch.timesteps.min() < 100
    assert batch.timesteps.max() >= 900
    assert batch.background_noise is not None
    rows = torch.stack([batch.noise[0].flatten(), batch.noise[1].flatten(), batch.background_noise.flatten()])
    assert (torch.corrcoef(rows) - torch.eye(3)).abs().max() < 0.05


@pytest.mark.parametrize(("share", "low", "high"), [(0, 0, 0), (0.5, 80, 120), (1, 200, 200)])
def test_prompts_are_dropped_as_often_as_asked(share: float, low: int, high: int) -> None:
    settings = small_settings(train__train_batch_size=200, train__prompt_dropout=share)
    assert low <= int(draw_batch(latent_shots(), settings, 0).dropped.sum()) <= high


def test_a_batch_moves_whole() -> None:
    moved = draw_batch(latent_shots(backgrounds=True), small_settings(), 0).to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values()} == {"meta"}
    assert draw_batch(latent_shots(), small_settings(), 0).to(torch.device("meta")).background is None


# -- losses


class Note(torch.nn.Module):
    """In place of the dual UNet: notes its inputs and predicts what it is told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.inputs = answer, ()

    def forward(self, *inputs: Any) -> Tensor:
        self.inputs = inputs
        return self.answer


def test_a_perfect_prediction_has_no_loss(base: Base) -> None:
    batch = batch_of()
    for kind in ("epsilon", "v_prediction"):
        schedule = Schedule(schedule_of(base).alphas_cumprod, kind)
        model, _ = build_pair_model(base, schedule, small_settings())
        clean = batch.latents[:1].expand(2, -1, -1, -1, -1)  # both branches alike, as inside a mask
        model.dual = Note(schedule.target(clean, batch.noise, batch.timesteps))  # type: ignore[assignment]
        losses = model(batch_of(latents=clean), TrainSettings(inclusion_weight=1))
        assert losses[:2].tolist() == [0, 0]
        assert losses[2] < 1e-8


def test_losses_are_the_branches_of_the_dual_models_prediction(base: Base) -> None:
    batch, schedule = batch_of(), schedule_of(base)
    model, _ = build_pair_model(base, schedule, small_settings())
    losses = model(batch, TrainSettings())
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = model.dual(noisy, batch.timesteps, model.embed()[:2, None])
    torch.testing.assert_close(losses[:2], branch_losses(predicted, batch.noise))
    assert losses[2] == 0


def test_min_snr_reaches_the_losses(base: Base) -> None:
    batch, schedule = batch_of(), schedule_of(base)
    model, _ = build_pair_model(base, schedule, small_settings())
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = model.dual(noisy, batch.timesteps, model.embed()[:2, None])
    expected = branch_losses(predicted, batch.noise, schedule.snr_weight(batch.timesteps, 0.7))
    torch.testing.assert_close(model(batch, TrainSettings(snr_gamma=0.7))[:2], expected)
    assert not torch.allclose(expected, branch_losses(predicted, batch.noise))


def test_a_dropped_pair_is_trained_under_the_empty_prompt(base: Base) -> None:
    model, _ = build_pair_model(base, schedule_of(base), small_settings())
    text = model.embed()
    noted = model.dual = Note(torch.zeros(2, 2, 4, 8, 8))  # type: ignore[assignment]
    model(batch_of(dropped=torch.tensor([True, False])), TrainSettings(prompt_dropout=0.1))
    rows = noted.inputs[2]
    assert torch.equal(rows[:, 0], text[2].expand(2, -1, -1))
    assert torch.equal(rows[:, 1], text[:2])
    assert not torch.equal(text[0], text[2])


def test_without_dropout_all_pairs_share_one_prompt_a_branch(base: Base) -> None:
    model, _ = build_pair_model(base, schedule_of(base), small_settings())
    noted = model.dual = Note(torch.zeros(2, 2, 4, 8, 8))  # type: ignore[assignment]
    model(batch_of(), TrainSettings(prompt_dropout=0))
    assert torch.equal(noted.inputs[2], model.embed()[:2, None])


def test_the_background_is_noised_to_the_pairs_timesteps_by_its_own_noise(base: Base) -> None:
    schedule = schedule_of(base)
    model, _ = build_pair_model(base, schedule, small_settings(model__background="paper"))
    noted = model.dual = Note(torch.zeros(2, 2, 4, 8, 8))  # type: ignore[assignment]
    clean, noise = torch.ones(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    batch = batch_of(background=clean, background_noise=noise)
    model(batch, TrainSettings())
    torch.testing.assert_close(noted.inputs[3], schedule.add_noise(clean, noise, batch.timesteps))


# -- where it starts


def save_pair(base: Base, folder: Path, **changes: Any) -> Path:
    """A copy of the base that ships a pair with random weights."""
    assert base.folder is not None
    shutil.copytree(base.folder, folder)
    model, _ = build_pair_model(base, schedule_of(base), small_settings(model__text_rank=0, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapters(model.dual, model.text, folder / "pair")
    return folder


@pytest.mark.parametrize("choice", ["auto", "pretrained"])
@pytest.mark.parametrize("background", ["none", "paper"])
def test_a_base_with_a_pair_gives_the_start(base: Base, tmp_path: Path, choice: str, background: str) -> None:
    paired = load_base(save_pair(base, tmp_path / "base"))
    settings = small_settings(model__start=choice, model__background=background)
    model, start = build_pair_model(paired, schedule_of(paired), settings)
    assert start == "pretrained"
    fresh, _ = build_pair_model(base, schedule_of(base), small_settings(model__background=background))
    given = {
        name for name, value in model.dual.state_dict().items() if not torch.equal(value, fresh.dual.state_dict()[name])
    }
    assert given == {name for name in fresh.dual.state_dict() if ".background." not in name}
    assert all(torch.equal(value, fresh.text.state_dict()[name]) for name, value in model.text.state_dict().items())


def test_a_fresh_start_is_asked_for_and_given(base: Base, tmp_path: Path) -> None:
    paired = load_base(save_pair(base, tmp_path / "base"))
    model, start = build_pair_model(paired, schedule_of(paired), small_settings(model__start="fresh"))
    assert start == "fresh"
    assert all(not bool(value.any()) for name, value in model.state_dict().items() if name.endswith(".up"))


MISFITS = {
    "rank": ({"model__rank": 8}, r"the pair of .* has rank 8 where model.rank is 4"),
    "interaction": ({"model__interaction": "full"}, r"has interaction 'full' where model.interaction is 'lowrank'"),
    "width": ({"model__interaction_rank": 3}, r"has interaction_rank 3 where model.interaction_rank is 4"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_pair_that_does_not_fit_is_refused_when_asked_for_and_passed_over_else(
    base: Base, tmp_path: Path, misfit: str
) -> None:
    changes, message = MISFITS[misfit]
    paired = load_base(save_pair(base, tmp_path / "base", **changes))
    with pytest.raises(SettingsError, match=rf"^model.start is pretrained, but .*{message}; use model.start=fresh or"):
        build_pair_model(paired, schedule_of(paired), small_settings(model__start="pretrained"))
    _, start = build_pair_model(paired, schedule_of(paired), small_settings(model__start="auto"))
    assert start == "fresh"


def test_a_base_without_a_pair_cannot_give_one(base: Base) -> None:
    with pytest.raises(SettingsError, match=r"model.start is pretrained, but the base .* ships no pre-trained pair"):
        build_pair_model(base, schedule_of(base), small_settings(model__start="pretrained"))
    assert build_pair_model(base, schedule_of(base), small_settings(model__start="auto"))[1] == "fresh"


def test_a_damaged_pair_is_named(base: Base, tmp_path: Path) -> None:
    folder = save_pair(base, tmp_path / "base")
    (folder / "pair" / "interaction.safetensors").write_bytes(b"")
    paired = load_base(folder)
    with pytest.raises(ModelError, match=r"pair/interaction.safetensors: not a readable safetensors file"):
        build_pair_model(paired, schedule_of(paired), small_settings())


def test_fresh_weights_are_the_seeds(base: Base) -> None:
    def weights(seed: int) -> list[Tensor]:
        return list(build_pair_model(base, schedule_of(base), small_settings(seed=seed))[0].state_dict().values())

    assert all(torch.equal(one, two) for one, two in zip(weights(0), weights(0), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(weights(0), weights(1), strict=True))
