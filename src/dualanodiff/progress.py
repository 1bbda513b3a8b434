"""How far a long job is and how long it will take: a bar on a terminal, a line now and then in a log."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LOG_SECONDS = 30.0
silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether jobs keep quiet about their progress; `--json` sets it."""


class Bar:
    """One job's progress; `step` is called after each piece of work."""

    def __init__(self, name: str, total: int, start: int) -> None:
        self.name, self.total, self.start, self.done = name, total, start, start
        self.began = time.monotonic()
        self.foretold = False

    def step(self, pieces: int = 1, **numbers: float) -> None:
        """Count finished pieces and show the named numbers beside them."""
        self.done += pieces
        self._show("  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def foretell(self, more: str) -> None:
        """Say once, when the first pieces are made, how long the rest will take, and `more`; short jobs keep quiet."""
        left = self.seconds_left()
        if not self.foretold and LOG_SECONDS < left < float("inf"):
            self.note(f"{self.total - self.done} of {self.total} to go, about {duration(left)}, {more}")
        self.foretold = True

    def seconds_left(self) -> float:
        """Expected from the mean speed since this job began or was resumed; infinite before the first piece."""
        made = self.done - self.start
        return (time.monotonic() - self.began) / made * (self.total - self.done) if made else float("inf")

    def note(self, text: str) -> None:
        """Say something once, in a line of its own; nothing, unless a subclass knows where."""

    def _show(self, numbers: str) -> None:
        """Nothing, unless a subclass knows where."""


class _TerminalBar(Bar):
    """Redraws one line."""

    def __init__(self, name: str, total: int, start: int, display: Progress) -> None:
        super().__init__(name, total, start)
        self._display = display
        self._task: TaskID = display.add_task(name, total=total, completed=start, numbers="")

    def note(self, text: str) -> None:
        self._display.console.print(f"{self.name}: {text}", highlight=False)

    def _show(self, numbers: str) -> None:
        self._display.update(self._task, completed=self.done, numbers=numbers)


class _LogBar(Bar):
    """Writes a line every half minute, so that a log stays short and a quick job writes none."""

    def __init__(self, name: str, total: int, start: int) -> None:
        super().__init__(name, total, start)
        self._next_line = self.began + LOG_SECONDS

    def note(self, text: str) -> None:
        sys.stderr.write(f"{self.name}: {text}\n")
        sys.stderr.flush()

    def _show(self, numbers: str) -> None:
        if time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + LOG_SECONDS
        line = f"{self.name} {self.done}/{self.total}  {numbers}  {duration(self.seconds_left())} left"
        sys.stderr.write(line.replace("    ", "  ") + "\n")
        sys.stderr.flush()


@contextmanager
def progress(name: str, total: int, *, start: int = 0) -> Iterator[Bar]:
    """A bar on standard error for `total` pieces of work, of which `start` were done by an earlier run.

    Silent under `--json`, and in all but the first process of `accelerate launch`.
    """
    if silent.get() or os.environ.get("LOCAL_RANK", "0") != "0":
        yield Bar(name, total, start)
    elif not sys.stderr.isatty():
        yield _LogBar(name, total, start)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as display:
            yield _TerminalBar(name, total, start, display)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(7.2), duration(754), duration(6300)
    ('7 s', '12 min 34 s', '1 h 45 min')
    """
    if seconds == float("inf"):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
