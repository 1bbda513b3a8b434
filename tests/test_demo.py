"""The demo on the toy base: what it leaves behind, and how it judges pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualanodiff import demo
from dualanodiff.demo import judge_set, run_demo
from dualanodiff.errors import RunError
from dualanodiff.images import read_rgb
from dualanodiff.masks.result import MaskResult
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from small import SMALL


@pytest.fixture
def tiny_demo(tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a demo of few and small pictures in `tmp_path`."""
    monkeypatch.setattr(demo, "PICTURES", 3)
    monkeypatch.setattr(demo, "NORMALS", 8)
    monkeypatch.setattr(demo, "PAIRS", 3)
    write = demo.write_product
    monkeypatch.setattr(demo, "write_product", lambda *args, **options: write(*args, **options | {"size": 64}))
    short = {key: str(value) for key, value in SMALL.items()} | {"train.max_train_steps": "2", "train.adapt_steps": "2"}

    def run(**changes: Any) -> dict[str, Any]:
        return run_demo(tmp_path / "demo", **{"base": str(tiny_base_folder), "assignments": short} | changes)

    return run


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_demo_leaves_data_a_run_a_set_a_sheet_and_a_judgement(tiny_demo: Any, tmp_path: Path) -> None:
    out, result = tmp_path / "demo", tiny_demo()
    assert {path.name for path in (out / "data").iterdir() if path.is_dir()} == {"cap", "washer", "tile"}
    assert len(list((out / "data" / "cap" / "test" / "stain").glob("*.png"))) == 3
    assert RunFolder(out / "run").finished
    [adapted] = (out / "adapted").iterdir()
    assert Path(RunFolder(out / "run").base_name()) == adapted
    assert PairSet.open(out / "set").done() == {0, 1, 2}
    assert read_rgb(Path(result["look_at"])).std() > 0
    assert json.loads((out / "demo.json").read_text()) == result
    assert (result["pairs"], len(result["agreement"]), len(result["shots_agreement"])) == (3, 3, 1)
    assert result["shots_agreement"][0] > 0.9
    assert 0 <= result["mask_agrees"] <= result["with_a_defect"] <= 3


def test_a_second_call_makes_nothing_again(tiny_demo: Any, tmp_path: Path) -> None:
    first = tiny_demo()
    before = snapshot(tmp_path / "demo")
    assert tiny_demo() == first
    after = snapshot(tmp_path / "demo")
    assert after.keys() == before.keys()
    assert {path.name for path in after if after[path] != before[path]} <= {"demo.json", "pairs.png", "lineage.json"}


def test_a_call_after_a_kill_goes_on(tiny_demo: Any, tmp_path: Path) -> None:
    first = tiny_demo()
    out = tmp_path / "demo"
    kept = (out / "set" / "image" / "000000.png").read_bytes()
    (out / "run" / "start.safetensors").unlink()  # as if the fit had not ended
    (out / "set" / "image" / "000000.png").unlink()
    (out / "data" / "seed.txt").unlink()  # nor the drawing
    assert tiny_demo() == first
    assert (out / "set" / "image" / "000000.png").read_bytes() == kept


def test_another_seed_in_the_same_folder_is_refused(tiny_demo: Any, tmp_path: Path) -> None:
    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "data" / "seed.txt").write_text("0")
    with pytest.raises(RunError, match=r"demo: holds a demo of seed 0; choose another --out for seed 5"):
        tiny_demo(seed=5)
    assert not (tmp_path / "demo" / "run").exists()


def test_another_seed_is_another_product_and_run(tiny_demo: Any, tmp_path: Path) -> None:
    tiny_demo(seed=5)
    assert RunFolder(tmp_path / "demo" / "run").settings().seed == 5


# -- judging


def ground(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(120, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8)


def write_set(folder: Path, *, shown: bool, empty: bool = False) -> list[np.ndarray]:
    """Four pairs whose masks lie apart, with or without a spot there; good pictures."""
    pairs = PairSet.begin(folder, {"run": "r", "seed": 0})
    for i in range(4):
        rgb, mask = ground(i), np.zeros((64, 64), bool)
        mask[10 + 30 * (i // 2) :, 10 + 30 * (i % 2) :][:14, :14] = True
        if shown:
            rgb[mask] = (200, 60, 60)
        found = MaskResult.nothing(mask.shape, "key") if empty else MaskResult.found(mask, "key", 1.0, 0.1)
        pairs.add(i, rgb, rgb, found, {"seed": i})
    return [ground(100 + i) for i in range(6)]


def test_pairs_that_show_what_their_masks_say_are_counted(tmp_path: Path) -> None:
    found = judge_set(tmp_path / "set", write_set(tmp_path / "set", shown=True))
    assert (found["with_a_defect"], found["mask_agrees"]) == (4, 4)
    assert min(found["agreement"]) > 0.95


def test_the_control_knows_masks_of_other_pairs(tmp_path: Path) -> None:
    found = judge_set(tmp_path / "set", write_set(tmp_path / "set", shown=True))
    assert found["median_agreement"] > 0.95
    assert 0.35 < found["median_agreement_of_swapped_masks"] < 0.65


def test_pictures_that_show_nothing_are_not_counted_whatever_their_masks_say(tmp_path: Path) -> None:
    found = judge_set(tmp_path / "set", write_set(tmp_path / "set", shown=False))
    assert (found["with_a_defect"], found["mask_agrees"]) == (0, 0)
    assert 0.35 < found["median_agreement"] < 0.65


def test_empty_masks_are_no_defects(tmp_path: Path) -> None:
    found = judge_set(tmp_path / "set", write_set(tmp_path / "set", shown=True, empty=True))
    assert (found["with_a_defect"], found["mask_agrees"]) == (0, 0)
    assert found["agreement"] == [0.5] * 4
