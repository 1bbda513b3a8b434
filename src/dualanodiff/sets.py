"""The SET folder: generated pairs, complete or resumable at every instant.

    SET/  set.json  manifest.jsonl  image/000000.png  part/000000.png  mask/000000.png  [attention/000000.png]

Every file is written whole under a temporary name and renamed, and a pair's manifest line comes after its files.
A later line of the same pair replaces an earlier one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dualanodiff import __version__
from dualanodiff.errors import RunError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.settings import Settings
from dualanodiff.storage import append_jsonl, read_jsonl, write_json, write_text

FORMAT = 1
_FILES = ("image", "part", "mask", "attention")
_MAY_DIFFER = {"settings.sample.batch_size", "settings.sample.compile"}
# Pair i of a seed is the same picture whatever the batch it was drawn in.


class MaskFound(Protocol):
    """What a set keeps of a mask: the face of masks.result.MaskResult, which sets must not know."""

    @property
    def mask(self) -> np.ndarray:
        """Bool (h, w)."""
        ...

    @property
    def empty(self) -> bool:
        """Whether nothing was found."""
        ...

    @property
    def source(self) -> str:
        """How it was made."""
        ...

    @property
    def score(self) -> float:
        """How clearly it stands out, 0..1."""
        ...

    @property
    def threshold(self) -> float:
        """The cut that was used."""
        ...

    @property
    def area(self) -> float:
        """Share of the picture, 0..1."""
        ...


@dataclass(frozen=True)
class PairSet:
    """One set folder; made by `begin` or `open`."""

    folder: Path

    @classmethod
    def begin(cls, folder: str | Path, facts: Mapping[str, Any]) -> "PairSet":
        """A new set, or the one there if it was begun with the same facts.

        `facts` are plain values: run, seed, base, settings, key (rgb of the key colour), threshold (calibrated), and
        run_id, a hash of the run, by which a run that was moved is known again. RunError naming the first that
        differs, or when the folder holds something else.
        """
        pairs = cls(Path(folder))
        facts = json.loads(json.dumps(facts, default=str))
        if pairs.path.exists():
            pairs._compare(pairs.facts(), facts)
            return pairs
        if pairs.folder.is_file() or (pairs.folder.exists() and any(pairs.folder.iterdir())):
            msg = f"{pairs.folder}: is not empty and not a set; choose another --out"
            raise RunError(msg)
        with pairs._writing():
            write_json(pairs.path, {"format": FORMAT, "dualanodiff": __version__, **facts})
        return pairs

    @classmethod
    def open(cls, folder: str | Path) -> "PairSet":
        """A set that exists; RunError if there is none, or none that can be read."""
        pairs = cls(Path(folder))
        pairs.facts()
        return pairs

    @property
    def path(self) -> Path:
        """The file that says what the set was made from."""
        return self.folder / "set.json"

    @property
    def manifest(self) -> Path:
        """One line a pair."""
        return self.folder / "manifest.jsonl"

    def facts(self) -> dict[str, Any]:
        """What the set was begun with."""
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            msg = f"{self.folder}: not a set (no set.json in it); make one with `dualanodiff generate RUN --count N --out {self.folder}`"
            raise RunError(msg) from None
        except (OSError, ValueError) as error:
            msg = f"{self.path}: not readable ({error}); restore it, or generate the set again into a new folder"
            raise RunError(msg) from None
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            found = facts.get("format") if isinstance(facts, dict) else None
            msg = (
                f"{self.path}: has format {found!r} where this version reads {FORMAT}; use the dualanodiff that made it"
            )
            raise RunError(msg)
        return facts

    def key(self) -> tuple[int, int, int]:
        """The key colour of the parts; RunError where set.json names none."""
        key = self.facts().get("key")
        if not (isinstance(key, list) and len(key) == 3 and all(type(x) is int and 0 <= x <= 255 for x in key)):
            msg = f"{self.path}: key is {key!r} but must be the parts' key colour as three numbers in 0..255"
            raise RunError(msg)
        return key[0], key[1], key[2]

    def file(self, kind: str, index: int) -> Path:
        """Where the image, part, mask or attention of a pair lies."""
        return self.folder / kind / f"{index:06d}.png"

    def add(
        self,
        index: int,
        image: np.ndarray,
        part: np.ndarray,
        mask: MaskFound | None,
        row: Mapping[str, Any],
        attention: np.ndarray | None = None,
    ) -> None:
        """Write one pair: pictures uint8 (h, w, 3), attention uint8 (h, w); `row` adds seed, run, settings, scores.

        Raises RunError on a full disk; the pairs before stay whole.
        """
        line: dict[str, Any] = {"index": index, "image": self._name("image", index), "part": self._name("part", index)}
        with self._writing():
            write_png(self.file("image", index), image)
            write_png(self.file("part", index), part)
            if attention is not None:
                write_png(self.file("attention", index), attention)
                line["attention"] = self._name("attention", index)
            if mask is not None:
                write_png(self.file("mask", index), mask.mask)
            append_jsonl(self.manifest, {**line, **self._mask_facts(index, mask), "scores": {}, **row})

    def replace_mask(self, row: Mapping[str, Any], mask: MaskFound, recipe: str) -> None:
        """Give the pair of this line another mask, made by `recipe`.

        The line first says that there is none, so that a kill between file and line leaves no line about a mask that
        is not there.
        """
        index = row["index"]
        with self._writing():
            append_jsonl(self.manifest, {**row, **self._mask_facts(index, None)})
            write_png(self.file("mask", index), mask.mask)
            append_jsonl(self.manifest, {**row, **self._mask_facts(index, mask, recipe)})

    def keep_scores(self, row: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
        """Give the pair of this line the scores it was judged with."""
        with self._writing():
            append_jsonl(self.manifest, {**row, "scores": dict(scores)})

    def rows(self) -> dict[int, dict[str, Any]]:
        """The latest line of each pair by index, in order; RunError for a line that is not a pair's."""
        rows: dict[int, dict[str, Any]] = {}
        for row in read_jsonl(self.manifest):
            if type(row.get("index")) is not int or not {"image", "part", "mask"} <= row.keys():
                msg = f"{self.manifest}: has a line that describes no pair ({json.dumps(row)[:60]}); restore the file, or choose another --out"
                raise RunError(msg)
            rows[row["index"]] = row
        return dict(sorted(rows.items()))

    def done(self) -> set[int]:
        """Indices of the pairs that are complete: their line is there, and every file that it names."""
        return {
            index
            for index, row in self.rows().items()
            if all((self.folder / row[kind]).is_file() for kind in _FILES if row.get(kind))
        }

    def read(self, kind: str, index: int) -> np.ndarray:
        """Picture or part uint8 (h, w, 3), mask bool (h, w) or attention uint8 (h, w) of a pair; PictureError if bad."""
        rgb = read_rgb(self.file(kind, index))
        if kind in ("image", "part"):
            return rgb
        return rgb[..., 0] > 127 if kind == "mask" else rgb[..., 0]

    def rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these lines in place of the whole manifest, at once."""
        with self._writing():
            write_text(self.manifest, "".join(json.dumps(row) + "\n" for row in rows))

    def _name(self, kind: str, index: int) -> str:
        return self.file(kind, index).relative_to(self.folder).as_posix()

    def _mask_facts(self, index: int, mask: MaskFound | None, recipe: str = "") -> dict[str, Any]:
        """What a line says about the mask; all of it null where there is none (yet)."""
        names = ("mask", "mask_source", "mask_empty", "mask_area", "mask_score", "mask_threshold", "mask_recipe")
        if mask is None:
            return dict.fromkeys(names)
        numbers = (round(mask.area, 6), round(mask.score, 4), round(mask.threshold, 4))
        return dict(zip(names, (self._name("mask", index), mask.source, mask.empty, *numbers, recipe), strict=True))

    def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        # What an older set does not name came later, with a default that changes nothing.
        before = _flat({"settings": Settings().to_dict()}) | _flat(old)
        now = _flat(new)
        if before.get("run_id") and before.get("run_id") == now.get("run_id"):
            now["run"] = before["run"] = ""
        # What a set was put onto is said by those sets only.
        for name in [*now, *(name for name in before if name.startswith("onto."))]:
            value = now.get(name)
            if name not in _MAY_DIFFER and before.get(name) != value:
                msg = f"{self.folder}: was begun with {name} = {before.get(name)!r}, now {value!r}; use the same, or choose another --out"
                raise RunError(msg)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a full disk or a read-only folder into one line that says what is kept."""
        try:
            yield
        except OSError as error:
            place = error.filename or self.folder
            msg = f"{place}: cannot be written ({error.strerror or error}); {len(self.rows())} pairs are kept: make room, then run the same command again"
            raise RunError(msg) from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
