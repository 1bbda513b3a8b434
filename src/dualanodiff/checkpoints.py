"""Resumable training states in one safetensors file: weights, optimiser and averages, with the step in its header."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dualanodiff.errors import RunError
from dualanodiff.storage import write_atomic

NamedParameters = Iterable[tuple[str, nn.Parameter]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: NamedParameters) -> dict[str, Tensor]:
    """The optimiser's state tensors under `<parameter name>/<state name>`."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in parameters
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took out; parameters without a state stay without one."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        states.setdefault(parameter_name, {})[key] = tensor
    for name, parameter in parameters:
        if name in states:
            # The step counter stays where the optimiser put it (the CPU); moments live beside their parameter.
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else _beside(parameter, value)
                for key, value in states[name].items()
            }


def _beside(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """A moment on its parameter's device and in its order of memory, which a fused optimiser takes for granted."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def save_checkpoint(path: Path, groups: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """Write groups of tensors and a JSON header, whole or not at all; OSError on a full disk."""
    flat = {
        f"{group}:{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    write_atomic(path, lambda temporary: save_file(flat, temporary, metadata={"meta": json.dumps(dict(meta))}))


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors and the header that `save_checkpoint` wrote; RunError for a damaged file."""
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            for key in file.keys():  # noqa: SIM118  a file, not a dict
                group, _, name = key.partition(":")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        msg = f"{path}: not a readable checkpoint ({error}); delete it to resume from the one before"
        raise RunError(msg) from None
    return groups, meta


def save_training(
    path: Path, parameters: Sequence[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Keep the weights that are trained, and their optimiser, after `step` steps."""
    groups = {"model": dict(parameters), "optimizer": optimizer_tensors(optimizer, parameters)}
    save_checkpoint(path, groups, {"step": step})


@torch.no_grad()
def resume_training(
    path: Path, parameters: Sequence[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
) -> int:
    """Put back what `save_training` kept; its step, 0 where nothing was kept."""
    if not path.exists():
        return 0
    groups, meta = load_checkpoint(path)
    for name, weight in parameters:
        weight.copy_(groups["model"][name])
    restore_optimizer(optimizer, parameters, groups.get("optimizer", {}))
    return int(meta["step"])
