"""What all arms of a comparison share: normal pictures, shots, and held-back real pictures that only ever test.

Pictures that show the very defect of a shot are set aside. The others are held back, in the order of their names:

    | growth share: the first half     | far half                    |
    | what "real+N" adds to the shots  | what "real+N" is tested on  |

Pictures that show one defect lie in one half. Arms that add none are tested on all, and on the far half again where they
stand beside "real+N".
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dualanodiff.data.catalog import Category, Sample, category_folders, choose_name, read_category
from dualanodiff.data.shots import mask_fault, missing_mask
from dualanodiff.data.split import Split, describe_set_aside, split_defect, trained_test_pictures
from dualanodiff.errors import DataError
from dualanodiff.images import load_mask, load_rgb, read_rgb, resize_mask, resize_rgb
from dualanodiff.judge.source import Source
from dualanodiff.lift.training import Pool
from dualanodiff.storage import sha256

_PICTURES = ("shot", "normal")
# Roles in a lineage of pictures that were learned from; weights alone prove nothing.
GOOD = -1
"""The number of a test picture that shows no defect, in place of its type's."""


@dataclass(frozen=True, eq=False)
class Tests:
    """Test pictures uint8 (n, side, side, 3), masks bool (n, side, side), types int (n,), and which are of the far half."""

    images: np.ndarray
    masks: np.ndarray
    types: np.ndarray
    far: np.ndarray
    paths: tuple[Path, ...]

    def only(self, chosen: np.ndarray) -> np.ndarray:
        """Bool (n,): the chosen defect pictures and every good one."""
        return chosen | (self.types == GOOD)


@dataclass(frozen=True, eq=False)
class Task:
    """One product at `side` x `side` pixels. Pictures are read when they are first needed."""

    category: str
    root: Path
    side: int
    splits: Mapping[str, Split]
    good: tuple[Path, ...]
    test_good: tuple[Path, ...]

    @property
    def defects(self) -> tuple[str, ...]:
        """The defect types, in the order of their numbers."""
        return tuple(self.splits)

    @cached_property
    def growth(self) -> dict[str, tuple[Sample, ...]]:
        """The share of the held-back pictures of each type that "real+N" may learn from."""
        return {name: split.halves()[0] for name, split in self.splits.items()}

    @property
    def notes(self) -> list[str]:
        """A sentence for each type of which pictures were set aside: how many, and why."""
        return [text for split in self.splits.values() if (text := describe_set_aside(split))]

    @property
    def most_more(self) -> int:
        """The largest N that every type has pictures for."""
        return min(len(samples) for samples in self.growth.values())

    @cached_property
    def normals(self) -> Pool:
        """Pictures of train/good, with empty masks."""
        return _normal_pool([read_rgb(path, size=self.side) for path in self.good], self.side)

    @cached_property
    def _real(self) -> dict[str, Pool]:
        return {name: read_pairs([*split.shots, *self.growth[name]], self.side) for name, split in self.splits.items()}

    def real(self, defect: str, more: int = 0) -> Pool:
        """The shots of a type, and the first `more` pictures of its growth share."""
        count = len(self.splits[defect].shots) + more
        pool = self._real[defect]
        return Pool(pool.images[:count], pool.masks[:count])

    @cached_property
    def tests(self) -> Tests:
        """All held-back pictures of every type, then the good ones."""
        images, masks, types, far, paths = [], [], [], [], []
        for number, (name, split) in enumerate(self.splits.items()):
            # Copies of a picture under two names must not stand on both sides.
            learned = {sha256(sample.image) for sample in self.growth[name]}
            pool = read_pairs(split.held_out, self.side)
            images.append(pool.images)
            masks.append(pool.masks)
            types += [number] * len(pool)
            names = {sample.image for sample in self.growth[name]}
            apart = [s.image not in names and sha256(s.image) not in learned for s in split.held_out]
            if not any(apart):
                msg = f"{self.root / 'test' / name}: the held-back pictures are copies of each other; put different ones there"
                raise DataError(msg)
            far += apart
            paths += [sample.image for sample in split.held_out]
        good = _normal_pool([read_rgb(path, size=self.side) for path in self.test_good], self.side)
        types += [GOOD] * len(good)
        far += [True] * len(good)
        return Tests(
            np.concatenate([*images, good.images]),
            np.concatenate([*masks, good.masks]),
            np.array(types),
            np.array(far),
            (*paths, *self.test_good),
        )

    @cached_property
    def _test_contents(self) -> dict[bytes, Path]:
        """Every test picture under every mirror image and quarter turn, by a hash of its pixels."""
        return {
            _content(turned): path
            for image, path in zip(self.tests.images, self.tests.paths, strict=True)
            for turned in _turns(image)
        }

    def refuse_test_pictures(self, images: Iterable[np.ndarray], names: Sequence[Path]) -> None:
        """Raise DataError naming the first of these training pictures that is a test picture, turned or mirrored."""
        for image, name in zip(images, names, strict=True):
            test = self._test_contents.get(_content(image))
            if test is not None:
                msg = f"{name}: shows the same as the test picture {test}; an inspector that has seen the test proves nothing: make the set from the shots only"
                raise DataError(msg)

    def prove(self, source: Source, *, allow_unproved: bool = False) -> bool:
        """Whether the source's lineage proves, by SHA-256, that no test picture went into it.

        Raises DataError naming the test picture that did; and for a source without lineage, unless that is allowed.
        """
        lineage = source.lineage()
        pictures = [file for file in (lineage or {}).get("files", []) if file.get("role") in _PICTURES]
        if lineage is None or not pictures:
            if allow_unproved:
                return False
            what = "has no lineage.json" if lineage is None else "its lineage lists no picture"
            msg = f"{source.folder}: {what}, so nothing proves that it has not seen the test pictures; add --unproved to go on, and the report will say so"
            raise DataError(msg)
        seen = trained_test_pictures(lineage, self.tests.paths)
        if seen:
            test, used = seen[0]
            rest = f" (and {len(seen) - 1} more)" if len(seen) > 1 else ""
            msg = f"{source.folder}: was made from the test picture {test}, as {used}{rest}; fit on shots only, or give the --shots that the fit had"
            raise DataError(msg)
        return True


def open_task(
    data: str | Path,
    category: str | None = None,
    defects: Sequence[str] | None = None,
    *,
    side: int = 128,
    shots: str = "first-third",
) -> Task:
    """The task of one category; of all its defect types, or of those named, in their order.

    `shots` is the rule that sets were made by (as `--shots`). Raises DataError for what cannot be split or tested.
    """
    folders = category_folders(data)
    name = choose_name(category, folders, "category", Path(data))
    found = read_category(name, folders[name])
    for defect in defects or ():
        choose_name(defect, found.defects, "defect", found.root / "test")
    chosen = list(dict.fromkeys(defects or [defect for defect, samples in found.defects.items() if samples]))
    splits = {defect: split_defect(_with_pictures(found, defect), shots) for defect in chosen}
    good = found.normals()
    known = {sha256(path) for path in good}
    test_good = tuple(path for path in found.test_good if sha256(path) not in known)
    if not test_good:
        msg = f"{found.root / 'test' / 'good'}: no normal picture to test on that is not in train/good too; put some there"
        raise DataError(msg)
    return Task(found.name, found.root, side, splits, good, test_good)


def read_pairs(samples: Sequence[Sample], side: int) -> Pool:
    """Pictures and masks of samples; DataError naming the first that cannot be used."""
    images, masks = [], []
    for sample in samples:
        if sample.mask is None:
            msg = f"{sample.image}: {missing_mask(sample)}"
            raise DataError(msg)
        rgb, mask = load_rgb(sample.image)[0], load_mask(sample.mask)[0]
        fault = mask_fault(mask, rgb.shape)
        if fault:
            msg = f"{sample.mask}: {fault[1]}"
            raise DataError(msg)
        images.append(resize_rgb(rgb, side))
        masks.append(resize_mask(mask, side))
    return Pool(np.stack(images), np.stack(masks))


def _with_pictures(found: Category, defect: str) -> tuple[Sample, ...]:
    if not found.defects[defect]:
        msg = f"{found.root / 'test' / defect}: no pictures; put the pictures of this defect there"
        raise DataError(msg)
    return found.defects[defect]


def _normal_pool(images: Sequence[np.ndarray], side: int) -> Pool:
    return Pool(np.stack(images), np.zeros((len(images), side, side), dtype=bool))


def _turns(image: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(flipped, turn) for flipped in (image, image[:, ::-1]) for turn in range(4)]


def _content(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
