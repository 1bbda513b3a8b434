"""The RUN folder: what a fit was asked, what it read, how it went, and what it learned.

RUN/  config.toml  lineage.json  adapter/*.safetensors  start.safetensors  metrics.jsonl  checkpoints/  preview/
"""

import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dualanodiff.errors import DataError, RunError
from dualanodiff.settings import Settings, read_settings, to_toml
from dualanodiff.storage import (
    drop_unfinished,
    sha256,
    trim_jsonl,
    unfinished,
    write_atomic,
    write_json,
    write_text,
)

KEPT_CHECKPOINTS = 2
# A resumed run may train longer or report differently; everything else would make it another run.
CHANGEABLE = {
    "train.max_train_steps",
    "train.checkpointing_steps",
    "train.preview_steps",
    "train.report_to",
    "train.gradient_checkpointing",
    "train.compile",
    # The adapted base itself is compared, by its files.
    "train.adapt_rate",
}

ADAPTED = "adapted"
"""The folder beside runs that holds the bases adapted to their products."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and the few things that are read from and written to them."""

    path: Path

    @property
    def adapter(self) -> Path:
        """Folder of the five adapter files."""
        return self.path / "adapter"

    @property
    def metrics(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def finished(self) -> bool:
        """Whether the run has learned what it was asked to."""
        return (self.path / "start.safetensors").exists()

    def checkpoints(self) -> list[Path]:
        """Resumable states, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"))

    def checkpoint_path(self, step: int) -> Path:
        """Where the state after `step` steps is kept."""
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def drop_old_checkpoints(self) -> None:
        """Keep the newest two."""
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)

    def settings(self) -> Settings:
        """The run's settings; RunError when this is no run."""
        config = self.path / "config.toml"
        if not config.exists():
            msg = f"{self.path}: not a run (no config.toml in it); make one with `dualanodiff fit DATA --defect D --out RUN`"
            raise RunError(msg)
        return read_settings(config)

    def lineage(self) -> dict[str, Any]:
        """What the run was made from; RunError for a missing or damaged file."""
        path = self.path / "lineage.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{path}: not a readable lineage ({error}); the run is incomplete, fit it again into a new folder"
            raise RunError(msg) from None

    @property
    def _distilled(self) -> bool:
        return (self.path / "lineage.json").exists() and "distilled" in self.lineage()

    def base_name(self) -> str:
        """The base that the run was fitted on; an adapted one may have been moved together with the runs beside it.

        RunError where an adapted base is in neither place.
        """
        name = self.lineage()["base"]
        if Path(name).parent.name != ADAPTED or Path(name).is_dir():
            return name
        moved = self.path.parent / ADAPTED / Path(name).name
        if not moved.is_dir():
            msg = f"{name}: the adapted base of {self.path} is not there; put it back, or into {moved.parent}, or fit again"
            raise RunError(msg)
        return str(moved)

    @property
    def begun(self) -> bool:
        """Whether there is a run here, finished or not."""
        return (self.path / "config.toml").exists()

    def check_free(self, *, resume: bool) -> None:
        """RunError where the folder holds something else than a run, or a run that is not to be resumed."""
        if not self.begun:
            # A kill while the first two files were being written leaves no run, and nothing that is in the way of one.
            if self.path.is_file() or (self.path.exists() and not all(map(_is_beginning, self.path.iterdir()))):
                msg = f"{self.path}: is not empty and not a run; choose another --out"
                raise RunError(msg)
        elif not resume:
            msg = f"{self.path}: holds a run already; add --resume to continue it, or choose another --out"
            raise RunError(msg)

    def begin(self, settings: Settings, lineage: Mapping[str, Any], *, resume: bool) -> None:
        """Write config and lineage of a new run, or make sure that an old one may go on.

        RunError when the folder holds another run, or when resuming would mix different inputs or settings.
        """
        self.check_free(resume=resume)
        if not self.begun:
            drop_unfinished(self.path)
            write_json(self.path / "lineage.json", lineage)
            write_text(self.path / "config.toml", to_toml(settings))
            return
        before, now = _inputs(self.lineage()), _inputs(lineage)
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                msg = f"{self.path}: was begun with {name} {before.get(name)}, now {now.get(name)}; resume with the same, or choose another --out"
                raise RunError(msg)
        old, new = _flat(self.settings()), _flat(settings)
        for name, value in new.items():
            if name.startswith(("sample.", "mask.")) or name in CHANGEABLE or old[name] == value:
                continue
            msg = f"{self.path}: was begun with {name} = {old[name]!r}, now {value!r}; resume with the same, or choose another --out"
            raise RunError(msg)
        drop_unfinished(self.path)
        write_text(self.path / "config.toml", to_toml(settings))

    def trim_metrics(self, step: int) -> list[dict[str, Any]]:
        """Forget metrics after `step`, which belong to steps that a kill undid; the rows that stay."""
        return trim_jsonl(self.metrics, step)

    def save_start(self, mean: Tensor, facts: Mapping[str, Any]) -> None:
        """Keep the shots' mean latents (2, c, h, w) and what sampling and masks need to know of them."""
        header = {"facts": json.dumps(dict(facts))}
        write_atomic(
            self.path / "start.safetensors",
            lambda path: save_file({"mean": mean.contiguous()}, path, metadata=header),
        )

    def save_backgrounds(self, latents: Tensor) -> None:
        """Keep normal pictures' background latents (n, c, h, w), so that sampling needs no data folder."""
        tensors = {"backgrounds": latents.half().contiguous()}
        write_atomic(self._backgrounds, lambda path: save_file(tensors, path))

    @property
    def has_backgrounds(self) -> bool:
        """Whether `save_backgrounds` was called."""
        return self._backgrounds.exists()

    @property
    def _backgrounds(self) -> Path:
        return self.path / "backgrounds.safetensors"

    def load_backgrounds(self) -> Tensor:
        """What `save_backgrounds` kept; RunError for a missing or damaged file."""
        path = self._backgrounds
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("backgrounds").float()
        except (SafetensorError, OSError) as error:
            msg = f"{path}: not readable ({error}); give normal pictures with --normals, or fit again"
            raise RunError(msg) from None

    def load_start(self) -> tuple[Tensor, dict[str, Any]]:
        """What `save_start` kept; RunError when the fit has not ended or the file is damaged."""
        path = self.path / "start.safetensors"
        if not path.exists():
            self.settings()
            command = "distill" if self._distilled else "fit"
            msg = f"{self.path}: this run has not finished; finish it with `dualanodiff {command} ... --out {self.path} --resume`"
            raise RunError(msg)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("mean"), json.loads(file.metadata()["facts"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{path}: damaged ({error}); delete it and finish the run again with `dualanodiff fit ... --resume`"
            raise RunError(msg) from None


def _is_beginning(path: Path) -> bool:
    return path.name == "lineage.json" or unfinished(path)


def _inputs(lineage: Mapping[str, Any]) -> dict[str, str | None]:
    """What a run may not change halfway, by name; files by content, so that they may be moved."""
    inputs = {key: lineage.get(key) for key in ("category", "defect")}
    counts: dict[str, int] = {}
    for file in lineage.get("files", []):
        count = counts[file["role"]] = counts.get(file["role"], 0) + 1
        inputs[f"{file['role']} {count}"] = f"{Path(file['path']).name} (sha256 {file['sha256'][:12]})"
    return inputs


def _flat(settings: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.to_dict().items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def file_record(path: Path, role: str) -> dict[str, Any]:
    """Hash, size and role of one input file, as lineage.json lists it."""
    return {"path": str(path), "role": role, "bytes": path.stat().st_size, "sha256": sha256(path)}


def seen_by_base(folder: Path | None) -> list[dict[str, Any]]:
    """Records of the pictures that an adapted base was taught, so that a run's lineage names them as well.

    Empty for a base that was not adapted; DataError for a lineage that is there and cannot be read.
    """
    file = None if folder is None else folder / "lineage.json"
    if file is None or not file.is_file():
        return []
    try:
        records = json.loads(file.read_text(encoding="utf-8"))["files"]
        return [{**record, "role": "base's normal"} for record in records if record["role"] == "normal"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{file}: not a readable lineage ({error}); adapt the base again into a new folder"
        raise DataError(msg) from None


def make_lineage(
    *, base: str, seed: int, files: Iterable[Mapping[str, Any]], category: str | None, defect: str | None
) -> dict[str, Any]:
    """Everything a run is made from: input files by hash, base, versions, seed."""
    packages = ("dualanodiff", "torch", "diffusers", "transformers", "numpy", "pillow")
    return {
        "base": base,
        "category": category,
        "defect": defect,
        "seed": seed,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "threads": torch.get_num_threads(),
        "files": [dict(file) for file in files],
    }
