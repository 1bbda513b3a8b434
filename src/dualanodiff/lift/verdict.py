"""From cells to one sentence: worth about N more real defects, no help, or harm, and the evidence for it.

A difference counts when it is larger than the seeds' spread: than the standard deviation that the difference of two
single trainings has, measured over the seeds of both arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dualanodiff.lift.arms import read_arm

MEASURE = "pixel_ap"


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of one arm; the spread is None for a single seed."""

    mean: float
    spread: float | None
    seeds: int

    def text(self) -> str:
        """In percent, as in the paper's tables.

        >>> Summary(0.5123, 0.021, 3).text()
        '51.2 ± 2.1'
        """
        spread = "" if self.spread is None else f" ± {100 * self.spread:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Verdict:
    """What a set does for the inspector of one defect type, or of all together."""

    word: str
    """help, no help, harm, or undecided (a single seed)."""
    arm: str
    difference: float
    spread: float | None
    worth: int | None
    """About how many more real defects of each type do the same; None where that cannot be said."""
    at_least: bool
    """Whether `worth` is the most that could be tried."""
    sentence: str

    def facts(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)


def summarise(values: Sequence[float]) -> Summary:
    """Mean and standard deviation (of a sample) over seeds."""
    return Summary(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def decide(
    scores: Mapping[str, Sequence[float]], far: Mapping[str, Sequence[float]], *, name: str, held_back: int
) -> Verdict | None:
    """The verdict on "real+generated" (or "generated" if that was not run) against "real"; None where either is missing.

    `scores` has the measure 0..1 of each arm, one number a seed, on all held-back pictures; `far` the same on the far
    half, with the arms real+N too; `held_back` is the number of held-back defect pictures.
    """
    arm = next((word for word in ("real+generated", "generated") if scores.get(word)), None)
    if arm is None or not scores.get("real"):
        return None
    real, made = summarise(scores["real"]), summarise(scores[arm])
    difference = made.mean - real.mean
    evidence = (
        f"pixel AP {real.text()} with the real shots only and {made.text()} with {arm} ({100 * difference:+.1f}, "
        f"{real.seeds} seed{'s' if real.seeds > 1 else ''}, {held_back} held-back pictures)"
    )
    if real.spread is None or made.spread is None:
        sentence = f"{name}: undecided, because one seed has no spread; run three or more. {evidence}"
        return Verdict("undecided", arm, difference, None, None, at_least=False, sentence=sentence)
    spread = float(np.hypot(real.spread, made.spread))
    if abs(difference) <= spread:
        sentence = f"{name}: no help: the difference is within the seeds' spread of {100 * spread:.1f}. {evidence}"
        return Verdict("no help", arm, difference, spread, None, at_least=False, sentence=sentence)
    if difference < 0:
        sentence = f"{name}: harm: the loss is beyond the seeds' spread of {100 * spread:.1f}. {evidence}"
        return Verdict("harm", arm, difference, spread, None, at_least=False, sentence=sentence)
    worth, at_least, words = _worth(far, arm)
    sentence = f"{name}: {words}; the gain is beyond the seeds' spread of {100 * spread:.1f}. {evidence}"
    return Verdict("help", arm, difference, spread, worth, at_least=at_least, sentence=sentence)


def _worth(far: Mapping[str, Sequence[float]], arm: str) -> tuple[int | None, bool, str]:
    """N, whether it is only a lower bound, and the words for it, from the ladder of real+N on the far half."""
    ladder = sorted(
        (read_arm(name).more, float(np.mean(values))) for name, values in far.items() if _more(name) and values
    )
    if not ladder:
        return None, False, "help, worth an unknown number of real defects (no arm real+N was run)"
    counts = np.array([0, *(count for count, _ in ladder)])
    heights = np.maximum.accumulate([float(np.mean(far["real"])), *(height for _, height in ladder)])
    reached = float(np.mean(far[arm]))
    most = int(counts[-1])
    if heights[-1] <= heights[0]:
        return None, False, f"help, where {most} more real defects did not help"
    if reached >= heights[-1]:
        return most, True, f"worth {most} more real defects or more (there were no more to try)"
    if reached <= heights[0]:
        return None, False, "help, but none on the half of the test where real+N is tried, so its worth cannot be said"
    # The first place where the ladder is as high: a flat stretch is worth its lower end.
    above = int(np.searchsorted(heights, reached))
    share = (reached - heights[above - 1]) / (heights[above] - heights[above - 1])
    worth = max(1, round(counts[above - 1] + share * (counts[above] - counts[above - 1])))
    return worth, False, f"worth about {worth} more real defects"


def _more(name: str) -> bool:
    return name.startswith("real+") and name.removeprefix("real+").isdecimal()
