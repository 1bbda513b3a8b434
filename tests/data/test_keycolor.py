from pathlib import Path

import numpy as np
import pytest

from dualanodiff.data.keycolor import KEY_COLORS, choose_key_color, color_distance, parse_key_color, to_lab
from dualanodiff.data.shots import Shot, find_shots
from dualanodiff.errors import DataError, SettingsError


def shot(*colors: tuple[int, int, int]) -> Shot:
    """A white picture with a row of each color as the defect."""
    image = np.full((len(colors) + 2, 20, 3), 255, np.uint8)
    mask = np.zeros(image.shape[:2], bool)
    for row, color in enumerate(colors):
        image[row] = color
        mask[row] = True
    return Shot(image, mask, "000")


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((3, 3, 3), (0.82, 0, 0)),
    ],
)
def test_lab_agrees_with_the_published_values(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert to_lab(np.array(rgb, np.uint8)) == pytest.approx(lab, abs=0.02)


def test_distances_keep_the_pictures_shape() -> None:
    distance = color_distance(np.zeros((4, 5, 3), np.uint8), (255, 255, 255))
    assert distance.shape == (4, 5)
    assert distance == pytest.approx(100, abs=0.01)


def test_grey_defects_get_green() -> None:
    assert choose_key_color([shot((0, 0, 0), (128, 128, 128)), shot((255, 255, 255))]) == KEY_COLORS["green"]


@pytest.mark.parametrize("color", [(0, 255, 0), (20, 230, 40), (90, 250, 80)])
def test_a_green_defect_does_not_get_green(color: tuple[int, int, int]) -> None:
    assert choose_key_color([shot(color)]) == KEY_COLORS["blue"]


def test_every_colour_near_one_candidate_is_answered_by_a_far_one() -> None:
    for color in KEY_COLORS.values():
        chosen = choose_key_color([shot(color, (100, 90, 80))])
        assert color_distance(np.array(color, np.uint8), chosen) > 50


def test_where_no_candidate_is_far_the_farthest_wins() -> None:
    every_candidate_but_white = [color for name, color in KEY_COLORS.items() if name != "white"]
    assert choose_key_color([shot(*every_candidate_but_white, (200, 200, 200))]) == KEY_COLORS["white"]


def test_a_few_stray_pixels_do_not_decide() -> None:
    stray = shot((60, 60, 60))
    image = stray.image.copy()
    image[0, 0] = KEY_COLORS["green"]
    many = [shot((60, 60, 60)) for _ in range(3)]
    assert choose_key_color([Shot(image, stray.mask, "000"), *many]) == KEY_COLORS["green"]


def test_pixels_outside_the_mask_do_not_decide() -> None:
    one = shot((60, 60, 60))
    image = np.where(one.mask[..., None], one.image, np.array(KEY_COLORS["green"], np.uint8))
    assert choose_key_color([Shot(image, one.mask, "000")]) == KEY_COLORS["green"]


def test_a_key_colour_is_a_name_hexadecimal_or_chosen() -> None:
    assert parse_key_color("black", []) == (0, 0, 0)
    assert parse_key_color("grey", []) == (128, 128, 128)
    assert parse_key_color("#0a0B0c", []) == (10, 11, 12)
    assert parse_key_color("auto", [shot((0, 255, 0))]) == KEY_COLORS["blue"]


@pytest.mark.parametrize(("text", "near"), [("gren", "green"), ("Black", "black"), ("#fff", "auto"), ("", "auto")])
def test_an_unknown_key_colour_is_answered_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"data\.key_color is '{text}' but must be auto, green, .*did you mean '\w+'"
    ):
        parse_key_color(text, [])
    if near != "auto":
        with pytest.raises(SettingsError, match=f"did you mean '{near}'"):
            parse_key_color(text, [])


def test_without_a_defect_pixel_there_is_nothing_to_choose_for() -> None:
    with pytest.raises(DataError, match="no shot has a defect pixel to choose a key colour for"):
        choose_key_color([])


def test_real_grey_products_get_green(shared: Path) -> None:
    shots = find_shots(shared / "data", category="magnetic_tile", defect="blowhole", resolution=64)
    assert choose_key_color(shots) == KEY_COLORS["green"]
