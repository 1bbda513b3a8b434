"""A set is complete or resumable at every instant."""

import errno
import json
import os

import numpy as np
import pytest

from dualanodiff import sets
from dualanodiff.errors import PictureError, RunError
from dualanodiff.masks.result import MaskResult
from dualanodiff.sets import PairSet

FACTS = {
    "run": "runs/a",
    "run_id": "abc",
    "seed": 3,
    "base": "mini",
    "settings": {"sample": {"num_inference_steps": 5, "batch_size": 4}, "mask": {"method": "key"}},
    "key": [0, 255, 0],
    "threshold": 0.2,
}
IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PART = IMAGE[::-1].copy()
GREY = IMAGE[..., 0].copy()
MASK = MaskResult(GREY > 100, False, "key", 0.71234, 0.25)


@pytest.fixture
def pairs(tmp_path):
    return PairSet.begin(tmp_path / "set", FACTS)


def add(pairs: PairSet, index: int, mask: MaskResult | None = MASK, attention: np.ndarray | None = None) -> None:
    pairs.add(index, IMAGE, PART, mask, {"seed": 1000 + index, "run": "runs/a"}, attention)


def test_a_pair_is_read_back_as_it_was_added(pairs):
    add(pairs, 7, attention=GREY)
    assert np.array_equal(pairs.read("image", 7), IMAGE)
    assert np.array_equal(pairs.read("part", 7), PART)
    assert np.array_equal(pairs.read("mask", 7), MASK.mask)
    assert np.array_equal(pairs.read("attention", 7), GREY)
    assert pairs.rows()[7] == {
        "index": 7,
        "image": "image/000007.png",
        "part": "part/000007.png",
        "attention": "attention/000007.png",
        "mask": "mask/000007.png",
        "mask_source": "key",
        "mask_empty": False,
        "mask_area": round(MASK.area, 6),
        "mask_score": 0.7123,
        "mask_threshold": 0.25,
        "mask_recipe": "",
        "scores": {},
        "seed": 1007,
        "run": "runs/a",
    }


def test_masks_are_stored_as_0_and_255_in_one_channel(pairs):
    add(pairs, 0)
    add(pairs, 1, MaskResult.nothing((6, 8), "key"))
    from PIL import Image

    with Image.open(pairs.file("mask", 0)) as file:
        assert file.mode == "L"
        assert set(np.unique(np.asarray(file))) == {0, 255}
    assert pairs.rows()[1]["mask_empty"] is True
    assert not pairs.read("mask", 1).any()


def test_a_pair_is_done_when_its_line_and_all_its_files_are_there(pairs):
    for index in range(5):
        add(pairs, index, attention=GREY)
    add(pairs, 5, None)
    for kind, index in zip(("image", "part", "mask", "attention"), range(4), strict=True):
        pairs.file(kind, index).unlink()
    assert pairs.done() == {4, 5}


def test_the_latest_line_of_a_pair_counts_and_lines_come_in_order(pairs):
    add(pairs, 2)
    add(pairs, 0)
    add(pairs, 2, MaskResult.nothing((6, 8), "sam"))
    assert list(pairs.rows()) == [0, 2]
    assert pairs.rows()[2]["mask_source"] == "sam"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(5))
def test_a_pair_that_a_kill_cut_off_is_not_done_and_can_be_added_again(pairs, monkeypatch, step):
    add(pairs, 0)
    calls = 0

    def dying(original):
        def write(*args):
            nonlocal calls
            if calls == step:
                raise Killed
            calls += 1
            return original(*args)

        return write

    with monkeypatch.context() as patched:
        patched.setattr(sets, "write_png", dying(sets.write_png))
        patched.setattr(sets, "append_jsonl", dying(sets.append_jsonl))
        with pytest.raises(Killed):
            add(pairs, 1, attention=GREY)
    again = PairSet.begin(pairs.folder, FACTS)
    assert again.done() == {0}
    add(again, 1, attention=GREY)
    assert again.done() == {0, 1}


def test_a_torn_last_line_costs_its_pair_only(pairs):
    add(pairs, 0)
    add(pairs, 1)
    os.truncate(pairs.manifest, pairs.manifest.stat().st_size - 9)
    assert pairs.done() == {0}
    add(pairs, 1)
    assert pairs.done() == {0, 1}


def test_the_manifest_is_rewritten_at_once(pairs, monkeypatch):
    add(pairs, 0)
    add(pairs, 0)
    rows = list(pairs.rows().values())
    before = pairs.manifest.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            pairs.rewrite(rows)
    assert pairs.manifest.read_bytes() == before
    pairs.rewrite(rows)
    assert len(pairs.manifest.read_text().splitlines()) == 1
    assert list(pairs.rows().values()) == rows


def test_a_mask_is_replaced_with_its_line(pairs):
    add(pairs, 0)
    pairs.replace_mask(pairs.rows()[0], MaskResult(~MASK.mask, False, "u2net", 0.9, 0.5), "recipe")
    row = pairs.rows()[0]
    assert (row["mask_source"], row["mask_recipe"], row["seed"]) == ("u2net", "recipe", 1000)
    assert np.array_equal(pairs.read("mask", 0), ~MASK.mask)


def test_a_set_goes_on_with_the_same_facts_and_any_batch_size(pairs):
    add(pairs, 0)
    sample = {**FACTS["settings"]["sample"], "batch_size": 1}
    again = PairSet.begin(pairs.folder, {**FACTS, "settings": {**FACTS["settings"], "sample": sample}})
    assert again.done() == {0}


def test_a_run_that_was_moved_is_known_again(pairs):
    assert PairSet.begin(pairs.folder, {**FACTS, "run": "elsewhere/a"}) == pairs


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, r"was begun with seed = 3, now 4; use the same, or choose another --out"),
        ({"run_id": "xyz"}, r"was begun with run_id = 'abc', now 'xyz'; use"),
        ({"run_id": "", "run": "runs/b"}, r"was begun with run = 'runs/a', now 'runs/b'; use"),
        ({"base": "sd15"}, r"was begun with base = 'mini', now 'sd15'; use"),
        ({"key": [0, 0, 0]}, r"was begun with key = \[0, 255, 0\], now \[0, 0, 0\]; use"),
        (
            {"settings": {"sample": {"num_inference_steps": 9}}},
            r"was begun with settings\.sample\.num_inference_steps = 5, now 9; use",
        ),
    ],
)
def test_a_set_never_mixes_two_runs_seeds_or_settings(pairs, change, said):
    before = pairs.path.read_bytes()
    with pytest.raises(RunError, match=said):
        PairSet.begin(pairs.folder, {**FACTS, **change})
    assert pairs.path.read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and not a set; choose another --out"):
        PairSet.begin(tmp_path, FACTS)
    with pytest.raises(RunError, match=r"thesis\.txt: is not empty and not a set; choose another --out"):
        PairSet.begin(tmp_path / "thesis.txt", FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_no_set_is_named(tmp_path):
    with pytest.raises(RunError, match=r"none: not a set \(no set\.json in it\); make one with `dualanodiff generate"):
        PairSet.open(tmp_path / "none")


@pytest.mark.parametrize("content", ["{", "\xff", ""])
def test_a_damaged_set_file_is_named(pairs, content):
    pairs.path.write_text(content, encoding="latin-1")
    with pytest.raises(
        RunError, match=r"set\.json: not readable \(.+\); restore it, or generate the set again"
    ) as caught:
        PairSet.open(pairs.folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "found"), [("[]", "None"), ("{}", "None"), ('{"format": 9}', "9")])
def test_a_set_of_another_format_is_named(pairs, content, found):
    pairs.path.write_text(content)
    with pytest.raises(
        RunError, match=rf"set\.json: has format {found} where this version reads 1; use the dualanodiff"
    ):
        PairSet.open(pairs.folder)


@pytest.mark.parametrize("key", [None, [0, 1], [0, 1, 256], "green", [True, 0, 0]])
def test_a_set_without_a_key_colour_says_what_must_be_there(pairs, key):
    pairs.path.write_text(json.dumps({**pairs.facts(), "key": key}))
    with pytest.raises(
        RunError, match=r"set\.json: key is .+ but must be the parts' key colour as three numbers in 0\.\.255"
    ):
        pairs.key()


@pytest.mark.parametrize("line", ['{"index": "0", "image": "", "part": "", "mask": ""}', '{"index": 0}', "{}"])
def test_a_line_that_describes_no_pair_is_named(pairs, line):
    pairs.manifest.write_text(line + "\n")
    with pytest.raises(
        RunError, match=r"manifest\.jsonl: has a line that describes no pair \(\{.*\); restore the file"
    ):
        pairs.done()


def test_a_damaged_picture_is_named(pairs):
    add(pairs, 0)
    pairs.file("part", 0).write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"part.000000\.png"):
        pairs.read("part", 0)


@pytest.mark.parametrize("writer", ["write_png", "append_jsonl", "write_text"])
def test_a_full_disk_says_what_is_kept(pairs, monkeypatch, writer):
    add(pairs, 0)
    add(pairs, 1)

    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(sets, writer, full)
        said = (
            r"(000002\.png|manifest\.jsonl): cannot be written \(No space left on device\); 2 pairs are kept: make room"
        )
        with pytest.raises(RunError, match=said):
            pairs.rewrite([]) if writer == "write_text" else add(pairs, 2)
    assert pairs.done() == {0, 1}


def test_a_set_that_cannot_be_begun_says_so(tmp_path, monkeypatch):
    def full(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(sets, "write_json", full)
    with pytest.raises(RunError, match=r"set\.json: cannot be written \(No space left on device\); 0 pairs are kept"):
        PairSet.begin(tmp_path / "set", FACTS)
