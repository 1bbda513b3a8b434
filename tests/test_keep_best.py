"""Drawing goes on until enough pairs are good, or until the limit."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dualanodiff import keep_best as module
from dualanodiff.errors import SettingsError
from dualanodiff.keep_best import keep_best
from dualanodiff.masks.result import MaskResult
from dualanodiff.sets import PairSet
from dualanodiff.storage import read_jsonl
from toy_product import SIDE, defect_picture, good_picture, write_toy


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that learned from the toy product's first six defects."""
    shots = [write_toy(tmp_path / "disc", defects=8) / "test" / "rust" / f"{i:03}.png" for i in range(6)]
    lineage = {"files": [{"role": "shot", "path": str(path), "sha256": ""} for path in shots]}
    folder = SimpleNamespace(load_start=lambda: (None, {"resolution": SIDE}), lineage=lambda: lineage)
    monkeypatch.setattr(module, "RunFolder", lambda _: folder)
    return tmp_path / "run"


class Generator:
    """Every `each`-th pair that it draws shows a defect."""

    def __init__(self, each: int) -> None:
        self.each, self.asked = each, []

    def __call__(self, total: int, folder: Path) -> dict[str, int]:
        self.asked.append(total)
        pairs = PairSet.begin(folder, {"run": "r", "key": [0, 255, 0]})
        for index in set(range(total)) - pairs.done():
            good = index % self.each == 0
            image, mask = defect_picture(20 + index) if good else (good_picture(index), np.zeros((SIDE, SIDE), bool))
            pairs.add(index, image, image, MaskResult(mask, not good, "key", 0.5), {})
        return {}


def test_more_is_drawn_until_enough_are_good(run, tmp_path):
    draw = Generator(each=2)
    result = keep_best(draw, run, count=3, out=tmp_path / "best")
    assert result["enough"]
    assert result["kept"] == 3
    assert draw.asked[0] == 3
    assert draw.asked[-1] == result["drawn"] <= 12
    assert len(PairSet.open(tmp_path / "best").done()) == 3
    assert len(PairSet.open(tmp_path / "best-drawn").done()) == result["drawn"]
    assert len(list(read_jsonl(tmp_path / "best" / "dropped.jsonl"))) == result["drawn"] - 3
    again = Generator(each=2)
    assert keep_best(again, run, count=3, out=tmp_path / "best")["kept"] == 3


def test_at_the_limit_it_stops_and_says_that_it_is_short(run, tmp_path):
    draw = Generator(each=100)
    result = keep_best(draw, run, count=2, out=tmp_path / "best", most=5)
    assert draw.asked == [2, 4, 5]
    assert (result["enough"], result["kept"], result["drawn"], result["limit"]) == (False, 1, 5, 5)
    assert result["why"]["valid"] == 4


def test_a_limit_below_the_count_is_refused(run, tmp_path):
    with pytest.raises(SettingsError, match=r"--at-most 2: fewer than the 3 pairs wanted"):
        keep_best(Generator(1), run, count=3, out=tmp_path / "best", most=2)
