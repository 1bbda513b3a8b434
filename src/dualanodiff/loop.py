"""A training's loop: steps, a log, resumable states and a clean stop. What a step is, its owner says."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dualanodiff.errors import TrainingStopped
from dualanodiff.progress import Bar, progress
from dualanodiff.stopping import held_interrupt
from dualanodiff.storage import append_jsonl, trim_jsonl

LOG_STEPS = 10


@dataclass(frozen=True)
class Loop:
    """What a training does beside its steps."""

    name: str
    """Of the bar."""
    steps: int
    """Optimiser steps in all."""
    log: Path
    """JSON lines, one every 10 steps: step, loss, its parts where there are several, seconds."""
    losses: tuple[str, ...]
    """Names of the losses that a step returns; `loss` is their sum."""
    save_every: int
    """Steps between resumable states."""
    remedy: str
    """What to do where the loss is not a number."""

    def run(
        self,
        step: Callable[[int], Tensor],
        save: Callable[[int], None],
        *,
        start: int = 0,
        seconds: float = math.inf,
    ) -> int:
        """Make the steps from `start` on, at most for so many seconds, and return how many are made in all.

        `step(i)` makes step i and returns its losses (n,), left on the device, which are read together at every logged
        step; `save(i)` keeps a state after i steps. Ctrl-C saves before it ends. TrainingStopped for a loss that is not
        a number.
        """
        rows = trim_jsonl(self.log, start)
        spent = float(rows[-1]["seconds"]) if rows else 0.0
        began = time.monotonic()
        recent: list[Tensor] = []
        made, over = start, start >= self.steps or seconds <= 0
        with progress(self.name, self.steps, start=start) as bar, held_interrupt() as interrupted:
            while not over:
                recent.append(step(made))
                made += 1
                over = made == self.steps
                if made % LOG_STEPS == 0 or over:
                    self._note(bar, made, recent, spent + time.monotonic() - began)
                # After the losses were read, which waits for a GPU to have made the steps.
                over = over or time.monotonic() - began >= seconds
                if over and recent:
                    self._note(bar, made, recent, spent + time.monotonic() - began)
                stop = interrupted()
                if made % self.save_every == 0 or over or stop:
                    save(made)
                if stop:
                    raise KeyboardInterrupt
        return made

    def _note(self, bar: Bar, step: int, recent: list[Tensor], seconds: float) -> None:
        """Log the mean of the recent losses, and forget them."""
        parts = torch.stack(recent).float().mean(dim=0).tolist()
        total = sum(parts)
        if not math.isfinite(total):
            msg = f"{self.log.parent}: the loss is not a number at step {step}; {self.remedy}"
            raise TrainingStopped(msg)
        row = {"step": step, "loss": total, **(dict(zip(self.losses, parts, strict=True)) if len(parts) > 1 else {})}
        rounded = {name: round(value, 6) for name, value in row.items()}
        append_jsonl(self.log, {**rounded, "step": step, "seconds": round(seconds, 1)})
        bar.step(len(recent), loss=total)
        recent.clear()
