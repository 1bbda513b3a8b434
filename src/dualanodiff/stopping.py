"""How training stops early: Ctrl-C between two steps, a full disk or missing memory with one clear line."""

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dualanodiff.errors import TrainingStopped
from dualanodiff.memory import is_out_of_memory


@contextmanager
def held_interrupt(*, hold: bool = True) -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed, which meanwhile breaks nothing off; a second one does at once.

    A step that is cut in half has changed some weights and not others, a state that no other run passes through.
    Nothing is held back without `hold`, or where somebody else handles or ignores the signal.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    hold = hold and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if hold:
            signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, which alone is interrupted
        hold = False
    try:
        yield lambda: pressed
    finally:
        if hold:
            signal.signal(signal.SIGINT, signal.default_int_handler)


SMALLER_FIT = (
    "Fit into a new folder with a lower train.train_batch_size or data.resolution, or add --resume --set "
    "train.gradient_checkpointing=true"
)


@contextmanager
def one_clear_line(run: Path, *, go_on: str = "add --resume", smaller: str = SMALLER_FIT) -> Iterator[None]:
    """Turn a full disk and missing memory into a TrainingStopped that says what is kept in `run`, and the way out.

    `go_on` is what to do when there is room again, `smaller` what takes less memory.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        msg = f"{run}: the disk is full; make room and {go_on}, every state written before is whole"
        raise TrainingStopped(msg) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        msg = f"{run}: not enough memory; the states written before are whole. {smaller}"
        raise TrainingStopped(msg) from None
