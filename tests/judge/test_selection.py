"""The good pairs in a folder of their own, and why the others are not there."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from dualanodiff.errors import RunError, SettingsError
from dualanodiff.images import read_mask, read_rgb, write_png
from dualanodiff.judge.selection import BEYOND, filter_source
from dualanodiff.judge.source import open_source
from dualanodiff.masks.result import MaskResult
from dualanodiff.sets import PairSet
from dualanodiff.storage import read_jsonl, write_json
from toy_product import SIDE, defect_picture, good_picture

EMPTY = np.zeros((SIDE, SIDE), bool)
CASES = [(good_picture(60), EMPTY), defect_picture(20), defect_picture(0), defect_picture(23), defect_picture(24)]


@pytest.fixture
def made(tmp_path):
    pairs = PairSet.begin(tmp_path / "set", {"run": "", "key": [0, 255, 0], "seed": 3})
    write_json(pairs.folder / "lineage.json", {"files": []})
    for index, (image, mask) in enumerate(CASES):
        pairs.add(index, image, image, MaskResult(mask, not mask.any(), "key", 0.5), {"seed": index})
    return pairs


@pytest.fixture
def tree(tmp_path):
    for index, (image, mask) in enumerate(CASES):
        write_png(tmp_path / "tree" / "image" / f"{index}.png", image)
        write_png(tmp_path / "tree" / "mask" / f"{index}_mask.png", mask)
    return tmp_path / "tree"


def test_a_set_becomes_a_set_of_its_good_pairs(made, tmp_path, toy_reference):
    result = filter_source(open_source(made.folder), toy_reference, tmp_path / "kept")
    kept = PairSet.open(tmp_path / "kept")
    assert list(kept.rows()) == [1, 3, 4]
    assert kept.done() == {1, 3, 4}
    assert (kept.read("image", 3) == CASES[3][0]).all()
    assert kept.facts()["seed"] == 3
    assert kept.facts()["filter"]["filtered_from"] == str(made.folder)
    assert (tmp_path / "kept" / "lineage.json").is_file()
    assert (result["kept"], result["dropped"]) == (3, 2)
    assert result["why"] == {"valid": 1, "realistic": 1, "aligned": 1, "on_object": 1, "copy": 1}
    assert made.done() == {0, 1, 2, 3, 4}  # nothing is taken from the source


def test_every_dropped_pair_has_a_line_that_says_why(made, tmp_path, toy_reference):
    filter_source(open_source(made.folder), toy_reference, tmp_path / "kept")
    lines = list(read_jsonl(tmp_path / "kept" / "dropped.jsonl"))
    assert [line["name"] for line in lines] == ["000000", "000002"]
    assert lines[1]["why"] == ["copy"]
    assert lines[1]["nearest_shot"] == "000"
    assert lines[0]["valid"] == 0


def test_a_tree_of_others_is_filtered_into_a_tree(tree, tmp_path, toy_reference):
    filter_source(open_source(tree), toy_reference, tmp_path / "kept")
    again = open_source(tmp_path / "kept")
    assert [pair.name for pair in again.pairs] == ["1", "3", "4"]
    assert (read_rgb(again.pairs[0].image) == CASES[1][0]).all()
    assert (read_mask(again.pairs[0].mask) == CASES[1][1]).all()


def test_the_same_call_again_gives_the_same_and_other_rules_are_refused(made, tree, tmp_path, toy_reference):
    for number, folder in enumerate((made.folder, tree)):
        out = tmp_path / f"kept{number}"
        first = filter_source(open_source(folder), toy_reference, out)
        assert filter_source(open_source(folder), toy_reference, out) == first
        assert len(open_source(out).pairs) == 3
        with pytest.raises(RunError, match=rf"kept{number}: was "):
            filter_source(open_source(folder), toy_reference, out, need=["valid"])


def test_only_the_checks_asked_for_count(tree, toy_reference):
    result = filter_source(open_source(tree), toy_reference, need=["on_object"])
    assert (result["kept"], result["out"]) == (4, None)
    assert result["why"] == {"on_object": 1}


def test_the_best_are_kept_where_fewer_are_wanted(tree, tmp_path, toy_reference):
    result = filter_source(open_source(tree), toy_reference, tmp_path / "kept", most=1)
    assert result["kept"] == 1
    assert result["why"][BEYOND] == 2
    lines = {line["name"]: line for line in read_jsonl(tmp_path / "kept" / "dropped.jsonl")}
    assert sum(line["why"] == [BEYOND] for line in lines.values()) == 2


def test_an_unknown_check_is_refused(tree, toy_reference):
    with pytest.raises(SettingsError, match=r"--need pretty: not a check; there are valid, realistic, aligned"):
        filter_source(open_source(tree), toy_reference, need=["pretty"])


def test_a_folder_that_holds_something_else_is_refused(tree, made, tmp_path, toy_reference):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match=r"other: is not empty"):
        filter_source(open_source(tree), toy_reference, tmp_path / "other")
    with pytest.raises(RunError, match=r"set: is the set itself; choose another --out"):
        filter_source(open_source(made.folder), toy_reference, made.folder)


def test_a_folder_that_cannot_be_written_is_one_line(tree, tmp_path, toy_reference, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr("dualanodiff.judge.selection.write_atomic", full)
    with pytest.raises(RunError, match=r"x.png: cannot be written \(No space left on device\); make room"):
        filter_source(open_source(tree), toy_reference, tmp_path / "kept")


def test_the_filter_and_calibrate_commands_speak_json_and_text(tree, toy, tmp_path):
    from dualanodiff.cli import app

    words = ["filter", str(tree), "--real", str(toy), "--out", str(tmp_path / "kept"), "--size", str(SIDE)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1])["kept"] == 3
    told = CliRunner().invoke(app, words).output
    assert "3 of 5 pairs are good; 2 are dropped" in told
    assert "1 copy a shot" in told
    result = CliRunner().invoke(app, ["calibrate", str(toy), "--size", str(SIDE), "--cases", "1"])
    assert result.exit_code == 0, result.output
    assert "| held-out real | 1 |" in result.output
