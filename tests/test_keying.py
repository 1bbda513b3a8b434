import numpy as np
import torch

from dualanodiff import keying
from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.data.shots import Shot
from dualanodiff.keying import LEVEL, choose_key, try_keys


class PerfectBase:
    """An autoencoder that loses nothing, or only the green channel."""

    def __init__(self, *, keeps_green: bool = True) -> None:
        self.vae = torch.nn.Linear(1, 1)
        self.keeps_green = keeps_green

    def encode(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb * 20  # so that the noise put on latents is small

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        rgb = (latents / 20).clamp(-1, 1)
        if not self.keeps_green:
            rgb[:, 1] = 0
        return rgb


def shot(color: tuple[int, int, int]) -> Shot:
    image = np.full((32, 32, 3), 200, np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    image[mask] = color
    return Shot(image, mask, "000")


def test_a_black_defect_is_not_put_on_black() -> None:
    trials = try_keys(PerfectBase(), [shot((2, 2, 2))])
    assert trials["black"].overlap < 0.1
    assert trials["white"].overlap > 0.9
    assert choose_key("auto", PerfectBase(), [shot((2, 2, 2))])[0] != KEY_COLORS["black"]


def test_what_the_autoencoder_loses_decides() -> None:
    magenta = shot((255, 0, 255))
    assert try_keys(PerfectBase(), [magenta])["white"].overlap > 0.9
    # Without green, white and magenta are one colour: everything or nothing is mask.
    assert try_keys(PerfectBase(keeps_green=False), [magenta])["white"].overlap < 0.2


def test_a_named_key_colour_is_not_tried() -> None:
    assert choose_key("#0a0b0c", PerfectBase(), [shot((2, 2, 2))]) == ((10, 11, 12), {})


def test_the_choice_follows_from_the_seed() -> None:
    shots = [shot((90, 90, 90)), shot((30, 60, 90))]
    assert try_keys(PerfectBase(), shots, seed=3) == try_keys(PerfectBase(), shots, seed=3)


def test_of_colours_that_are_level_the_one_with_the_strongest_contrast_is_taken() -> None:
    """A dark grey defect is cut out of black as well as out of white here, but it hardly shows on black."""
    dark = shot((70, 70, 70))
    trials = try_keys(PerfectBase(), [dark])
    assert abs(trials["black"].overlap - trials["white"].overlap) <= LEVEL
    assert trials["white"].contrast > 1.5 * trials["black"].contrast
    chosen, overlaps = choose_key("auto", PerfectBase(), [dark])
    best = max(overlaps.values())
    name = next(name for name, color in KEY_COLORS.items() if color == chosen)
    assert name != "black"
    assert overlaps[name] >= best - LEVEL


def test_level_colours_are_not_left_to_their_order(monkeypatch) -> None:
    monkeypatch.setattr(keying, "KEY_COLORS", {name: KEY_COLORS[name] for name in ("black", "white")})
    assert choose_key("auto", PerfectBase(), [shot((70, 70, 70))])[0] == KEY_COLORS["white"]
    monkeypatch.setattr(keying, "KEY_COLORS", {name: KEY_COLORS[name] for name in ("white", "black")})
    assert choose_key("auto", PerfectBase(), [shot((190, 190, 190))])[0] == KEY_COLORS["black"]
