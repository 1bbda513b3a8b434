"""Sheets of pictures."""

import numpy as np
import pytest

from dualanodiff.data.shots import Shot
from dualanodiff.grid import overlay, pair_grid, picture_grid
from dualanodiff.images import read_rgb

GREY = np.full((40, 60, 3), 128, np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[10:30, 20:40] = True
PINK = (255, 0, 90)


def pink(rgb: np.ndarray) -> np.ndarray:
    return (rgb == PINK).all(axis=-1)


def test_the_outline_runs_just_outside_the_mask():
    drawn = pink(overlay(GREY, MASK))
    assert not (drawn & MASK).any()
    assert drawn.sum() == 22 * 22 - 20 * 20
    assert drawn[9:31, 19:41].sum() == drawn.sum()


def test_an_empty_mask_draws_nothing_and_a_full_one_its_rim():
    assert not pink(overlay(GREY, np.zeros_like(MASK))).any()
    rim = pink(overlay(GREY, np.ones_like(MASK)))
    assert rim[0].all()
    assert rim[:, 0].all()
    assert not rim[5:-5, 5:-5].any()


def test_the_outline_is_visible_on_a_large_picture():
    large = np.kron(MASK, np.ones((16, 16), bool))
    drawn = pink(overlay(np.zeros((*large.shape, 3), np.uint8), large))
    assert drawn.sum() > 4 * 4 * 20 * 16


def test_pictures_stand_in_rows_under_their_titles(tmp_path):
    red, blue = (np.full((10, 10, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    picture_grid([[red, blue], [blue, red]], ["one", "two"], tmp_path / "grid.png", side=20)
    sheet = read_rgb(tmp_path / "grid.png")
    assert sheet.shape[1] == 6 + 2 * 26
    assert tuple(sheet[0, 0]) == (255, 255, 255)
    places = [[tuple(sheet[-26 * (2 - row) + 5, 6 + 26 * column + 5]) for column in (0, 1)] for row in (0, 1)]
    assert places == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 255), (255, 0, 0)]]
    assert (sheet[:20, :30] < 128).any(), "a title is written"


def test_captions_stand_over_their_rows(tmp_path):
    picture_grid([[GREY], [GREY]], ["image"], tmp_path / "plain.png")
    picture_grid([[GREY], [GREY]], ["image"], tmp_path / "said.png", captions=["seed 7"])
    plain, said = read_rgb(tmp_path / "plain.png"), read_rgb(tmp_path / "said.png")
    assert said.shape[0] == plain.shape[0] + 18


def test_small_pictures_grow_without_blur_and_masks_stay_black_and_white(tmp_path):
    picture_grid([[MASK]], [""], tmp_path / "grid.png", side=120)
    assert set(np.unique(read_rgb(tmp_path / "grid.png")[24:104, 6:126])) == {0, 255}


@pytest.mark.parametrize(("shots", "columns"), [(0, 4), (3, 7)])
def test_pairs_stand_beside_the_shots_they_learned_from(tmp_path, shots, columns):
    images = [GREY] * 2
    real = [Shot(GREY, MASK, str(i)) for i in range(shots)]
    pair_grid(images, [MASK] * 2, images, tmp_path / "grid.png", real, key=(0, 255, 0), side=60)
    sheet = read_rgb(tmp_path / "grid.png")
    assert sheet.shape[1] == 6 + columns * 66
    assert sheet.shape[0] == 24 + max(2, shots) * 66
    assert pink(sheet[:, -66:]).any()
    assert (sheet == (0, 255, 0)).all(axis=-1).any() is np.bool_(shots > 0)


def test_a_sheet_shows_so_many_lines_and_no_more(tmp_path):
    pair_grid([GREY] * 30, [MASK] * 30, [GREY] * 30, tmp_path / "grid.png", most=5, side=32)
    assert read_rgb(tmp_path / "grid.png").shape[0] == 24 + 5 * 38
