import json

import numpy as np
import pytest

from dualanodiff.errors import DataError, RunError
from dualanodiff.images import write_png
from dualanodiff.judge.source import open_source
from dualanodiff.masks.result import MaskResult
from dualanodiff.sets import PairSet
from dualanodiff.storage import write_json

SPOT = np.zeros((16, 16), bool)
SPOT[2:6, 3:8] = True


def put_pair(folder, name, *, pictures="image", masks="mask", suffix=""):
    write_png(folder / pictures / f"{name}.png", np.full((16, 16, 3), 90, np.uint8))
    write_png(folder / masks / f"{name}{suffix}.png", SPOT)


def make_set(folder, count=2, **facts):
    pairs = PairSet.begin(folder, {"run": "", "key": [0, 0, 0], **facts})
    grey = np.full((16, 16, 3), 90, np.uint8)
    for index in range(count):
        pairs.add(index, grey, grey, MaskResult(SPOT, False, "key", 0.5, 0.1), {"seed": index})
    return pairs


def test_a_set_gives_its_finished_pairs_with_their_lines(tmp_path):
    pairs = make_set(tmp_path / "set", 3, seed=7)
    (tmp_path / "set" / "image" / "000001.png").unlink()
    source = open_source(tmp_path / "set")
    assert [pair.name for pair in source.pairs] == ["000000", "000002"]
    assert [pair.row["seed"] for pair in source.pairs] == [0, 2]
    assert source.pairs[0].part == pairs.file("part", 0)
    assert source.facts["seed"] == 7
    assert source.name == "set"


def test_a_pair_whose_mask_is_being_remade_is_left_out(tmp_path):
    pairs = make_set(tmp_path / "set")
    pairs.rewrite([{**row, "mask": None} if index == 0 else row for index, row in pairs.rows().items()])
    assert [pair.name for pair in open_source(tmp_path / "set").pairs] == ["000001"]


def test_a_set_without_pairs_says_how_to_make_some(tmp_path):
    make_set(tmp_path / "set", 0)
    with pytest.raises(DataError, match=r"set: a set without a finished pair; make some with `dualanodiff generate"):
        open_source(tmp_path / "set")


def test_a_set_of_another_format_is_refused(tmp_path):
    write_json(tmp_path / "set.json", {"format": 99})
    with pytest.raises(RunError, match="has format 99"):
        open_source(tmp_path)


@pytest.mark.parametrize(("pictures", "masks", "suffix"), [("image", "mask", ""), ("images", "masks", "_mask")])
def test_a_tree_of_pictures_and_masks_is_read_by_name(tmp_path, pictures, masks, suffix):
    for name in ("b", "a"):
        put_pair(tmp_path / "theirs", name, pictures=pictures, masks=masks, suffix=suffix)
    source = open_source(tmp_path / "theirs")
    assert [pair.name for pair in source.pairs] == ["a", "b"]
    assert [mask.sum() for mask in source.masks(16)] == [SPOT.sum()] * 2
    assert [rgb.shape for rgb in source.images(8)] == [(8, 8, 3)] * 2
    assert (source.facts, source.lineage(), source.pairs[0].row, source.pairs[0].part) == ({}, None, {}, None)


def test_one_of_several_defects_is_chosen_by_name(tmp_path):
    put_pair(tmp_path / "nut" / "dent", "0")
    put_pair(tmp_path / "nut" / "crack", "0")
    put_pair(tmp_path / "nut" / "crack", "1")
    source = open_source(tmp_path, defect="crack")
    assert (len(source.pairs), source.name) == (2, f"{tmp_path.name}/nut/crack")
    assert open_source(tmp_path / "nut", defect="dent").folder == tmp_path / "nut" / "dent"
    with pytest.raises(DataError, match=r"nut: 2 to choose from .crack, dent.; name one with --defect"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="no defect 'crck'; did you mean 'crack'"):
        open_source(tmp_path / "nut", defect="crck")


def test_the_layout_of_mvtec_is_read(product):
    root = product("nut", defects={"scratch": 3, "dent": 2})
    source = open_source(root, defect="dent")
    assert [pair.name for pair in source.pairs] == ["000", "001"]
    assert source.pairs[0].mask.name == "000_mask.png"
    assert len(open_source(root.parent, category="nut", defect="scratch").pairs) == 3


def test_a_picture_without_a_mask_is_named(tmp_path, product):
    put_pair(tmp_path / "theirs", "0")
    (tmp_path / "theirs" / "mask" / "0.png").unlink()
    with pytest.raises(DataError, match=r"image/0.png: has no mask; put 0.png .* into .*mask"):
        open_source(tmp_path / "theirs")
    root = product("nut")
    (root / "ground_truth" / "scratch" / "002_mask.png").unlink()
    with pytest.raises(DataError, match=r"scratch/002.png: has no mask"):
        open_source(root)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "theirs: no such folder; give a set folder"),
        (lambda folder: folder.mkdir(), r"theirs: holds no pictures with masks .*found nothing"),
        (lambda folder: put_pair(folder, "0", masks="alpha"), r"found alpha, image"),
        (lambda folder: [(folder / name).mkdir(parents=True) for name in ("image", "mask")], "image: no pictures"),
        (
            lambda folder: [(folder / name / "dent").mkdir(parents=True) for name in ("test", "ground_truth")],
            "test/dent: no pictures; put the generated pictures there",
        ),
    ],
)
def test_a_folder_without_pairs_says_what_is_there_and_what_must_be(tmp_path, make, message):
    make(tmp_path / "theirs")
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "theirs")


def test_a_set_carries_its_own_lineage_before_that_of_its_run(tmp_path):
    make_set(tmp_path / "set", 1, run=str(tmp_path / "run"))
    assert open_source(tmp_path / "set").lineage() is None
    write_json(tmp_path / "run" / "lineage.json", {"files": [], "of": "run"})
    assert open_source(tmp_path / "set").lineage()["of"] == "run"
    write_json(tmp_path / "set" / "lineage.json", {"files": [], "of": "set"})
    assert open_source(tmp_path / "set").lineage()["of"] == "set"


@pytest.mark.parametrize(("text", "message"), [("{", "not a readable lineage"), (json.dumps([]), "not a lineage")])
def test_a_damaged_lineage_is_no_proof_of_innocence(tmp_path, text, message):
    make_set(tmp_path / "set", 1)
    (tmp_path / "set" / "lineage.json").write_text(text)
    with pytest.raises(DataError, match=rf"lineage.json: {message}"):
        open_source(tmp_path / "set").lineage()
