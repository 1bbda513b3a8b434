"""Shots apart from the held-out pictures that test, and the proof by content that nothing trained is tested.

Split(defect, shots, held_out)     what may be learned from, what must only ever test
trained_test_pictures(lineage, held_out)     empty: proved apart, whatever the files are called
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualanodiff.data.catalog import Category, Sample
from dualanodiff.data.shots import choose_samples
from dualanodiff.errors import DataError
from dualanodiff.storage import sha256


@dataclass(frozen=True)
class Split:
    """The pictures of one defect type, sorted by name within each of the two."""

    defect: str
    shots: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


def split_defect(samples: Sequence[Sample], rule: str = "first-third") -> Split:
    """Shots by `rule` (as `--shots`), and every other picture held out, except copies of a shot under another name.

    Raises DataError where the rule leaves nothing to test on.
    """
    if not samples:
        msg = "a defect type without pictures cannot be split; put pictures into test/<defect>"
        raise DataError(msg)
    shots = choose_samples(samples, rule)
    place = samples[0].image.parent
    names = {sample.image for sample in shots}
    contents = {sha256(sample.image) for sample in shots}
    rest = sorted((sample for sample in samples if sample.image not in names), key=lambda sample: sample.image.name)
    held_out = tuple(sample for sample in rest if sha256(sample.image) not in contents)
    if not held_out:
        msg = f"{place}: --shots {rule} takes {len(shots)} of {len(samples)} pictures and leaves none to test on; take fewer"
        raise DataError(msg)
    return Split(samples[0].defect, shots, held_out)


def split_category(category: Category, rule: str = "first-third") -> dict[str, Split]:
    """A split for each defect type that has pictures; DataError naming the first that cannot be split."""
    return {defect: split_defect(samples, rule) for defect, samples in category.defects.items() if samples}


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
