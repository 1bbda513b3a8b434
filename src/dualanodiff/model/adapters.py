"""The adapter folder: what was learned, in safetensors files that carry all that is needed to load them.

`unet_image`, `unet_part` and `text` are LoRA files that stock diffusers loads; `interaction` and `background` exist
where the model has them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dualanodiff.errors import ModelError
from dualanodiff.model.base import Base
from dualanodiff.model.dual import BRANCHES, DualUNet
from dualanodiff.model.prompts import PROJECTIONS, TextAdapter
from dualanodiff.storage import write_atomic

LORA_METADATA = "lora_adapter_metadata"
"""Where diffusers looks for a LoRA file's rank and targets."""
OUR_METADATA = "dualanodiff"
"""Where our own settings are, in the header of each file."""
UNET_PROJECTIONS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
"""Our name of a projection, and that of the frozen module in diffusers."""


def save_adapters(dual: DualUNet, text: TextAdapter, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter files, each whole or not at all, and remove those that this model has not.

    `dtype` is that of the stored numbers; float16 halves the files.
    """
    config = {
        "rank": dual.rank,
        "interaction": dual.interaction,
        "interaction_rank": dual.interaction_rank,
        "background": dual.background,
        "text_rank": text.rank,
    }
    for name, tensors in _to_files(dual, text).items():
        path = folder / f"{name}.safetensors"
        if not tensors:
            path.unlink(missing_ok=True)
            continue
        header = {"format": "pt", OUR_METADATA: json.dumps(config)}
        if name.startswith("unet"):
            header[LORA_METADATA] = _lora_metadata("unet", dual.rank, tuple(UNET_PROJECTIONS.values()))
        elif name == "text":
            header[LORA_METADATA] = _lora_metadata("text_encoder", text.rank, PROJECTIONS)
        stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
        write_atomic(path, lambda temporary, stored=stored, header=header: save_file(stored, temporary, header))


def load_adapters(folder: Path, base: Base) -> tuple[DualUNet, TextAdapter]:
    """The model that `save_adapters` wrote, on the base it was learned on; ModelError where they do not fit."""
    config = read_config(folder)
    generator = torch.Generator()  # leaves the global stream alone; every weight is replaced
    text_rank = config.pop("text_rank")
    dual = DualUNet(base.unet, generator=generator, **config)
    text = TextAdapter(base.text_encoder, base.tokenizer, rank=text_rank, generator=generator)
    for name, wanted in _to_files(dual, text).items():
        if not wanted:
            continue
        path = folder / f"{name}.safetensors"
        found, _ = read_tensors(path)
        check_fit(path, found, {key: value.shape for key, value in wanted.items()})
        fill(wanted, found)
    return dual, text


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of an adapter folder: rank, interaction, interaction_rank, background, text_rank."""
    path = folder / "unet_image.safetensors"
    _, header = read_tensors(path, only_header=True)
    try:
        return json.loads(header[OUR_METADATA])
    except (KeyError, ValueError):
        msg = f"{path}: a LoRA file that this program did not write; give the adapter folder of a run"
        raise ModelError(msg) from None


def read_tensors(path: Path, *, only_header: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file; ModelError where it is missing or damaged."""
    if not path.is_file():
        msg = f"{path}: no such file; copy the whole adapter folder, or fit again"
        raise ModelError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {} if only_header else {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        msg = f"{path}: not a readable safetensors file ({error}); copy it again, or fit again"
        raise ModelError(msg) from None


def check_fit(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Raise ModelError for the first tensor of a file that this base has no place for, or that is missing."""
    for key, shape in wanted.items():
        if key not in found:
            msg = f"{path}: lacks {key}, which this base asks for; load it with the base it was learned on"
            raise ModelError(msg)
        if found[key].shape != shape:
            msg = (
                f"{path}: {key} is {tuple(found[key].shape)} but this base asks for {tuple(shape)}; "
                "load it with the base it was learned on"
            )
            raise ModelError(msg)
    for key in found:
        if key not in wanted:
            msg = f"{path}: {key} has no place in this base; load it with the base it was learned on"
            raise ModelError(msg)


@torch.no_grad()
def fill(places: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy each value into the parameter (or the view of one) at its key."""
    for key, place in places.items():
        place.copy_(values[key])


@torch.no_grad()
def _to_files(dual: DualUNet, text: TextAdapter) -> dict[str, dict[str, Tensor]]:
    """Views of all learned tensors by file and key, so that a file is written from them or read into them."""
    files: dict[str, dict[str, Tensor]] = {f"unet_{branch}": {} for branch in BRANCHES}
    files |= {"text": {}, "interaction": {}, "background": {}}
    for path in dual.paths:
        layer = dual.layer(path)
        for i, branch in enumerate(BRANCHES):
            for ours, theirs in UNET_PROJECTIONS.items():
                update, key = getattr(layer, ours), f"unet.{path}.{theirs}"
                files[f"unet_{branch}"] |= {
                    f"{key}.lora_A.weight": update.down[i],
                    f"{key}.lora_B.weight": update.up[i],
                }
        for name in ("interaction", "background"):
            module: nn.Module | None = getattr(layer, name)
            if module is not None:
                files[name] |= {f"{path}.{key}": value for key, value in module.named_parameters()}
    for path, down, up in zip(text.paths, text.down, text.up, strict=True):
        key = f"text_encoder.text_model.{path}"
        files["text"] |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    return files


def _lora_metadata(prefix: str, rank: int, targets: tuple[str, ...]) -> str:
    values = {"r": rank, "lora_alpha": rank, "target_modules": list(targets), "peft_type": "LORA", "bias": "none"}
    return json.dumps({f"{prefix}.{key}": value for key, value in values.items()}, sort_keys=True)
