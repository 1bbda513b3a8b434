"""What is judged: pictures with masks, in a set folder of ours or in a tree that another program wrote.

SET/                set.json, manifest.jsonl, image/000000.png, mask/000000.png, part/000000.png
FOLDER/             image/NAME.png and mask/NAME.png (or images/ and masks/)
FOLDER/             <defect>/image/ and mask/, or <category>/<defect>/image/ and mask/
FOLDER/             test/<defect>/NAME.png and ground_truth/<defect>/NAME_mask.png (MVTec AD)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dualanodiff.data.catalog import choose_name, find_masks, find_pictures, pick, visible
from dualanodiff.errors import DataError
from dualanodiff.images import read_mask, read_rgb
from dualanodiff.sets import PairSet

_LAYOUTS = (
    "a set folder (set.json), image/ and mask/ inside, <category>/<defect>/image and mask, or test/ and ground_truth/"
)
_PICTURES, _MASKS = ("image", "images"), ("mask", "masks")


@dataclass(frozen=True)
class Generated:
    """One pair of a source, as files."""

    name: str
    """The picture's stem."""
    image: Path
    mask: Path
    part: Path | None
    """The defect alone, where the source has such pictures."""
    row: dict[str, Any]
    """The line of the set's manifest; {} in a tree of others."""


@dataclass(frozen=True)
class Source:
    """Generated pairs that lie under one folder, in the order of their names."""

    folder: Path
    """The set; or the folder above the pictures."""
    name: str
    pairs: tuple[Generated, ...]
    facts: dict[str, Any]
    """The content of set.json; {} in a tree of others."""

    def images(self, side: int) -> list[np.ndarray]:
        """Every picture as uint8 (side, side, 3); PictureError naming the first that cannot be read."""
        return [read_rgb(pair.image, size=side) for pair in self.pairs]

    def masks(self, side: int) -> list[np.ndarray]:
        """Every mask as bool (side, side); PictureError naming the first that cannot be read."""
        return [read_mask(pair.mask, size=side) for pair in self.pairs]

    def lineage(self) -> dict[str, Any] | None:
        """What the pairs were made from, by hash: the set's own lineage.json, else its run's; None where nobody says.

        Raises DataError for a file that is there and cannot be read: silence would pass for innocence.
        """
        places = [self.folder / "lineage.json"]
        if self.facts.get("run"):
            places.append(Path(str(self.facts["run"])) / "lineage.json")
        for path in places:
            if path.is_file():
                return _read_lineage(path)
        return None


def open_source(folder: Path, *, category: str | None = None, defect: str | None = None) -> Source:
    """The pairs under a folder, in any of the layouts above.

    `category` and `defect` choose where a tree of others holds several; a set of ours holds one. Raises DataError naming the folder
    when it holds no pairs, or the picture that has no mask.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"{folder}: no such folder; give {_LAYOUTS}"
        raise DataError(msg)
    if (folder / "set.json").is_file():
        return _open_set(folder)
    found = _find_tree(folder, category, defect)
    if found is not None:
        return _read_tree(found, folder)
    if (folder / "test").is_dir() or any((entry / "test").is_dir() for entry in _folders(folder)):
        return _read_mvtec(folder, category, defect)
    names = ", ".join(entry.name for entry in visible(folder)[:5]) or "nothing"
    msg = f"{folder}: holds no pictures with masks that can be judged (found {names}); it must be {_LAYOUTS}"
    raise DataError(msg)


def _open_set(folder: Path) -> Source:
    pairs = PairSet.open(folder)
    done = pairs.done()
    made = tuple(
        Generated(
            name=Path(row["image"]).stem,
            image=folder / row["image"],
            mask=folder / row["mask"],
            part=folder / row["part"] if row["part"] else None,
            row=row,
        )
        for index, row in pairs.rows().items()
        # A kill while a mask was remade leaves a pair without one.
        if index in done and row["mask"]
    )
    if not made:
        msg = f"{folder}: a set without a finished pair; make some with `dualanodiff generate RUN --count N --out {folder}`"
        raise DataError(msg)
    return Source(folder, folder.resolve().name, made, pairs.facts())


def _find_tree(folder: Path, category: str | None, defect: str | None) -> Path | None:
    """The folder with image/ and mask/ in it: this one, one below, or two below; None where there is none."""
    if _is_leaf(folder):
        return folder
    below = {entry.name: entry for entry in _folders(folder) if _is_leaf(entry)}
    if below:
        return below[choose_name(defect, below, "defect", folder)]
    groups = {
        entry.name: leaves
        for entry in _folders(folder)
        if (leaves := {leaf.name: leaf for leaf in _folders(entry) if _is_leaf(leaf)})
    }
    if not groups:
        return None
    name = choose_name(category, groups, "category", folder)
    return groups[name][choose_name(defect, groups[name], "defect", folder / name)]


def _read_tree(leaf: Path, folder: Path) -> Source:
    pictures, masks, parts = (_subfolder(leaf, names) for names in (_PICTURES, _MASKS, ("part", "parts")))
    known = find_masks(masks) if masks else {}
    pairs = [_pair(path, known, masks or leaf / "mask") for path in find_pictures(pictures or leaf / "image")]
    if not pairs:
        msg = f"{pictures}: no pictures; put the generated pictures there, and their masks into {masks}"
        raise DataError(msg)
    by_stem = {path.stem: path for path in find_pictures(parts)} if parts else {}
    made = tuple(Generated(image.stem, image, mask, by_stem.get(image.stem), {}) for image, mask in pairs)
    name = folder.resolve().name if leaf == folder else f"{folder.resolve().name}/{leaf.relative_to(folder).as_posix()}"
    return Source(leaf, name, made, {})


def _read_mvtec(folder: Path, category: str | None, defect: str | None) -> Source:
    found, name = pick(folder, category, defect)
    truth = found.root / "ground_truth" / name
    made: list[Generated] = []
    for sample in found.defects[name]:
        if sample.mask is None:
            _raise_no_mask(sample.image, truth)
        made.append(Generated(sample.image.stem, sample.image, sample.mask, None, {}))
    if not made:
        msg = f"{found.root / 'test' / name}: no pictures; put the generated pictures there"
        raise DataError(msg)
    return Source(found.root / "test" / name, f"{found.name}/{name}", tuple(made), {})


def _pair(image: Path, known: dict[str, list[Path]], masks: Path) -> tuple[Path, Path]:
    if image.stem not in known:
        _raise_no_mask(image, masks)
    return image, known[image.stem][0]


def _raise_no_mask(image: Path, masks: Path) -> NoReturn:
    msg = f"{image}: has no mask; put {image.stem}.png (0 and 255) into {masks}, or leave the picture out"
    raise DataError(msg)


def _is_leaf(folder: Path) -> bool:
    return _subfolder(folder, _PICTURES) is not None and _subfolder(folder, _MASKS) is not None


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in visible(folder) if entry.is_dir()]


def _read_lineage(path: Path) -> dict[str, Any]:
    try:
        lineage = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: not a readable lineage ({error}); restore it, or make the set again"
        raise DataError(msg) from None
    if not isinstance(lineage, dict) or not isinstance(lineage.get("files"), list):
        msg = f"{path}: not a lineage (an object with a list of files); restore it, or make the set again"
        raise DataError(msg)
    return lineage
