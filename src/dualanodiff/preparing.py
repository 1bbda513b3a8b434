"""What a fit needs before its first step: input files for the lineage, processes and tracker, the optimiser."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from dualanodiff.data.shots import Shot
from dualanodiff.errors import SettingsError
from dualanodiff.images import read_rgb
from dualanodiff.latents import background_picture, encode_pictures
from dualanodiff.masks.saliency import U2Net, object_mask
from dualanodiff.model.base import WEIGHTS, Base
from dualanodiff.runs import RunFolder, file_record, seen_by_base
from dualanodiff.settings import Settings, TrainSettings


def input_files(shots: Sequence[Shot], normals: Sequence[Path], base: Base) -> list[dict[str, Any]]:
    """Records, for the lineage, of every file that a fit reads."""
    files = [file_record(shot.path, "shot") for shot in shots if shot.path]
    files += [file_record(shot.mask_path, "mask") for shot in shots if shot.mask_path]
    files += [file_record(path, "normal") for path in normals]
    files += [file_record(path, "base") for path in base_files(base)]
    return files + seen_by_base(base.folder)


def find_objects(pictures: Sequence[np.ndarray], settings: Settings) -> tuple[list[np.ndarray] | None, str]:
    """Object masks bool (h, w) of pictures where a run with background compensation needs them; and what found them."""
    if settings.model.background == "none":
        return None, "not used"
    net = U2Net(Path(settings.data.object_model)) if settings.data.object_model else None
    found = [object_mask(picture, net) for picture in pictures]
    return [mask for mask, _ in found], "; ".join(sorted({source for _, source in found}))


def encode_normals(
    paths: Sequence[Path], side: int, base: Base, settings: Settings, folder: RunFolder
) -> torch.Tensor | None:
    """Latents (n, c, h, w) of normal pictures' backgrounds, kept in the run so that it needs its data no more."""
    if settings.model.background == "none":
        return None
    if not folder.has_backgrounds:
        pictures = [read_rgb(path, size=side) for path in paths]
        objects, _ = find_objects(pictures, settings)
        masked = [background_picture(picture, mask) for picture, mask in zip(pictures, objects or [], strict=True)]
        folder.save_backgrounds(encode_pictures(base, masked))
    return folder.load_backgrounds()


def needs(model: nn.Module, memory: int | None) -> str:
    """What a fit takes up: memory so far at its peak, and disk for adapters and two states of weights and optimiser."""
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    held = f"{memory / 2**30:.1f} GiB of memory, " if memory else ""
    return f"{held}{7 * size / 1e6:.0f} MB on disk"


def base_files(base: Base) -> list[Path]:
    """The weight files of a base that lies in a folder, for the lineage."""
    folders = [] if base.folder is None else [base.folder / part for part in (*WEIGHTS, "pair")]
    return sorted(path for folder in folders for path in folder.glob("*.safetensors"))


def recommended(base: Base) -> Settings:
    """The paper's settings, with what this base's card recommends put over them."""
    return Settings().updated(base.card.get("settings", {}), f"{base.name}/base.toml")


def make_accelerator(settings: Settings, folder: RunFolder) -> Accelerator:
    """Of the processes and tracker of this fit; SettingsError for a tracker that cannot be used."""
    name = settings.train.report_to
    if name == "none":
        return Accelerator()
    try:
        accelerator = Accelerator(log_with=name, project_dir=folder.path / "tracker")
        reason = "" if accelerator.log_with else "it is not installed"
    except (ImportError, ValueError, KeyError) as error:
        reason = str(error)
    if reason:
        msg = f"train.report_to is {name!r}, which cannot be used ({reason}); install it, or set none"
        raise SettingsError(msg)
    return accelerator  # pyright: ignore[reportPossiblyUnboundVariable]


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spread over them."""
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[i] for i in chosen]


def make_optimizer(train: TrainSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of the settings; SettingsError where its package is missing."""
    learned = [parameter for parameter in parameters if parameter.numel()]
    options: dict[str, Any] = {"lr": train.learning_rate, "weight_decay": train.adam_weight_decay}
    if train.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]  # noqa: PLC0415
        except ImportError as error:
            msg = f"train.optimizer is adamw8bit, which cannot be used ({error}); install bitsandbytes, or set adamw"
            raise SettingsError(msg) from None
        return AdamW8bit(learned, **options)
    # On a CPU one call for all weights; a GPU's default is as good, and keeps its step counter where a state has it.
    fused = all(parameter.device.type == "cpu" for parameter in learned)
    return torch.optim.AdamW(learned, fused=fused or None, **options)
