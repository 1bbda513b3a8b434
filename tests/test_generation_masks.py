"""Masks and shots of a generated set."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.fitted import read_shots
from dualanodiff.generation import generate_set
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from small import SIDE, draw_picture


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.png")}


def make(run: RunFolder, out: Path, count: int = 5, **options: Any) -> dict[str, Any]:
    return generate_set(run.path, count=count, out=out, **{"assignments": {}} | options)


def test_masks_come_from_attention_where_asked(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=3, assignments={"mask.method": "attention"})
    pairs = PairSet.open(tmp_path / "set")
    for index, row in pairs.rows().items():
        assert row["mask_source"] == "attention"
        assert pairs.read("attention", index).shape == (SIDE, SIDE)
    make(small_run, tmp_path / "whole", count=3, assignments={"mask.method": "attention"})
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_the_pictures_do_not_depend_on_how_masks_are_made(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "key", count=2)
    make(small_run, tmp_path / "attention", count=2, assignments={"mask.method": "attention"})
    one, two = files(tmp_path / "key"), files(tmp_path / "attention")
    assert all(two[name] == content for name, content in one.items() if not name.startswith("mask/"))


def test_the_cut_found_on_the_shots_is_used(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=1)
    facts = json.loads((tmp_path / "set" / "set.json").read_text())
    assert facts["threshold"] == small_run.load_start()[1]["key_threshold"] > 0


# -- the shots again


def test_the_shots_of_a_run_are_found_again(small_run: RunFolder) -> None:
    found = read_shots(small_run, SIDE)
    for place, shot in enumerate(found):
        rgb, mask = draw_picture(place)
        assert np.array_equal(shot.image, rgb)
        assert np.array_equal(shot.mask, mask)
    assert len(found) == 2


def test_shots_that_have_moved_are_done_without(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    lineage = tmp_path / "run" / "lineage.json"
    lineage.write_text(lineage.read_text().replace("000_mask.png", "moved.png"))
    assert read_shots(RunFolder(tmp_path / "run"), SIDE) == []
    make(RunFolder(tmp_path / "run"), tmp_path / "set", count=1)
    assert (tmp_path / "set" / "pairs.png").exists()
