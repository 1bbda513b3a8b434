"""Masks by key colour, on parts whose masks are known."""

import numpy as np
import pytest

from dualanodiff.data.keycolor import KEY_COLORS, to_lab
from dualanodiff.errors import DataError
from dualanodiff.masks.key import calibrate_threshold, estimate_ground, key_mask, overlap
from masks.drawings import KEY, SHAPE, disc, draw_part

EMPTY = np.zeros(SHAPE, bool)
TWO_BLOBS = disc(16, 16, 8) | disc(45, 70, 12)
HAIR = np.zeros(SHAPE, bool)
HAIR[np.arange(10, 50), np.arange(20, 60)] = True
GROUND = {"drift": 25, "noise": 4, "shade": 0.06}


@pytest.mark.parametrize(
    "mask", [TWO_BLOBS, HAIR, disc(0, 0, 9), disc(32, 48, 60)], ids=["two", "hair", "corner", "most"]
)
@pytest.mark.parametrize("key", KEY_COLORS.values(), ids=KEY_COLORS)
def test_the_mask_of_a_clean_part_is_exact(mask, key):
    color = (200, 60, 60) if key != (255, 0, 255) else (40, 90, 40)
    result = key_mask(draw_part(mask, key, color), key)
    assert np.array_equal(result.mask, mask)
    assert (result.empty, result.source) == (False, "key")
    assert result.score > result.threshold


@pytest.mark.parametrize("key", KEY_COLORS.values(), ids=KEY_COLORS)
@pytest.mark.parametrize("ground", [{}, {"drift": 40}, {"drift": -40}, {"noise": 6}, {"shade": 0.1}, GROUND], ids=str)
def test_a_part_with_nothing_but_ground_is_empty(key, ground):
    result = key_mask(draw_part(EMPTY, key, **ground), key)
    assert result.empty
    assert not result.mask.any()
    assert result.score == 0


@pytest.mark.parametrize("key", KEY_COLORS.values(), ids=KEY_COLORS)
def test_a_part_without_any_ground_is_all_mask(key):
    color = (200, 60, 60) if key != (255, 0, 255) else (40, 90, 40)
    two_tones = np.where(disc(30, 30, 20)[..., None], np.array(color) // 2, color).astype(np.uint8)
    assert key_mask(two_tones, key).mask.all()


@pytest.mark.parametrize("drift", [-40, 40])
@pytest.mark.parametrize("key", [KEY, (128, 128, 128), (0, 0, 0)])
def test_a_drifted_ground_is_still_the_ground(key, drift):
    part = draw_part(TWO_BLOBS, key, (230, 60, 200), drift=drift)
    assert np.array_equal(key_mask(part, key).mask, TWO_BLOBS)


def test_a_defect_on_most_of_the_picture_is_not_taken_for_the_ground():
    mask = ~disc(10, 10, 14)
    assert mask.mean() > 0.9
    part = draw_part(mask, (128, 128, 128), (60, 60, 60), noise=3)
    lab = to_lab(part) / 100
    assert np.abs(estimate_ground(lab, (128, 128, 128)) - to_lab(np.array((128, 128, 128))) / 100).max() < 0.02
    assert overlap(key_mask(part, (128, 128, 128)).mask, mask) > 0.97


@pytest.mark.parametrize("mask", [TWO_BLOBS, disc(30, 40, 25)])
def test_blur_drift_shade_and_noise_together_cost_little(mask):
    part = draw_part(mask, blur=1, **GROUND)
    assert overlap(key_mask(part, KEY).mask, mask) > 0.9


def test_the_edge_of_a_blurred_defect_is_found_half_way():
    mask = disc(32, 48, 12)
    found = key_mask(draw_part(mask, blur=2), KEY).mask
    assert abs(int(found.sum()) - int(mask.sum())) < 0.15 * mask.sum()


def test_a_hair_survives_the_decoder():
    found = key_mask(draw_part(HAIR, blur=0.7, noise=3), KEY).mask
    assert found[HAIR].mean() > 0.95
    assert found.sum() < 3.5 * HAIR.sum()


def test_pieces_below_the_minimum_area_do_not_count():
    mask = EMPTY.copy()
    mask[5, 5:8] = True
    assert key_mask(draw_part(mask), KEY).empty
    assert key_mask(draw_part(mask), KEY, minimum_area=3).mask.sum() == 3


def test_a_threshold_that_is_given_is_used():
    part = draw_part(TWO_BLOBS, (0, 0, 0), (60, 60, 60))
    assert key_mask(part, (0, 0, 0), threshold=0.5).empty
    result = key_mask(part, (0, 0, 0), threshold=0.1)
    assert result.threshold == 0.1
    assert np.array_equal(result.mask, TWO_BLOBS)


def test_a_calibrated_cut_moves_the_automatic_one_half_way():
    part = draw_part(TWO_BLOBS)
    plain, moved = key_mask(part, KEY), key_mask(part, KEY, calibrated=0.8)
    assert moved.threshold == pytest.approx((plain.threshold + 0.8) / 2)


def test_calibration_finds_the_cut_between_faint_ground_dirt_and_the_defect():
    dirt = disc(50, 20, 6)
    part = draw_part(TWO_BLOBS, (0, 0, 0), (200, 200, 200))
    part[dirt] = 60
    found = calibrate_threshold([part, part], [TWO_BLOBS, TWO_BLOBS], (0, 0, 0))
    assert 0.25 < found < 0.79
    assert np.array_equal(key_mask(part, (0, 0, 0), threshold=found).mask, TWO_BLOBS)


def test_calibration_needs_a_shot():
    with pytest.raises(DataError, match="no parts to calibrate a mask threshold on; give at least one shot"):
        calibrate_threshold([], [], KEY)


def test_two_empty_masks_overlap_fully():
    assert overlap(EMPTY, EMPTY) == 1
    assert overlap(EMPTY, TWO_BLOBS) == 0
