"""How true the ground's colour is."""

import numpy as np
import pytest

from dualanodiff.bench.colour import common_ground, ground_faults


def plate(ground: int = 240, noise: float = 2, seed: int = 0) -> np.ndarray:
    """A dark square on a plain ground."""
    rgb = np.full((64, 64, 3), ground, float)
    rgb[16:48, 16:48] = (40, 60, 150)
    return np.clip(rgb + np.random.default_rng(seed).normal(0, noise, rgb.shape), 0, 255).astype(np.uint8)


NORMALS = [plate(seed=seed) for seed in range(4)]
EMPTY = np.zeros((64, 64), bool)


def test_the_ground_is_what_no_good_picture_covers():
    ground = common_ground([*NORMALS, np.roll(NORMALS[0], 6, axis=1)])
    assert ground[4, 4]
    assert not ground[16:48, 16:54].any()


def test_a_texture_is_ground_all_over():
    textures = [np.random.default_rng(seed).integers(90, 120, (64, 64, 3), np.uint8) for seed in range(3)]
    assert common_ground(textures).all()


def test_a_good_picture_has_no_fault():
    found = ground_faults([plate(seed=9)], [EMPTY], NORMALS)
    assert found["ground_offset"] == pytest.approx(0, abs=0.2)
    assert found["ground_spread"] == pytest.approx(0, abs=0.2)


def test_a_tinted_ground_is_off_and_a_blotched_one_is_spread():
    tinted, blotched = plate(), plate(noise=20, seed=3)
    tinted[..., 0] = tinted[..., 0] * 0.8
    assert ground_faults([tinted], [EMPTY], NORMALS)["ground_offset"] > 10
    assert ground_faults([blotched], [EMPTY], NORMALS)["ground_spread"] > 3


def test_what_lies_at_the_defect_does_not_count():
    marked, mask = plate(), EMPTY.copy()
    mask[:12, :12] = True
    marked[mask] = (250, 0, 0)
    assert ground_faults([marked], [mask], NORMALS)["ground_offset"] < 0.5
    assert ground_faults([marked], [EMPTY], NORMALS)["ground_spread"] > 1


def test_a_mask_over_all_of_the_ground_leaves_nothing_to_judge():
    found = ground_faults([plate()], [~EMPTY], NORMALS)
    assert found == {"ground_offset": None, "ground_spread": None}
