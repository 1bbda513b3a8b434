"""Progress tells how long it takes, and never more than it was asked to."""

import sys

import pytest

from dualanodiff import progress as module
from dualanodiff.progress import duration, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute(clock, capsys):
    with progress("fit", 100) as bar:
        for _ in range(90):
            clock[0] += 1
            bar.step(loss=0.125)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fit 30/100  loss 0.125  1 min 10 s left",
        "fit 60/100  loss 0.125  40 s left",
        "fit 90/100  loss 0.125  10 s left",
    ]


def test_a_quick_job_leaves_no_line(clock, capsys):
    with progress("fit", 10) as bar:
        for _ in range(10):
            bar.step()
    assert capsys.readouterr() == ("", "")


def test_time_left_of_a_resumed_job_counts_only_its_own_work(clock):
    with progress("fit", 100, start=80) as bar:
        assert bar.seconds_left() == float("inf")
        clock[0] = 20
        bar.step(10)
        assert bar.seconds_left() == pytest.approx(20)


def test_json_mode_is_silent(clock, capsys):
    token = module.silent.set(True)
    try:
        with progress("fit", 2) as bar:
            clock[0] = 100
            bar.step()
    finally:
        module.silent.reset(token)
    assert capsys.readouterr() == ("", "")


def test_only_the_first_process_of_several_speaks(clock, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with progress("fit", 2) as bar:
        clock[0] = 100
        bar.step()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress("generate", 4) as bar:
        bar.step(2, seconds=1.5)
        assert bar.done == 2
    shown = capsys.readouterr()
    assert "generate" in shown.err
    assert "seconds 1.5" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599.7, "1 h 0 min"), (90000, "25 h 0 min"), (float("inf"), "unknown time")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_long_job_is_foretold_once_and_a_short_one_never(clock, capsys):
    for seconds, lines in ((10, ["fit: 9 of 10 to go, about 1 min 30 s, 2 GB"]), (1, [])):
        with progress("fit", 10) as bar:
            for _ in range(2):
                clock[0] += seconds
                bar.step()
                bar.foretell("2 GB")
        assert capsys.readouterr().err.splitlines() == lines
