"""What a set is judged against."""

import shutil

import numpy as np
import pytest

from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError
from dualanodiff.images import write_png
from dualanodiff.judge.aspects import ASPECTS, calibrate
from dualanodiff.judge.calibration import check_reference, controls, turned
from dualanodiff.judge.reference import Reference, read_reference, reference_of_run
from toy_product import SIDE, defect_picture, good_picture, read_toy


def test_the_first_third_are_shots_and_the_rest_is_held_out(toy, toy_reference):
    assert [shot.name for shot in toy_reference.shots] == [f"{i:03}" for i in range(6)]
    assert [shot.name for shot in toy_reference.held_out] == [f"{i:03}" for i in range(6, 18)]
    assert len(toy_reference.normals) == 16
    assert toy_reference.shots[0].image.shape == (SIDE, SIDE, 3)
    assert toy_reference.category == "disc"


def test_no_more_good_pictures_than_asked_for_are_read(toy):
    assert len(read_reference(toy, defect="rust", side=32, most_normals=5).normals) == 5


def test_all_pictures_may_be_shots(toy):
    reference = read_reference(toy, defect="rust", side=32, shots="all")
    assert (len(reference.shots), len(reference.held_out)) == (18, 0)


def test_the_fingerprint_follows_the_content_of_shots_masks_and_good_pictures_and_the_side(
    toy, toy_reference, tmp_path
):
    copy = shutil.copytree(toy, tmp_path / "disc")
    seen = {toy_reference.fingerprint, read_reference(toy, defect="rust", side=32).fingerprint}
    assert read_toy(copy).fingerprint == toy_reference.fingerprint
    for name in ("test/rust/002.png", "ground_truth/rust/002_mask.png", "train/good/003.png"):
        mask = defect_picture(77)[1]
        write_png(copy / name, mask if "mask" in name else good_picture(77))
        seen.add(read_toy(copy).fingerprint)
    assert len(seen) == 5
    write_png(copy / "test/rust/017.png", good_picture(78))
    assert read_toy(copy).fingerprint in seen  # held-out pictures set no threshold


def test_too_few_good_pictures_are_refused_by_their_folder(toy, tmp_path):
    copy = shutil.copytree(toy, tmp_path / "disc")
    for file in sorted((copy / "train" / "good").iterdir())[3:]:
        file.unlink()
    with pytest.raises(DataError, match=r"good: 3 good pictures, but a set is judged against 4 or more"):
        read_toy(copy)


def test_a_shot_without_a_usable_mask_is_refused_by_its_file(toy, tmp_path):
    copy = shutil.copytree(toy, tmp_path / "disc")
    write_png(copy / "ground_truth" / "rust" / "001_mask.png", np.zeros((SIDE, SIDE), bool))
    with pytest.raises(DataError, match=r"001_mask.png: empty mask"):
        read_toy(copy)
    (copy / "ground_truth" / "rust" / "001_mask.png").unlink()
    with pytest.raises(DataError, match=r"001.png: no mask; it must be"):
        read_toy(copy)


def test_a_defect_without_pictures_is_refused(toy, tmp_path):
    copy = shutil.copytree(toy, tmp_path / "disc")
    (copy / "test" / "dent").mkdir()
    with pytest.raises(DataError, match=r"dent: no pictures; put the pictures of this defect there"):
        read_reference(copy, defect="dent")


def test_a_run_is_judged_against_its_own_shots(toy, toy_reference):
    files = [{"role": "shot", "path": str(shot.path), "sha256": ""} for shot in toy_reference.shots]
    assert reference_of_run({"files": files}, SIDE).fingerprint == toy_reference.fingerprint


def test_a_run_whose_shots_are_gone_says_what_to_do(tmp_path):
    files = [{"role": "shot", "path": str(tmp_path / "test" / "rust" / "1.png"), "sha256": ""}]
    with pytest.raises(DataError, match=r"rust: the shots that the run learned from are not there; generate without"):
        reference_of_run({"files": files}, SIDE)
    with pytest.raises(DataError, match=r"some-base: the shots"):
        reference_of_run({"base": "some-base"}, SIDE)


def test_one_shot_is_enough_to_judge_by():
    image, mask = defect_picture(0)
    normals = [good_picture(seed) for seed in range(8)]
    reference = Reference("disc", "rust", SIDE, [Shot(image, mask, "0")], [], normals, "")
    limits = reference.thresholds
    assert all(0 < getattr(limits, name) < 1 for name in ASPECTS)
    aspects = reference.gauge.measure(*defect_picture(1))
    assert all(getattr(aspects, name) >= getattr(limits, name) for name in ASPECTS)


def test_a_threshold_lies_below_nearly_all_real_ones_and_above_nearly_all_controls():
    random = np.random.default_rng(0)
    real, none = random.normal(0.8, 0.05, 500), random.normal(0.3, 0.05, 500)
    cut = calibrate(real[:20], none)
    assert (real >= cut).mean() > 0.98
    assert (none >= cut).mean() < 0.02


def test_with_fewer_shots_the_threshold_is_lower():
    values = [0.5, 0.7, 0.9]
    assert calibrate(values) < calibrate(values * 20) <= 0.5


def test_controls_that_cannot_be_told_apart_do_not_raise_the_threshold():
    assert calibrate([0.5, 0.6, 0.7], [0.9, 0.8]) == calibrate([0.5, 0.6, 0.7])


def test_real_defects_pass_and_what_is_none_does_not(toy, toy_reference):
    rows = check_reference(toy_reference, toy, most=5)["rows"]
    assert rows["held-out real"]["good"] >= 0.8
    assert rows["empty mask"]["good"] == 0
    assert rows["good picture, real mask"]["valid"] <= 0.2
    assert rows["mask off the object"]["on_object"] == 0
    assert rows["defect of noise"]["realistic"] <= 0.25
    assert rows["copy of a shot"]["copy"] == 0
    assert rows["another picture's mask"]["aligned"] <= 0.4
    assert all(row["good"] <= 0.2 for name, row in rows.items() if name != "held-out real")


def test_a_reference_without_held_out_pictures_cannot_be_checked(toy):
    reference = read_reference(toy, defect="rust", side=32, shots="all")
    with pytest.raises(DataError, match="disc/rust: no held-out pictures to check with"):
        check_reference(reference, toy)


def test_controls_off_the_object_exist_only_where_there_is_an_object(toy_reference):
    assert "mask off the object" in controls(toy_reference, toy_reference.normals, 4)
    random = np.random.default_rng(0)
    texture = [Shot(random.integers(90, 160, (SIDE, SIDE, 3), np.uint8), defect_picture(i)[1], "") for i in range(3)]
    full = Reference("grain", "rust", SIDE, texture, texture, [shot.image for shot in texture], "")
    assert "mask off the object" not in controls(full, full.normals, 4)


def test_the_eight_turns_of_a_pair_are_different_and_keep_picture_and_mask_together():
    image, mask = defect_picture(3)
    found = [turned((image, mask), turn) for turn in range(8)]
    assert len({moved.tobytes() for _, moved in found}) == 8
    for rgb, moved in found:
        assert rgb[moved].mean() < 0.7 * rgb[~moved].mean()  # rust is dark
