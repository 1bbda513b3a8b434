"""What a data folder holds and every problem in it, by file."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dualanodiff.data.catalog import (
    Category,
    Sample,
    category_folders,
    choose_name,
    find_masks,
    find_pictures,
    read_category,
    visible,
)
from dualanodiff.data.shots import choose_samples, mask_fault, missing_mask
from dualanodiff.errors import DataError, PictureError
from dualanodiff.images import LOOKS_DARK, SUFFIXES, load_mask, load_rgb

Level = Literal["error", "warning", "note"]
_FEW_SHOTS = 4
_MOSTLY = 2 / 3
# A mask that marks more of its picture than this is more often inverted than right.


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file (error), doubtful (warning) or handled (note); `kind` is for programs."""

    level: Level
    file: Path
    text: str
    kind: str


@dataclass(frozen=True)
class Count:
    """Numbers of one category: pictures in train/good and test/good, then pictures, masks and shots by defect."""

    good: int
    test_good: int
    pictures: dict[str, int]
    masks: dict[str, int]
    shots: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What `check` found; `shots` lists the pictures a run would learn from by "category/defect"."""

    data: Path
    resolution: int
    problems: tuple[Problem, ...]
    categories: dict[str, Count]
    shots: dict[str, tuple[Path, ...]]
    costs: dict[str, Any] = field(default_factory=dict)
    """What a run would cost; the caller fills it in."""

    @property
    def errors(self) -> bool:
        """Whether anything must be repaired before a run."""
        return any(problem.level == "error" for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Plain values only; paths are text."""
        return {
            "data": str(self.data),
            "resolution": self.resolution,
            "errors": self.errors,
            "categories": {name: dataclasses.asdict(count) for name, count in self.categories.items()},
            "shots": {name: [str(file) for file in files] for name, files in self.shots.items()},
            "problems": [dataclasses.asdict(problem) | {"file": str(problem.file)} for problem in self.problems],
            "costs": self.costs,
        }


def check(
    data: str | Path,
    *,
    category: str | None = None,
    defect: str | None = None,
    resolution: int = 512,
    latent_factor: int = 8,
    shots: str = "first-third",
) -> Report:
    """Every problem of the categories and defects asked for (None is all), and which pictures would be shots.

    Reads all files, writes none but into the cache. Raises DataError only where there is nothing to report on: no data folder in a
    known layout, or no such category or defect.
    """
    folders = category_folders(data)
    if category is not None:
        folders = {category: folders[choose_name(category, folders, "category", Path(data))]}
    categories, problems = _read_categories(folders, defect, Path(data))
    counts: dict[str, Count] = {}
    chosen: dict[str, tuple[Path, ...]] = {}
    for found in categories:
        problems += _category_problems(found)
        for picture in (*found.good, *found.test_good):
            problems += _read_picture(picture, resolution)[1]
        for name, samples in found.defects.items():
            problems += _folder_problems(found, name, samples)
            problems += _pairing_problems(found, name, samples)
            for sample in samples:
                problems += _sample_problems(sample, resolution, latent_factor)
            files, doubts = _shots(found.root / "test" / name, samples, shots)
            problems += doubts
            chosen[f"{found.name}/{name}"] = files
            problems += _shown_again(found.root / "test" / name, samples, files)
        counts[found.name] = Count(
            good=len(found.good),
            test_good=len(found.test_good),
            pictures={name: len(samples) for name, samples in found.defects.items()},
            masks={name: sum(one.mask is not None for one in samples) for name, samples in found.defects.items()},
            shots={name: len(chosen[f"{found.name}/{name}"]) for name in found.defects},
        )
    return Report(Path(data), resolution, tuple(problems), counts, chosen)


def render(report: Report) -> str:
    """The report as text: counts, then errors, warnings and notes, in that order.

    Every file with an error or a warning is named; where more than three of a folder have the same warning or
    note, they share a line, which gives the numbers of the first.
    """
    lines = []
    for name, count in report.categories.items():
        lines.append(f"{name}: {count.good} normal pictures to learn from, {count.test_good} to test on")
        width = max((len(kind) for kind in count.pictures), default=0)
        for kind, pictures in count.pictures.items():
            files = report.shots[f"{name}/{kind}"]
            names = (
                f": {files[0].name} ... {files[-1].name}"
                if len(files) > 1
                else "".join(f": {file.name}" for file in files)
            )
            lines.append(f"  {kind:{width}}  {pictures} pictures, {count.masks[kind]} masks, {len(files)} shots{names}")
    levels: tuple[Level, ...] = ("error", "warning", "note")
    for level in levels:
        groups: dict[tuple[str, Path], list[Problem]] = {}
        for item in report.problems:
            if item.level == level:
                groups.setdefault((item.kind, item.file.parent), []).append(item)
        for items in groups.values():
            lines += _lines(items)
    totals = Counter(item.level for item in report.problems)
    lines.append(f"{totals['error']} errors, {totals['warning']} warnings, {totals['note']} notes")
    return "\n".join(lines)


def _lines(items: list[Problem]) -> list[str]:
    """The lines of problems of one level, kind and folder."""
    first = items[0]
    if first.level == "error" or len(items) <= 3:
        return [f"{item.level}: {item.file}: {item.text}" for item in items]
    names = "" if first.level == "note" else ": " + ", ".join(item.file.name for item in items[1:])
    return [f"{first.level}: {first.file}: {first.text}; {len(items) - 1} more files there{names}"]


def _read_categories(folders: dict[str, Path], defect: str | None, data: Path) -> tuple[list[Category], list[Problem]]:
    """The readable categories, with all defects or the one asked for, and what is wrong with the others."""
    categories: list[Category] = []
    problems: list[Problem] = []
    for name, folder in folders.items():
        try:
            categories.append(read_category(name, folder))
        except DataError as error:
            problems.append(_from_error(error, folder, "layout"))
    known = sorted({name for found in categories for name in found.defects})
    if defect is None or not known:
        return categories, problems
    choose_name(defect, known, "defect", data)
    asked = [found for found in categories if defect in found.defects]
    return [dataclasses.replace(found, defects={defect: found.defects[defect]}) for found in asked], problems


def _category_problems(category: Category) -> Iterator[Problem]:
    test = category.root / "test"
    if not category.defects:
        text = "no defect folder; put defect pictures into test/<defect>"
        yield Problem("error", test, text, "no-defects")
    if not category.good:
        text = "no normal pictures; without them there is no background to learn from and nothing to compare with"
        yield Problem("warning", category.root / "train" / "good", text, "no-normals")
    for stray in find_pictures(test):
        yield Problem("warning", stray, "lies outside any defect folder and is not used", "ignored")


def _folder_problems(category: Category, defect: str, samples: tuple[Sample, ...]) -> Iterator[Problem]:
    """Entries that are no pictures, and folders that are empty or absent."""
    folder = category.root / "test" / defect
    truth = category.root / "ground_truth" / defect
    for place in (folder, truth):
        for entry in visible(place) if place.is_dir() else ():
            if entry.suffix.lower() not in SUFFIXES:
                text = f"is no picture ({', '.join(SUFFIXES)}) and is not used"
                yield Problem("note", entry, text, "ignored")
    if not samples:
        yield Problem("error", folder, "no pictures; put the pictures of this defect there", "no-pictures")
    elif not truth.is_dir():
        text = f"no such folder, so that {len(samples)} pictures have no mask; put their masks there as NAME_mask.png"
        yield Problem("error", truth, text, "missing-mask")


def _pairing_problems(category: Category, defect: str, samples: tuple[Sample, ...]) -> Iterator[Problem]:
    """Pictures and masks whose names do not make pairs, one to one."""
    folder = category.root / "test" / defect
    truth = category.root / "ground_truth" / defect
    masks = find_masks(truth)
    first: dict[str, Path] = {}
    for sample in samples:
        same = first.setdefault(sample.image.stem, sample.image)
        if same != sample.image:
            text = f"has the same name as {same.name}, so that one mask would serve both; rename one"
            yield Problem("error", sample.image, text, "same-name")
        if sample.mask is None and truth.is_dir():
            yield Problem("error", sample.image, missing_mask(sample), "missing-mask")
    for stem in first:
        for extra in masks.get(stem, [])[1:]:
            text = f"a second mask beside {masks[stem][0].name}, which is used; remove one"
            yield Problem("error", extra, text, "two-masks")
    paired = {path for stem in first for path in masks.get(stem, [])}
    for orphan in find_pictures(truth):
        if orphan not in paired:
            text = f"no picture of this name in {folder}; the mask is not used"
            yield Problem("warning", orphan, text, "orphan-mask")


def _sample_problems(sample: Sample, resolution: int, latent_factor: int) -> Iterator[Problem]:
    shape, problems = _read_picture(sample.image, resolution)
    yield from problems
    if sample.mask is None:
        return
    try:
        mask, said = load_mask(sample.mask)
    except PictureError as error:
        yield _from_error(error, sample.mask, "unreadable")
        return
    for text in said:
        grey = text.startswith("grey-valued")
        yield Problem("warning" if grey else "note", sample.mask, text, "grey-mask" if grey else "converted")
    fault = mask_fault(mask, shape)
    if fault:
        yield Problem("error", sample.mask, fault[1], fault[0])
        return
    share = float(mask.mean())
    if share > _MOSTLY:
        text = f"marks {share:.0%} of the picture; is it inverted?"
        yield Problem("warning", sample.mask, text, "mostly-marked")
    # Pictures are squashed to a square, so that an area shrinks by its share of the picture.
    enough = math.ceil(latent_factor / math.sqrt(share))
    if enough > resolution:
        enough += -enough % latent_factor
        text = (
            f"the defect has {share * resolution**2:.2g} pixels at resolution {resolution}, less than one latent cell "
            f"of {latent_factor} x {latent_factor}, and may be lost; it fills one from resolution {enough} on"
        )
        yield Problem("warning", sample.mask, text, "small-defect")


def _read_picture(path: Path, resolution: int) -> tuple[tuple[int, ...] | None, list[Problem]]:
    """The picture's array shape, None if it cannot be read, and its problems."""
    try:
        rgb, said = load_rgb(path)
    except PictureError as error:
        return None, [_from_error(error, path, "unreadable")]
    height, width = rgb.shape[:2]
    problems = [
        Problem("warning" if LOOKS_DARK in text else "note", path, text, f"converted: {text.partition(';')[0]}")
        for text in said
    ]
    if height != width:
        text = f"{width} x {height} pixels are squashed to {resolution} x {resolution}"
        problems.append(Problem("note", path, text, "not-square"))
    elif height < resolution:
        text = f"{width} x {height} pixels are enlarged to {resolution} x {resolution}"
        problems.append(Problem("note", path, text, "enlarged"))
    return rgb.shape, problems


def _shots(folder: Path, samples: tuple[Sample, ...], rule: str) -> tuple[tuple[Path, ...], list[Problem]]:
    if not samples:
        return (), []
    try:
        files = tuple(sample.image for sample in choose_samples(samples, rule))
    except DataError as error:
        return (), [_from_error(error, folder, "no-shots")]
    if len(files) < _FEW_SHOTS:
        text = f"only {len(files)} of {len(samples)} pictures are shots ({rule}); below {_FEW_SHOTS} expect near copies"
        return files, [Problem("warning", folder, text, "few-shots")]
    return files, []


def _shown_again(folder: Path, samples: tuple[Sample, ...], shots: tuple[Path, ...]) -> list[Problem]:
    """A warning where most of the pictures held back show a defect that a shot shows as well."""
    from dualanodiff.data.pieces import find_pieces  # noqa: PLC0415  scipy is slow to import

    try:
        pieces = dict(zip([sample.image for sample in samples], find_pieces(samples), strict=True))
    except DataError:
        return []  # what is wrong with the file is said already
    known = {pieces[path] for path in shots}
    rest = [path for path in pieces if path not in shots]
    again = sum(pieces[path] in known for path in rest)
    if 2 * again <= len(rest) or not rest:
        return []
    text = (
        f"{len(pieces)} pictures show {len(set(pieces.values()))} parts, and {again} of the {len(rest)} that are no shots show "
        "a shot's part again; give fit, evaluate and lift --shots pieces, which splits by part"
    )
    return [Problem("warning", folder, text, "shown-again")]


def _from_error(error: DataError, file: Path, kind: str) -> Problem:
    return Problem("error", file, str(error).removeprefix(f"{file}: "), kind)
