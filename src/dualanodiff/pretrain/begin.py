"""Begin a UNet from a trained one: of the same shape, or at half the size inside a new outermost level.

Of the same shape every weight is taken, whatever was predicted. A new level starts as nothing but 2 x 2 means on the
way in and repetition on the way out, so that the grown UNet begins near what the small one did to a picture of half the
size (not at it: the outermost convolutions see neighbours half a cell nearer) and learns what is new: detail. Its
residual branches start silent; every other weight, the text encoder's and the pair's too, is the small one's own average.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dualanodiff.checkpoints import load_checkpoint
from dualanodiff.errors import ModelError, RunError


@torch.no_grad()
def begin_from(model: nn.Module, unet: UNet2DConditionModel, state: Path) -> None:
    """Set the weights of a fresh `Pretrained` from the training state of one of its shape, or with a level less.

    ModelError where it cannot be read, and where the shapes fit neither way: of the same shape every
    weight must be there, else all but those of one outermost level without attention.
    """
    theirs = _weights(state)
    own = {name: tensor.shape for name, tensor in model.named_parameters()}
    inside = {_inside(name): tensor for name, tensor in theirs.items()}
    last = len(unet.config["block_out_channels"]) - 1
    new = ("unet.down_blocks.0.", f"unet.up_blocks.{last}.", f"unet.up_blocks.{last - 1}.upsamplers.")
    if _fits(theirs, own):
        moved = theirs
    elif _fits(inside, {name: shape for name, shape in own.items() if not name.startswith(new)}):
        moved = inside
    else:
        msg = (
            f"{state}: its shape does not fit; give the --channels, --plain-levels and --scale-shift that it was trained with, "
            f"or for twice the size one level without attention more, outermost, as wide as its first"
        )
        raise ModelError(msg)
    weights = dict(model.named_parameters())
    for name, tensor in moved.items():
        weights[name].copy_(tensor)
    if moved is inside:
        _add_level(unet)


def find_training(folder: Path) -> None:
    """ModelError unless the folder holds the state and the words of a training."""
    for path in (folder / "unet.safetensors", folder / "words" / "tokenizer.json"):
        if not path.is_file():
            raise _no_training(path, "not there")


def _weights(state: Path) -> dict[str, Tensor]:
    try:
        return load_checkpoint(state)[0]["average"]
    except (RunError, KeyError):
        raise _no_training(state, "not a readable state of `pretrain unet`") from None


def _no_training(path: Path, what: str) -> ModelError:
    return ModelError(f"{path}: {what}; give --begin-from the --out of a `pretrain unet` that has kept a state")


def _fits(given: Mapping[str, Tensor], own: Mapping[str, torch.Size]) -> bool:
    return given.keys() == own.keys() and all(tensor.shape == own[name] for name, tensor in given.items())


def _add_level(unet: UNet2DConditionModel) -> None:
    whole: Any = unet  # diffusers builds its blocks at run time, so a checker knows nothing of them
    first, last = whole.down_blocks[0], whole.up_blocks[-1]
    for block in (*first.resnets, *last.resnets):
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)
    width = first.resnets[0].out_channels
    for block in last.resnets:
        # Of [what comes from inside, what was skipped] only the first.
        _identity(block.conv_shortcut, width)
    mean = first.downsamplers[0].conv
    _identity(mean, width, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.25, 0.25], [0.0, 0.25, 0.25]]))
    _identity(whole.up_blocks[-2].upsamplers[0].conv, width)


def _inside(name: str) -> str:
    """Where a weight of the small UNet, or of its pair, stands in the grown one: a level further in on the way down."""
    return re.sub(r"(down_blocks[./])(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", name)


def _identity(conv: nn.Conv2d, width: int, kernel: Tensor | None = None) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    middle = conv.kernel_size[0] // 2
    for channel in range(width):
        if kernel is None:
            conv.weight[channel, channel, middle, middle] = 1
        else:
            conv.weight[channel, channel] = kernel
