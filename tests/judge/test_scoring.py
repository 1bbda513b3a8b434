"""A pair is judged once, and its scores are kept beside it."""

import json

import numpy as np
import pytest

from dualanodiff.cache import cache_folder
from dualanodiff.images import write_png
from dualanodiff.judge import scoring
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.judge.scoring import judge_source, score, summarise
from dualanodiff.judge.source import open_source
from dualanodiff.masks.result import MaskResult
from dualanodiff.sets import PairSet
from dualanodiff.storage import read_jsonl
from toy_product import SIDE, defect_picture, good_picture

KEY = (0, 255, 0)


def make_set(folder, cases, *, source="key"):
    pairs = PairSet.begin(folder, {"run": "", "key": list(KEY), "threshold": 0})
    for index, (image, mask) in enumerate(cases):
        part = np.where(mask[..., None], image, np.array(KEY, np.uint8))
        pairs.add(index, image, part, MaskResult(mask, not mask.any(), source, 0.5), {"seed": index})
    return pairs


def make_tree(folder, cases):
    for index, (image, mask) in enumerate(cases):
        write_png(folder / "image" / f"{index:03}.png", image)
        write_png(folder / "mask" / f"{index:03}.png", mask)
    return folder


@pytest.fixture
def cases():
    good, empty = good_picture(60), np.zeros((SIDE, SIDE), bool)
    return [defect_picture(20), (good, defect_picture(21)[1]), (good, empty), defect_picture(0)]


@pytest.fixture
def judged(monkeypatch):
    """The pairs that were really measured."""
    names = []
    measure = scoring.judge_pair
    monkeypatch.setattr(scoring, "judge_pair", lambda pair, *rest: names.append(pair.name) or measure(pair, *rest))
    return names


def test_a_good_pair_passes_and_each_fault_is_named(tmp_path, cases, toy_reference):
    real, unchanged, empty, copy = judge_source(open_source(make_tree(tmp_path / "made", cases)), toy_reference)
    assert real.good
    assert real.failed == []
    assert "valid" in unchanged.failed
    assert set(ASPECTS) <= set(empty.failed)
    assert copy.failed == ["copy"]
    assert copy.nearest_shot == "000"


def test_scores_of_a_set_lie_in_its_manifest(tmp_path, cases, toy_reference):
    pairs = make_set(tmp_path / "set", cases)
    scores = judge_source(open_source(tmp_path / "set"), toy_reference)
    rows = pairs.rows()
    assert [rows[i]["scores"]["valid"] for i in rows] == [each.valid for each in scores]
    assert rows[3]["scores"]["passed"]["copy"] is False
    assert {row["scores"]["reference"] for row in rows.values()} == {toy_reference.fingerprint}
    assert rows[1]["seed"] == 1  # the rest of the line stays
    assert len(list(read_jsonl(pairs.manifest))) == 4


@pytest.mark.parametrize("make", [make_set, make_tree])
def test_a_pair_that_was_judged_is_not_judged_again(tmp_path, cases, toy_reference, judged, make):
    make(tmp_path / "made", cases)
    first = judge_source(open_source(tmp_path / "made"), toy_reference)
    assert len(judged) == 4
    assert judge_source(open_source(tmp_path / "made"), toy_reference) == first
    assert len(judged) == 4


@pytest.mark.parametrize("make", [make_set, make_tree])
def test_a_pair_whose_files_changed_is_judged_again(tmp_path, cases, toy_reference, judged, make):
    make(tmp_path / "made", cases)
    source = open_source(tmp_path / "made")
    first = judge_source(source, toy_reference)
    write_png(source.pairs[0].mask, np.roll(cases[0][1], 20, axis=1))
    again = judge_source(open_source(tmp_path / "made"), toy_reference)
    assert judged[4:] == [source.pairs[0].name]
    assert again[0].aligned < first[0].aligned
    assert again[1:] == first[1:]


def test_another_reference_judges_anew_and_an_interrupted_call_goes_on(tmp_path, cases, toy_reference, judged):
    folder = make_tree(tmp_path / "made", cases)
    judge_source(open_source(folder), toy_reference)
    kept = cache_folder("scores") / f"{toy_reference.fingerprint}.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 4
    other = json.loads(lines[0])
    other["reference"] = "another"
    kept.write_text("\n".join([json.dumps(other), lines[1], lines[2][:40]]))
    judged.clear()
    judge_source(open_source(folder), toy_reference)
    assert judged == ["000", "002", "003"]


def test_a_key_mask_that_disagrees_with_the_sets_own_counts_against_it(tmp_path, toy_reference):
    image, mask = defect_picture(20)
    whole = make_set(tmp_path / "agree", [(image, mask)], source="u2net")
    judge_source(open_source(whole.folder), toy_reference)
    agree = whole.rows()[0]["scores"]["aligned"]
    other = make_set(tmp_path / "differ", [(image, mask)], source="u2net")
    elsewhere = np.where(np.rot90(mask, 2)[..., None], image, np.array(KEY, np.uint8))
    write_png(other.file("part", 0), elsewhere)
    judge_source(open_source(other.folder), toy_reference)
    assert other.rows()[0]["scores"]["aligned"] < 0.7 * agree


def test_attention_that_looks_elsewhere_counts_against_a_pair(tmp_path, toy_reference):
    image, mask = defect_picture(20)
    aligned = []
    for name, attention in (("there", mask), ("elsewhere", ~mask)):
        pairs = PairSet.begin(tmp_path / name, {"key": list(KEY)})
        result, looked = MaskResult(mask, False, "key", 0.5), np.where(attention, 220, 5).astype(np.uint8)
        pairs.add(0, image, image, result, {}, looked)
        aligned.append(judge_source(open_source(pairs.folder), toy_reference)[0].aligned)
    assert aligned[1] == pytest.approx(aligned[0] / 2, rel=0.02)


def test_a_tree_of_others_stays_as_it_is(tmp_path, cases, toy_reference, judged):
    folder = make_tree(tmp_path / "made", cases)
    before = sorted(folder.rglob("*"))
    first = judge_source(open_source(folder), toy_reference)
    assert sorted(folder.rglob("*")) == before
    folder.rename(tmp_path / "moved")
    assert judge_source(open_source(tmp_path / "moved"), toy_reference) == first
    assert len(judged) == 4


def test_a_cache_that_cannot_be_written_keeps_nothing_and_stops_nothing(
    tmp_path, cases, toy_reference, judged, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUALANODIFF_CACHE", str(tmp_path / "file"))
    folder = make_tree(tmp_path / "made", cases[:1])
    for _ in range(2):
        assert judge_source(open_source(folder), toy_reference)[0].good
    assert judged == ["000", "000"]


def test_a_summary_counts_faults_and_sets_likeness_beside_that_of_the_shots(cases, toy_reference):
    found = summarise([score(image, mask, toy_reference) for image, mask in cases], toy_reference)
    assert found["pairs"] == 4
    assert found["good"] == 1
    assert found["failed"]["copy"] == 1
    assert found["failed"]["on_object"] == 1
    assert found["likeness"]["highest"] > 0.95 > found["likeness_of_shots"]["highest"]
    assert found["thresholds"]["copy"] == toy_reference.thresholds.copy


def test_a_pair_that_failed_is_not_good(toy_reference):
    found = score(*defect_picture(0), toy_reference)
    assert found.passed["copy"] is False
    assert not found.good
