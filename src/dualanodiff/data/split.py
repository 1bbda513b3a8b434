"""Shots apart from the held-out pictures that test, and the proof by content that nothing trained is tested.

Split(defect, shots, held_out, set_aside)     what may be learned from, what must only ever test, what neither may
trained_test_pictures(lineage, held_out)     empty: proved apart, whatever the files are called
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualanodiff.data.catalog import Category, Sample
from dualanodiff.data.pieces import find_pieces
from dualanodiff.data.shots import choose_samples
from dualanodiff.errors import DataError
from dualanodiff.storage import sha256

FEWEST = 4
"""Held-back pictures that must be left where as many or more were set aside: two halves of two."""


@dataclass(frozen=True)
class Split:
    """The pictures of one defect type, sorted by name within each of the first two."""

    defect: str
    shots: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    set_aside: Mapping[Path, Path] = field(default_factory=dict)
    """Pictures that neither teach nor test, since they show a shot's own defect again, each with that shot."""
    pieces: tuple[int, ...] = ()
    """A number for each held-out picture; those of one number show the same defect."""

    def halves(self) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """The held-out pictures in two, by name: at most half of them, and the rest; none of one shows a defect of the other."""
        counts, first = Counter(self.pieces), set[int]()
        for piece in counts:
            if sum(counts[each] for each in (*first, piece)) <= len(self.held_out) // 2:
                first.add(piece)
        known = list(zip(self.held_out, self.pieces, strict=True))
        return tuple(x for x, piece in known if piece in first), tuple(x for x, piece in known if piece not in first)


def split_defect(
    samples: Sequence[Sample], rule: str | Collection[str] = "first-third", *, fewest: int = FEWEST
) -> Split:
    """Shots by `rule` (as `--shots`, or their names), and every other picture held out, unless it shows a shot's own defect.

    That is found by content and by looks (`data.pieces`). Raises DataError where the rule leaves nothing to test on, or
    fewer than `fewest` pictures where more were set aside; with 0 nothing need be left.
    """
    if not samples:
        msg = "a defect type without pictures cannot be split; put pictures into test/<defect>"
        raise DataError(msg)
    ordered = sorted(samples, key=lambda sample: sample.image.name)
    if isinstance(rule, str):
        shots = choose_samples(ordered, rule)
    else:
        shots = tuple(sample for sample in ordered if sample.image.stem in rule)
    place = ordered[0].image.parent
    rest = [sample for sample in ordered if sample not in shots]
    pieces = dict(zip(ordered, find_pieces(ordered), strict=True))
    set_aside = _shown_again(pieces, shots, rest)
    held_out = tuple(sample for sample in rest if sample.image not in set_aside)
    if fewest and (not held_out or len(held_out) < min(fewest, len(set_aside))):
        if set_aside:
            msg = (
                f"{place}: {len(set_aside)} of {len(rest)} held-back pictures show the very defect of a shot (such as "
                f"{_example(set_aside)}) and {len(held_out)} are left to test on; --shots pieces splits by what is shown"
            )
        else:
            msg = f"{place}: --shots {rule} takes {len(shots)} of {len(samples)} pictures and leaves none to test on; take fewer"
        raise DataError(msg)
    return Split(ordered[0].defect, shots, held_out, set_aside, tuple(pieces[sample] for sample in held_out))


def describe_set_aside(split: Split) -> str:
    """A sentence on how many pictures were set aside and why; "" where none were."""
    count = len(split.set_aside)
    if not count:
        return ""
    show, teach, test = ("pictures show", "teach", "test") if count > 1 else ("picture shows", "teaches", "tests")
    example = _example(split.set_aside)
    return f"{split.defect}: {count} {show} the very defect of a shot and neither {teach} nor {test}, such as {example}"


def split_category(category: Category, rule: str = "first-third") -> dict[str, Split]:
    """A split for each defect type that has pictures; DataError naming the first that cannot be split."""
    return {defect: split_defect(samples, rule) for defect, samples in category.defects.items() if samples}


def _shown_again(pieces: Mapping[Sample, int], shots: Sequence[Sample], rest: Sequence[Sample]) -> dict[Path, Path]:
    """Each picture of the rest that shows a shot's defect, and that shot."""
    contents = {sha256(sample.image): sample.image for sample in reversed(shots)}
    taught = {pieces[sample]: sample.image for sample in reversed(shots)}
    found = {sample.image: contents.get(sha256(sample.image)) or taught.get(pieces[sample]) for sample in rest}
    return {path: shot for path, shot in found.items() if shot}


def _example(set_aside: Mapping[Path, Path]) -> str:
    path, shot = next(iter(set_aside.items()))
    return f"{path.name}, as {shot.name}"


def trained_test_pictures(lineage: Mapping[str, Any], held_out: Iterable[Path]) -> list[tuple[Path, str]]:
    """The held-out pictures that a lineage lists, each with the path under which it was used; by SHA-256 of content.

    Files of every role count: a test picture must not have been a shot, a mask, or a "normal" picture. Raises
    DataError for a lineage that lists no file with its hash, which proves nothing.
    """
    used: dict[str, str] = {}
    files = lineage.get("files")
    for file in files if isinstance(files, list) else []:
        if isinstance(file, Mapping) and isinstance(file.get("sha256"), str):
            used.setdefault(file["sha256"], str(file.get("path", "a file without a name")))
    if not used:
        msg = "lineage.json: lists no file with its sha256, so it proves nothing; make the set again with this version"
        raise DataError(msg)
    found = []
    for path in held_out:
        digest = sha256(path)
        if digest in used:
            found.append((path, used[digest]))
    return found
