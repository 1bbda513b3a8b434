"""The generators that are compared: the rivals, ours and its ablations, and folders that others have made.

A method is how a set comes about: by a rival's drawing, or by a fit and `generate`. Methods that differ only in what is done
with a fit share it. Two more are no generators: "real-shots" and "no-defects" train the inspector without a set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dualanodiff.bench.entries import base_fingerprint, fingerprint
from dualanodiff.change import change_maps
from dualanodiff.data.catalog import Category, choose_name
from dualanodiff.data.shots import Shot, find_shots, part_target
from dualanodiff.errors import SettingsError
from dualanodiff.fit_folder import fit_folder
from dualanodiff.generation import generate_set
from dualanodiff.images import read_rgb
from dualanodiff.judge.source import Source, open_source
from dualanodiff.masks.result import MaskResult, drop_specks
from dualanodiff.masks.saliency import U2Net
from dualanodiff.rivals.making import GENERATORS, make_set
from dualanodiff.runs import ADAPTED, RunFolder, file_record
from dualanodiff.sets import PairSet
from dualanodiff.settings import ADAPT_STEPS
from dualanodiff.storage import write_json

_CUTS = 64
_SPECK = 4
_NORMALS = 40


@dataclass(frozen=True)
class Method:
    """How a set comes about; exactly one of rival, fit, folder and arm says by what."""

    name: str
    about: str
    rival: str = ""
    fit: str = ""
    """Name of the fit's settings in FITS."""
    onto: bool = False
    """Defects are put onto good parts."""
    masks: Literal["part", "change", "u2net"] = "part"
    """Read from the part; or from the image alone, by its change against good pictures or by U^2-Net."""
    folder: Path | None = None
    arm: str = ""
    """The arm of the inspector, for what is no generator."""

    def facts(self) -> dict[str, Any]:
        """What the method's cells depend on."""
        settings = FITS.get(self.fit, {})
        folder = str(self.folder.resolve()) if self.folder else ""
        return {
            "method": self.name,
            "rival": self.rival,
            "fit": dict(settings),
            "onto": self.onto,
            "masks": self.masks,
            "folder": folder,
            "arm": self.arm,
        }


FITS: dict[str, dict[str, str]] = {
    "ours": {},
    "no-saim": {"model.interaction": "none"},
    "bcm": {"model.background": "paper"},
    "names": {"model.prompt_image": "a {category} with {defect}", "model.prompt_part": "{defect}"},
    "fresh": {"model.start": "fresh"},
    "adapted": {"train.adapt_steps": str(ADAPT_STEPS)},
}
"""Settings of each fit over the base's; {category} and {defect} are filled in."""

_BUILT_IN = (
    Method("no-defects", "distance to good patches, no anomaly data", arm="none"),
    Method("real-shots", "the real shots alone", arm="real"),
    *(Method(name, generator.about, rival=name) for name, generator in GENERATORS.items()),
    Method("ours", "two branches with SAIM", fit="ours"),
    Method("ours-bcm", "ours with background compensation", fit="bcm"),
    Method("ours-onto", "ours, its defects on real good parts", fit="ours", onto=True),
    Method("ours-no-saim", "two branches that do not see each other", fit="no-saim"),
    Method("ours-names", "ours with real names as prompts", fit="names"),
    Method("ours-fresh", "ours without the base's pre-trained pair", fit="fresh"),
    Method("ours-adapted", "ours on the base adapted to the product first", fit="adapted"),
    Method("ours-adapted-onto", "the same, its defects on real good parts", fit="adapted", onto=True),
    Method("image-only", "one branch; its mask from the change against good pictures", fit="no-saim", masks="change"),
    Method("image-only-u2net", "one branch; its mask by U^2-Net on the image", fit="no-saim", masks="u2net"),
)
METHODS = {method.name: method for method in _BUILT_IN}


@dataclass(frozen=True)
class Making:
    """What all methods of a comparison share."""

    data: Path
    category: Category
    out: Path
    count: int
    size: int
    base: str = "mini"
    shots: str = "first-third"
    assignments: Mapping[str, str] | None = None
    textures: Path | None = None
    object_model: Path | None = None

    def facts(self, method: Method) -> dict[str, Any]:
        """What a method's cells depend on: the base and the settings of fits only where it fits."""
        if method.arm:
            return {"shots": self.shots}
        facts: dict[str, Any] = {
            "count": self.count,
            "size": self.size,
            "shots": self.shots,
            "textures": str(self.textures or ""),
            "object_model": str(self.object_model or ""),
        }
        if method.fit:
            facts |= {"base": _content_of(self.base), "assignments": dict(self.assignments or {})}
        return facts


@cache
def _content_of(base: str) -> str:
    """A base by content, once a process: one made anew under its old name is another."""
    return base_fingerprint(base)


def read_methods(words: Sequence[str]) -> list[Method]:
    """Methods by name, or NAME=FOLDER for what others have made; SettingsError or DataError for an unknown one."""
    found: dict[str, Method] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not name or name in found:
            msg = f"--methods {word}: {'named twice' if name else 'write NAME=FOLDER'}; each method needs a name of its own"
            raise SettingsError(msg)
        if equals and name in METHODS:
            msg = f"--methods {word}: {name} is a method of this program; choose another name for the folder"
            raise SettingsError(msg)
        made = Method(name, f"made by others: {folder}", folder=Path(folder))
        found[name] = made if equals else METHODS[choose_name(name, METHODS, "methods", Path("bench"))]
    return list(found.values())


def make_source(method: Method, making: Making, defect: str, seed: int, fit_seed: int) -> Source:
    """The set of one method, defect type and seed, made as far as it is not there yet."""
    if method.folder is not None:
        return _open_foreign(method.folder, making.category.name, defect)
    place = making.out / "sets" / _set_name(method, making) / making.category.name / defect / f"seed-{seed}"
    if method.rival:
        make_set(
            method.rival,
            making.data,
            defect=defect,
            category=making.category.name,
            count=making.count,
            out=place,
            seed=seed,
            size=making.size,
            shots=making.shots,
            textures=making.textures,
            object_model=making.object_model,
        )
    elif method.masks == "part":
        _generate(method, making, defect, seed, fit_seed, place)
    else:
        twin = next(m for m in METHODS.values() if m.fit == method.fit and m.masks == "part" and not m.onto)
        _remask(make_source(twin, making, defect, seed, fit_seed), method, making, defect, place)
    return open_source(place)


def _run_name(method: Method, making: Making) -> str:
    """The fit, and a hash of the base and the settings over it: a base made anew, or another setting, is another run."""
    facts = (_content_of(making.base), FITS[method.fit], making.assignments, making.shots)
    return f"{method.fit}-{fingerprint(*facts)[:8]}"


def _set_name(method: Method, making: Making) -> str:
    """The method, and for ours a hash of the run that it is drawn from."""
    return f"{method.name}-{fingerprint(_run_name(method, making))[:8]}" if method.fit else method.name


def _open_foreign(folder: Path, category: str, defect: str) -> Source:
    """A tree of others for all categories, or a set of ours of this defect type."""
    for place in (folder / category / defect, folder / defect):
        if (place / "set.json").is_file():
            return open_source(place)
    return open_source(folder, category=category, defect=defect)


def _generate(method: Method, making: Making, defect: str, seed: int, fit_seed: int, out: Path) -> None:
    """Fit where that is not done yet, and generate."""
    name = making.category.name
    run = making.out / "runs" / _run_name(method, making) / name / defect / f"seed-{fit_seed}"
    if not RunFolder(run).finished:
        own = {key: text.format(category=name, defect=defect) for key, text in FITS[method.fit].items()}
        fit_folder(
            making.data,
            defect=defect,
            category=name,
            out=run,
            base=making.base,
            shots=making.shots,
            assignments={**(making.assignments or {}), **own, "seed": str(fit_seed)},
            adapted=making.out / ADAPTED,
            resume=(run / "config.toml").exists(),
        )
    onto = {"goods": "good"} if method.onto else None
    generate_set(run, count=making.count, out=out, seed=seed, assignments={}, onto=onto)


def _remask(source: Source, method: Method, making: Making, defect: str, out: Path) -> None:
    """A copy of a set whose masks come from its images alone."""
    normals = _spread(making.category.normals())
    facts = {"masks": method.masks, "from": str(source.facts.get("run_id")), "seed": source.facts["seed"]}
    pairs = PairSet.begin(out, {**facts, "key": source.facts["key"], "threshold": 0.0, "settings": {}})
    lineage = source.lineage() or {"files": []}
    listed = {file["sha256"] for file in lineage["files"]}
    records = [file_record(path, "normal") for path in normals]
    write_json(
        out / "lineage.json",
        {**lineage, "files": [*lineage["files"], *(record for record in records if record["sha256"] not in listed)]},
    )
    done = pairs.done()
    todo = [pair for pair in source.pairs[: making.count] if pair.row["index"] not in done]
    if not todo:
        return
    images = [read_rgb(pair.image) for pair in todo]
    side = images[0].shape[0]
    if method.masks == "u2net":
        masks = _salient(images, making.object_model)
    else:
        shots = find_shots(
            making.data, defect=defect, category=making.category.name, rule=making.shots, resolution=side
        )
        masks = changed_masks(images, [read_rgb(path, size=side) for path in normals], shots)
    for pair, image, mask in zip(todo, images, masks, strict=True):
        found = MaskResult.found(mask, method.masks, 1.0, 0.0)
        key = (int(pairs.key()[0]), int(pairs.key()[1]), int(pairs.key()[2]))
        row = {"seed": pair.row["seed"], "run": pair.row.get("run"), "set_seed": source.facts["seed"]}
        pairs.add(pair.row["index"], image, part_target(image, mask, key), found, row)


def changed_masks(
    images: Sequence[np.ndarray], normals: Sequence[np.ndarray], shots: Sequence[Shot]
) -> list[np.ndarray]:
    """Where each picture uint8 (s, s, 3) differs from the good ones, cut where the shots' own masks are met best."""
    known = change_maps([shot.image for shot in shots], normals)
    top = max(float(change.max()) for change in known)
    cuts = np.linspace(0, top, _CUTS, endpoint=False)[1:]

    def overlap(cut: float) -> float:
        pairs = [(change > cut, shot.mask) for change, shot in zip(known, shots, strict=True)]
        return float(np.mean([(found & mask).sum() / (found | mask).sum() for found, mask in pairs]))

    best = max(cuts, key=overlap) if top > 0 else 0.0
    return [drop_specks(change > best, _SPECK) for change in change_maps(images, normals)]


def _salient(images: Sequence[np.ndarray], model: Path | None) -> list[np.ndarray]:
    if model is None:
        msg = "image-only-u2net: needs a U^2-Net; give it with --object-model u2netp.onnx, or leave the method out"
        raise SettingsError(msg)
    net = U2Net(model)
    return [net(image) > 0.5 for image in images]


def _spread(paths: Sequence[Path]) -> list[Path]:
    """At most so many good pictures, evenly chosen."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(_NORMALS, len(paths))).round().astype(int))]
