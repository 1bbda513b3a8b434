"""Shots and held-out pictures stay apart, by content and not by name."""

import shutil

import pytest

from dualanodiff.data.catalog import pick
from dualanodiff.data.split import split_category, split_defect, trained_test_pictures
from dualanodiff.errors import DataError
from dualanodiff.runs import file_record, make_lineage


def samples_of(root, defect="scratch"):
    return pick(root, None, defect)[0].defects[defect]


def test_the_first_third_is_learned_and_the_rest_tests(product):
    split = split_defect(samples_of(product(defects={"scratch": 7})))
    assert [sample.image.name for sample in split.shots] == ["000.png", "001.png"]
    assert [sample.image.name for sample in split.held_out] == ["002.png", "003.png", "004.png", "005.png", "006.png"]


def test_the_order_of_the_samples_does_not_matter(product):
    samples = samples_of(product(defects={"scratch": 7}))
    assert split_defect(samples[::-1]) == split_defect(samples)


def test_a_copy_of_a_shot_under_another_name_is_not_tested_on(product):
    root = product(defects={"scratch": 6})
    folder = root / "test" / "scratch"
    shutil.copy(folder / "000.png", folder / "005.png")
    assert [sample.image.stem for sample in split_defect(samples_of(root)).held_out] == ["002", "003", "004"]


def test_every_type_of_a_category_is_split(product):
    root = product(defects={"hole": 3, "scratch": 6})
    splits = split_category(pick(root, None, "hole")[0])
    assert {name: (len(split.shots), len(split.held_out)) for name, split in splits.items()} == {
        "hole": (1, 2),
        "scratch": (2, 4),
    }


def test_a_rule_that_leaves_nothing_to_test_on_is_refused(product):
    with pytest.raises(DataError, match="--shots all takes 6 of 6 pictures and leaves none to test on"):
        split_defect(samples_of(product()), "all")


def test_a_type_without_pictures_is_refused():
    with pytest.raises(DataError, match="without pictures cannot be split"):
        split_defect([])


def lineage_of(files):
    records = [file_record(path, role) for path, role in files]
    return make_lineage(base="none", seed=0, files=records, category="nut", defect="scratch")


def test_a_lineage_of_shots_only_is_proved_apart(product):
    split = split_defect(samples_of(product()))
    lineage = lineage_of([(sample.image, "shot") for sample in split.shots])
    assert trained_test_pictures(lineage, [sample.image for sample in split.held_out]) == []


@pytest.mark.parametrize("role", ["shot", "normal"])
def test_a_trained_test_picture_is_found_under_another_name_and_in_any_role(product, tmp_path, role):
    split = split_defect(samples_of(product()))
    leaked = split.held_out[2].image
    copy = tmp_path / "holiday.jpg"
    shutil.copy(leaked, copy)
    lineage = lineage_of([(split.shots[0].image, "shot"), (copy, role)])
    assert trained_test_pictures(lineage, [sample.image for sample in split.held_out]) == [(leaked, str(copy))]


@pytest.mark.parametrize("files", [[], None, [{"path": "a.png"}], ["a.png"]])
def test_a_lineage_without_hashes_proves_nothing(files):
    with pytest.raises(DataError, match="lists no file with its sha256, so it proves nothing"):
        trained_test_pictures({"files": files}, [])
