"""The masks of a whole set, made again."""

import json

import numpy as np
import pytest

from dualanodiff.errors import ModelError, PictureError, RunError, SettingsError
from dualanodiff.masks import remake
from dualanodiff.masks.attention import to_grey
from dualanodiff.masks.key import key_mask
from dualanodiff.masks.remake import make_mask_maker, remake_masks
from dualanodiff.sets import PairSet
from dualanodiff.settings import MaskSettings, Settings
from masks.drawings import KEY, SHAPE, disc, draw_part
from masks.onnx_files import write_onnx

TRUTH = [disc(20, 20, 8), np.zeros(SHAPE, bool), disc(40, 60, 15), disc(16, 16, 5) | disc(50, 80, 6)]


@pytest.fixture
def pairs(tmp_path):
    settings = Settings().to_dict()
    facts = {"run": "r", "seed": 0, "base": "mini", "settings": settings, "key": list(KEY), "threshold": 0.3}
    made = PairSet.begin(tmp_path / "set", facts)
    for index, mask in enumerate(TRUTH):
        part = draw_part(mask, drift=10, noise=2)
        wrong = key_mask(part, KEY, threshold=1.0)
        attention = to_grey(np.where(mask, 0.5, 0.05))
        made.add(index, part, part, wrong, {"seed": index, "scores": {"kept": index}}, attention)
    return made


def test_masks_are_made_from_the_parts_on_disk(pairs):
    assert not any(pairs.read("mask", index).any() for index in range(4))
    result = remake_masks(pairs.folder)
    assert result == {
        "set": str(pairs.folder),
        "method": "key",
        "count": 4,
        "made": 4,
        "kept": 0,
        "empty": [1],
        "mean_area": pytest.approx(np.mean([TRUTH[i].mean() for i in (0, 2, 3)]), abs=1e-6),
    }
    for index, truth in enumerate(TRUTH):
        assert np.array_equal(pairs.read("mask", index), truth)
        row = pairs.rows()[index]
        assert row["mask_empty"] is (index == 1)
        assert row["mask_area"] == pytest.approx(truth.mean(), abs=1e-6)
        assert row["scores"] == {"kept": index}
    assert len(pairs.manifest.read_text().splitlines()) == 4


def test_the_cut_calibrated_on_the_shots_has_its_say(pairs):
    remake_masks(pairs.folder)
    part = pairs.read("part", 0)
    assert pairs.rows()[0]["mask_threshold"] == pytest.approx(key_mask(part, KEY, calibrated=0.3).threshold, abs=1e-4)
    remake_masks(pairs.folder, threshold=0.4)
    assert pairs.rows()[0]["mask_threshold"] == 0.4


def test_masks_are_made_from_the_attention_on_disk(pairs):
    result = remake_masks(pairs.folder, method="attention")
    assert result["empty"] == [1]
    assert {row["mask_source"] for row in pairs.rows().values()} == {"attention"}
    for index in (0, 2, 3):
        assert np.array_equal(pairs.read("mask", index), TRUTH[index])


def test_masks_are_made_by_the_model_that_is_given(pairs, tmp_path):
    model = write_onnx(tmp_path / "max.onnx", (1, 3, 320, 320))
    result = remake_masks(pairs.folder, method="u2net", model=model, minimum_area=3)
    assert result["empty"] == [1]
    assert pairs.rows()[0]["mask_source"] == "u2net"
    assert pairs.rows()[0]["mask_threshold"] == 0.5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["append_jsonl", "write_png", "maker"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_kill_at_any_moment_leaves_a_consistent_set_that_the_next_call_completes(pairs, monkeypatch, moment, after):
    calls = 0

    def dying(*args):
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patched:
        if moment == "maker":
            original = make_mask_maker(MaskSettings(), KEY)
            patched.setattr(remake, "make_mask_maker", lambda *_, **__: dying)
        else:
            original = getattr(__import__("dualanodiff.sets", fromlist=["sets"]), moment)
            patched.setattr(f"dualanodiff.sets.{moment}", dying)
        with pytest.raises(Killed):
            remake_masks(pairs.folder)
    for index, row in pairs.rows().items():
        if row["mask"] is None:
            assert row["mask_area"] is None
        else:
            assert pairs.read("mask", index).mean() == pytest.approx(row["mask_area"], abs=1e-6)
    assert pairs.done() == {0, 1, 2, 3}
    finished = sum(bool(row["mask_recipe"]) for row in pairs.rows().values())
    result = remake_masks(pairs.folder)
    assert (result["kept"], result["made"]) == (finished, 4 - finished)
    assert all(np.array_equal(pairs.read("mask", index), truth) for index, truth in enumerate(TRUTH))


def test_other_wishes_make_all_masks_again(pairs):
    assert remake_masks(pairs.folder)["made"] == 4
    assert remake_masks(pairs.folder)["made"] == 0
    assert remake_masks(pairs.folder, threshold=0.2)["made"] == 4


def test_a_mask_file_that_was_lost_is_made_again(pairs):
    remake_masks(pairs.folder)
    pairs.file("mask", 2).unlink()
    assert remake_masks(pairs.folder)["made"] == 1
    assert np.array_equal(pairs.read("mask", 2), TRUTH[2])


def test_an_empty_set_has_no_masks(tmp_path):
    pairs = PairSet.begin(tmp_path / "set", {"key": [0, 255, 0]})
    assert remake_masks(pairs.folder)["count"] == 0
    assert remake_masks(pairs.folder)["mean_area"] == 0


def test_a_set_without_attention_says_so(pairs):
    row = {key: value for key, value in pairs.rows()[0].items() if key != "attention"}
    pairs.rewrite([row])
    with pytest.raises(
        RunError, match=r"this pair has no attention map; generate a set with --set mask\.method=attention"
    ):
        remake_masks(pairs.folder, method="attention")


@pytest.mark.parametrize("method", ["u2net", "sam"])
def test_a_method_without_its_model_says_what_to_give(pairs, method):
    with pytest.raises(
        SettingsError, match=rf"mask\.method is {method}, which needs a model; give it as mask\.model \(--model\)"
    ):
        remake_masks(pairs.folder, method=method)


def test_a_model_that_is_not_there_leaves_the_set_as_it_was(pairs, tmp_path):
    before = pairs.manifest.read_bytes()
    with pytest.raises(ModelError, match=r"none\.onnx: no such U\^2-Net file"):
        remake_masks(pairs.folder, method="u2net", model=tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no usable SAM weights"):
        remake_masks(pairs.folder, method="sam", model=tmp_path)
    with pytest.raises(SettingsError, match=r"mask\.method is 'magic' but must be one of key, u2net, sam, attention"):
        remake_masks(pairs.folder, method="magic")
    assert pairs.manifest.read_bytes() == before


def test_a_folder_that_is_no_set_is_named(tmp_path):
    with pytest.raises(RunError, match=r"not a set \(no set\.json in it\)"):
        remake_masks(tmp_path)


def test_a_damaged_part_is_named(pairs):
    pairs.file("part", 2).write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"part.000002\.png"):
        remake_masks(pairs.folder)


def test_another_method_does_not_inherit_the_cut_of_the_first(tmp_path):
    settings = Settings().updated({"mask.threshold": 0.9}, "test").to_dict()
    pairs = PairSet.begin(tmp_path / "set", {"key": list(KEY), "settings": settings})
    part = draw_part(TRUTH[0])
    pairs.add(0, part, part, None, {}, to_grey(np.where(TRUTH[0], 0.5, 0.05)))
    remake_masks(pairs.folder)
    assert pairs.rows()[0]["mask_threshold"] == 0.9
    remake_masks(pairs.folder, method="attention")
    assert pairs.rows()[0]["mask_threshold"] < 0.9


def test_the_sets_own_method_is_the_default(tmp_path):
    settings = Settings().updated({"mask.method": "attention", "mask.minimum_area": 9}, "test").to_dict()
    pairs = PairSet.begin(tmp_path / "set", json.loads(json.dumps({"key": KEY, "settings": settings})))
    assert remake_masks(pairs.folder)["method"] == "attention"
