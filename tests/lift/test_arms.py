"""Cells: what each arm learns from, that no cell is computed twice, and that nobody sees the test."""

import shutil

import numpy as np
import pytest

from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.lift import arms
from dualanodiff.lift.arms import read_arm, run_cell, run_types_cell
from dualanodiff.lift.pixel_scores import METRICS
from dualanodiff.lift.task import open_task
from dualanodiff.storage import read_jsonl
from lift.small_task import PLAN, QUICK, make_pairs, write_source


@pytest.fixture
def task(product):
    return open_task(product(defects={"scratch": 12}, good=8, test_good=4), side=32)


@pytest.fixture
def source(task, tmp_path):
    shots = [sample.image for sample in task.splits["scratch"].shots]
    return write_source(tmp_path / "set", *make_pairs(12), shots)


def test_each_arm_learns_from_what_it_is_called_after(task, source):
    counts = {
        name: run_cell(task, name, 0, QUICK, {"scratch": source})["trained_on"]
        for name in ("none", "real", "generated", "real+generated", "real+3")
    }
    assert {name: (found["real"], found["generated"]) for name, found in counts.items()} == {
        "none": (0, 0),
        "real": (4, 0),
        "generated": (0, 12),
        "real+generated": (4, 12),
        "real+3": (7, 0),
    }
    assert {found["normal"] for found in counts.values()} == {8}


def test_an_arm_that_learns_from_held_back_pictures_is_tested_on_the_others_only(task):
    cell = run_cell(task, "real+4", 0, QUICK)
    assert cell["all"] is None
    assert cell["by_defect"] is None
    assert set(cell["far"]) == set(METRICS)
    far = {path.name for path, is_far in zip(task.tests.paths, task.tests.far, strict=True) if is_far}
    learned = {sample.image.name for sample in (*task.splits["scratch"].shots, *task.growth["scratch"])}
    assert {"008.png", "009.png", "010.png", "011.png"} <= far
    assert learned == {f"{number:03}.png" for number in range(8)}


def test_a_copy_of_a_growth_picture_is_no_far_test_picture(product):
    root = product(defects={"scratch": 12})
    shutil.copy(root / "test" / "scratch" / "005.png", root / "test" / "scratch" / "010.png")
    tests = open_task(root, side=32).tests
    assert not tests.far[[path.name == "010.png" for path in tests.paths]].any()


def test_good_masks_are_worth_more_than_shuffled_ones(task, tmp_path):
    images, masks = make_pairs(16)
    shots = [sample.image for sample in task.splits["scratch"].shots]
    good = write_source(tmp_path / "good", images, masks, shots)
    shuffled = write_source(tmp_path / "shuffled", images, np.roll(masks, 1, axis=0), shots)
    scores = [run_cell(task, "generated", 0, PLAN, {"scratch": found})["all"]["pixel_ap"] for found in (good, shuffled)]
    assert scores[0] > 0.9
    assert scores[0] > scores[1] + 0.1


def test_patches_unlike_normal_ones_are_found_without_any_defect_to_learn_from(task):
    found = run_cell(task, "none", 0, QUICK)["all"]
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.9


def test_a_cell_is_computed_once(task, source, tmp_path, monkeypatch):
    cells = tmp_path / "cells.jsonl"
    first = run_cell(task, "real+generated", 0, QUICK, {"scratch": source}, cells=cells)
    monkeypatch.setattr(arms, "train_unet", None)
    assert run_cell(task, "real+generated", 0, QUICK, {"scratch": source}, cells=cells) == first
    assert list(read_jsonl(cells)) == [first]


def test_a_line_that_a_kill_tore_is_computed_again_and_the_others_are_not(task, tmp_path):
    cells = tmp_path / "cells.jsonl"
    first, second = (run_cell(task, "real", seed, QUICK, cells=cells) for seed in (0, 1))
    text = cells.read_text()
    cells.write_text(text[: len(text) - 40])
    assert run_cell(task, "real", 0, QUICK, cells=cells) == first
    again = run_cell(task, "real", 1, QUICK, cells=cells)
    assert again["key"] == second["key"]
    assert again["all"] == second["all"]


def test_a_set_that_grew_is_another_cell_and_leaves_the_real_arm_alone(task, source, tmp_path):
    cells, sources = tmp_path / "cells.jsonl", {"scratch": source}
    names = ("real", "generated")
    before = [run_cell(task, name, 0, QUICK, sources, cells=cells)["key"] for name in names]
    grown = {"scratch": write_source(source.folder, *make_pairs(13), None)}
    after = [run_cell(task, name, 0, QUICK, grown, cells=cells)["key"] for name in names]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(task):
    found = [run_cell(task, "real", seed, QUICK)["all"] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_set_fitted_on_a_test_picture_is_refused_by_name(task, tmp_path):
    leaked = task.splits["scratch"].held_out[1].image
    copy = tmp_path / "renamed.png"
    shutil.copy(leaked, copy)
    cheat = write_source(tmp_path / "cheat", *make_pairs(3), [task.splits["scratch"].shots[0].image, copy])
    with pytest.raises(DataError, match=rf"was made from the test picture {leaked}, as {copy}"):
        run_cell(task, "generated", 0, QUICK, {"scratch": cheat})


@pytest.mark.parametrize("unproved", [False, True])
def test_a_set_that_holds_a_test_picture_itself_is_refused_even_mirrored(task, tmp_path, unproved):
    images, masks = make_pairs(3)
    test = task.splits["scratch"].held_out[2].image
    images[1] = np.rot90(read_rgb(test))[:, ::-1]
    shots = None if unproved else [task.splits["scratch"].shots[0].image]
    cheat = write_source(tmp_path / "cheat", images, masks, shots)
    with pytest.raises(DataError, match=rf"image/001.png: shows the same as the test picture {test}"):
        run_cell(task, "generated", 0, QUICK, {"scratch": cheat}, allow_unproved=unproved)


def test_a_set_without_lineage_is_refused_or_marked(task, tmp_path):
    source = write_source(tmp_path / "foreign", *make_pairs(3), None)
    with pytest.raises(DataError, match=r"has no lineage.json, so nothing proves .* add --unproved"):
        run_cell(task, "generated", 0, QUICK, {"scratch": source})
    words = {"cells": tmp_path / "cells.jsonl", "allow_unproved": True}
    assert run_cell(task, "generated", 0, QUICK, {"scratch": source}, **words)["proved"] is False
    later = write_source(source.folder, *make_pairs(3), [task.splits["scratch"].shots[0].image])
    assert run_cell(task, "generated", 0, QUICK, {"scratch": later}, **words)["proved"] is True
    assert len(list(read_jsonl(tmp_path / "cells.jsonl"))) == 1


def test_a_lineage_of_weights_alone_proves_nothing(task, tmp_path):
    source = write_source(tmp_path / "imported", *make_pairs(3), [])
    with pytest.raises(DataError, match=r"its lineage lists no picture, so nothing proves .* add --unproved"):
        run_cell(task, "generated", 0, QUICK, {"scratch": source})


def test_generated_pairs_with_empty_masks_are_counted(task, tmp_path):
    images, masks = make_pairs(4)
    masks[1] = False
    shots = [task.splits["scratch"].shots[0].image]
    source = write_source(tmp_path / "set", images, masks, shots)
    found = run_cell(task, "generated", 0, QUICK, {"scratch": source})
    assert found["trained_on"]["generated_without_mask"] == 1


def test_looks_at_the_test_set_change_nothing_but_their_own_row(task):
    plain, looked = (run_cell(task, "real", 0, plan) for plan in (QUICK, arms_plan(QUICK, looks=2)))
    assert plain["all"] == looked["all"]
    assert plain["as_paper"] is None
    assert looked["as_paper"]["pixel_ap"] >= looked["all"]["pixel_ap"]


def arms_plan(plan, **changes):
    import dataclasses

    return dataclasses.replace(plan, **changes)


def test_types_are_told_apart(product, tmp_path):
    root = product(defects={"stain": 30, "scratch": 30})
    for path in (root / "test" / "stain").iterdir():
        write_png(path, read_rgb(path)[..., ::-1].copy())  # blue patches instead of red ones
    task = open_task(root, side=32)
    cell = run_types_cell(task, "real", 0, PLAN, cells=tmp_path / "cells.jsonl")
    assert cell["all"]["accuracy"] > 0.75
    assert cell["by_defect"]["stain"]["accuracy"] > 0.6
    assert cell["trained_on"]["real"] == 20
    assert run_types_cell(task, "real", 0, PLAN, cells=tmp_path / "cells.jsonl") == cell


def test_types_cannot_be_told_apart_from_one_or_from_nothing(task, product):
    with pytest.raises(SettingsError, match="needs two or more of them, and there is scratch only"):
        run_types_cell(task, "real", 0, QUICK)
    two = open_task(product("bolt", defects={"dent": 3, "hole": 3}), side=32)
    with pytest.raises(SettingsError, match="'none' has no defect picture to learn types from"):
        run_types_cell(two, "none", 0, QUICK)


def test_an_arm_that_cannot_be_is_refused(task):
    with pytest.raises(
        SettingsError, match=r"no arm 'reel'; there are: none, real, generated, real\+generated, and real\+N"
    ):
        read_arm("reel")
    with pytest.raises(DataError, match=r"real\+5 needs 5 more pictures of each type, but there are 4 to spare"):
        run_cell(task, "real+5", 0, QUICK)
    with pytest.raises(DataError, match="no set for scratch; give one, or leave the type out"):
        run_cell(task, "generated", 0, QUICK)
    with pytest.raises(SettingsError, match="pictures of 32 pixels and the plan 64; open the task with side=64"):
        run_cell(task, "real", 0, arms_plan(QUICK, side=64))
