"""Masks by U^2-Net; what needs its real weights skips where they are absent."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dualanodiff.data.shots import find_shots, part_target
from dualanodiff.errors import ModelError
from dualanodiff.images import read_rgb
from dualanodiff.masks.key import overlap
from dualanodiff.masks.saliency import U2Net, object_mask, saliency_mask, window_around
from masks.drawings import KEY, SHAPE, disc, draw_part
from masks.onnx_files import write_onnx

EMPTY = np.zeros(SHAPE, bool)


@pytest.fixture(scope="module")
def weights(shared: Path) -> U2Net:
    path = shared / "weights" / "u2netp.onnx"
    if not path.is_file():
        pytest.skip(f"needs the U^2-Net weights {path}, which are absent")
    return U2Net(path)


class Stretching:
    """A model that sees something wherever it looks, as a stretched map does."""

    seen: tuple[int, ...] = ()

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self.seen = rgb.shape
        return np.ones(rgb.shape[:2], np.float32)


class Greenless(Stretching):
    """A model that sees all that is not green."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        super().__call__(rgb)
        return np.where(rgb[..., 1] > 150, 0.1, 0.9).astype(np.float32)


def test_an_empty_part_is_empty_before_it_is_segmented():
    model = Stretching()
    for ground in ({}, {"drift": -30}, {"noise": 5}, {"shade": 0.08}):
        result = saliency_mask(draw_part(EMPTY, **ground), model, KEY)
        assert (result.empty, result.source) == (True, "u2net")
    assert model.seen == ()


def test_a_small_part_is_shown_enlarged_and_put_back_in_place():
    mask, model = disc(50, 80, 3), Greenless()
    result = saliency_mask(draw_part(mask), model, KEY)
    assert np.array_equal(result.mask, mask)
    assert model.seen == (35, 35, 3)
    assert result.score == pytest.approx(0.9)


@pytest.mark.parametrize("mask", [disc(32, 48, 30), ~EMPTY], ids=["large", "full"])
def test_a_large_part_is_shown_as_it_is(mask):
    model = Greenless()
    assert np.array_equal(saliency_mask(draw_part(mask), model, KEY).mask, mask)
    assert model.seen == (*SHAPE, 3)


def test_a_threshold_above_all_that_is_seen_finds_nothing():
    result = saliency_mask(draw_part(disc(32, 48, 20)), Greenless(), KEY, 0.95)
    assert result.empty
    assert result.threshold == 0.95


def test_the_window_stays_within_the_picture():
    corner = np.zeros((40, 200), bool)
    corner[0, 0] = corner[9, 9] = True
    assert window_around(corner) == (slice(0, 40), slice(0, 50))


def test_a_model_sees_the_picture_and_not_the_range_of_its_values(tmp_path):
    model = U2Net(write_onnx(tmp_path / "max.onnx", (1, 3, 320, 320)))
    dark, light = np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 255, np.uint8)
    assert model(dark).shape == (20, 30)
    assert model(dark).max() == 0
    assert model(light).min() == 1
    light[:, :15] = 0
    assert model(light)[:, :10].max() == 0
    assert model(light)[:, 20:].min() == 1
    light[:, 15:] = 128  # half of the brightest, in the channel with the lowest mean
    light[:, :15] = 255
    assert model(light)[:, 20:] == pytest.approx((128 / 255 - 0.406) / 0.225, abs=0.01)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"none\.onnx: no such U\^2-Net file; give the path of u2net.onnx or u2netp.onnx"
    ):
        U2Net(tmp_path / "none.onnx")


def test_a_file_that_is_no_onnx_is_named(tmp_path):
    path = tmp_path / "u2net.pth"
    path.write_bytes(b"PK\3\4 not a model")
    with pytest.raises(ModelError, match=r"u2net\.pth: not a readable onnx model \(.+\); give u2net.onnx") as caught:
        U2Net(path)
    assert "\n" not in str(caught.value)


def test_another_model_is_named(tmp_path):
    path = write_onnx(tmp_path / "grey.onnx", (1, 1, 28, 28))
    with pytest.raises(
        ModelError, match=r"grey\.onnx: takes \[1, 1, 28, 28\] and not \(1, 3, 320, 320\), so it is no U"
    ):
        U2Net(path)


def test_missing_onnxruntime_is_said_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = write_onnx(tmp_path / "max.onnx", (1, 3, 320, 320))
    with pytest.raises(ModelError, match=r"max\.onnx: needs onnxruntime.*`pip install onnxruntime`"):
        U2Net(path)


@pytest.mark.parametrize("color", [(40, 60, 90), (150, 120, 100)])
def test_an_object_on_a_plain_ground_is_found_without_a_model(color):
    mask = disc(32, 48, 20)
    found, source = object_mask(draw_part(mask, (235, 235, 230), color, noise=3), None)
    assert source == "threshold"
    assert overlap(found, mask) > 0.98


def test_a_hole_in_the_object_is_object():
    picture = draw_part(disc(32, 48, 25) & ~disc(32, 48, 10), (240, 240, 240))
    assert np.array_equal(object_mask(picture, None)[0], disc(32, 48, 25))


@pytest.mark.parametrize(
    "picture",
    [
        draw_part(EMPTY, (128, 128, 128)),
        draw_part(EMPTY, (128, 128, 128), noise=20),
        draw_part(EMPTY, (128, 128, 128), shade=0.5),
        draw_part((np.indices(SHAPE) // 8).sum(axis=0) % 2 == 1),
        draw_part(sum(disc(16 + row, 16 + column, 8) for row in (0, 30) for column in (0, 30, 60)) > 0),
        (200 - 3 * np.hypot(*(np.indices((64, 64)) - 32))).clip(80).astype(np.uint8)[..., None].repeat(3, axis=2),
    ],
    ids=["flat", "noise", "shade", "pattern", "dots", "vignette"],
)
def test_a_texture_has_no_background(picture):
    found, source = object_mask(picture, None)
    assert found.all()
    assert source == "threshold: no object found, whole picture"


def test_a_model_that_sees_nothing_or_everything_finds_no_object():
    found, source = object_mask(draw_part(EMPTY), Stretching())
    assert found.all()
    assert source == "u2net: no object found, whole picture"
    assert object_mask(draw_part(disc(30, 30, 20)), Greenless())[1] == "u2net"


def test_u2net_finds_real_defects_in_their_parts(shared, weights):
    for shot in find_shots(shared / "data" / "mvtec_bottle", defect="broken_large", rule="2", resolution=256):
        found = saliency_mask(part_target(shot.image, shot.mask, KEY), weights, KEY)
        assert overlap(found.mask, shot.mask) > 0.9


def test_u2net_leaves_an_empty_part_near_zero(weights):
    assert weights(draw_part(EMPTY)).max() < 0.5
    assert saliency_mask(draw_part(EMPTY), weights, KEY).empty


def test_object_masks_of_real_pictures_agree_and_a_real_texture_has_none(shared, weights):
    bottle = read_rgb(min((shared / "data" / "mvtec_bottle" / "train" / "good").iterdir()), size=256)
    by_model, source = object_mask(bottle, weights)
    assert source == "u2net"
    assert overlap(by_model, object_mask(bottle, None)[0]) > 0.93
    tile = read_rgb(min((shared / "data" / "magnetic_tile" / "train" / "good").iterdir()), size=256)
    assert object_mask(tile, weights)[1].endswith("no object found, whole picture")
    assert object_mask(tile, None)[1].endswith("no object found, whole picture")
