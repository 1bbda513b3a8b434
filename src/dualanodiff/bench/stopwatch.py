"""Several ways of doing the same work, timed in turn: seconds, ratios within a round, peak memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from dualanodiff.memory import forget_peak, in_use, peak


@dataclass(frozen=True)
class Arm:
    """One way of doing the same work."""

    name: str
    work: Callable[[int], object]
    """Does it once, for a round's number."""
    pieces: int = 1
    """Steps or pairs that one call makes."""


def compare(arms: Sequence[Arm], *, rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds a piece of each arm in each round, medians, and ratios of the first arm's to each other's within a round.

    One call of each arm warms up. Peak memory is that of the last round's call over what was there before it, in bytes.
    """
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    peaks: dict[str, int | None] = {}
    for turn in range(-1, rounds):
        for arm in arms if turn % 2 else arms[::-1]:
            if turn == rounds - 1:
                forget_peak(device)
            before = in_use(device)
            spent = timed(lambda arm=arm, turn=turn: arm.work(turn + 1), device) / arm.pieces
            if turn >= 0:
                seconds[arm.name].append(spent)
            after = peak(device)
            peaks[arm.name] = None if after is None or before is None else max(0, after - before)
    first = seconds[arms[0].name]
    ratios = {name: [a / b for a, b in zip(first, own, strict=True)] for name, own in seconds.items()}
    return {
        "seconds": seconds,
        "median": {name: median(own) for name, own in seconds.items()},
        "ratio": {name: {"median": median(own), "min": min(own), "max": max(own)} for name, own in ratios.items()},
        "peak_bytes": peaks,
    }


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of `work`: a processor's own on one CPU thread, which other programs disturb little, else the clock's."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    began = clock()
    work()
    _wait(device)
    return clock() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
