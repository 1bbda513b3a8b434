"""Procedural defects on real good pictures."""

import numpy as np
import pytest

from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.pretrain.spoil import draw_spoiled_pair, spoil
from dualanodiff.seeds import numpy_stream


def texture(grey: bool = False) -> np.ndarray:
    rgb = np.random.default_rng(0).integers(120, 170, (96, 96, 3), np.uint8)
    return np.repeat(rgb[..., :1], 3, axis=-1) if grey else rgb


def plate() -> np.ndarray:
    """A blue square on white."""
    rgb = np.full((96, 96, 3), 245, np.uint8)
    rgb[20:76, 24:72] = (40, 70, 160)
    return rgb


def test_outside_the_mask_the_good_picture_stays_and_inside_it_changes():
    for seed in range(5):
        made = spoil(numpy_stream(seed, "spoil"), texture())
        assert made is not None
        image, mask, _ = made
        change = np.abs(image.astype(int) - texture())
        assert change[mask].mean() > 15
        assert change[~mask].max() <= 10


def test_a_defect_lies_on_the_object_unless_its_edge_is_chipped():
    inside = np.zeros((96, 96), bool)
    inside[20:76, 24:72] = True
    for seed in range(8):
        made = spoil(numpy_stream(seed, "spoil"), plate())
        assert made is not None
        _, mask, name = made
        if name != "chipped edge":
            assert (mask & inside).sum() >= 0.95 * mask.sum(), name


def test_a_grey_picture_stays_grey():
    for seed in range(5):
        made = spoil(numpy_stream(seed, "spoil"), texture(grey=True))
        assert made is not None
        assert np.ptp(made[0].astype(int), axis=-1).max() <= 1


def test_the_part_is_the_picture_inside_the_mask_and_one_key_colour_outside():
    pair = draw_spoiled_pair(numpy_stream(3, "spoil"), texture())
    made = spoil(numpy_stream(3, "spoil"), texture())
    assert pair is not None
    assert made is not None
    image, mask, _ = made
    assert np.array_equal(pair[0], image)
    assert np.array_equal(pair[1][mask], image[mask])
    [ground] = np.unique(pair[1][~mask], axis=0)
    assert tuple(ground) in KEY_COLORS.values()


def test_the_same_stream_draws_the_same_defect():
    first, second = (spoil(numpy_stream(1, "spoil"), plate()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first[0], second[0])


def test_a_picture_on_which_nothing_shows_gives_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dualanodiff.pretrain.spoil.photograph", lambda *_, **__: None)
    assert spoil(numpy_stream(0, "spoil"), plate()) is None
    assert draw_spoiled_pair(numpy_stream(0, "spoil"), plate()) is None
