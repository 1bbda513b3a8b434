"""Clean-up that every way of making a mask shares."""

import numpy as np

from dualanodiff.masks.result import MaskResult, drop_specks, fill_small_holes, otsu
from masks.drawings import SHAPE, disc


def test_nothing_is_empty_whatever_its_source():
    result = MaskResult.nothing((4, 5, 3), "sam", 0.3)
    assert (result.empty, result.source, result.score, result.threshold, result.area) == (True, "sam", 0, 0.3, 0)
    assert result.mask.shape == (4, 5)
    assert MaskResult.found(np.zeros((4, 5), bool), "key", 0.9, 0.1).empty


def test_a_score_stays_within_its_scale():
    full = np.ones((2, 2), bool)
    assert MaskResult.found(full, "sam", 1.02, 0).score == 1
    assert not MaskResult.found(full, "sam", 1.02, 0).empty


def test_a_speck_goes_and_a_diagonal_hair_stays():
    mask = np.zeros(SHAPE, bool)
    mask[np.arange(20), np.arange(20)] = True
    mask[40, 40:43] = True
    kept = drop_specks(mask, 4)
    assert kept.sum() == 20
    assert not kept[40].any()


def test_a_small_hole_is_closed_and_a_ring_stays_a_ring():
    blob = disc(30, 30, 15)
    pierced = blob & ~disc(30, 30, 2)
    assert np.array_equal(fill_small_holes(pierced), blob)
    ring = blob & ~disc(30, 30, 12)
    assert np.array_equal(fill_small_holes(ring), ring)


def test_otsu_cuts_in_the_middle_of_the_gap():
    values = np.concatenate([np.full(900, 0.1), np.full(30, 0.9)])
    assert abs(otsu(values) - 0.5) < 0.02


def test_otsu_takes_values_that_differ_by_rounding_errors_only():
    assert 0 <= otsu(np.array([0.3, 0.3 + 1e-16, 0.3 + 1e-15])) <= 0.31
    assert otsu(np.zeros(9)) <= 0.01
