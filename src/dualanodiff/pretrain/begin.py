"""Begin a UNet from a trained one: of the same shape, or at half the size inside a new outermost level.

Of the same shape every weight is taken, whatever was predicted: a UNet that predicted v predicts noise about as well
after a few hundred steps. A new level starts as nothing but 2 x 2 means on the way in and repetition on the way out,
so that the grown UNet begins near what the small one did to a picture of half the size (not at it: the outermost
convolutions see neighbours half a cell nearer) and learns what is new: detail. Its residual branches start silent;
every other weight, the text encoder's and the pair's too, is the small one's own average.
"""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dualanodiff.checkpoints import load_checkpoint
from dualanodiff.errors import ModelError


@torch.no_grad()
def begin_from(model: nn.Module, unet: UNet2DConditionModel, state: Path) -> None:
    """Set the weights of a fresh `Pretrained` from the training state of one of its shape, or with a level less.

    ModelError where the widths fit neither way: the outermost two of `unet` must equal the outermost of the small one.
    """
    groups, meta = load_checkpoint(state)
    own = dict(model.named_parameters())
    grown = len(meta["plan"]["channels"]) < len(unet.config["block_out_channels"])
    moved = {_inside(name) if grown else name: tensor for name, tensor in groups["average"].items()}
    unknown = [name for name, tensor in moved.items() if name not in own or own[name].shape != tensor.shape]
    if unknown:
        msg = f"{state}: {unknown[0]} does not fit; begin from a training whose channels are this one's, or this one's without the first"
        raise ModelError(msg)
    for name, tensor in moved.items():
        own[name].copy_(tensor)
    if grown:
        _add_level(unet)


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
