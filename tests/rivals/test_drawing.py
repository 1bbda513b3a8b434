"""What each rival draws."""

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.data.shots import Shot
from dualanodiff.images import write_png
from dualanodiff.rivals.crop_paste import draw_crop_paste
from dualanodiff.rivals.cutpaste import draw_patch, draw_scar
from dualanodiff.rivals.diffaug import draw_diffaug
from dualanodiff.rivals.draem import augmented, blended, draw_draem, perlin, perlin_mask
from dualanodiff.rivals.materials import Materials
from dualanodiff.rivals.pieces import Piece, cut_piece, find_place, fit_piece, lay_piece, turn_piece
from dualanodiff.rivals.prn import draw_extended, draw_simulated, shuffled
from dualanodiff.seeds import numpy_stream

SIDE = 64
RED = (200, 30, 30)


def stream(number=0):
    return numpy_stream(0, "test", number)


@pytest.fixture
def materials(tmp_path):
    """A blue disc on white, good and with a red bar."""
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = (y - 32) ** 2 + (x - 32) ** 2 < 24**2
    good = np.full((SIDE, SIDE, 3), 250, np.uint8)
    good[disc] = (40, 60, 160)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[28:34, 20:44] = True
    bad = good.copy()
    bad[mask] = RED
    write_png(tmp_path / "good.png", good)
    return Materials([Shot(bad, mask, "bar")], [tmp_path / "good.png"], SIDE)


def good_of(materials):
    return materials.good(stream())[0]


def test_the_object_of_a_good_picture_is_found(materials):
    body = good_of(materials).body
    assert body[32, 32]
    assert not body[2, 2]


@pytest.mark.parametrize("draw", [draw_crop_paste, draw_patch, draw_scar, draw_draem, draw_simulated])
def test_nothing_changes_outside_the_mask(draw, materials):
    good = good_of(materials).image.astype(int)
    for number in range(6):
        drawn = draw(materials, stream(number))
        near = ndimage.binary_dilation(drawn.mask, iterations=3)  # a turned piece has a soft edge
        assert (drawn.image[~near] == good[~near]).all()


def test_a_pasted_defect_is_the_shots_and_lies_on_the_object(materials):
    body = good_of(materials).body
    for number in range(6):
        drawn = draw_crop_paste(materials, stream(number))
        assert not (drawn.mask & ~body).any()
        red, green, _ = np.median(drawn.image[drawn.mask], axis=0)
        assert red > 150
        assert green < 60
        assert drawn.facts == {"shot": "bar", "good": "good.png"}


def test_an_extended_anomaly_is_on_the_object_and_varies_in_strength(materials):
    good = good_of(materials)
    strengths = []
    for number in range(12):
        drawn = draw_extended(materials, stream(number))
        assert not (drawn.mask & ~good.body).any()
        strengths.append(np.abs(drawn.image.astype(int) - good.image)[drawn.mask].mean())
    assert max(strengths) > 2 * min(strengths)


def test_a_patch_has_the_published_size(materials):
    for number in range(20):
        mask = draw_patch(materials, stream(number)).mask
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns
        assert 0.015 < mask.mean() < 0.17
        assert max(rows / columns, columns / rows) < 3.9


def test_a_scar_is_thin_and_small(materials):
    areas = [draw_scar(materials, stream(number)).mask.mean() for number in range(20)]
    assert 0 < min(areas) < max(areas) < 16 * 25 / 256**2 * 2.5


def test_a_simulated_anomaly_stays_on_the_object(materials):
    body = good_of(materials).body
    masks = [draw_simulated(materials, stream(number)).mask for number in range(8)]
    assert not any((mask & ~body).any() for mask in masks)
    assert all(mask.any() for mask in masks)


def test_augmented_shots_keep_half_of_the_defect_and_its_mask(materials):
    [shot] = materials.shots
    for number in range(12):
        drawn = draw_diffaug(materials, stream(number))
        assert 2 * drawn.mask.sum() >= 0.5 * shot.mask.sum()
        grey = (drawn.image == 128).all(-1)
        assert grey.sum() >= 16 * 16
        colors = drawn.image[drawn.mask].astype(int)
        assert (colors[:, 0] > colors[:, 2]).mean() > 0.9  # what is marked is what was red


def test_perlin_noise_is_smooth_zero_on_its_lattice_and_as_coarse_as_asked():
    field = perlin(64, 4, 8, stream())
    assert np.abs(field[::16, ::8]).max() < 1e-9
    assert 0.15 < field.std() < 0.7
    steps = [np.abs(np.diff(perlin(64, cells, cells, stream()), axis=1)).mean() for cells in (2, 16)]
    assert steps[0] < steps[1] / 3


def test_a_perlin_mask_is_never_empty():
    assert min(perlin_mask(32, stream(number)).sum() for number in range(30)) >= 4


def test_blending_weighs_by_opacity():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 200, np.uint8)
    mask = np.array([[True, False], [False, False]])
    assert blended(black, white, mask, 0.25)[..., 0].tolist() == [[50, 0], [0, 0]]


def test_every_augmentation_can_be_drawn():
    rgb = stream().integers(0, 256, (16, 16, 3), np.uint8)
    forms = [augmented(rgb, stream(number)) for number in range(40)]
    assert all(form.shape == rgb.shape and form.dtype == np.uint8 for form in forms)
    assert sum((form != rgb).any() for form in forms) == 40


def test_tiles_are_shuffled_and_none_is_lost():
    rgb = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2)
    mixed = shuffled(rgb, stream(), tiles=4)
    assert (mixed != rgb).any()
    assert sorted(mixed[..., 0].ravel()) == list(range(16))


def test_a_hair_survives_being_turned_and_shrunk():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10, 5:40] = True
    piece = cut_piece(np.zeros((SIDE, SIDE, 3), np.uint8), mask)
    for angle in (0, 30, 45, 77):
        assert (turn_piece(piece, angle=angle, scale=0.5).cover > 0.5).any()


def test_a_piece_larger_than_the_picture_is_made_to_fit():
    piece = Piece(np.zeros((100, 20, 3), np.float32), np.ones((100, 20), np.float32))
    assert max(fit_piece(piece, 64).cover.shape) <= 64


def test_a_place_is_on_the_object_where_there_is_room():
    body = np.zeros((SIDE, SIDE), bool)
    body[20:44, 20:44] = True
    piece = Piece(np.zeros((8, 8, 3), np.float32), np.ones((8, 8), np.float32))
    shares = []
    for number in range(10):
        top, left = find_place(piece, body, stream(number))
        shares.append(body[top : top + 8, left : left + 8].mean())
    assert min(shares) >= 0.5
    assert np.mean(shares) > 0.85


def test_what_overhangs_the_object_is_cut_off_but_never_everything():
    image, body = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), bool)
    body[:, :8] = True
    piece = Piece(np.full((4, 4, 3), 255, np.float32), np.ones((4, 4), np.float32))
    assert lay_piece(image, piece, (0, 6), within=body)[1].sum() == 8
    assert lay_piece(image, piece, (0, 10), within=body)[1].sum() == 16
