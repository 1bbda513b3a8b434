"""Photographs of one part are found, in other light and moved; parts that are only alike are not."""

import os
import shutil

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.data import pieces
from dualanodiff.data.catalog import pick
from dualanodiff.data.pieces import find_pieces
from dualanodiff.data.shots import choose_samples
from dualanodiff.data.split import describe_set_aside, split_defect
from dualanodiff.errors import DataError
from dualanodiff.images import read_mask, read_rgb, write_png
from dualanodiff.judge.reference import read_reference

SIDE = 96


def draw(seed):
    """A surface of its own with a ragged dark hole."""
    random = np.random.default_rng(seed)
    grain = 120 + 60 * ndimage.gaussian_filter(random.normal(0, 1, (SIDE, SIDE)), (3, 1.5))
    rows, columns = np.mgrid[:SIDE, :SIDE] - random.integers(25, SIDE - 25, 2)[:, None, None]
    rag = ndimage.gaussian_filter(random.normal(0, 1, (SIDE, SIDE)), 2) * 20
    mask = np.hypot(rows, columns) + rag < random.uniform(6, 9)
    return np.repeat(np.where(mask, 40, grain)[..., None], 3, 2).clip(0, 255).astype(np.uint8), mask


def lit(rgb):
    """The same in other light: brighter, with less contrast and a slow shade."""
    return (60 + 0.6 * rgb + np.linspace(0, 60, SIDE)[:, None, None]).clip(0, 255).astype(np.uint8)


def write(root, name, rgb, mask):
    write_png(root / "test" / "hole" / f"{name}.png", rgb)
    write_png(root / "ground_truth" / "hole" / f"{name}_mask.png", mask)


@pytest.fixture
def root(tmp_path):
    """Six parts, and two of them again."""
    root = tmp_path / "tile"
    for number in range(6):
        write(root, f"{number:03}", *draw(number))
    (rgb, mask), (other, its) = draw(0), draw(3)
    write(root, "006", lit(rgb)[4:, 3:], mask[4:, 3:])
    write(root, "007", np.rot90(lit(other)), np.rot90(its))
    for number in range(8):
        write_png(root / "train" / "good" / f"{number:03}.png", draw(50 + number)[0])
    return root


def samples_of(root):
    return pick(root, None, "hole")[0].defects["hole"]


def test_photographs_of_one_part_have_one_number(root):
    assert find_pieces(samples_of(root)) == (0, 1, 2, 3, 4, 5, 0, 3)


def test_the_same_hole_in_another_surface_is_another_part(root):
    rgb = draw(99)[0]
    hole, its = draw(1)
    write(root, "008", np.where(its[..., None], hole, rgb), its)
    assert find_pieces(samples_of(root))[8] == 8


def test_another_hole_in_the_same_surface_is_another_defect(root):
    rgb, mask = draw(1)
    other, its = draw(2)
    clean = np.where(ndimage.binary_dilation(mask, iterations=3)[..., None], 120, rgb)
    write(root, "008", np.where(its[..., None], other, clean).astype(np.uint8), its)
    assert find_pieces(samples_of(root))[8] == 8


def test_a_picture_without_a_mask_is_like_none(root):
    (root / "ground_truth" / "hole" / "006_mask.png").unlink()
    assert find_pieces(samples_of(root)) == (0, 1, 2, 3, 4, 5, 6, 3)


def test_pieces_are_found_once_and_again_when_a_file_changes(root, monkeypatch):
    found = find_pieces(samples_of(root))
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "_read", lambda _: pytest.fail("read again"))
        assert find_pieces(samples_of(root)) == found
    shutil.copy(root / "test" / "hole" / "001.png", root / "test" / "hole" / "005.png")
    shutil.copy(root / "ground_truth" / "hole" / "001_mask.png", root / "ground_truth" / "hole" / "005_mask.png")
    os.utime(root / "test" / "hole" / "005.png", (1, 1))
    assert find_pieces(samples_of(root))[5] == 1


def test_a_mask_of_another_size_is_named(root):
    write_png(root / "ground_truth" / "hole" / "002_mask.png", np.ones((9, 9), bool))
    with pytest.raises(DataError, match=r"002_mask.png: 9 x 9 pixels and its picture 96 x 96"):
        find_pieces(samples_of(root))


def test_what_shows_a_shots_defect_neither_teaches_nor_tests(root):
    split = split_defect(samples_of(root))
    assert [sample.image.stem for sample in split.shots] == ["000", "001"]
    assert [sample.image.stem for sample in split.held_out] == ["002", "003", "004", "005", "007"]
    assert {path.stem: shot.stem for path, shot in split.set_aside.items()} == {"006": "000"}
    assert "1 picture shows the very defect of a shot" in describe_set_aside(split)
    assert "006.png, as 000.png" in describe_set_aside(split)


def test_the_two_halves_never_show_one_defect(root):
    first, second = split_defect(samples_of(root)).halves()
    assert [sample.image.stem for sample in first] == ["002", "004"]
    assert [sample.image.stem for sample in second] == ["003", "005", "007"][: len(second)]


def test_too_few_left_are_an_error_with_the_way_out(root):
    for name in ("002", "004", "005"):
        rgb, mask = (
            read_rgb(root / "test" / "hole" / "001.png"),
            read_mask(root / "ground_truth" / "hole" / "001_mask.png"),
        )
        write(root, name, lit(rgb), mask)
    with pytest.raises(DataError, match=r"4 of 6 held-back .* 2 are left to test on; --shots pieces"):
        split_defect(samples_of(root))
    assert len(read_reference(root, defect="hole", side=48).held_out) == 2


def test_shots_by_piece_are_the_first_third_of_the_parts(root):
    assert [sample.image.stem for sample in choose_samples(samples_of(root), "pieces")] == ["000", "001", "006"]
    split = split_defect(samples_of(root), "pieces")
    assert not split.set_aside
    assert len(split.held_out) == 5


def test_the_reference_says_what_was_set_aside(root):
    assert "hole: 1 picture shows the very defect" in read_reference(root, defect="hole", side=48).note


def test_real_tiles_are_told_apart(shared):
    samples = pick(shared / "data" / "magnetic_tile", None, "crack")[0].defects["crack"]
    found = find_pieces(samples)
    assert {i for i, piece in enumerate(found) if piece == 0} == {0, 10, 19, 28, 38, 48}
    assert len(set(found)) <= 11
    with pytest.raises(DataError, match="held-back pictures show the very defect of a shot"):
        split_defect(samples)


def test_real_bottles_are_all_different(shared):
    samples = pick(shared / "data" / "mvtec_bottle", None, "broken_large")[0].defects["broken_large"][:12]
    assert find_pieces(samples) == tuple(range(12))


def test_what_was_found_is_kept_for_files_of_this_content_and_looked_for_again_when_one_changes(product, monkeypatch):
    found, name = pick(product(), None, None)
    samples = found.defects[name]
    first = pieces.find_pieces(samples)
    pieces._find.cache_clear()
    monkeypatch.setattr(pieces, "_Album", lambda _: pytest.fail("laid over each other again"))
    assert pieces.find_pieces(samples) == first
    write_png(samples[0].image, np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(pytest.fail.Exception, match="again"):
        pieces.find_pieces(samples)
