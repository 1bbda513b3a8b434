"""Every pair of a source judged once: the four aspects, the nearest shot, and whether it passes.

Scores lie in the manifest of a SET ("scores" of each line), or in the cache for a tree of others, which stays as it is, with
the fingerprint of the reference and of the pair's files. A pair whose files changed, or another reference, is judged anew.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.cache import cache_folder
from dualanodiff.images import read_mask, read_rgb, resize_mask
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.judge.reference import Reference
from dualanodiff.judge.source import Generated, Source
from dualanodiff.masks.key import key_mask
from dualanodiff.progress import progress
from dualanodiff.sets import PairSet
from dualanodiff.storage import append_jsonl, read_jsonl, sha256


@dataclass(frozen=True)
class Scores:
    """What one pair was found to be; every number 0..1."""

    valid: float
    realistic: float
    aligned: float
    on_object: float
    nearest_shot: str
    copy: float
    """Similarity to the nearest shot's defect."""
    passed: dict[str, bool]
    """By aspect, and "copy": True where it is none."""

    @property
    def good(self) -> bool:
        """Whether every aspect passed and the pair is no copy."""
        return all(self.passed.values())

    @property
    def failed(self) -> list[str]:
        """The names of what did not pass."""
        return [name for name, passed in self.passed.items() if not passed]


def judge_source(source: Source, reference: Reference) -> list[Scores]:
    """The scores of each pair, in the order of `source.pairs`; what was judged before is read and not measured again."""
    kept = _Kept(source, reference)
    found = [kept.find(pair) for pair in source.pairs]
    missing = sum(scores is None for scores in found)
    scores: list[Scores] = []
    with progress("judge", len(found), start=len(found) - missing) as bar:
        for pair, known in zip(source.pairs, found, strict=True):
            scores.append(known or judge_pair(pair, source.facts, reference))
            if known is None:
                kept.write(pair, scores[-1])
                bar.step()
    if missing:
        kept.tidy()
    return scores


def judge_pair(pair: Generated, facts: Mapping[str, Any], reference: Reference) -> Scores:
    """Measure one pair; `facts` are those of its set, {} where it has none. PictureError naming a file at fault."""
    side = reference.side
    image, mask = read_rgb(pair.image, size=side), read_mask(pair.mask, size=side)
    others, attention = _other_opinions(pair, facts, side)
    return score(image, mask, reference, others=others, attention=attention)


def score(
    image: np.ndarray,
    mask: np.ndarray,
    reference: Reference,
    *,
    others: Sequence[np.ndarray] = (),
    attention: np.ndarray | None = None,
) -> Scores:
    """The scores of a picture uint8 (s, s, 3) and its mask bool (s, s) at the reference's side; see Gauge.measure."""
    limits = reference.thresholds
    aspects = asdict(reference.gauge.measure(image, mask, others=others, attention=attention))
    values = {name: round(float(aspects[name]), 4) for name in ASPECTS}
    passed = {name: values[name] >= getattr(limits, name) for name in ASPECTS}
    nearest = reference.originals.nearest(image, mask)
    copy = round(nearest.similarity, 4)
    return Scores(**values, nearest_shot=nearest.shot, copy=copy, passed=passed | {"copy": copy < limits.copy})


def summarise(scores: Sequence[Scores], reference: Reference) -> dict[str, Any]:
    """Pairs, good ones, what failed how often, mean scores, and the likeness to shots beside that of the shots themselves."""
    copies = [each.copy for each in scores]
    reasons = Counter(name for each in scores for name in each.failed)
    return {
        "pairs": len(scores),
        "good": sum(each.good for each in scores),
        "failed": {name: reasons[name] for name in (*ASPECTS, "copy")},
        "mean": {name: round(float(np.mean([getattr(each, name) for each in scores] or [0])), 4) for name in ASPECTS},
        "thresholds": asdict(reference.thresholds),
        "likeness": _quartiles(copies),
        "likeness_of_shots": _quartiles(reference.originals.baseline),
    }


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    """Minimum, quartiles and maximum."""
    names = ("lowest", "quarter", "middle", "three_quarters", "highest")
    return dict(zip(names, np.quantile(values or [0.0], (0, 0.25, 0.5, 0.75, 1)).round(4).tolist(), strict=True))


def _other_opinions(pair: Generated, facts: Mapping[str, Any], side: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The key mask of the part and the attention map, where the set has them and its mask was not made from them."""
    source, key = pair.row.get("mask_source"), facts.get("key")
    others: list[np.ndarray] = []
    if pair.part is not None and key and source != "key":
        red, green, blue = key
        part = read_rgb(pair.part)
        others.append(
            resize_mask(key_mask(part, (red, green, blue), calibrated=facts.get("threshold") or None).mask, side)
        )
    attention = None
    if pair.row.get("attention") and source != "attention":
        attention = read_rgb(pair.image.parents[1] / pair.row["attention"], size=side)[..., 0]
    return others, attention


class _Kept:
    """Scores on disk: in the manifest of a SET; of others by content in the cache, a file a reference."""

    def __init__(self, source: Source, reference: Reference) -> None:
        self._reference = reference.fingerprint
        self._pairs = PairSet(source.folder) if source.facts else None
        self._file = cache_folder("scores") / f"{reference.fingerprint}.jsonl"
        self._rows: dict[Any, Any] = {}
        if self._pairs is None:
            with contextlib.suppress(OSError):
                self._rows = {row.get("files"): row for row in read_jsonl(self._file)}

    def find(self, pair: Generated) -> Scores | None:
        """What was kept of this pair, as it is now, against this reference."""
        files = _digest(pair)
        kept = self._rows.get(files) if self._pairs is None else pair.row.get("scores")
        if not isinstance(kept, dict) or kept.get("reference") != self._reference or kept.get("files") != files:
            return None
        try:
            return Scores(**{field.name: kept[field.name] for field in fields(Scores)})
        except KeyError:
            return None

    def write(self, pair: Generated, scores: Scores) -> None:
        """Keep the scores of one pair; a cache that cannot be written keeps nothing."""
        value = {**asdict(scores), "reference": self._reference, "files": _digest(pair)}
        if self._pairs is not None:
            self._pairs.keep_scores(pair.row, value)
            return
        with contextlib.suppress(OSError):
            append_jsonl(self._file, value)

    def tidy(self) -> None:
        """One line a pair in the manifest."""
        if self._pairs is not None:
            self._pairs.rewrite(self._pairs.rows().values())


def _digest(pair: Generated) -> str:
    """Of what is judged: the picture, the mask and the part by content."""
    files: list[Path] = [pair.image, pair.mask, *([pair.part] if pair.part else [])]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]
