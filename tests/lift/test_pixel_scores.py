"""The metrics, against cases counted by hand and computations done another way."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.errors import SettingsError
from dualanodiff.lift.pixel_scores import (
    METRICS,
    image_scores,
    inspector_scores,
    per_region_overlap,
    ranking_scores,
)


def test_four_pixels_by_hand():
    scores = ranking_scores(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]))
    # Pairs in the right order: 3 of 4. Precision 1/1 at recall 1/2, 2/3 at recall 1. F1: 2/3, 1/2, 4/5, 2/3.
    assert scores == pytest.approx({"auroc": 0.75, "ap": 0.5 * 1 + 0.5 * 2 / 3, "f1": 0.8})


def test_a_perfect_map_has_full_marks_and_an_inverted_one_none():
    masks = np.zeros((3, 32, 32), bool)
    masks[0, 4:10, 4:10] = masks[1, 20:28, 3:6] = True
    perfect = inspector_scores(masks.astype(float), masks)
    assert set(perfect) == set(METRICS)
    assert perfect == pytest.approx(dict.fromkeys(METRICS, 1.0))
    inverted = inspector_scores(1.0 - masks, masks)
    assert inverted["pixel_auroc"] == 0
    assert inverted["pro"] == pytest.approx(0)


def test_a_map_that_says_nothing_is_worth_what_chance_is():
    masks = np.zeros((4, 16, 16), bool)
    masks[:2, :4] = True
    found = inspector_scores(np.full(masks.shape, 0.3), masks)
    assert found["pixel_auroc"] == 0.5
    assert found["pixel_ap"] == pytest.approx(masks.mean())
    assert found["pro"] == pytest.approx(0.15)  # the diagonal up to 0.3, over 0.3


def slow_pro(maps, masks, limit):
    """One threshold after the other, region by region, as PRO is defined."""
    regions = []
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(number, labels == region) for region in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        found = maps >= threshold
        overlap = np.mean([found[number][region].mean() for number, region in regions])
        points.append((float(found[~masks].mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 >= limit:
            break
        end = min(x1, limit)
        y_end = y1 if x1 == x0 else y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [4, 1000])
def test_pro_is_what_its_definition_says(seed, levels):
    random = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(random.random((4, 12, 12)) > 0.97, np.ones((1, 2, 2)))
    masks[3] = False
    maps = np.round((random.random(masks.shape) + 0.5 * masks) * levels) / levels
    assert per_region_overlap(maps, masks) == pytest.approx(slow_pro(maps, masks, 0.3), abs=1e-9)


def test_pro_counts_a_small_defect_as_much_as_a_large_one():
    masks = np.zeros((1, 40, 40), bool)
    masks[0, :20, :20] = masks[0, 38, 38] = True
    only_large, only_small = np.zeros((1, 40, 40)), np.zeros((1, 40, 40))
    only_large[0, :20, :20] = only_small[0, 38, 38] = 1
    # Half of the regions at once, and the other half with the false positives' share.
    assert per_region_overlap(only_large, masks) == pytest.approx(0.5 + 0.5 * 0.15)
    assert per_region_overlap(only_small, masks) == pytest.approx(0.5 + 0.5 * 0.15)


def test_touching_corners_are_one_region():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 2, 2] = masks[0, 3, 3] = True
    apart = masks.copy()
    apart[0, 3, 3], apart[0, 6, 6] = False, True
    maps = np.zeros((1, 8, 8))
    maps[0, 2, 2] = 1
    assert per_region_overlap(maps, masks) == pytest.approx(per_region_overlap(maps, apart))


def test_the_image_score_is_the_highest_mean_of_a_window():
    random = np.random.default_rng(0)
    maps = random.random((3, 30, 26))
    padded = np.pad(maps, ((0, 0), (10, 10), (10, 10)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (21, 21), axis=(1, 2)).mean(axis=(-2, -1))
    assert image_scores(maps) == pytest.approx(windows.max(axis=(1, 2)))


def test_a_single_hot_pixel_weighs_little_against_a_warm_region():
    maps = np.zeros((2, 64, 64))
    maps[0, 5, 5] = 1
    maps[1, 20:50, 20:50] = 0.2
    assert image_scores(maps)[0] < image_scores(maps)[1]


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(SettingsError, match=r"pip install dualanodiff\[eval\]"):
        ranking_scores(np.array([0.0, 1.0]), np.array([False, True]))
