"""What the model sees of a picture."""

import numpy as np
import pytest

from dualanodiff.onto.window import Window


@pytest.mark.parametrize("center", [(0, 0), (50, 100), (99, 199), (10, 190)])
@pytest.mark.parametrize("zoom", [0.001, 0.25, 0.5, 1])
def test_a_window_lies_in_the_picture_and_has_its_proportions(center, zoom):
    window = Window.around((100, 200), center, zoom, 64)
    assert (window.width, window.height) == (max(1, round(200 * zoom)), max(1, round(100 * zoom)))
    rows, columns = window.place
    assert 0 <= rows.start < rows.stop <= 100
    assert 0 <= columns.start < columns.stop <= 200
    if zoom == 0.25 and center == (50, 100):
        assert window.box == [75, 38, 50, 25]


def test_what_is_seen_comes_back_to_its_place():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 80:120] = True
    window = Window.around(mask.shape, (50, 100), 0.5, 64)
    seen = window.see_mask(mask)
    back = window.bring_back_mask(seen)
    there = mask[window.place]
    assert (back & there).sum() / (back | there).sum() > 0.95
    rgb = np.where(mask[..., None], np.uint8(200), np.uint8(40)).repeat(3, axis=2)
    values = window.bring_back(window.see(rgb).astype(np.float32))
    assert np.abs(values - rgb[window.place]).mean() < 4


def test_a_single_pixel_survives_a_window_smaller_than_the_models_picture():
    mask = np.zeros((64, 64), bool)
    mask[30, 30] = True
    assert Window(10, 10, 16, 16, 64).bring_back_mask(mask).sum() == 1


def test_the_scale_is_picture_pixels_to_one_of_the_models():
    assert Window(0, 0, 256, 128, 64).scale == 4
