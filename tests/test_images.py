import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dualanodiff.errors import PictureError
from dualanodiff.images import (
    load_mask,
    notes,
    read_mask,
    read_rgb,
    resize_mask,
    resize_rgb,
    to_pil,
    to_rgb,
    to_tensor,
    write_png,
)

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def save(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def test_a_plain_rgb_file_is_read_as_it_is_and_says_nothing(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = save(tmp_path / "a.PNG", rgb)
    assert np.array_equal(read_rgb(path), rgb)
    assert notes(path) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"])
def test_every_mode_becomes_rgb_and_is_said(tmp_path: Path, mode: str) -> None:
    suffix = ".jpg" if mode == "YCbCr" else ".tif" if mode in ("La", "CMYK", "LAB", "I", "F") else ".png"
    if mode == "PA":
        image = Image.fromarray(RAMP).convert("P")
        path = save(tmp_path / f"a{suffix}", image, transparency=0)
    elif mode == "I;16":
        path = save(tmp_path / f"a{suffix}", RAMP.astype(np.uint16) * 257)
    elif mode == "YCbCr":
        path = save(tmp_path / f"a{suffix}", Image.fromarray(RAMP).convert("CMYK"))
    elif mode == "La":
        path = save(tmp_path / f"a{suffix}", Image.fromarray(RAMP).convert("LA"))
        # Pillow reads premultiplied alpha but writes none: tag 338 (extra samples) says which it is.
        tag = b"\x52\x01\x03\x00\x01\x00\x00\x00"
        path.write_bytes(path.read_bytes().replace(tag + b"\x02", tag + b"\x01"))
        with Image.open(path) as file:
            assert file.mode == "La"
    else:
        path = save(tmp_path / f"a{suffix}", Image.fromarray(RAMP).convert(mode))
    rgb = read_rgb(path)
    assert rgb.shape == (3, 4, 3)
    assert rgb.dtype == np.uint8
    assert notes(path)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".TIFF", 0), (".jpg", 30), (".webp", 30)])
def test_every_suffix_is_read(tmp_path: Path, suffix: str, tolerance: int) -> None:
    rgb = np.repeat(RAMP.repeat(8, 0).repeat(8, 1)[..., None], 3, axis=2)
    found = read_rgb(save(tmp_path / f"a{suffix}", rgb)).astype(int)
    assert np.abs(found - rgb).max() <= tolerance


def test_16_bits_are_scaled_by_their_range_and_not_by_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 257, 25700, 65535]], np.uint16))
    assert read_rgb(path)[0, :, 0].tolist() == [0, 1, 100, 255]
    assert notes(path) == ["16-bit scaled to 8", "grey made RGB"]
    dark = save(tmp_path / "dark.png", np.array([[0, 4095]], np.uint16))
    assert read_rgb(dark)[0, :, 0].tolist() == [0, 16]
    assert "highest value is 4095 of 65535" in notes(dark)[0]


def test_16_bit_colour_is_said(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = struct.pack(">B3H", 0, 0x8000, 0xFFFF, 0)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )
    assert read_rgb(path).tolist() == [[[128, 255, 0]]]
    assert notes(path) == ["16-bit scaled to 8"]


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255], "floats in 0..1 scaled to 8 bits"),
        (np.array([[0, 7, 255]], np.float32), [0, 7, 255], "32-bit values in 0..255 taken as 8 bits"),
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255], "32-bit values in 0..255 taken as 8 bits"),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255], "16-bit scaled to 8"),
    ],
)
def test_32_bit_tiffs_are_scaled_by_what_they_hold(
    tmp_path: Path, values: np.ndarray, expected: list[int], said: str
) -> None:
    path = save(tmp_path / "a.tif", values)
    assert read_rgb(path)[0, :, 0].tolist() == expected
    assert notes(path)[0] == said


@pytest.mark.parametrize("bad", [-1.0, 70000.0, float("nan"), float("inf")])
def test_greys_outside_any_known_range_are_refused(tmp_path: Path, bad: float) -> None:
    path = save(tmp_path / "a.tif", np.array([[0, bad]], np.float32))
    with pytest.raises(PictureError, match=r"a\.tif: grey values outside 0\.\.65535"):
        read_rgb(path)


def test_alpha_is_composed_on_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8))
    assert read_rgb(path).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert notes(path) == ["alpha composed on white"]
    opaque = save(tmp_path / "b.png", np.full((1, 1, 4), 255, np.uint8))
    assert notes(opaque) == ["opaque alpha dropped"]


def test_an_exif_turn_is_applied_to_pictures_and_masks_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8), exif=exif)
    assert read_rgb(path)[..., 0].tolist() == [[0], [255]]
    assert read_mask(path).tolist() == [[False], [True]]
    assert "EXIF turn applied" in notes(path)


def test_only_the_first_frame_is_used_and_that_is_said(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.tif", Image.new("RGB", (2, 2), "red"), save_all=True, append_images=[Image.new("RGB", (2, 2))]
    )
    assert read_rgb(path)[0, 0].tolist() == [255, 0, 0]
    assert notes(path) == ["first of 2 frames used"]


def test_reading_a_large_but_honest_picture_warns_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", np.zeros((12, 12), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_rgb(path).shape == (12, 12, 3)
    assert caught == []


def test_size_is_height_then_width_and_one_number_is_a_square(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((10, 20), 255, np.uint8))
    assert read_rgb(path, size=(4, 6)).shape == (4, 6, 3)
    assert read_rgb(path, size=5).shape == (5, 5, 3)
    assert read_mask(path, size=(4, 6)).shape == (4, 6)
    assert read_mask(path, size=5).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 255, 0]], np.uint8),
        np.array([[0, 1, 0]], np.uint8),
        np.array([[0, 128, 0]], np.uint8),
        np.array([[0, 65535, 0]], np.uint16),
        np.array([[0, 1, 0]], np.uint16),
        np.array([[False, True, False]]),
        np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 0]]], np.uint8),
        np.array([[[255, 255, 255, 0], [255, 255, 255, 255], [255, 255, 255, 0]]], np.uint8),
        np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8),
        np.array([[[0, 0, 0, 255], [255, 255, 255, 255], [0, 0, 0, 255]]], np.uint8),
        np.array([[[0, 9, 0, 0], [255, 255, 255, 255], [5, 5, 5, 0]]], np.uint8),
        np.array([[[200, 200, 200, 0], [255, 255, 255, 255], [0, 0, 0, 0]]], np.uint8),
    ],
    ids=[
        "0/255",
        "0/1",
        "0/128",
        "16 bits",
        "16 bits 0/1",
        "bits",
        "red",
        "alpha",
        "black alpha",
        "opaque",
        "hidden colour",
        "hidden grey",
    ],
)
def test_masks_of_two_values_are_read_whatever_the_values(tmp_path: Path, values: np.ndarray) -> None:
    mask, said = load_mask(save(tmp_path / "a.png", values))
    assert mask.tolist() == [[False, True, False]]
    assert said == []


def test_class_numbers_and_class_colours_all_count(tmp_path: Path) -> None:
    numbers = load_mask(save(tmp_path / "a.png", np.array([[0, 1, 2, 9]], np.uint8)))
    assert (numbers[0].tolist(), numbers[1]) == ([[False, True, True, True]], [])
    colors = np.array([[[0, 0, 0], [64, 0, 0], [0, 0, 192]]], np.uint8)
    assert load_mask(save(tmp_path / "b.png", colors))[0].tolist() == [[False, True, True]]
    palette = save(tmp_path / "c.png", Image.fromarray(colors).quantize(3))
    assert load_mask(palette)[0].tolist() == [[False, True, True]]


def test_greys_count_above_half_of_the_highest_and_are_said(tmp_path: Path) -> None:
    mask, said = load_mask(save(tmp_path / "a.png", np.array([[0, 40, 90, 101, 200]], np.uint8)))
    assert mask.tolist() == [[False, False, False, True, True]]
    assert said == ["grey-valued: 5 values in 0..200; above 100 counts as defect"]
    soft = load_mask(save(tmp_path / "a.tif", np.array([[0, 0.2, 0.7, 1]], np.float32)))[0]
    assert soft.tolist() == [[False, False, True, True]]


def test_a_jpeg_mask_is_read_through_its_noise(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), bool)
    truth[10:40, 20:50] = True
    for suffix, pixels in ((".jpg", truth), (".jpeg", np.repeat(truth[..., None], 3, axis=2))):
        mask, said = load_mask(save(tmp_path / f"a{suffix}", pixels.astype(np.uint8) * 255, quality=60))
        assert np.array_equal(mask, truth)
        assert said[0].startswith("grey-valued")


@given(
    mask=st.builds(
        lambda seed, height, width, share: np.random.default_rng(seed).random((height, width)) < share,
        st.integers(0, 10_000),
        st.integers(1, 90),
        st.integers(1, 90),
        st.floats(0.001, 1),
    ),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_resizing_never_empties_a_mask_and_never_fills_an_empty_one(mask: np.ndarray, height: int, width: int) -> None:
    resized = resize_mask(mask, (height, width))
    assert resized.shape == (height, width)
    assert resized.any() == mask.any()


def test_each_of_several_specks_survives_and_a_thin_line_stays_a_line() -> None:
    mask = np.zeros((256, 256), bool)
    mask[5, 5] = mask[100, 200] = mask[250, 3] = True
    mask[60:160, 60:160] = True
    small = resize_mask(mask, 32)
    assert small[0, 0]
    assert small[12, 25]
    assert small[31, 0]
    line = np.zeros((256, 256), bool)
    line[:, 100] = True
    assert resize_mask(line, 32)[:, 12].all()
    assert resize_mask(line, 32).sum() == 32


def test_a_large_mask_keeps_its_area_and_an_enlarged_one_its_shape() -> None:
    disc = np.hypot(*(np.mgrid[:250, :250] - 125)) < 80
    assert resize_mask(disc, 64).mean() == pytest.approx(disc.mean(), rel=0.01)
    assert np.array_equal(resize_mask(disc, 500), disc.repeat(2, 0).repeat(2, 1))
    assert resize_mask(disc, 250) is disc


def test_a_speck_in_a_huge_mask_survives() -> None:
    mask = np.zeros((3000, 3000), bool)
    mask[1234, 567] = True
    assert resize_mask(mask, 8).sum() == 1


def test_shrinking_a_picture_smooths_it() -> None:
    board = np.repeat(np.indices((64, 64)).sum(0)[..., None] % 2 * 255, 3, axis=2).astype(np.uint8)
    assert np.ptp(resize_rgb(board, 8)) < 20
    assert resize_rgb(board, 64) is board


def test_tensors_span_minus_one_to_one_and_come_back_exactly() -> None:
    rgb = np.arange(256, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(3, 2)
    tensor = to_tensor(rgb)
    assert tuple(tensor.shape) == (3, 256, 2)
    assert (tensor.min().item(), tensor.max().item()) == (-1, 1)
    assert np.array_equal(to_rgb(tensor), rgb)
    batch = np.stack([rgb, rgb[::-1]])
    assert tuple(to_tensor(batch).shape) == (2, 3, 256, 2)
    assert np.array_equal(to_rgb(to_tensor(batch)), batch)
    assert to_rgb(tensor * 9).max() == 255


def test_written_pictures_and_masks_read_back_exactly(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 5)) < 0.5
    write_png(tmp_path / "new" / "mask.png", mask)
    with Image.open(tmp_path / "new" / "mask.png") as file:
        assert (file.mode, set(np.unique(np.asarray(file)).tolist())) == ("L", {0, 255})
    assert np.array_equal(read_mask(tmp_path / "new" / "mask.png"), mask)
    rgb = np.random.default_rng(0).integers(0, 256, (9, 5, 3), np.uint8)
    write_png(tmp_path / "a.png", rgb)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), rgb)
    assert to_pil(rgb).mode == "RGB"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "new"]
