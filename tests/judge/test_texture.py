"""Sharpness is told from content: by the same places of good pictures, and by how strength falls from scale to scale."""

import numpy as np
from scipy import ndimage

from dualanodiff.judge.texture import Texture

SIDE = 96
ALL = np.ones((SIDE, SIDE), bool)


def board(seed: int) -> np.ndarray:
    """A picture with few or many sharp bars: its strength says little, its sharpness is always the same."""
    stream = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), 200.0)
    for _ in range(int(stream.integers(6, 30))):
        top, left = stream.integers(0, SIDE - 8, 2)
        picture[top : top + 6, left : left + int(stream.integers(8, 40))] = 60
    return np.clip(picture + stream.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def blurred(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(rgb, (sigma, sigma, 0))


def test_blur_is_seen_where_pictures_show_very_different_amounts():
    texture = Texture([board(seed) for seed in range(30)])
    sharp = [texture.distance(board(seed), ALL) for seed in range(100, 110)]
    soft = [texture.distance(blurred(board(seed), 1.2), ALL) for seed in range(100, 110)]
    assert 1.5 * max(sharp) < min(soft)


def test_a_plain_place_is_compared_with_the_same_place_of_good_pictures():
    goods = [board(seed) for seed in range(30)]
    for rgb in goods:
        rgb[:32] = 128
    plain = np.zeros((SIDE, SIDE), bool)
    plain[:12] = True
    texture = Texture(goods)
    picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
    assert texture.distance(picture, plain) < 1
    assert texture.distance(picture, ALL) > 4


def test_noise_is_as_unlike_as_blur():
    texture = Texture([board(seed) for seed in range(30)])
    noisy = np.clip(board(100) + np.random.default_rng(0).normal(0, 40, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    assert texture.distance(noisy, ALL) > 4
