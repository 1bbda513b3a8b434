"""The stop rule: a shot that is only looked at decides when it is enough."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dualanodiff import held_out
from dualanodiff.errors import DataError
from dualanodiff.held_out import HeldOut, hold_out
from dualanodiff.latents import LatentShots
from dualanodiff.runs import RunFolder
from small import draw_shots, fit_small, logged, same, small_settings

RULE: dict[str, Any] = {"train__stop": "held-out", "train__max_train_steps": 9, "train__patience": 3}


def test_the_last_shot_is_never_learned_from() -> None:
    pairs = torch.arange(3.0).view(3, 1, 1, 1, 1, 1).expand(3, 4, 2, 4, 8, 8)
    learned, rule = hold_out(LatentShots(pairs, torch.ones(3, 4, 1, 8, 8), None), small_settings(), torch.device("cpu"))
    assert learned.pairs.unique().tolist() == [0, 1]
    assert all(batch.latents.unique().tolist() == [2] for batch in rule.batches)
    assert sum(len(batch.timesteps) for batch in rule.batches) == held_out.DRAWS


def test_one_shot_cannot_be_both() -> None:
    one = LatentShots(torch.zeros(1, 4, 2, 4, 8, 8), torch.zeros(1, 4, 1, 8, 8), None)
    with pytest.raises(DataError, match="held-out, but one shot cannot be both"):
        hold_out(one, small_settings(), torch.device("cpu"))


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the held-out loss of each judged step be the next of these."""

    def judge(self: HeldOut, model: Any, train: Any, step: int) -> float:
        loss = losses[step - 1]
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        return loss

    monkeypatch.setattr(HeldOut, "judge", judge)
    monkeypatch.setattr("dualanodiff.fitting.LOG_STEPS", 1)


def test_it_stops_when_nothing_becomes_better_and_keeps_the_best(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [3, 2, 4, 4, 4, 4, 4, 4, 4])
    shots = draw_shots(3)
    run = fit_small(tiny_base_folder, tmp_path / "run", shots=shots, **RULE)
    assert [row["step"] for row in logged(run)] == [1, 2, 3, 4, 5]
    assert run.load_start()[1]["best_step"] == 2
    scripted(monkeypatch, [3, 2])
    two = fit_small(tiny_base_folder, tmp_path / "two", shots=shots, **{**RULE, "train__max_train_steps": 2})
    assert same(run, two)


def test_a_resumed_run_remembers_the_best(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [3, 2, 4, 4, 4, 4, 4, 4, 4])
    shots = draw_shots(3)
    whole = fit_small(tiny_base_folder, tmp_path / "whole", shots=shots, **RULE)
    fit_small(tiny_base_folder, tmp_path / "half", shots=shots, **{**RULE, "train__max_train_steps": 4})
    (tmp_path / "half" / "start.safetensors").unlink()
    resumed = fit_small(tiny_base_folder, tmp_path / "half", shots=shots, resume=True, **RULE)
    assert same(whole, resumed) and [row["step"] for row in logged(RunFolder(tmp_path / "half"))] == [1, 2, 3, 4, 5]


def test_the_same_weights_have_the_same_loss(tiny_base_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("dualanodiff.fitting.LOG_STEPS", 1)
    changes = {**RULE, "train__learning_rate": 0.0, "train__max_train_steps": 3}
    rows = logged(fit_small(tiny_base_folder, tmp_path / "run", shots=draw_shots(3), **changes))
    assert len({row["held_out"] for row in rows}) == 1 and len({row["loss"] for row in rows}) > 1
