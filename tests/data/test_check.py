import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualanodiff.data.check import Problem, Report, check, render
from dualanodiff.errors import DataError
from dualanodiff.images import write_png

Product = Callable[..., Path]


def kinds(report: Report) -> list[tuple[str, str, str]]:
    return [(item.level, item.kind, item.file.name) for item in report.problems]


def only(report: Report, kind: str) -> Problem:
    [problem] = [item for item in report.problems if item.kind == kind]
    return problem


def test_a_clean_product_has_no_problem_and_its_shots_are_listed(product: Product) -> None:
    root = product(defects={"hole": 13, "scratch": 12})
    report = check(root.parent, resolution=32)
    assert kinds(report) == []
    assert not report.errors
    assert report.categories["nut"].pictures == {"hole": 13, "scratch": 12}
    assert report.categories["nut"].masks == {"hole": 13, "scratch": 12}
    assert report.categories["nut"].shots == {"hole": 4, "scratch": 4}
    assert [file.name for file in report.shots["nut/hole"]] == ["000.png", "001.png", "002.png", "003.png"]


def test_the_report_is_plain_json_and_names_files_as_text(product: Product) -> None:
    root = product()
    plain = check(root, resolution=32).as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["shots"]["nut/scratch"] == [str(root / "test/scratch/000.png"), str(root / "test/scratch/001.png")]
    assert plain["problems"][0]["kind"] == "few-shots"
    assert plain["errors"] is False
    assert plain["costs"] == {}


def test_every_fault_of_a_folder_is_found_at_once(product: Product) -> None:
    root = product(defects={"scratch": 15})
    truth, pictures = root / "ground_truth/scratch", root / "test/scratch"
    (truth / "000_mask.png").unlink()
    write_png(truth / "001_mask.png", np.zeros((32, 32), bool))
    write_png(truth / "002_mask.png", np.ones((32, 32), bool))
    write_png(truth / "003_mask.png", np.ones((16, 32), bool))
    (truth / "004_mask.png").write_bytes(b"not a picture")
    (pictures / "005.png").write_bytes((pictures / "005.png").read_bytes()[:300])
    (pictures / "006.JPG").write_bytes((pictures / "006.png").read_bytes())
    write_png(truth / "007.png", np.eye(32, dtype=bool))
    (truth / "008_mask.png").rename(truth / "typo_mask.png")
    (pictures / "list.txt").write_text("x")
    (root / "train/good/000.png").write_bytes(b"")
    write_png(root / "test/stray.png", np.zeros((4, 4, 3), np.uint8))
    report = check(root, resolution=32)
    assert sorted(kinds(report)) == sorted(
        [
            ("error", "missing-mask", "000.png"),
            ("error", "empty-mask", "001_mask.png"),
            ("error", "full-mask", "002_mask.png"),
            ("error", "mask-size", "003_mask.png"),
            ("error", "unreadable", "004_mask.png"),
            ("error", "unreadable", "005.png"),
            ("error", "same-name", "006.png"),
            ("error", "two-masks", "007.png"),
            ("error", "missing-mask", "008.png"),
            ("error", "unreadable", "000.png"),
            ("warning", "orphan-mask", "typo_mask.png"),
            ("warning", "ignored", "stray.png"),
            ("note", "ignored", "list.txt"),
        ]
    )
    assert report.errors
    text = render(report)
    for item in report.problems:
        assert f"{item.level}: {item.file}: {item.text}" in text
    assert text.splitlines()[-1] == "10 errors, 2 warnings, 1 notes"


def test_conversions_are_noted_by_file(product: Product) -> None:
    root = product(defects={"scratch": 12})
    folder = root / "test/scratch"
    exif = Image.Exif()
    exif[0x0112] = 1
    grey = np.full((32, 32), 90, np.uint8)
    Image.fromarray(grey).save(folder / "000.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "001.png")
    Image.fromarray(np.full((32, 32, 4), 90, np.uint8)).save(folder / "002.png")
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).quantize(2).save(folder / "003.png")
    exif[0x0112] = 6
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(folder / "004.png", exif=exif)
    problems = check(root, resolution=32).problems
    said = {item.file.name: [one.text for one in problems if one.file == item.file] for item in problems}
    assert said == {
        "000.png": ["grey made RGB"],
        "001.png": ["16-bit scaled to 8", "grey made RGB"],
        "002.png": ["alpha composed on white"],
        "003.png": ["palette made RGB"],
        "004.png": ["EXIF turn applied"],
    }


def test_a_grey_valued_mask_is_a_warning_with_the_cut(product: Product) -> None:
    root = product(defects={"scratch": 12})
    soft = np.zeros((32, 32), np.uint8)
    soft[8:24, 8:24] = 100
    soft[10:22, 10:22] = 255
    Image.fromarray(soft).save(root / "ground_truth/scratch/000_mask.png")
    problem = only(check(root, resolution=32), "grey-mask")
    assert (problem.level, problem.text) == (
        "warning",
        "grey-valued: 3 values in 0..255; above 127.5 counts as defect",
    )


def test_a_defect_below_one_latent_cell_is_a_warning_with_the_resolution_it_needs(product: Product) -> None:
    root = product(defects={"scratch": 12}, size=128)
    mask = np.zeros((128, 128), bool)
    mask[50:54, 50:54] = True
    write_png(root / "ground_truth/scratch/003_mask.png", mask)
    problem = only(check(root, resolution=128), "small-defect")
    assert (problem.level, problem.file.name) == ("warning", "003_mask.png")
    assert problem.text == (
        "the defect has 16 pixels at resolution 128, less than one latent cell of 8 x 8, and may be lost; "
        "it fills one from resolution 256 on"
    )
    assert "small-defect" not in {item.kind for item in check(root, resolution=256).problems}
    assert "small-defect" not in {item.kind for item in check(root, resolution=128, latent_factor=4).problems}


def test_an_inverted_mask_is_doubted(product: Product) -> None:
    root = product(defects={"scratch": 12})
    mask = np.ones((32, 32), bool)
    mask[:4, :4] = False
    write_png(root / "ground_truth/scratch/000_mask.png", mask)
    assert only(check(root, resolution=32), "mostly-marked").text == "marks 98% of the picture; is it inverted?"


def test_shape_and_size_changes_are_noted_for_normal_pictures_too(product: Product) -> None:
    root = product(defects={"scratch": 12})
    write_png(root / "train/good/000.png", np.zeros((20, 40, 3), np.uint8))
    report = check(root, resolution=32)
    assert only(report, "not-square").text == "40 x 20 pixels are squashed to 32 x 32"
    enlarged = [item for item in check(root, resolution=64).problems if item.kind == "enlarged"]
    assert len(enlarged) == 3 + 2 + 12
    assert enlarged[0].text == "32 x 32 pixels are enlarged to 64 x 64"
    lines = [line for line in render(check(root, resolution=64)).splitlines() if "enlarged" in line]
    assert lines[-1].endswith("test/scratch/000.png: 32 x 32 pixels are enlarged to 64 x 64; 11 more files there")


def test_many_warnings_of_a_kind_share_a_line_that_names_every_file(product: Product) -> None:
    root = product(defects={"scratch": 15})
    for number in range(5):
        mask = np.zeros((32, 32), bool)
        mask[number, 0] = True
        write_png(root / f"ground_truth/scratch/{number:03}_mask.png", mask)
    [line] = [line for line in render(check(root, resolution=32)).splitlines() if "latent cell" in line]
    assert "000_mask.png: the defect has 1 pixels" in line
    assert line.endswith("; 4 more files there: 001_mask.png, 002_mask.png, 003_mask.png, 004_mask.png")


def test_few_and_no_shots_are_told_apart(product: Product) -> None:
    few = only(check(product("nut", defects={"scratch": 9}), resolution=32), "few-shots")
    assert few.text == "only 3 of 9 pictures are shots (first-third); below 4 expect near copies"
    none = check(product("bolt", defects={"scratch": 2}), resolution=32)
    assert only(none, "no-shots").text.startswith("2 pictures, a third of which is no shot; use --shots all")
    assert none.errors


def test_missing_parts_are_said_once_and_not_by_picture(product: Product) -> None:
    root = product(defects={"scratch": 12}, good=0)
    for path in (root / "ground_truth/scratch").iterdir():
        path.unlink()
    (root / "ground_truth/scratch").rmdir()
    (root / "test/dent").mkdir()
    report = check(root, resolution=32)
    assert sorted(kinds(report)) == [
        ("error", "missing-mask", "scratch"),
        ("error", "no-pictures", "dent"),
        ("warning", "no-normals", "good"),
    ]
    assert "so that 12 pictures have no mask" in only(report, "missing-mask").text


def test_a_broken_category_is_a_problem_beside_the_others(product: Product) -> None:
    data = product(defects={"scratch": 12}).parent
    (data / "broken/train").mkdir(parents=True)
    (data / "plain/test/good").mkdir(parents=True)
    report = check(data, resolution=32)
    assert only(report, "layout").text.startswith("no test/ folder; put defect pictures into")
    assert only(report, "no-defects").file == data / "plain/test"
    assert list(report.categories) == ["nut", "plain"]
    assert not check(data, category="nut", resolution=32).errors


def test_one_defect_can_be_checked_alone(product: Product) -> None:
    root = product(defects={"scratch": 12, "hole": 12})
    product("bolt", defects={"dent": 12})
    (root / "ground_truth/hole/000_mask.png").unlink()
    report = check(root.parent, defect="scratch", resolution=32)
    assert not report.errors
    assert list(report.shots) == ["nut/scratch"]
    with pytest.raises(DataError, match=r"no defect 'scrtch'; did you mean 'scratch'"):
        check(root.parent, defect="scrtch")


@pytest.mark.parametrize("name", ["magnetic_tile", "mvtec_bottle", "mpdd_metal_plate", "deeppcb"])
def test_the_real_sets_have_no_error(shared: Path, name: str) -> None:
    report = check(shared / "data", category=name, resolution=256)
    assert not report.errors
    assert all(report.shots.values())
    assert {item.kind.partition(":")[0] for item in report.problems} <= {
        "small-defect",
        "converted",
        "not-square",
        "enlarged",
        "shown-again",
    }
    again = [item for item in report.problems if item.kind == "shown-again"]
    assert len(again) == (5 if name == "magnetic_tile" else 0), "only its tiles were photographed several times"
    assert all("--shots pieces" in item.text for item in again)


def test_pictures_of_a_12_bit_camera_in_16_bits_are_a_warning(product) -> None:
    root = product()
    path = root / "test" / "scratch" / "000.png"
    Image.fromarray(np.full((32, 32), 3000, np.uint16)).save(path)
    [found] = [item for item in check(root).problems if item.file == path and "16-bit" in item.kind]
    assert found.level == "warning"
    assert "rescale it" in found.text
