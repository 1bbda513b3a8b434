"""What a data folder holds: categories, their normal pictures, and defect pictures with their masks.

    <data>/<category>/train/good/NAME.png             normal pictures ("ok" instead of "good" will do)
    <data>/<category>/test/<defect>/NAME.png          defect pictures, and normal ones in test/good
    <data>/<category>/ground_truth/<defect>/NAME_mask.png or NAME.png

A single category may also be given by its own folder. Names are text: they are sorted, never parsed.
"""

import difflib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dualanodiff.errors import DataError
from dualanodiff.images import SUFFIXES

_PARTS = ("train", "test", "ground_truth")
_GOOD = ("good", "ok")
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")
_LAYOUT = (
    "known are <category>/test/<defect> with masks in <category>/ground_truth/<defect> (MVTec AD), "
    "or test/ and ground_truth/ directly inside"
)


@dataclass(frozen=True)
class Sample:
    """A defect picture and its mask, None where no file has the mask's name."""

    image: Path
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class Category:
    """One product; all pictures are sorted by file name as text."""

    name: str
    root: Path
    good: tuple[Path, ...]
    test_good: tuple[Path, ...]
    defects: dict[str, tuple[Sample, ...]]

    def normals(self) -> tuple[Path, ...]:
        """Normal pictures of train/good; raises DataError where there are none."""
        if not self.good:
            msg = f"{self.root / 'train' / 'good'}: no normal pictures; put some there, or use model.background=none"
            raise DataError(msg)
        return self.good


def find_categories(data: str | Path) -> dict[str, Category]:
    """Every category of a data folder by name; raises DataError for the first one that cannot be read."""
    return {name: read_category(name, folder) for name, folder in category_folders(data).items()}


def pick(data: str | Path, category: str | None = None, defect: str | None = None) -> tuple[Category, str]:
    """The category and the defect asked for; either may be None where there is only one to choose from.

    Other categories may be broken. Raises DataError with what is available and the nearest name.
    """
    folders = category_folders(data)
    name = choose_name(category, folders, "category", Path(data))
    found = read_category(name, folders[name])
    if not found.defects:
        msg = f"{found.root / 'test'}: no defect folder; put defect pictures into test/<defect>"
        raise DataError(msg)
    return found, choose_name(defect, found.defects, "defect", found.root / "test")


def choose_name(name: str | None, known: Iterable[str], kind: str, place: Path) -> str:
    """`name` if it is known, or the only one known if it is None; raises DataError naming `place` and the choices."""
    names = list(known)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        msg = f"{place}: {len(names)} to choose from ({', '.join(names)}); name one with --{kind}"
        raise DataError(msg)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        msg = f"{place}: no {kind} {name!r}; did you mean {near!r}? There are: {', '.join(names)}"
        raise DataError(msg)
    return name


def category_folders(data: str | Path) -> dict[str, Path]:
    """The folder of each category by name; raises DataError where no known layout is inside."""
    data = Path(data)
    try:
        is_folder = stat.S_ISDIR(data.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"{data}: no folder can be opened here ({reason}); give a folder of pictures and masks"
        raise DataError(msg) from None
    if not is_folder:
        msg = f"{data}: a file, but a folder of pictures and masks is needed"
        raise DataError(msg)
    if _is_category(data):
        return {data.resolve().name: data}
    found = {folder.name: folder for folder in _folders(data) if _is_category(folder)}
    if found:
        return found
    if _is_category(data.resolve().parent) and data.resolve().name in _PARTS:
        msg = f"{data}: this is one part of a category; give the folder above it, {data.resolve().parent}"
    else:
        msg = f"{data}: no known layout; {_LAYOUT}; found {_describe(data)}"
    raise DataError(msg)


def read_category(name: str, folder: Path) -> Category:
    """The category in `folder`; raises DataError where it has no test/ folder or no folders in it."""
    test = folder / "test"
    if not test.is_dir():
        msg = (
            f"{folder}: no test/ folder; put defect pictures into {test}/<defect> and masks into ground_truth/<defect>"
        )
        raise DataError(msg)
    groups = {group.name: group for group in _folders(test)}
    loose = find_pictures(test)
    if loose and not groups:
        msg = (
            f"{test}: {len(loose)} pictures lie directly inside; move them into test/<defect>, one folder a defect type"
        )
        raise DataError(msg)
    good, test_good = (
        tuple(picture for word in _GOOD for picture in find_pictures(folder / part / word))
        for part in ("train", "test")
    )
    defects = {
        defect: _find_samples(group, folder / "ground_truth" / defect)
        for defect, group in groups.items()
        if defect not in _GOOD
    }
    return Category(name, folder, good, test_good, defects)


def find_pictures(folder: Path) -> tuple[Path, ...]:
    """What carries a picture's suffix in `folder`, sorted by name; empty where there is no such folder."""
    return tuple(entry for entry in visible(folder) if entry.suffix.lower() in SUFFIXES) if folder.is_dir() else ()


def find_masks(folder: Path) -> dict[str, list[Path]]:
    """The mask files of a ground_truth/<defect> folder by the stem of the picture they may belong to.

    NAME_mask.png is listed under NAME and, last, under NAME_mask.
    """
    exact: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for path in find_pictures(folder):
        exact.setdefault(path.stem, []).append(path)
        if path.stem.endswith("_mask"):
            masks.setdefault(path.stem.removesuffix("_mask"), []).append(path)
    for stem, paths in exact.items():
        masks.setdefault(stem, []).extend(paths)
    return masks


def visible(folder: Path) -> list[Path]:
    """Entries sorted by name, without hidden files and what desktops leave behind."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        msg = f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        raise DataError(msg) from None
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]


def _find_samples(group: Path, truth: Path) -> tuple[Sample, ...]:
    masks = find_masks(truth)
    return tuple(
        Sample(picture, masks[picture.stem][0] if picture.stem in masks else None, group.name)
        for picture in find_pictures(group)
    )


def _is_category(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in _PARTS)


def _folders(folder: Path) -> list[Path]:
    # A folder named like a picture is a mistake for `check` to report, not a defect type.
    return [entry for entry in visible(folder) if entry.is_dir() and entry.suffix.lower() not in SUFFIXES]


def _describe(folder: Path) -> str:
    """A few words on what lies in `folder`, for an error."""
    names = [entry.name + "/" for entry in _folders(folder)]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} folders{f' ({shown})' if names else ''} and {len(find_pictures(folder))} pictures"
