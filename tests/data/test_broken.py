"""Each broken folder or file ends in one clear line that names the place, and nothing is written."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dualanodiff.data.check import check
from dualanodiff.data.shots import find_shots
from dualanodiff.errors import DataError
from dualanodiff.images import write_png

# Damages a product and may answer with other arguments for find_shots; then the text of the error.
Case = tuple[Callable[[Path], Any], str]
SHOT = "test/scratch/000.png"
MASK = "ground_truth/scratch/000_mask.png"


def rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def remove(folder: Path) -> None:
    """Delete a folder and all in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def cut(path: Path, *, suffix: str = ".png", share: float = 0.5) -> None:
    """Store the picture in another format and keep only the first part of the file."""
    with Image.open(path) as image:
        image.load()
    path.unlink()
    cut_path = path.with_suffix(suffix)
    image.save(cut_path)
    whole = cut_path.read_bytes()
    cut_path.write_bytes(whole[: int(len(whole) * share)])


def write_list(root: Path, content: bytes) -> dict[str, str]:
    (root / "shots.txt").write_bytes(content)
    return {"rule": str(root / "shots.txt")}


def bomb(path: Path) -> None:
    """A tiny PNG that declares 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def become(path: Path, image: Image.Image | np.ndarray, **options: str) -> None:
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def as_tif(root: Path, image: Image.Image | np.ndarray) -> None:
    (root / SHOT).unlink()
    become((root / SHOT).with_suffix(".tif"), image)


def move_pictures_up(root: Path) -> None:
    for path in (root / "test/scratch").iterdir():
        path.rename(root / "test" / path.name)
    remove(root / "test/scratch")
    remove(root / "test/good")


CASES: dict[str, Case] = {
    "no folder": (lambda root: {"data": root / "nowhere"}, r"nowhere: no folder can be opened here \(No such file"),
    "name too long": (
        lambda root: {"data": root / ("x" * 300)},
        r"no folder can be opened here \(File name too long\)",
    ),
    "null in name": (lambda root: {"data": root / "a\0b"}, r"no folder can be opened here \(embedded null byte\)"),
    "a file as data": (lambda root: {"data": root / SHOT}, r"000\.png: a file, but a folder of pictures and masks"),
    "empty folder": (
        lambda root: (root / "new").mkdir() or {"data": root / "new"},
        r"new: no known layout; known are <category>/test/<defect> .* found 0 folders and 0 pictures",
    ),
    "pictures only": (
        lambda root: {"data": root / "train/good"},
        r"good: no known layout; .*found 0 folders and 4 pictures",
    ),
    "one level too high": (
        lambda root: {"data": root.parents[1]},
        r"no known layout; .*found 1 folders \(data/\) and 0 pictures",
    ),
    "one level too low": (
        lambda root: {"data": root / "test"},
        r"test: this is one part of a category; give the folder",
    ),
    "no test folder": (lambda root: remove(root / "test"), r"nut: no test/ folder; put defect pictures into"),
    "test is a file": (
        lambda root: remove(root / "test") or (root / "test").touch(),
        r"nut: no test/ folder; put defect pictures into",
    ),
    "no defects": (
        lambda root: remove(root / "test/scratch") or {"defect": None},
        r"test: no defect folder; put defect pictures into test/<defect>",
    ),
    "pictures beside defects": (
        move_pictures_up,
        r"test: 6 pictures lie directly inside; move them into test/<defect>",
    ),
    "unknown category": (lambda _: {"category": "not"}, r"no category 'not'; did you mean 'nut'\?"),
    "unknown defect": (lambda _: {"defect": "sratch"}, r"test: no defect 'sratch'; did you mean 'scratch'\?"),
    "good as defect": (lambda _: {"defect": "good"}, r"no defect 'good'; did you mean .* There are: scratch"),
    "no pictures": (
        lambda root: remove(root / "test/scratch") or (root / "test/scratch").mkdir(),
        r"test/scratch: no pictures; put the pictures of this defect there",
    ),
    "no masks at all": (
        lambda root: remove(root / "ground_truth"),
        r"test/scratch/000\.png: no mask; it must be .*ground_truth/scratch/000_mask\.png .*`dualanodiff check",
    ),
    "mask of another name": (
        lambda root: rename(root, MASK, "ground_truth/scratch/0_mask.png"),
        r"test/scratch/000\.png: no mask; it must be",
    ),
    "too few for a third": (
        lambda root: [(root / f"test/scratch/{n:03}.png").unlink() for n in range(4)],
        r"test/scratch: 2 pictures, a third of which is no shot; use --shots all",
    ),
    "too many asked for": (lambda _: {"rule": "7"}, r"scratch: --shots 7, but there are 6 pictures; ask for 1 to 6"),
    "none asked for": (lambda _: {"rule": "0"}, r"scratch: --shots 0, but there are 6 pictures"),
    "unknown rule": (
        lambda _: {"rule": "half"},
        r"--shots half: not first-third, pieces, all or a number, and no such file",
    ),
    "negative rule": (
        lambda _: {"rule": "-3"},
        r"--shots -3: not first-third, pieces, all or a number, and no such file",
    ),
    "list is a folder": (
        lambda root: {"rule": str(root)},
        r"--shots .*nut: cannot be read as a list \(.*Is a directory",
    ),
    "list is a picture": (
        lambda root: {"rule": str(root / SHOT)},
        r"--shots .*000\.png: cannot be read as a list \('utf-8' codec",
    ),
    "list is empty": (lambda root: write_list(root, b"# none\n\n"), r"shots\.txt: names no picture; write one picture"),
    "list has a stranger": (
        lambda root: write_list(root, b"000\n7.png"),
        r"shots\.txt: line 2: no picture '7\.png'; did you mean",
    ),
    "picture of 0 bytes": (
        lambda root: (root / SHOT).write_bytes(b""),
        r"test/scratch/000\.png: holds 0 bytes; copy the picture again",
    ),
    "picture is text": (
        lambda root: (root / SHOT).write_text("hello"),
        r"000\.png: its content is none of PNG, JPEG, BMP, TIFF, WEBP; save it as PNG",
    ),
    "picture is a program": (
        lambda root: (root / SHOT).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
        r"000\.png: its content is none of PNG",
    ),
    "picture is a gif": (
        lambda root: become(root / SHOT, Image.new("L", (32, 32)), format="GIF"),
        r"000\.png: its content is none of PNG",
    ),
    "picture is a folder": (
        lambda root: replace_by_folder(root / SHOT),
        r"000\.png: is a folder; a picture file must be",
    ),
    "picture is a dead link": (lambda root: replace_by_link(root / SHOT), r"000\.png: no such picture file"),
    "truncated png": (lambda root: cut(root / SHOT), r"000\.png: damaged or cut off \(.+\); copy the picture again"),
    "truncated jpg": (lambda root: cut(root / SHOT, suffix=".jpg", share=0.9), r"000\.jpg: damaged or cut off \(.+\)"),
    "truncated bmp": (lambda root: cut(root / SHOT, suffix=".bmp"), r"000\.bmp: damaged or cut off \(.+\)"),
    "truncated tif": (
        lambda root: cut(root / SHOT, suffix=".tif"),
        r"000\.tif: (damaged or cut off|its content is none)",
    ),
    "truncated webp": (
        lambda root: cut(root / SHOT, suffix=".webp"),
        r"000\.webp: (damaged or cut|its content is none)",
    ),
    "cut in the header": (
        lambda root: cut(root / SHOT, share=0.01),
        r"000\.png: (damaged or cut off|its content is none of)",
    ),
    "picture of too many pixels": (lambda root: bomb(root / SHOT), r"000\.png: too many pixels to be opened safely"),
    "floats out of range": (
        lambda root: as_tif(root, np.full((32, 32), -1.5, np.float32)),
        r"000\.tif: grey values outside 0\.\.65535; scale them",
    ),
    "mask of 0 bytes": (
        lambda root: (root / MASK).write_bytes(b""),
        r"ground_truth/scratch/000_mask\.png: holds 0 bytes",
    ),
    "mask is a table": (
        lambda root: (root / MASK).write_text('{"boxes": []}'),
        r"000_mask\.png: its content is none of PNG",
    ),
    "truncated mask": (lambda root: cut(root / MASK, share=0.7), r"000_mask\.png: damaged or cut off"),
    "mask is a folder": (lambda root: replace_by_folder(root / MASK), r"000_mask\.png: is a folder; a picture file"),
    "empty mask": (
        lambda root: write_png(root / MASK, np.zeros((32, 32), bool)),
        r"000_mask\.png: empty mask, no pixel is marked; .*`dualanodiff check .*` lists every problem",
    ),
    "full mask": (
        lambda root: write_png(root / MASK, np.ones((32, 32), bool)),
        r"000_mask\.png: full mask, every pixel is marked; mark the defect only",
    ),
    "mask of another size": (
        lambda root: write_png(root / MASK, np.eye(64, dtype=bool)),
        r"000_mask\.png: mask of 64 x 64 pixels on a picture of 32 x 32; save it at the picture's size",
    ),
    "mask turned": (
        lambda root: (
            write_png(root / SHOT, np.zeros((32, 16, 3), np.uint8)) or write_png(root / MASK, np.eye(16, 32) > 0)
        ),
        r"000_mask\.png: mask of 32 x 16 pixels on a picture of 16 x 32; turn it by 90 degrees",
    ),
}


def break_product(case: str, product: Callable[..., Path]) -> dict[str, Any]:
    """Arguments for find_shots on a product with the damage of `case`."""
    root = product()
    answer = CASES[case][0](root)
    usual = {"data": root.parent, "defect": "scratch", "resolution": 32}
    return usual | (answer if isinstance(answer, dict) else {})


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_fit_data_that_is_broken_ends_in_one_clear_line(
    case: str, product: Callable[..., Path], tmp_path: Path
) -> None:
    options = break_product(case, product)
    before = snapshot(tmp_path)
    with pytest.raises(DataError, match=CASES[case][1]) as caught:
        find_shots(**options)
    assert len(str(caught.value).splitlines()) == 1
    assert snapshot(tmp_path) == before


def found_by_check(options: dict[str, Any]) -> list[str]:
    """The lines that `check` has for the same data and the same rule."""
    options["shots"] = options.pop("rule", "first-third")
    try:
        report = check(**options)
    except DataError as error:
        return [str(error)]
    return [f"{item.file}: {item.text}" for item in report.problems if item.level == "error"]


@pytest.mark.parametrize("case", CASES)
def test_check_says_what_fit_would_stop_at(case: str, product: Callable[..., Path], tmp_path: Path) -> None:
    options = break_product(case, product)
    with pytest.raises(DataError) as caught:
        find_shots(**options)
    known = {path.name for path in tmp_path.iterdir()}
    before = snapshot(tmp_path / "data")
    lines = found_by_check(options)
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert snapshot(tmp_path / "data") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"data", ".cache", *known}
    # A folder that is not there is one line, and not one for each of its masks.
    once = {"no masks at all": "ground_truth/scratch: no such folder, so that 6 pictures have no mask"}
    stop = once.get(case) or str(caught.value).partition(": ")[2].partition("; `dualanodiff check")[0]
    assert any(stop in line for line in lines), (stop, lines)
