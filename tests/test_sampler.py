from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.fitted import load
from dualanodiff.images import is_grey
from dualanodiff.inclusion import defect_share, key_tint
from dualanodiff.runs import RunFolder
from dualanodiff.sampler import PairSampler
from dualanodiff.settings import SampleSettings
from small import blurred_part, draw_shots, fit_small

WHITE = torch.ones(1, 3, 1, 1)


class Codec:
    """An autoencoder that changes nothing, and counts."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded += len(latents)
        return latents

    def encode(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb


def show(codec: Codec, latents: torch.Tensor, **settings: Any) -> Any:
    sampler = PairSampler(codec, None, torch.zeros(3, 2, 4), torch.zeros(2, 3, 16, 16), key=(255, 255, 255))  # type: ignore[arg-type]
    return sampler.show_part(latents, SampleSettings(**{"inclusion": 1.0, **settings}))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_image_shows_what_the_part_draws_and_the_part_stays(strength: float) -> None:
    latents = torch.stack([torch.zeros(1, 3, 16, 16), blurred_part()])
    found, parts = show(Codec(), latents, inclusion=strength)
    torch.testing.assert_close(found[0], strength * defect_share(blurred_part(), WHITE) * blurred_part())
    assert torch.equal(found[1], latents[1])
    assert torch.equal(parts, blurred_part())


@pytest.mark.parametrize("settings", [{"inclusion": 0.0}, {"scheduler": "distilled"}])
def test_what_is_not_asked_for_or_has_been_learned_is_not_done(settings: dict[str, Any]) -> None:
    codec, latents = Codec(), torch.stack([torch.zeros(1, 3, 16, 16), blurred_part()])
    found, parts = show(codec, latents, **settings)
    assert found is latents
    assert parts is None
    assert codec.decoded == 0


def test_shots_of_a_monochrome_camera_make_images_without_colour(tiny_base_folder: Path, tmp_path: Path) -> None:
    shots = [replace(shot, image=shot.image[..., :1].repeat(3, axis=2)) for shot in draw_shots()]
    run = fit_small(tiny_base_folder, tmp_path / "run", shots=shots, data__key_color="green")
    [pair] = load(run.path).generate(1)
    assert is_grey(np.asarray(pair.image))
    assert not is_grey(np.asarray(pair.part))


def test_coloured_shots_make_coloured_images(small_run: RunFolder) -> None:
    [pair] = load(small_run.path).generate(1)
    assert not is_grey(np.asarray(pair.image))


@pytest.mark.parametrize("color", ["green", "grey"])
def test_a_run_knows_how_much_of_the_key_colours_hue_its_shots_have(
    color: str, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = fit_small(tiny_base_folder, tmp_path / "run", data__key_color=color, train__max_train_steps=1)
    found = load(run.path).sampler.key_tint
    expected = key_tint(draw_shots(), KEY_COLORS[color])
    assert (None if found is None else tuple(found)) == expected
    assert (expected is None) == (color == "grey")


def test_the_image_takes_no_tint_of_the_key_along() -> None:
    tinted = torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1).repeat(1, 1, 16, 16)
    tinted[..., 5:11, 5:11] = torch.tensor([-1.0, -0.6, -1.0]).view(1, 3, 1, 1)
    latents = torch.stack([torch.zeros(1, 3, 16, 16), tinted])
    tints = []
    for limits in (None, (0.0, 0.0)):
        sampler: Any = PairSampler(
            Codec(), None, torch.zeros(3, 2, 4), torch.zeros(2, 3, 16, 16), key=(0, 255, 0), key_tint=limits
        )  # type: ignore[arg-type]
        image = sampler.show_part(latents, SampleSettings(inclusion=1.0))[0][0, 0]
        tints.append(float((image[1] - image[0])[7, 7]))
    assert tints == [pytest.approx(0.4), pytest.approx(0.0, abs=1e-6)]
