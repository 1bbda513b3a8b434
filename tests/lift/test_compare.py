"""The whole comparison, as the command and as a function: files, resume after a kill, and which set shows what."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import write_png
from dualanodiff.lift import compare
from dualanodiff.lift.compare import measure_lift
from dualanodiff.lift.task import open_task
from dualanodiff.lift.which import find_sources
from dualanodiff.storage import read_jsonl
from lift.small_task import QUICK, make_pairs, write_source

SET = ["--set", "side=32", "--set", "widths=4,4", "--set", "steps=2", "--set", "batch=4"]


@pytest.fixture
def nut(product):
    return product(defects={"scratch": 12}, good=6, test_good=4)


@pytest.fixture
def made(nut, tmp_path):
    shots = [sample.image for sample in open_task(nut, side=32).splits["scratch"].shots]
    return write_source(tmp_path / "set", *make_pairs(6), shots)


def run(*words):
    result = CliRunner().invoke(app, ["lift", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_writes_cells_tables_and_a_page_and_ends_in_a_sentence(nut, made, tmp_path):
    out = tmp_path / "lift"
    code, output = run(made.folder, "--real", nut, "--seeds", 2, "--out", out, *SET, "--as-paper", "--json")
    result = json.loads(output.splitlines()[-1])
    assert code == 0
    assert result == json.loads((out / "lift.json").read_text())
    assert result["sentence"].startswith("nut: ")
    assert list(result["far"]) == ["none", "real", "generated", "real+generated", "real+2", "real+4"]
    assert list(result["all"]) == ["none", "real", "generated", "real+generated"]
    assert len(list(read_jsonl(out / "cells.jsonl"))) == 12
    text, page = (out / "lift.md").read_text(), (out / "lift.html").read_text()
    assert text.rstrip().endswith(f"**{result['sentence']}**")
    for table in ("All held-back pictures", "How much more real defects would do", "As the paper does it"):
        assert table in text
        assert table in page
    assert "Proved by SHA-256 from lineage.json: no test picture went into the sets." in text
    assert page.count("data:image/png;base64,") == 6


def test_several_types_share_an_inspector_and_get_a_verdict_each(product, tmp_path):
    root = product(defects={"hole": 6, "scratch": 6})
    task = open_task(root, side=32)
    sources = {
        name: write_source(tmp_path / name, *make_pairs(3), [task.splits[name].shots[0].image], name)
        for name in ("hole", "scratch")
    }
    result = measure_lift(sources, root, out=tmp_path / "lift", plan=QUICK, arms=("real", "real+generated"), seeds=2)
    assert set(result["verdicts"]) == {"hole", "scratch"}
    assert set(result["accuracy"]["all"]) == {"real", "real+generated"}
    text = (tmp_path / "lift" / "lift.md").read_text()
    assert "Telling types apart: ResNet-18" in text
    assert "## hole, against all good pictures" in text
    assert "\n**scratch: " in text


def test_a_killed_comparison_goes_on_where_it_was(nut, made, tmp_path):
    out = tmp_path / "lift"
    words = [made.folder, "--real", nut, "--seeds", "2", "--arms", "real,generated", "--out", out, *SET]
    code = "from dualanodiff.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "lift", *words], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(read_jsonl(out / "cells.jsonl")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = list(read_jsonl(out / "cells.jsonl"))
    assert run(*words)[0] == 0
    after = list(read_jsonl(out / "cells.jsonl"))
    assert before
    assert after[: len(before)] == before
    assert len(after) == len({row["key"] for row in after}) == 4


def test_a_second_call_trains_nothing(nut, made, tmp_path, monkeypatch):
    plan = {"plan": QUICK, "out": tmp_path / "lift", "seeds": 2, "arms": ("real", "generated")}
    first = measure_lift({"scratch": made}, nut, **plan)
    monkeypatch.setattr("dualanodiff.lift.arms.train_unet", None)
    assert measure_lift({"scratch": made}, nut, **plan) == first


def test_a_set_that_saw_the_test_ends_the_command_before_any_training(nut, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "run_cell", None)
    leaked = nut / "test" / "scratch" / "007.png"
    copy = shutil.copy(leaked, tmp_path / "other.png")
    cheat = write_source(tmp_path / "set", *make_pairs(3), [copy])
    code, output = run(cheat.folder, "--real", nut, "--out", tmp_path / "lift", *SET)
    assert code == 1
    assert f"was made from the test picture {leaked}" in output
    assert not (tmp_path / "lift" / "cells.jsonl").exists()


def test_an_unproved_set_is_marked_in_the_report(nut, tmp_path):
    foreign = write_source(tmp_path / "set", *make_pairs(3), None)
    words = [foreign.folder, "--real", nut, "--out", tmp_path / "lift", "--arms", "real,generated", "--seeds", 1, *SET]
    assert run(*words)[0] == 1
    assert run(*words, "--unproved")[0] == 0
    assert "NOT PROVED: the sets for scratch have no lineage" in (tmp_path / "lift" / "lift.md").read_text()


def test_the_help_does_not_wait_for_torch():
    code = "import sys; from dualanodiff.lift import cli; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"arms": ()}, r"no arm is left to train \(asked for: none\)"),
        ({"arms": ("half",)}, "no arm 'half'"),
        ({"seeds": 0}, "--seeds 0: must be 1 or more"),
        ({"shots": "12"}, "takes 12 of 12 pictures and leaves none to test on"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(nut, made, tmp_path, words, text):
    with pytest.raises((DataError, SettingsError), match=text):
        measure_lift({"scratch": made}, nut, out=tmp_path / "lift", plan=QUICK, **words)


def test_normal_pictures_of_the_training_do_not_test(product):
    root = product(test_good=1)
    shutil.copy(root / "train" / "good" / "000.png", root / "test" / "good" / "000.png")
    with pytest.raises(DataError, match="no normal picture to test on that is not in train/good too"):
        open_task(root, side=32)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda root: (root / "ground_truth" / "scratch" / "007_mask.png").unlink(), r"007.png: no mask"),
        (
            lambda root: write_png(root / "ground_truth" / "scratch" / "007_mask.png", np.ones((32, 32), bool)),
            r"007_mask.png: full mask, every pixel is marked",
        ),
    ],
)
def test_a_held_back_picture_that_cannot_test_is_named(nut, break_it, text):
    break_it(nut)
    with pytest.raises(DataError, match=text):
        _ = open_task(nut, side=32).tests


def test_copies_of_one_picture_test_nothing(nut):
    for number in range(5, 12):
        shutil.copy(nut / "test" / "scratch" / "004.png", nut / "test" / "scratch" / f"{number:03}.png")
    with pytest.raises(DataError, match="scratch: the held-back pictures are copies of each other"):
        _ = open_task(nut, side=32).tests


def test_an_empty_type_is_refused(nut):
    (nut / "test" / "dent").mkdir()
    with pytest.raises(DataError, match="dent: no pictures; put the pictures of this defect there"):
        open_task(nut, None, ["dent"], side=32)
    assert open_task(nut, side=32).defects == ("scratch",)


def test_each_set_finds_its_type(product, tmp_path):
    root = product(defects={"hole": 6, "scratch": 6})
    said = write_source(tmp_path / "a", *make_pairs(2), [], "hole")
    dumb = write_source(tmp_path / "b", *make_pairs(2), None)
    tree = write_source(tmp_path / "tree" / "hole", *make_pairs(2), None).folder.parent
    write_source(tree / "scratch", *make_pairs(2), None)
    assert list(find_sources([f"scratch={dumb.folder}", said.folder], root)) == ["hole", "scratch"]
    assert {name: len(source.pairs) for name, source in find_sources([tree], root).items()} == {"hole": 2, "scratch": 2}
    with pytest.raises(DataError, match=r"b: does not say which defect it shows; nut has hole, scratch: write DEFECT="):
        find_sources([dumb.folder], root)
    with pytest.raises(DataError, match="a second set of hole, after"):
        find_sources([said.folder, f"hole={dumb.folder}"], root)
    with pytest.raises(DataError, match="no defect 'hol'; did you mean 'hole'"):
        find_sources([f"hol={dumb.folder}"], root)
    other = write_source(tmp_path / "c", *make_pairs(2), [], "rust")
    with pytest.raises(DataError, match="c: says that it shows 'rust'"):
        find_sources([other.folder], root)
