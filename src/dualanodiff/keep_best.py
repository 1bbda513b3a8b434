"""Generate until enough pairs are good: draw, judge, draw more, keep the good ones and say why the others went."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dualanodiff.errors import SettingsError
from dualanodiff.judge.reference import reference_of_run
from dualanodiff.judge.scoring import judge_source
from dualanodiff.judge.selection import filter_source
from dualanodiff.judge.source import open_source
from dualanodiff.runs import RunFolder

LIMIT = 4
"""As many times the pairs wanted are drawn at most, unless told otherwise."""
_SPARE = 1.1


def keep_best(
    draw: Callable[[int, Path], Mapping[str, Any]], run: Path, *, count: int, out: Path, most: int | None = None
) -> dict[str, Any]:
    """`count` good pairs in the set `out`, from no more than `most` drawn (four times as many if None).

    `draw(n, folder)` fills a set up to n pairs, as `generate_set` does; all that are drawn stay in OUT-drawn, so that a
    call that was stopped goes on and a later one for more pairs draws only what is missing. They are judged against the
    run's own shots and its product's good pictures. Returns what `filter_source` does, and drawn, limit and enough.
    Raises DataError where the run's data is not there any more.
    """
    limit = LIMIT * count if most is None else most
    if limit < count:
        msg = f"--at-most {limit}: fewer than the {count} pairs wanted; give at least --count"
        raise SettingsError(msg)
    folder = RunFolder(run)
    _, facts = folder.load_start()
    reference = reference_of_run(folder.lineage(), int(facts["resolution"]))
    pool = out.with_name(out.name + "-drawn")
    total = count
    while True:
        draw(total, pool)
        source = open_source(pool)
        good = sum(scores.good for scores in judge_source(source, reference))
        if good >= count or total >= limit:
            break
        # As many more as should do at this rate; twice as many where hardly any was good.
        hoped = math.ceil(_SPARE * count * total / good) if good else 2 * total
        total = min(limit, max(total + 1, min(hoped, 2 * total)))
    result = filter_source(source, reference, out, most=count)
    return {**result, "drawn": len(source.pairs), "limit": limit, "enough": result["kept"] >= count}
