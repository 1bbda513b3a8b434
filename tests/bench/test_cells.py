"""Cells of the comparison: each made once, failures named, tables at the end."""

import json

import numpy as np
import pytest
import torch

from dualanodiff.bench import cells
from dualanodiff.bench.cells import Contest, Protocol, read_places, read_seeds
from dualanodiff.bench.detectors import Detector
from dualanodiff.bench.generators import compare_generators
from dualanodiff.bench.methods import Making, read_methods
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import read_rgb, write_png
from lift.small_task import QUICK


class Stub:
    """Networks of four numbers a picture."""

    name, standard = "stub", False

    def features(self, pictures):
        return np.stack([np.append(rgb.mean((0, 1)), rgb.std()) for rgb in pictures])

    def probabilities(self, pictures):
        return self.features(pictures) / self.features(pictures).sum(1, keepdims=True)

    def embeddings(self, pictures):
        yield torch.from_numpy(self.features(pictures)).float() / 100


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setattr(cells, "find_network", lambda *_: Stub())
    monkeypatch.setattr(cells, "find_distance", lambda **_: Stub())


@pytest.fixture
def data(product):
    return product(defects={"scratch": 6, "dent": 6}, good=5)


def contest(out, seeds=(0,), **changes):
    def making(place):
        return Making(place.data, place.category, out, count=4, size=32)

    return Contest(out, Protocol(QUICK, **changes), list(seeds), making)


def run(data, out, names, seeds=(0,), **changes):
    tables = changes.pop("tables", ())
    detectors = changes.pop("detectors", ())
    one = contest(out, seeds, **changes)
    return compare_generators(one, read_methods(names), read_places([str(data)]), tables=tables, detectors=detectors)


def lines(out):
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]


def test_a_cell_says_what_the_set_is_and_what_it_does(data, tmp_path):
    found = run(data, tmp_path / "out", ["real-shots", "crop-paste"], tables=[2])
    assert found["failed"] == []
    control, made = lines(tmp_path / "out")
    assert control["judged"] == {}
    assert set(control["lift"]) == {"real"}
    assert set(made["judged"]) == {"scratch", "dent"}
    judged = made["judged"]["dent"]
    assert {"kid", "fid", "is", "ic_lpips", "valid", "realistic", "aligned", "on_object", "good", "copies"} <= set(
        judged
    )
    assert set(made["lift"]) == {"generated", "real+generated"}
    assert 0 <= made["lift"]["generated"]["pixel_ap"] <= 1
    assert 0 <= made["lift"]["generated"]["accuracy"] <= 1
    assert made["lift"]["generated"]["proved"]
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| crop-paste |" in text
    assert "Table 2" in text
    page = (tmp_path / "out" / "tables.html").read_text()
    assert "<table>" in page
    assert 'src="sheets/nut.png"' in page
    assert read_rgb(tmp_path / "out" / "sheets" / "nut.png").shape[1] > 5 * 2 * 128


def test_a_finished_cell_is_not_made_again(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(data, out, ["cutpaste"])
    before = lines(out)
    monkeypatch.setattr(cells, "make_source", None)
    monkeypatch.setattr(cells, "run_cell", None)
    assert run(data, out, ["cutpaste"])["rows"] == before
    assert lines(out) == before


def test_a_stop_in_the_middle_loses_the_cell_it_was_in_only(data, tmp_path, monkeypatch):
    out, original, calls = tmp_path / "out", cells.run_cell, []

    def dying(*args, **words):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **words)

    monkeypatch.setattr(cells, "run_cell", dying)
    with pytest.raises(KeyboardInterrupt):
        run(data, out, ["cutpaste", "diffaug"], classify=False)
    assert [row["method"] for row in lines(out)] == ["cutpaste"]
    run(data, out, ["cutpaste", "diffaug"], classify=False)
    assert [row["method"] for row in lines(out)] == ["cutpaste", "diffaug"]
    assert len(calls) == 5


def test_another_count_or_plan_is_another_cell(data, tmp_path):
    one = contest(tmp_path)
    [method], [place] = read_methods(["draem"]), read_places([str(data)])
    keys = {
        one._key(method, place, 0),
        one._key(method, place, 1),
        contest(tmp_path, arms=("generated",))._key(method, place, 0),
        one._key(*read_methods(["prn"]), place, 0),
    }
    assert len(keys) == 4
    write_png(data / "test" / "dent" / "009.png", np.zeros((32, 32, 3), np.uint8))
    assert one._key(method, read_places([str(data)])[0], 0) not in keys


def test_a_cell_that_fails_is_named_and_the_others_go_on(data, tmp_path):
    (tmp_path / "theirs").mkdir()
    found = run(data, tmp_path / "out", [f"theirs={tmp_path / 'theirs'}", "diffaug"], tables=())
    assert [(cell["method"], cell["seed"]) for cell in found["failed"]] == [("theirs", "0")]
    assert "theirs" in found["failed"][0]["error"]
    assert [row["method"] for row in lines(tmp_path / "out")] == ["diffaug"]
    assert "theirs on nut" in (tmp_path / "out" / "tables.md").read_text()


def test_a_set_of_others_without_proof_is_refused_unless_that_is_accepted(data, tmp_path):
    for defect in ("scratch", "dent"):
        for number in range(4):
            rgb = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
            write_png(tmp_path / "theirs" / defect / "image" / f"{number}.png", rgb)
            write_png(tmp_path / "theirs" / defect / "mask" / f"{number}.png", np.eye(32, dtype=bool))
    word = f"theirs={tmp_path / 'theirs'}"
    assert "--unproved" in run(data, tmp_path / "out", [word])["failed"][0]["error"]
    found = run(data, tmp_path / "out", [word], unproved=True)
    assert found["failed"] == []
    assert "Without proof" in (tmp_path / "out" / "tables.md").read_text()


def test_detectors_stand_in_the_same_tables(data, tmp_path):
    place = read_places([str(data)])[0]
    from dualanodiff.lift.task import open_task

    task = open_task(data, "nut", place.defects, side=32)
    for path, mask in zip(task.tests.paths, task.tests.masks, strict=True):
        file = tmp_path / "maps" / "nut" / path.parent.name / f"{path.stem}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, mask.astype(np.float32))
    detectors = [Detector("patchcore", tmp_path / "maps")]
    found = run(data, tmp_path / "out", [], detectors=detectors, tables=[4])
    assert found["rows"][0]["lift"]["detector"]["pixel_ap"] == pytest.approx(1)
    assert run(data, tmp_path / "out", [], detectors=detectors)["rows"] == found["rows"]
    assert "| patchcore | 100.0 |" in (tmp_path / "out" / "tables.md").read_text().replace("**", "")


def test_places_are_read_with_category_and_defect(product, tmp_path):
    root = product(defects={"scratch": 3, "dent": 3}).parent
    product("bolt", under=root)
    assert [(place.name, place.defects) for place in read_places([str(root)])] == [
        ("bolt", ("scratch",)),
        ("nut", ("dent", "scratch")),
    ]
    assert [(place.name, place.defects) for place in read_places([f"{root}:nut:dent"])] == [("nut", ("dent",))]
    assert read_places([f"{root / 'nut'}::dent"])[0].defects == ("dent",)
    with pytest.raises(DataError, match="did you mean 'nut'"):
        read_places([f"{root}:nit"])
    with pytest.raises(DataError, match="absent"):
        read_places([f"{root}/absent"])
    with pytest.raises(SettingsError, match="two data sets are called nut"):
        read_places([f"{root}:nut:dent", f"{root}:nut:scratch"])


def test_arms_are_checked_at_once():
    with pytest.raises(SettingsError, match="no arm 'all'"):
        Protocol(QUICK, arms=("all",))
    with pytest.raises(SettingsError, match="--arms: names none"):
        Protocol(QUICK, arms=())


@pytest.mark.parametrize("text", ["", "0,0", "a", "1.5"])
def test_seeds_are_different_whole_numbers(text):
    with pytest.raises(SettingsError, match="different whole numbers"):
        read_seeds(text)


def test_an_arm_with_more_real_pictures_is_tested_on_the_far_half(data, tmp_path):
    found = run(data, tmp_path / "out", ["crop-paste"], arms=("generated", "real+1"))
    assert found["failed"] == []
    [made] = lines(tmp_path / "out")
    assert made["lift"]["generated"]["tested_on"] == "all"
    more = made["lift"]["real+1"]
    assert more["tested_on"] == "far"
    assert more["pixel_ap"] == more["far"]["pixel_ap"]
    assert set(more["by_defect"]) == {"scratch", "dent"}
    assert 0 <= more["accuracy"] <= 1
    assert "far half" in (tmp_path / "out" / "tables.md").read_text()
