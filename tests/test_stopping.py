"""How training stops early."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from dualanodiff.errors import TrainingStopped
from dualanodiff.stopping import held_interrupt, one_clear_line

RUN = Path("runs/a")


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_breaks_nothing_off_and_is_told_when_asked() -> None:
    with held_interrupt() as interrupted:
        assert not interrupted()
        press()
        assert interrupted()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    with held_interrupt():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_held_back_where_it_is_not_wanted() -> None:
    with pytest.raises(KeyboardInterrupt), held_interrupt(hold=False):
        press()


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with held_interrupt() as interrupted:
            press()
            assert (seen, interrupted()) == ([signal.SIGINT], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_can_train() -> None:
    told: list[bool] = []

    def work() -> None:
        with held_interrupt() as interrupted:
            told.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "^runs/a: the disk is full; make room and add --resume"),
        (torch.OutOfMemoryError("CUDA out of memory."), "^runs/a: not enough memory; .* lower train.train_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "^runs/a: not enough memory"),
        (MemoryError(), "^runs/a: not enough memory; .*--resume --set train.gradient_checkpointing=true$"),
    ],
)
def test_what_the_machine_lacks_is_one_clear_line(error: Exception, line: str) -> None:
    with pytest.raises(TrainingStopped, match=line) as stopped, one_clear_line(RUN):
        raise error
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "denied"), RuntimeError("shapes differ")])
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match=r"denied|differ") as raised, one_clear_line(RUN):
        raise error
    assert raised.value is error
