"""Does a picture show what its mask claims?"""

from pathlib import Path

import numpy as np
import pytest

from dualanodiff.change import agreement, change_maps, contrast, distance_map
from dualanodiff.data.shots import find_shots
from dualanodiff.images import read_rgb
from dualanodiff.synth.product import demo_products, write_product


def good(seed: int, size: int = 64) -> np.ndarray:
    """A grey square on black, moved and lit a little otherwise from picture to picture."""
    generator = np.random.default_rng(seed)
    rgb = generator.normal(20, 2, (size, size, 3))
    top, left = generator.integers(15, 18, 2)
    rgb[top : top + 32, left : left + 32] = generator.normal(120, 6, (32, 32, 3)) + generator.uniform(-3, 3)
    return rgb.clip(0, 255).astype(np.uint8)


def defective() -> tuple[np.ndarray, np.ndarray]:
    rgb, mask = good(99), np.zeros((64, 64), bool)
    mask[24:34, 24:36] = True
    rgb[mask] = (150, 60, 60)
    return rgb, mask


NORMALS = [good(seed) for seed in range(6)]


def test_a_right_mask_agrees_and_a_wrong_one_does_not() -> None:
    rgb, mask = defective()
    [change] = change_maps([rgb], NORMALS)
    assert agreement(change, mask) > 0.98
    assert agreement(change, ~mask) < 0.02
    elsewhere = np.roll(mask, 24, axis=1)
    assert agreement(change, elsewhere) < 0.6


def test_a_mask_of_random_pixels_scores_a_half() -> None:
    [change] = change_maps([defective()[0]], NORMALS)
    generator = np.random.default_rng(0)
    scores = [agreement(change, generator.random((64, 64)) < 0.1) for _ in range(20)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("full", [False, True])
def test_an_empty_or_full_mask_says_nothing(full: bool) -> None:
    [change] = change_maps([defective()[0]], NORMALS)
    mask = np.full((64, 64), full)
    assert agreement(change, mask) == 0.5
    assert contrast(change, mask) == 0


def test_agreement_is_the_chance_that_an_inner_pixel_changed_more_than_an_outer_one() -> None:
    generator = np.random.default_rng(1)
    change, mask = generator.integers(0, 5, (8, 8)).astype(float), generator.random((8, 8)) < 0.3
    inner, outer = change[mask][:, None], change[~mask][None]
    expected = (inner > outer).mean() + 0.5 * (inner == outer).mean()  # ties count half
    assert agreement(change, mask) == pytest.approx(expected)


def test_a_good_part_has_no_contrast_wherever_one_looks() -> None:
    whole, broken = change_maps([good(50), defective()[0]], NORMALS)
    assert contrast(whole, defective()[1]) < 3
    assert contrast(broken, defective()[1]) > 20


def test_a_mask_on_the_part_is_no_better_than_one_beside_it_when_nothing_is_wrong() -> None:
    """A part varies more than its ground, which alone says nothing."""
    pictures, mask = [good(seed) for seed in range(50, 58)], np.zeros((64, 64), bool)
    mask[20:44, 20:44] = True
    assert np.median([agreement(change, mask) for change in change_maps(pictures, NORMALS)]) == pytest.approx(
        0.5, abs=0.1
    )
    assert np.median([agreement(distance_map(rgb, NORMALS), mask) for rgb in pictures]) > 0.65


def test_change_is_measured_against_the_nearest_good_picture_around() -> None:
    """A part that lies where no good one lay, but as near as parts do, has not changed."""
    moved = np.roll(NORMALS[0], 1, axis=1)
    assert np.median(distance_map(moved, NORMALS)) < 2
    assert distance_map(NORMALS[0], NORMALS).max() == 0


def test_real_shots_of_the_demo_agree_with_their_masks_and_not_with_each_others(tmp_path: Path) -> None:
    write_product(tmp_path, demo_products()["cap"], normals=12, defects={"stain": 6}, size=128, seed=0)
    normals = [read_rgb(path) for path in sorted((tmp_path / "train" / "good").glob("*.png"))]
    shots = find_shots(tmp_path, defect="stain", rule="all", resolution=128)
    changes = change_maps([shot.image for shot in shots], normals)
    own = [agreement(change, shot.mask) for change, shot in zip(changes, shots, strict=True)]
    swapped = [
        agreement(change, other.mask)
        for i, change in enumerate(changes)
        for j, other in enumerate(shots)
        if i != j and not (other.mask & shots[i].mask).any()
    ]
    assert np.median(own) > 0.9
    assert len(swapped) >= 5
    assert 0.4 < np.median(swapped) < 0.6
