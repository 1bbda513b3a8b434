import numpy as np
import torch

from dualanodiff.data.shots import Shot
from dualanodiff.inclusion import defect_share, key_tint, show
from small import blurred_part

WHITE = torch.ones(1, 3, 1, 1)
MAGENTA = (255, 0, 255)
INSIDE = (slice(None), slice(None), slice(5, 11), slice(5, 11))


def test_the_defect_is_shown_and_its_tinted_edge_is_not() -> None:
    share = defect_share(blurred_part(), WHITE)[0, 0]
    assert (share[5:11, 5:11] == 1).all()
    assert share.sum() == 36  # nothing of the blurred edge, nothing of the ground


def test_an_empty_part_shows_nothing_whatever_its_noise() -> None:
    noise = 0.05 * torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert defect_share(WHITE + noise, WHITE).max() == 0


def test_each_part_is_judged_by_its_own_strongest_defect() -> None:
    pale = 1 - (1 - blurred_part()) * 0.4
    both = defect_share(torch.cat([blurred_part(), pale]), WHITE)
    assert torch.equal(both[0] == 1, both[1] == 1)


def picture(*levels: int) -> torch.Tensor:
    """A picture (1, 3, 16, 16) of one colour of 0..255."""
    return (torch.tensor(levels) / 127.5 - 1).view(1, 3, 1, 1).expand(1, 3, 16, 16)


def on_magenta(*levels: int) -> torch.Tensor:
    """A square of one colour on the key colour."""
    rgb = picture(*MAGENTA).clone()
    rgb[INSIDE] = picture(*levels)[INSIDE]
    return rgb


def middle(rgb: torch.Tensor) -> list[float]:
    return [round(float(level)) for level in (rgb[0, :, 8, 8] + 1) * 127.5]


def test_a_grey_defect_shows_no_tint_of_the_key() -> None:
    tinted, ground = on_magenta(70, 40, 70), picture(128, 128, 128)
    assert middle(show(ground, tinted, MAGENTA, 1.0)) == [70, 40, 70]
    cleaned = show(ground, tinted, MAGENTA, 1.0, (0.0, 0.0))
    assert middle(cleaned) == [60, 60, 60]  # as light as before
    assert torch.equal(cleaned[..., :4, :], ground[..., :4, :])


def test_the_opposite_hue_goes_too() -> None:
    greenish = on_magenta(40, 70, 40)
    assert middle(show(picture(128, 128, 128), greenish, MAGENTA, 1.0, (0.0, 0.0))) == [50, 50, 50]


def test_a_hue_that_real_defects_have_stays() -> None:
    violet = on_magenta(70, 40, 70)
    assert middle(show(picture(128, 128, 128), violet, MAGENTA, 1.0, (0.0, 60.0))) == [70, 40, 70]


def test_a_hue_that_the_product_has_there_stays() -> None:
    violet = on_magenta(70, 40, 70)
    assert middle(show(picture(160, 60, 160), violet, MAGENTA, 1.0, (0.0, 0.0))) == [70, 40, 70]


def test_nothing_shown_changes_nothing() -> None:
    ground = picture(160, 60, 160)
    assert torch.equal(show(ground, on_magenta(70, 40, 70), MAGENTA, 0.0, (0.0, 0.0)), ground)


def test_what_is_shown_stays_a_colour() -> None:
    white = on_magenta(255, 255, 255)
    found = show(picture(128, 128, 128), white, MAGENTA, 1.0, (20.0, 60.0))  # limits that a file was edited to
    assert found.abs().max() <= 1


def shot(*levels: int) -> Shot:
    """A shot whose upper half is a defect of one colour, but for one pixel of a mask that was drawn too wide."""
    rgb = np.full((10, 10, 3), levels, np.uint8)
    rgb[0, 0] = MAGENTA
    rgb[5:] = 0
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    return Shot(rgb, mask, "shot")


def test_shots_say_how_much_of_the_hue_is_usual() -> None:
    assert key_tint([shot(70, 40, 70)], MAGENTA) == (0.0, round(30 * (2 / 3) ** 0.5, 2))
    assert key_tint([shot(40, 70, 40)], MAGENTA) == (-round(30 * (2 / 3) ** 0.5, 2), 0.0)


def test_a_colour_that_few_shots_have_counts() -> None:
    many = [shot(50, 50, 50)] * 30
    assert key_tint([*many, shot(70, 40, 70)], MAGENTA) == key_tint([shot(70, 40, 70)], MAGENTA)


def test_a_key_without_a_hue_and_shots_without_a_defect_tell_nothing() -> None:
    assert key_tint([shot(70, 40, 70)], (128, 128, 128)) is None
    assert key_tint([shot(70, 40, 70)], (128, 128, 131)) is None
    empty = Shot(shot(70, 40, 70).image, np.zeros((10, 10), bool), "empty")
    assert key_tint([empty], MAGENTA) is None
    assert key_tint([empty, shot(70, 40, 70)], MAGENTA) == key_tint([shot(70, 40, 70)], MAGENTA)
