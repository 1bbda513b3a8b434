"""Sets of the rivals: complete, resumable, honest about what they have seen."""

import json

import numpy as np
import pytest

from dualanodiff.data.catalog import find_categories
from dualanodiff.data.split import split_category, trained_test_pictures
from dualanodiff.errors import DataError, RunError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.rivals.making import GENERATORS, make_set
from dualanodiff.sets import PairSet


def make(name, root, out, **changes):
    return make_set(name, root, **{"defect": "scratch", "count": 3, "out": out, "size": 32} | changes)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_set_holds_pictures_with_masks_that_are_not_empty(name, product, tmp_path):
    made = make(name, product(), tmp_path / "set")
    pairs = PairSet.open(tmp_path / "set")
    assert (made["count"], made["made"], made["empty"]) == (3, 3, [])
    assert pairs.done() == {0, 1, 2}
    for index, row in pairs.rows().items():
        image, part, mask = (pairs.read(kind, index) for kind in ("image", "part", "mask"))
        assert image.shape == (32, 32, 3)
        assert 0 < mask.mean() < 0.8
        assert (part[mask] == image[mask]).all()
        assert (part[~mask] == pairs.key()).all()
        assert row["method"] == name
    assert (tmp_path / "set" / "pairs.png").is_file()


@pytest.mark.parametrize("name", GENERATORS)
def test_no_held_out_picture_is_read(name, product, tmp_path):
    root = product()
    split = split_category(find_categories(root)["nut"])["scratch"]
    for sample in split.held_out:
        sample.image.write_bytes(b"not a picture")
        sample.mask.write_bytes(b"")
    for path in (root / "test" / "good").iterdir():
        path.write_bytes(b"")
    make(name, root, tmp_path / "set")
    lineage = json.loads((tmp_path / "set" / "lineage.json").read_text())
    assert trained_test_pictures(lineage, [sample.image for sample in split.held_out]) == []
    roles = [file["role"] for file in lineage["files"]]
    assert roles.count("shot") == roles.count("mask") == 2
    assert roles.count("normal") == (0 if name == "diffaug" else 4)


def test_a_set_that_grows_keeps_its_pairs_and_equals_one_made_at_once(product, tmp_path):
    root = product()
    make("prn", root, tmp_path / "grown", count=2)
    before = (tmp_path / "grown" / "image" / "000001.png").read_bytes()
    assert make("prn", root, tmp_path / "grown", count=4)["made"] == 2
    make("prn", root, tmp_path / "whole", count=4)
    for file in ("image/000001.png", "image/000003.png", "mask/000003.png"):
        assert (tmp_path / "grown" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert (tmp_path / "grown" / "image" / "000001.png").read_bytes() == before


def test_a_pair_that_was_lost_is_made_again(product, tmp_path):
    root = product()
    make("crop-paste", root, tmp_path / "set")
    file = tmp_path / "set" / "image" / "000001.png"
    before = file.read_bytes()
    file.unlink()
    assert make("crop-paste", root, tmp_path / "set")["made"] == 1
    assert file.read_bytes() == before


def test_another_seed_draws_other_pairs_and_needs_another_folder(product, tmp_path):
    root = product()
    make("draem", root, tmp_path / "set")
    with pytest.raises(RunError, match="was begun with seed = 0, now 1"):
        make("draem", root, tmp_path / "set", seed=1)
    make("draem", root, tmp_path / "other", seed=1)
    images = [read_rgb(tmp_path / name / "image" / "000000.png") for name in ("set", "other")]
    assert (images[0] != images[1]).any()


def test_a_set_is_not_mixed_from_two_states_of_the_data(product, tmp_path):
    root = product()
    make("cutpaste", root, tmp_path / "set")
    write_png(root / "train" / "good" / "000.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(RunError, match="was begun with inputs"):
        make("cutpaste", root, tmp_path / "set", count=4)


def test_data_may_move_between_two_calls(product, tmp_path):
    root = product()
    make("cutpaste", root, tmp_path / "set")
    moved = root.rename(root.parent / "moved").rename(root.parent.parent / "nut")
    assert make("cutpaste", moved, tmp_path / "set", count=4)["made"] == 1


def test_an_unknown_method_is_named_with_the_nearest(product, tmp_path):
    with pytest.raises(DataError, match="no method 'croppaste'; did you mean 'crop-paste'"):
        make("croppaste", product(), tmp_path / "set")


def test_textures_may_come_from_a_folder_of_folders(product, tmp_path):
    green = np.zeros((8, 8, 3), np.uint8)
    green[...] = (0, 255, 0)
    write_png(tmp_path / "textures" / "cloth" / "a.png", green)
    make("prn", product(), tmp_path / "set", textures=tmp_path / "textures", count=8)
    kinds = {row["drawn"]["kind"] for row in PairSet.open(tmp_path / "set").rows().values()}
    assert kinds == {"extended", "texture", "own tiles"}


def test_a_texture_folder_without_pictures_is_named(product, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no pictures to be used as textures"):
        make("draem", product(), tmp_path / "set", textures=tmp_path / "empty")


def test_good_pictures_are_needed_where_defects_are_put_on_them(product, tmp_path):
    root = product(good=0)
    with pytest.raises(DataError, match="no normal pictures"):
        make("crop-paste", root, tmp_path / "set")
    assert make("diffaug", root, tmp_path / "other")["count"] == 3
