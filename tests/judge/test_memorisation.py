"""Copies are found in every disguise, and real defects are none."""

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.data.shots import Shot
from dualanodiff.images import resize_mask, resize_rgb
from dualanodiff.judge.calibration import turned
from dualanodiff.judge.memorisation import Originals
from toy_product import SIDE, defect_picture


@pytest.fixture(scope="module")
def originals():
    return Originals([Shot(*defect_picture(seed), f"{seed:03}") for seed in range(6)])


@pytest.mark.parametrize("turn", range(8))
def test_a_shot_turned_mirrored_and_moved_is_found_by_name(originals, turn):
    image, mask = turned(defect_picture(turn % 6), turn)
    found = originals.nearest(image, mask)
    assert found.shot == f"{turn % 6:03}"
    assert found.similarity >= originals.threshold


def test_a_copy_with_other_light_blur_and_noise_is_found(originals):
    random = np.random.default_rng(0)
    for seed in range(6):
        image, mask = defect_picture(seed)
        soft = ndimage.gaussian_filter(image * 0.8 + 20.0, (0.4, 0.4, 0)) + random.normal(0, 2, image.shape)
        found = originals.nearest(soft.clip(0, 255).astype(np.uint8), mask)
        assert found.shot == f"{seed:03}"
        assert found.similarity >= originals.threshold


def test_a_crop_that_was_enlarged_again_is_found(originals):
    image, mask = defect_picture(2)
    cut = slice(6, 6 + round(0.8 * SIDE))
    found = originals.nearest(resize_rgb(image[cut, cut], SIDE), resize_mask(mask[cut, cut], SIDE))
    assert found.shot == "002"
    assert found.similarity >= originals.threshold


def test_other_defects_are_no_copies(originals):
    alike = [originals.nearest(*defect_picture(seed)).similarity for seed in range(20, 32)]
    assert np.mean(np.array(alike) >= originals.threshold) <= 0.09
    assert np.median(alike) == pytest.approx(np.median(originals.baseline), abs=0.2)


def test_the_baseline_leaves_each_shot_itself_out(originals):
    assert len(originals.baseline) == 6
    assert max(originals.baseline) < 0.95
    image, mask = defect_picture(1)
    assert originals.nearest(image, mask).shot == "001"
    assert originals.nearest(image, mask, without=1).shot != "001"


def test_doubles_among_the_shots_do_not_hide_copies():
    shots = [Shot(*defect_picture(seed), str(seed)) for seed in (0, 0, 1, 2, 3, 4, 5)]
    originals = Originals(shots)
    assert originals.threshold <= 0.95
    assert originals.doubles[:3] == [{0, 1}, {0, 1}, {2}]


def test_few_shots_have_a_fixed_threshold():
    assert Originals([Shot(*defect_picture(0), "0")]).threshold == 0.95


def test_an_empty_mask_is_like_nothing(originals):
    found = originals.nearest(defect_picture(0)[0], np.zeros((SIDE, SIDE), bool))
    assert (found.shot, found.similarity) == ("", 0.0)


def test_likeness_away_from_the_defects_does_not_count(originals):
    """The same good area around another defect is no copy of a defect."""
    image, mask = defect_picture(0)
    corner = np.zeros_like(mask)
    corner[2:10, 2:10] = True
    assert originals.nearest(image, corner).similarity < originals.threshold


def test_a_flat_area_is_like_nothing(originals):
    grey = np.full((SIDE, SIDE, 3), 120, np.uint8)
    assert originals.nearest(grey, defect_picture(0)[1]).similarity == 0
