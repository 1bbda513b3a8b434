"""Detectors beside the generators: through anomalib where it is installed, and any other by its anomaly maps on disk.

    MAPS/<category>/<defect|good>/NAME.npy     float (h, w), or a grey picture; NAME is that of the test picture

A detector learns from train/good only and is tested on the pictures that test the inspectors.
"""

import hashlib
import importlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from dualanodiff.data.catalog import choose_name, find_pictures
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.lift.pixel_scores import inspector_scores
from dualanodiff.lift.task import Task
from dualanodiff.rivals.materials import drawn_texture
from dualanodiff.seeds import numpy_stream
from dualanodiff.storage import write_atomic, write_text


@dataclass(frozen=True)
class Recipe:
    """What anomalib calls a detector, and the epochs and pictures a step of its publication."""

    model: str
    epochs: int
    batch: int
    textures: bool = False
    """It blends textures into good pictures."""


ANOMALIB = {
    "patchcore": Recipe("Patchcore", 1, 32),
    "cfa": Recipe("Cfa", 30, 4),
    "rd4ad": Recipe("ReverseDistillation", 200, 16),
    "draem-detector": Recipe("Draem", 700, 8, textures=True),
}
TEXTURES = 64
"""Procedural textures for a detector that wants some."""
INSTALL = "`pip install dualanodiff[anomalib]`"


@dataclass(frozen=True)
class Detector:
    """A detector: a name of ANOMALIB, or a folder of maps."""

    name: str
    folder: Path | None = None


def read_detectors(names: Sequence[str], maps: Sequence[str]) -> list[Detector]:
    """Detectors by name and NAME=FOLDER; SettingsError or DataError for what is unknown or not there."""
    found = [Detector(choose_name(name, ANOMALIB, "detectors", Path("bench"))) for name in names]
    for word in maps:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            msg = f"--maps {word}: write NAME=FOLDER"
            raise SettingsError(msg)
        if not Path(folder).is_dir():
            msg = f"--maps {word}: no such folder; it must hold <category>/<defect|good>/NAME.npy, or grey pictures"
            raise DataError(msg)
        found.append(Detector(name, Path(folder)))
    return found


def score_maps(folder: Path, task: Task) -> dict[str, float]:
    """Every metric of the inspectors for the maps of one category; DataError naming the test picture without a map."""
    maps = np.stack([read_map(_find_map(folder / task.category, path), task.side) for path in task.tests.paths])
    return inspector_scores(maps, task.tests.masks)


def read_map(path: Path, side: int) -> np.ndarray:
    """Float32 (side, side), higher where it is more of a defect; a picture's grey values have 8 bits."""
    if path.suffix != ".npy":
        values = read_rgb(path).mean(axis=-1)
    else:
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            msg = f"{path}: no array of numbers can be read ({error}); save it with numpy.save, as float32"
            raise DataError(msg) from None
    values = np.squeeze(np.asarray(values))
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        msg = f"{path}: holds {values.dtype} of shape {values.shape}, but a map is (height, width) of finite numbers"
        raise DataError(msg)
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def run_anomalib(name: str, task: Task, out: Path, seed: int, *, textures: Path | None = None) -> Path:
    """Train a detector of anomalib on train/good and write its maps of every test picture; the folder of maps.

    `textures` are the pictures that DRAEM blends in; without them it gets procedural ones, never a download. Raises
    SettingsError where anomalib cannot be imported, or cannot fetch the weights that a detector begins with.
    """
    done = out / task.category / "done"
    if done.exists():
        return out
    data, engines, models, lightning = map(
        _import, ("anomalib.data", "anomalib.engine", "anomalib.models", "lightning")
    )
    recipe = ANOMALIB[name]
    lightning.seed_everything(seed, workers=True)

    def squashed(image: Tensor) -> Tensor:
        return F.interpolate(image[None], (task.side, task.side), mode="bilinear", antialias=True)[0]

    # Plain lists of files: no part of anomalib gets to see which test pictures show a defect.
    good = data.PredictDataset(path=task.good[0].parent, transform=squashed)
    train = DataLoader(good, batch_size=recipe.batch, shuffle=True, collate_fn=good.collate_fn)
    module = lightning.LightningDataModule()  # CFA asks its trainer for one
    module.train_dataloader, module.name, module.category = lambda: train, task.category, ""
    with tempfile.TemporaryDirectory() as scratch:
        # Neither thresholds nor a scale are needed to rank pixels, and both are fitted to defect pictures.
        options = {"dtd_dir": textures or _drawn_textures(Path(scratch), task.side, seed)} if recipe.textures else {}
        try:
            model = getattr(models, recipe.model)(post_processor=False, evaluator=False, visualizer=False, **options)
        except OSError as error:
            way_out = "put them into torch's hub cache where there is no network, or leave the detector out"
            msg = f"{name}: anomalib cannot fetch the weights it begins with ({error}); {way_out}"
            raise SettingsError(msg) from None
        engine = engines.Engine(default_root_dir=scratch, logger=False, max_epochs=recipe.epochs)
        engine.fit(model=model, datamodule=module)
        for path in task.tests.paths:
            found = engine.predict(model=model, dataset=data.PredictDataset(path=path, transform=squashed))
            values = np.asarray(found[0].anomaly_map.detach().cpu().float()).squeeze()
            place = out / task.category / path.parent.name / f"{path.stem}.npy"
            write_atomic(place, lambda temporary, values=values: np.save(temporary, values))
    write_text(done, "")
    return out


def _drawn_textures(scratch: Path, side: int, seed: int) -> Path:
    """A folder of procedural textures."""
    folder = scratch / "textures"
    for index in range(TEXTURES):
        stream = numpy_stream(seed, "textures", index)
        write_png(folder / f"{index:03d}.png", drawn_texture(stream, side))
    return folder


def maps_fingerprint(folder: Path, category: str) -> str:
    """Of the names, sizes and times of one category's maps."""
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in (folder / category).rglob("*.*"))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _find_map(root: Path, picture: Path) -> Path:
    place = root / picture.parent.name
    array = place / f"{picture.stem}.npy"
    if array.is_file():
        return array
    found = [path for path in find_pictures(place) if path.stem == picture.stem]
    if not found:
        msg = f"{place}: no map {picture.stem}.npy (or a picture) for the test picture {picture}; write one for each"
        raise DataError(msg)
    return found[0]


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  (torchvision, which it needs, fails in many ways)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"anomalib cannot be imported ({reason}); install it with {INSTALL}, or give maps on disk with --maps NAME=FOLDER"
        raise SettingsError(msg) from None
