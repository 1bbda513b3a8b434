import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.data.shots import find_shots
from dualanodiff.errors import DataError
from dualanodiff.images import read_mask, read_rgb, write_png
from dualanodiff.judge import evaluate as module
from dualanodiff.judge import reference
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.judge.evaluate import evaluate_set
from dualanodiff.judge.networks import Distance, Network
from dualanodiff.judge.page import worst_first
from dualanodiff.judge.reference import Thresholds, read_reference
from dualanodiff.judge.scoring import Scores, judge_source
from dualanodiff.masks.result import MaskResult
from dualanodiff.runs import file_record, make_lineage
from dualanodiff.sets import PairSet
from dualanodiff.storage import write_json

SIDE = 32


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Networks that mean colours and scores that know one bad pair; and how many pictures each network was given."""
    seen = {"features": 0, "distance": 0, "classes": True, "standard": False}

    def embed(rgb):
        seen["features"] += len(rgb)
        return rgb.mean((2, 3)), rgb.mean((2, 3)) * 9 if seen["classes"] else None

    def place(rgb):
        seen["distance"] += len(rgb)
        return rgb.flatten(1)

    def network(name, weights, *, cache=None):
        return Network("inception-v3" if seen["standard"] else "colours", embed, "", tmp_path / "cache" / "features")

    def distance(name, weights, *, cache=None):
        return Distance(
            "lpips-vgg" if seen["standard"] else "pixels",
            place,
            "",
            tmp_path / "cache" / "distance",
            ("the standard one: not here",),
        )

    def judge(source, reference):
        share = [float(pair.mask.name != "3.png") for pair in source.pairs]
        return [Scores(*[each] * 4, "", 0.0, dict.fromkeys((*ASPECTS, "copy"), each > 0)) for each in share]

    thresholds = Thresholds(0.1, 0.2, 0.3, 0.4, 0.9)
    monkeypatch.setattr(module, "read_reference", lambda *_, **__: SimpleNamespace(thresholds=thresholds))
    monkeypatch.setattr(module, "judge_source", judge)
    monkeypatch.setattr(module, "find_network", network)
    monkeypatch.setattr(module, "find_distance", distance)
    return seen


@pytest.fixture
def nut(product):
    return product("nut", defects={"scratch": 9}, good=8, test_good=4, size=SIDE)


@pytest.fixture
def theirs(tmp_path, nut):
    """A tree by another program: shots of a nut, mirrored, and one with an empty mask."""
    folder = tmp_path / "theirs"
    for number, shot in enumerate(find_shots(nut, defect="scratch", resolution=SIDE)):
        write_png(folder / "image" / f"{number}.png", np.ascontiguousarray(shot.image[:, ::-1]))
        write_png(folder / "mask" / f"{number}.png", np.ascontiguousarray(shot.mask[:, ::-1]))
    write_png(folder / "image" / "3.png", read_rgb(nut / "train" / "good" / "000.png"))
    write_png(folder / "mask" / "3.png", np.zeros((SIDE, SIDE), bool))
    return folder


def make_set(folder, nut, trained):
    """A set of ours, whose lineage names pictures of the nut."""
    pairs = PairSet.begin(folder, {"run": "", "key": [0, 0, 0]})
    for index in range(4):
        picture = nut / "test" / "scratch" / f"{index % 3:03}.png"
        rgb = np.ascontiguousarray(read_rgb(picture)[::-1])
        mask = np.ascontiguousarray(read_mask(nut / "ground_truth" / "scratch" / f"{index % 3:03}_mask.png")[::-1])
        pairs.add(index, rgb, rgb, MaskResult(mask, False, "key", 0.5, 0.1), {"seed": index})
    files = [file_record(nut / "test" / "scratch" / f"{number:03}.png", "shot") for number in trained]
    lineage = make_lineage(base="mini", seed=0, files=files, category="nut", defect="scratch")
    write_json(folder / "lineage.json", lineage)
    return folder


def test_everything_is_measured_and_named_as_what_it_is(quick, nut, theirs):
    result = evaluate_set(theirs, real=nut, defect="scratch", side=SIDE)
    assert result["not_at_hand"] == ["the standard one: not here"]
    assert list(result["metrics"]) == ["KID[colours]", "FID[colours]", "IS[colours]", "IC-distance[pixels]"]
    for row in result["metrics"].values():
        assert row["network"] in {"colours", "pixels"}
        assert row["generated"] == 4
    assert [row["real"] for row in result["metrics"].values()] == [6, 6, 0, 3]
    assert result["metrics"]["KID[colours]"]["beside"].keys() == {"shots", "good pictures"}
    assert (result["pairs"], result["shots"], result["held_out"], result["apart"]) == (4, 3, 6, "not proved")
    assert [row["name"] for row in result["each"]] == ["0", "1", "2", "3"]
    assert json.loads((theirs / "evaluation.json").read_text())["metrics"] == result["metrics"]


def test_standard_networks_carry_the_standard_names(quick, nut, theirs):
    quick["standard"] = True
    result = evaluate_set(theirs, real=nut, side=SIDE)
    assert list(result["metrics"]) == ["KID", "FID", "IS", "IC-LPIPS"]


def test_numbers_that_mean_little_say_so(quick, nut, theirs):
    result = evaluate_set(theirs, real=nut, side=SIDE)
    warnings = "\n".join(result["warnings"])
    assert "KID[colours]: 4 pictures on the smaller side" in warnings
    assert "IS[colours]: 4 pictures in 10 splits" in warnings
    assert "FID" not in warnings  # 3 features
    assert "theirs: no lineage.json, so nothing proves" in warnings
    assert result["metrics"]["KID[colours]"]["warning"] in warnings


def test_fid_with_fewer_pictures_than_features_says_so(quick, nut, theirs, monkeypatch, tmp_path):
    wide = Network("wide", lambda rgb: (rgb.flatten(1)[:, :99], None), "", tmp_path / "wide")
    monkeypatch.setattr(module, "find_network", lambda *_, **__: wide)
    result = evaluate_set(theirs, real=nut, side=SIDE)
    assert "4 pictures for 99 features" in result["metrics"]["FID[wide]"]["warning"]
    assert "IS is left out: it needs a classifier, and wide is none" in "\n".join(result["warnings"])


def test_a_set_proves_that_it_never_saw_a_held_back_picture(quick, nut, tmp_path):
    result = evaluate_set(make_set(tmp_path / "set", nut, [0, 1, 2]), real=nut.parent, side=SIDE)
    assert result["apart"] == "proved by lineage.json"
    assert (result["category"], result["defect"]) == ("nut", "scratch")
    assert not any("proves" in warning for warning in result["warnings"])


def test_a_set_that_learned_from_a_held_back_picture_is_refused_by_name(quick, nut, tmp_path):
    folder = make_set(tmp_path / "set", nut, [0, 1, 2, 5])
    with pytest.raises(DataError, match=r"scratch/005.png: the set .* learned from this picture .*the first of 1"):
        evaluate_set(folder, real=nut, side=SIDE)
    assert not (folder / "evaluation.json").exists()
    (tmp_path / "shots.txt").write_text("000\n001\n002\n005\n")
    assert evaluate_set(folder, real=nut, shots=str(tmp_path / "shots.txt"), side=SIDE)["held_out"] == 5


def test_a_set_of_another_defect_is_flagged(quick, product, tmp_path):
    nut = product("nut", defects={"scratch": 9, "dent": 9}, good=8, size=SIDE)
    result = evaluate_set(make_set(tmp_path / "set", nut, [0, 1, 2]), real=nut, defect="dent", side=SIDE)
    assert "the set was made of 'scratch' and is judged as 'dent'" in result["warnings"]


def test_another_product_is_not_taken_for_the_sets_own(quick, product, tmp_path):
    nut = product("nut", defects={"scratch": 9}, good=8, size=SIDE)
    bolt = product("bolt", defects={"dent": 9, "scratch": 9}, good=8, size=SIDE, under=tmp_path / "other")
    plate = product("plate", defects={"rust": 9}, good=8, size=SIDE, under=tmp_path / "third")
    made = make_set(tmp_path / "set", nut, [0, 1, 2])
    assert "the set was made of 'nut' and is judged as 'bolt'" in evaluate_set(made, real=bolt, side=SIDE)["warnings"]
    with pytest.raises(DataError, match=r"was made of nut / scratch, and .* has no such defect.*--defect.*\(rust\)"):
        evaluate_set(made, real=plate, side=SIDE)


@pytest.mark.parametrize(("number", "kind"), [(0, "a shot"), (7, "a held-back real picture")])
def test_a_real_picture_among_the_generated_is_named(quick, nut, theirs, number, kind):
    write_png(theirs / "image" / "0.png", read_rgb(nut / "test" / "scratch" / f"{number:03}.png"))
    result = evaluate_set(theirs, real=nut, side=SIDE)
    assert any(
        re.search(rf"image/0.png is {kind} itself .*scratch/{number:03}.png.*first of 1 ", line)
        for line in result["warnings"]
    )


def test_small_pictures_are_said_to_be_enlarged(quick, nut, theirs):
    result = evaluate_set(theirs, real=nut, side=2 * SIDE)
    assert f"--size {SIDE} compares at their own size" in "\n".join(result["warnings"])


def test_what_was_measured_is_not_measured_again(quick, nut, theirs):
    first = evaluate_set(theirs, real=nut, side=SIDE)
    assert quick["features"] == 4 + 3 + 6 + 4
    assert quick["distance"] == 4 + 3 + 6 + 3
    counts = dict(quick)
    again = evaluate_set(theirs, real=nut, side=SIDE)
    assert quick == counts
    assert again == first


def test_each_pair_has_its_four_aspects_and_its_shot(quick, nut, theirs, monkeypatch):
    monkeypatch.setattr(module, "read_reference", read_reference)
    monkeypatch.setattr(module, "judge_source", judge_source)
    result = evaluate_set(theirs, real=nut, side=SIDE)
    for row in result["each"]:
        assert {"valid", "realistic", "aligned", "on_object", "nearest_shot", "copy", "passed"} <= row.keys()
        assert row["nearest_by_distance"] in {"000", "001", "002"}
    assert set(result["aspects"]) == {"valid", "realistic", "aligned", "on_object"}
    assert result["each"][3]["aligned"] == 0  # an empty mask
    assert result["good"] <= 3


def test_a_set_that_is_unchanged_is_not_judged_and_its_product_not_calibrated_again(quick, nut, theirs, monkeypatch):
    monkeypatch.setattr(module, "read_reference", read_reference)
    monkeypatch.setattr(module, "judge_source", judge_source)
    first = evaluate_set(theirs, real=nut, side=SIDE)
    monkeypatch.setattr(reference, "Gauge", lambda *_: pytest.fail("the product was measured again"))
    monkeypatch.setattr(reference, "Originals", lambda *_: pytest.fail("the shots were compared again"))
    assert evaluate_set(theirs, real=nut, side=SIDE) == first


def test_a_product_without_good_pictures_is_judged_without_aspects(quick, product, theirs, monkeypatch):
    monkeypatch.setattr(module, "read_reference", read_reference)
    bare = product("bare", defects={"scratch": 9}, good=0, test_good=0, size=SIDE)
    result = evaluate_set(theirs, real=bare, side=SIDE)
    assert result["aspects"] == {}
    assert "the four aspects are left out" in "\n".join(result["warnings"])
    assert (theirs / "evaluation.html").is_file()


def test_the_page_holds_everything_inside(quick, nut, theirs):
    evaluate_set(theirs, real=nut, side=SIDE)
    page = (theirs / "evaluation.html").read_text()
    assert not re.search(r"https?://|<script|<link", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))
    assert page.count("<img") == 4 * 3
    assert "KID[colours]" in page and "no lineage.json" in page
    names = re.findall(r'<tr><td class="[ n]*">(\d)</td><td class=""><img', page)
    assert names[0] == "3"  # the empty one


def test_names_of_files_are_text_on_the_page(quick, nut, theirs):
    for kind in ("image", "mask"):
        (theirs / kind / "0.png").rename(theirs / kind / "<b>&0.png")
    evaluate_set(theirs, real=nut, side=SIDE)
    assert "&lt;b&gt;&amp;0" in (theirs / "evaluation.html").read_text()


def test_without_scores_the_farthest_from_its_shot_comes_first():
    assert worst_first([{"distance": 0.1}, {"distance": 0.5}]) == [1, 0]


def test_results_go_where_they_are_wanted(quick, nut, theirs, tmp_path):
    evaluate_set(theirs, real=nut, side=SIDE, out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "evaluation.html"}
    assert not (theirs / "evaluation.json").exists()


def test_the_command_prints_what_it_found_and_json_that_others_can_read(quick, nut, theirs):
    words = ["evaluate", str(theirs), "--real", str(nut), "--size", str(SIDE)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "not at hand: the standard one" in said.stdout
    assert "KID[colours]" in said.stdout and "warning: " in said.stdout and "evaluation.html" in said.stdout
    result = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert result["metrics"]["KID[colours]"]["generated"] == 4


def test_wrong_input_is_one_line(nut, tmp_path):
    said = CliRunner().invoke(app, ["evaluate", str(tmp_path / "absent"), "--real", str(nut)])
    assert said.exit_code == 1
    assert re.fullmatch(r"error: .*absent: no such folder; give a set folder.*\n", said.stderr)
