"""What is put into a good picture, and that nothing else is."""

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.onto.compose import Palette, change_inside, compose
from dualanodiff.onto.window import Window

SIDE = 32
KEY = (0, 255, 0)
GREYS = Palette.of(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1))


def good(height: int = 150, width: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 140, (height, width, 1), np.uint8).repeat(3, axis=2)


def drawn(change: float = -60.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Picture with and without a dark disc, its part, and its mask; what is outside the disc differs a little, too."""
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = (y - 14) ** 2 + (x - 18) ** 2 < 36
    plain = np.full((SIDE, SIDE, 3), 120, np.float32)
    defective = plain + np.where(mask, change, 9)[..., None].astype(np.float32)
    part = np.where(mask[..., None], defective, np.array((20, 235, 20), np.float32)).astype(np.float32)
    return defective, plain, part, mask


WINDOWS = {
    "whole": Window(0, 0, 200, 150, SIDE),
    "crop": Window(31, 17, 80, 60, SIDE),
    "small crop": Window(150, 100, 20, 15, SIDE),
    "corner": Window(120, 90, 80, 60, SIDE),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("collar", [0, 2, 3.5])
def test_every_pixel_outside_mask_and_collar_is_the_good_pictures_own(name, collar):
    picture, window = good(), WINDOWS[name]
    defective, plain, part, mask = drawn()
    made = compose(picture, window, defective, plain, part, mask, KEY, collar=collar, palette=GREYS)
    assert made.image.shape == picture.shape
    assert made.mask.shape == picture.shape[:2]
    away = ndimage.distance_transform_edt(~made.mask)
    outside = away > made.collar
    assert made.collar == (max(1, round(collar * window.scale)) if collar else 0)
    assert np.array_equal(made.image[outside], picture[outside])
    assert (made.part[outside] == KEY).all()
    changed = (made.image != picture).any(axis=-1)
    assert changed[made.mask].mean() > 0.9
    if collar:
        assert changed[~made.mask].any(), "the seam blends"


def test_without_a_mask_the_result_is_the_good_picture():
    defective, plain, part, mask = drawn()
    made = compose(good(), WINDOWS["crop"], defective, plain, part, mask & False, KEY, collar=2, palette=GREYS)
    assert np.array_equal(made.image, good())
    assert (made.part == KEY).all()
    assert made.contrast == 0


def test_what_the_autoencoder_loses_is_not_lost_here():
    """Where the picture with the defect equals the one without, nothing changes, however blurred both are."""
    _, plain, part, mask = drawn()
    made = compose(good(), WINDOWS["whole"], plain, plain, part, mask, KEY, collar=2, palette=GREYS)
    assert np.array_equal(made.image, good())


def test_a_strong_change_replaces_the_good_pictures_detail_and_a_weak_one_keeps_it():
    for change, low, high in ((-5.0, 0.95, 1.05), (-100.0, 0.3, 0.7)):
        defective, plain, part, mask = drawn(change)
        made = compose(good(), WINDOWS["whole"], defective, plain, part, mask, KEY, collar=2, palette=GREYS)
        inside = ndimage.binary_erosion(made.mask, iterations=8)
        assert low <= made.image[inside].std() / good()[inside].std() <= high


def test_the_seam_falls_from_the_mask_outwards():
    flat = np.full((150, 200, 3), 120, np.uint8)
    defective, plain, part, mask = drawn()
    defective = np.minimum(defective, 60)  # the change goes on outside the mask
    made = compose(flat, WINDOWS["whole"], defective, plain, part, mask, KEY, collar=3, palette=GREYS)
    away = np.round(ndimage.distance_transform_edt(~made.mask)).astype(int)
    steps = [float((120 - made.image[away == distance].astype(float)).mean()) for distance in range(made.collar + 2)]
    assert steps[0] == pytest.approx(60, abs=2)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0


def test_a_defect_on_the_object_ends_where_the_object_does():
    picture, window = good(), WINDOWS["whole"]
    defective, plain, part, mask = drawn()
    object_ = np.zeros(picture.shape[:2], bool)
    object_[:, :110] = True
    made = compose(picture, window, defective, plain, part, mask, KEY, collar=3, palette=GREYS, within=object_)
    assert np.array_equal(made.image[~object_], picture[~object_])
    assert not (made.mask & ~object_).any()
    assert (made.drawn & ~object_).any()
    assert (made.image[made.mask] != picture[made.mask]).any(axis=-1).mean() > 0.9


def test_a_grey_cameras_picture_stays_grey():
    defective, plain, part, mask = drawn()
    tinted = defective + np.array((6, 0, -6), np.float32)
    palette = Palette.of(np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8))
    made = compose(good(), WINDOWS["whole"], tinted, plain, part, mask, KEY, collar=2, palette=palette)
    assert (made.image == made.image[..., :1]).all()
    colored = good().copy()
    colored[0, 0] = (90, 100, 110)
    made = compose(colored, WINDOWS["whole"], tinted, plain, part, mask, KEY, collar=2, palette=palette)
    assert not (made.image[made.mask] == made.image[made.mask][..., :1]).all()


def test_gain_makes_it_stronger_and_the_contrast_says_so():
    defective, plain, part, mask = drawn(-20)
    weak, strong = (
        compose(good(), WINDOWS["whole"], defective, plain, part, mask, KEY, collar=2, palette=GREYS, gain=gain)
        for gain in (1.0, 2.0)
    )
    assert strong.contrast == pytest.approx(2 * weak.contrast, rel=0.25)
    assert weak.contrast == change_inside(good(), weak.image, weak.mask)


def test_the_key_colour_does_not_come_along():
    defective, plain, part, mask = drawn()
    spilled = defective + np.where(mask, 1, 0)[..., None] * np.array((-30, 60, -30), np.float32)
    made = compose(good(), WINDOWS["whole"], spilled, plain, part, mask, KEY, collar=2, palette=GREYS)
    red, green, blue = (made.image[made.mask][:, band].astype(int) for band in range(3))
    assert np.abs(green - red).max() <= 16
    assert np.abs(green - blue).max() <= 16


def test_colours_of_real_defects_are_left_as_they_are():
    colors = np.array([[200, 40, 30], [190, 50, 40], [180, 45, 35], [195, 42, 33]], np.uint8)
    palette = Palette.of(colors)
    own = np.full((4, 3), 120, np.float32)
    kept = palette.limit(colors.astype(np.float32) + 3, own)
    assert np.abs(kept - colors - 3).max() < 0.1
    moved = palette.limit(np.array([[0, 255, 0]], np.float32), own[:1])
    assert np.abs(moved - (0, 255, 0)).max() > 50
    with_an_odd_one = Palette.of(np.concatenate([colors.repeat(20, axis=0), [[0, 255, 0]]]).astype(np.uint8))
    assert np.abs(with_an_odd_one.limit(np.array([[0, 255, 0]], np.float32), own[:1]) - (0, 255, 0)).max() > 50


def test_a_tone_darkens_what_lies_inside_the_mask_and_nothing_outside():
    defective, plain, part, mask = drawn()
    usual, dark = (
        compose(good(), WINDOWS["crop"], defective, plain, part, mask, KEY, collar=2, palette=GREYS, tone=tone)
        for tone in (1.0, 0.5)
    )
    core = ndimage.binary_erosion(usual.mask, iterations=6)
    assert dark.image[core].mean() == pytest.approx(0.5 * usual.image[core].mean(), rel=0.03)
    assert np.array_equal(dark.mask, usual.mask)
    outside = ndimage.distance_transform_edt(~usual.mask) > usual.collar
    assert np.array_equal(dark.image[outside], usual.image[outside])
