"""A fit that is killed, interrupted or stopped goes on as if nothing had happened."""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from dualanodiff import fitting
from dualanodiff.checkpoints import load_checkpoint
from dualanodiff.errors import TrainingStopped
from dualanodiff.fit_folder import fit_folder
from dualanodiff.pair_model import PairModel
from dualanodiff.runs import RunFolder
from small import SMALL, adapters, fit_alone, fit_and_die, fit_as_one_of, fit_small, logged, same, start

Resume = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def whole(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing disturbed."""
    return fit_small(tiny_base_folder, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def resume(tiny_base_folder: Path, tmp_path: Path) -> Resume:
    """A function that goes on with the run in `tmp_path`."""
    return lambda **changes: fit_small(tiny_base_folder, tmp_path / "run", resume=True, **changes)


def assert_whole(run: RunFolder, whole: RunFolder) -> None:
    assert same(run, whole)
    assert [row["step"] for row in logged(run)] == [row["step"] for row in logged(whole)]
    # Two states, and nothing that a kill left half-written in between.
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == [
        "step-00000004.safetensors",
        "step-00000006.safetensors",
    ]


# -- killed


KILLS = {
    "while the lineage is written": ("pathlib.Path.write_text", 1, True),
    "while the settings are written": ("pathlib.Path.write_text", 2, True),
    "while latents are kept": ("dualanodiff.latents.save_file", 1, True),
    "while the first state is written": ("dualanodiff.checkpoints.save_file", 1, True),
    "while the second state is written": ("dualanodiff.checkpoints.save_file", 2, True),
    "before an old state is dropped": ("dualanodiff.runs.RunFolder.drop_old_checkpoints", 3, False),
    "while metrics are written": ("dualanodiff.fitting.append_jsonl", 2, True),
    "in the middle of a step": ("torch.optim.AdamW.step", 4, False),
    "while adapters are written": ("dualanodiff.model.adapters.save_file", 2, True),
    "just before the end is marked": ("dualanodiff.fitting.RunFolder.save_start", 1, False),
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_run_goes_on_as_if_never_killed(
    moment: str, whole: RunFolder, tiny_base_folder: Path, tmp_path: Path, resume: Resume, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fitting, "LOG_STEPS", 3)
    process = start(fit_and_die, tiny_base_folder, tmp_path / "run", torch.get_num_threads(), *KILLS[moment])
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert not RunFolder(tmp_path / "run").finished
    run = resume()
    assert same(run, whole)
    assert [row["step"] for row in logged(run)] == [3, 6]
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["step-00000004.safetensors", "step-00000006.safetensors"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_a_random_moment_goes_on(
    seed: int, whole: RunFolder, tiny_base_folder: Path, tmp_path: Path, resume: Resume
) -> None:
    process = start(fit_alone, tiny_base_folder, tmp_path / "run", torch.get_num_threads())
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "latents.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 1))
    process.kill()
    process.join()
    assert_whole(resume(), whole)


def test_what_a_library_left_half_written_is_dropped(
    whole: RunFolder, tiny_base_folder: Path, tmp_path: Path, resume: Resume
) -> None:
    """safetensors fills a temporary file of its own beside the one it is told to write."""
    fit_small(tiny_base_folder, tmp_path / "run", train__max_train_steps=2)
    half = tmp_path / "run" / "checkpoints" / ".tmp3jE8xM"
    half.write_bytes(b"half")
    assert same(resume(), whole)
    assert not half.exists()


def test_a_run_in_another_process_is_the_same_run(whole: RunFolder, tiny_base_folder: Path, tmp_path: Path) -> None:
    process = start(fit_alone, tiny_base_folder, tmp_path / "run", torch.get_num_threads())
    process.join(300)
    assert process.exitcode == 0
    assert_whole(RunFolder(tmp_path / "run"), whole)


def test_a_finished_run_may_be_resumed_to_learn_longer(
    whole: RunFolder, tiny_base_folder: Path, tmp_path: Path, resume: Resume
) -> None:
    short = fit_small(tiny_base_folder, tmp_path / "run", train__max_train_steps=4)
    assert short.finished
    assert not same(short, whole)
    assert same(resume(), whole)


def test_resuming_a_run_that_has_all_its_steps_changes_nothing(whole: RunFolder, resume: Resume) -> None:
    first = resume()
    before = adapters(first), first.metrics.read_text()
    assert same(resume(), whole)
    assert first.metrics.read_text() == before[1]


def test_time_spent_is_counted_over_both_halves(tiny_base_folder: Path, tmp_path: Path, resume: Resume) -> None:
    run = fit_small(tiny_base_folder, tmp_path / "run", train__max_train_steps=2)
    run.metrics.write_text(run.metrics.read_text().replace('"seconds": ', '"seconds": 100'))
    assert logged(resume())[-1]["seconds"] >= 100


# -- interrupted


def test_ctrl_c_ends_after_the_step_and_keeps_it(
    whole: RunFolder, tmp_path: Path, resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = fitting.Fit.step

    def interrupted(self: fitting.Fit, number: int) -> torch.Tensor:
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fit, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resume()
    assert [path.stem for path in RunFolder(tmp_path / "run").checkpoints()] == ["step-00000002", "step-00000003"]
    assert same(resume(), whole)


def test_ctrl_c_on_the_command_line_exits_130_and_the_run_goes_on(
    product: Callable[..., Path], tiny_base_folder: Path, tmp_path: Path
) -> None:
    data, changes = product(size=64), SMALL | {"train.max_train_steps": 400, "train.checkpointing_steps": 300}
    words = ["fit", data, "--defect", "scratch", "--out", tmp_path / "run", "--base", tiny_base_folder]
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "dualanodiff", *map(str, words), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    run = RunFolder(tmp_path / "run")
    deadline = time.monotonic() + 300
    while not (run.metrics.exists() and run.metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    *before, last = errors.splitlines()  # a slow machine has time for lines of progress
    assert process.returncode == 130
    assert all(line.startswith("fit") for line in before), errors
    assert last.startswith("interrupted; all that was made so far is kept")
    [state] = run.checkpoints()
    step = load_checkpoint(state)[1]["step"]
    assert 10 <= step < 400
    options: dict[str, Any] = {"defect": "scratch", "base": str(tiny_base_folder)}
    short = {key: str(value) for key, value in changes.items()} | {"train.max_train_steps": str(step + 2)}
    fit_folder(data, out=run.path, assignments=short, resume=True, **options)
    fit_folder(data, out=tmp_path / "whole", assignments=short, **options)
    assert same(run, RunFolder(tmp_path / "whole"))


# -- stopped


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def out_of_host_memory() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize("error", [out_of_memory, out_of_host_memory, MemoryError])
def test_missing_memory_stops_with_one_line_and_the_last_state_is_whole(
    error: Callable[[], Exception], whole: RunFolder, tmp_path: Path, resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = fitting.Fit.step

    def failing(self: fitting.Fit, number: int) -> torch.Tensor:
        if number == 3:
            raise error()
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fit, "step", failing)
        with pytest.raises(TrainingStopped, match=r"run: not enough memory; the states written before are whole"):
            resume()
    assert load_checkpoint(RunFolder(tmp_path / "run").checkpoints()[-1])[1]["step"] == 2
    # The way out that the message names is open.
    learned = adapters(resume(train__gradient_checkpointing="true"))
    for key, value in adapters(whole).items():
        torch.testing.assert_close(learned[key], value, atol=1e-4, rtol=1e-3)


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), SafetensorError(f"I/O error: {FULL} (os error 28)")])
@pytest.mark.parametrize(
    "place", ["checkpoints.save_file", "fitting.append_jsonl", "model.adapters.save_file", "runs.write_text"]
)
def test_a_full_disk_stops_with_one_line_and_the_run_goes_on_when_there_is_room(
    place: str,
    error: Exception,
    whole: RunFolder,
    tmp_path: Path,
    resume: Resume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if isinstance(error, SafetensorError) and "save_file" not in place:
        pytest.skip("only safetensors' writer raises this")

    def full(*_: Any, **__: Any) -> None:
        raise error

    resume(train__max_train_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(f"dualanodiff.{place}", full)
        with pytest.raises(TrainingStopped, match=r"run: the disk is full; make room and add --resume") as stopped:
            resume()
    assert "\n" not in str(stopped.value)
    assert load_checkpoint(RunFolder(tmp_path / "run").checkpoints()[-1])[1]["step"] >= 2
    assert same(resume(), whole)


def test_a_loss_that_is_no_number_stops_before_it_reaches_a_state(
    whole: RunFolder, tmp_path: Path, resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = PairModel.forward, []

    def poisoned(self: PairModel, *args: Any) -> torch.Tensor:
        calls.append(1)
        return forward(self, *args) * (float("nan") if len(calls) == 5 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(PairModel, "forward", poisoned)
        with pytest.raises(
            TrainingStopped,
            match=r"run: the loss is not a number at step 6; the state of step 4 is kept. Fit again .*train.learning_rate",
        ):
            resume()
    groups, meta = load_checkpoint(RunFolder(tmp_path / "run").checkpoints()[-1])
    assert meta["step"] == 4
    assert all(bool(value.isfinite().all()) for group in groups.values() for value in group.values())
    assert same(resume(), whole)


def test_weights_that_are_no_numbers_never_reach_a_state(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = PairModel.forward
    monkeypatch.setattr(PairModel, "forward", lambda self, *args: forward(self, *args) * float("inf"))
    with pytest.raises(TrainingStopped, match=r"weights are not numbers at step 2; no state had been kept yet"):
        fit_small(tiny_base_folder, tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints() == []


def test_far_too_high_a_rate_stops_with_one_line(tiny_base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"is not a number at step 6; .* \(now 1e\+30\)") as stopped:
        fit_small(tiny_base_folder, tmp_path / "run", train__learning_rate=1e30, train__checkpointing_steps=100)
    assert "\n" not in str(stopped.value)


# -- on several devices


def test_two_processes_train_one_run(tiny_base_folder: Path, tmp_path: Path) -> None:
    """What `accelerate launch --num_processes 2 --cpu` starts, by the same environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(fit_as_one_of, rank, 2, port, tiny_base_folder, tmp_path / "run") for rank in (0, 1)]
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    run = RunFolder(tmp_path / "run")
    assert run.finished
    assert [row["step"] for row in logged(run)] == [6]
    alone = fit_small(tiny_base_folder, tmp_path / "alone")
    assert not same(run, alone), "the second process must add shots of its own"
