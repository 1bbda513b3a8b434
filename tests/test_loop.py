"""The loop around a training's steps: what is logged, when it saves, and what a loss that is no number does."""

import time
from pathlib import Path

import pytest
import torch

from dualanodiff.errors import TrainingStopped
from dualanodiff.loop import LOG_STEPS, Loop
from dualanodiff.storage import read_jsonl


def loop(folder: Path, steps: int = 25, save_every: int = 10) -> Loop:
    return Loop("test", steps, folder / "log.jsonl", ("a", "b"), save_every, "do otherwise")


def test_it_logs_means_and_saves_on_time_and_at_the_end(tmp_path: Path) -> None:
    saved: list[int] = []
    made = loop(tmp_path).run(lambda step: torch.tensor([step, 1.0]), saved.append)
    assert made == 25
    assert saved == [10, 20, 25]
    rows = [(row["step"], row["loss"], row["a"], row["b"]) for row in read_jsonl(tmp_path / "log.jsonl")]
    assert rows == [(10, 5.5, 4.5, 1), (20, 15.5, 14.5, 1), (25, 23, 22, 1)]


def test_it_goes_on_and_forgets_what_was_logged_after_the_state(tmp_path: Path) -> None:
    loop(tmp_path).run(lambda step: torch.tensor([step, 1.0]), lambda _: None)
    loop(tmp_path).run(lambda step: torch.tensor([step, 2.0]), lambda _: None, start=20)
    assert [(row["step"], row["b"]) for row in read_jsonl(tmp_path / "log.jsonl")] == [(10, 1), (20, 1), (25, 2)]


def test_time_that_ends_while_the_losses_are_read_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Loop._note

    def slow(self: Loop, *what: object) -> None:  # as on a GPU, where reading waits for all steps before
        time.sleep(0.2)
        note(self, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_note", slow)
    saved: list[int] = []
    made = loop(tmp_path, steps=1000, save_every=1000).run(lambda _: torch.ones(2), saved.append, seconds=0.1)
    assert made == LOG_STEPS
    assert saved == [LOG_STEPS]


def test_time_that_ends_between_two_lines_is_logged_and_saved(tmp_path: Path) -> None:
    def step(_: int) -> torch.Tensor:
        time.sleep(0.03)
        return torch.ones(2)

    saved: list[int] = []
    made = loop(tmp_path, steps=1000).run(step, saved.append, seconds=0.1)
    assert 0 < made < LOG_STEPS
    assert saved == [made]
    assert [row["step"] for row in read_jsonl(tmp_path / "log.jsonl")] == [made]
    assert loop(tmp_path).run(step, saved.append, start=made, seconds=0) == made


def test_a_loss_that_is_no_number_ends_it_before_a_state_is_written(tmp_path: Path) -> None:
    saved: list[int] = []
    with pytest.raises(TrainingStopped, match=r"the loss is not a number at step 10; do otherwise"):
        loop(tmp_path).run(lambda _: torch.tensor([1.0, float("nan")]), saved.append)
    assert saved == []
