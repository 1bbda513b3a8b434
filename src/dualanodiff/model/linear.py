"""Linear maps that follow their input's dtype: a dense one, and one low-rank update a branch of a frozen one.

Learned weights stay float32 whatever the base's dtype, so that small optimiser steps are not rounded away.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A dense map whose weights are cast to its input's dtype when used."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class BranchLoRA(nn.Module):
    """The low-rank updates, one a branch, of one frozen projection (Paper sec. 3.2: "use two LoRA").

    >>> frozen = nn.Linear(8, 6)
    >>> update = BranchLoRA(8, 6, rank=2)
    >>> rows = torch.randn(5, 3, 8)  # two pairs and one background
    >>> torch.equal(update(frozen, rows, pairs=2), frozen(rows))  # a fresh update changes nothing
    True
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(2, rank, inputs).normal_(std=1 / rank))
        self.up = nn.Parameter(torch.zeros(2, outputs, rank))

    def forward(self, frozen: Callable[[Tensor], Tensor], x: Tensor, pairs: int) -> Tensor:
        """`frozen(x)` and each branch's update, (rows, tokens, in) to (rows, tokens, out).

        Rows are `pairs` of the image branch, as many of the part branch, then any number of backgrounds, which
        take the image branch's update.
        """
        y = frozen(x)
        down, up = self.down.to(x.dtype).mT, self.up.to(x.dtype).mT
        first = 2 * pairs
        parts: list[Tensor] = []
        if first > 0:  # both branches in one batched product
            hidden = torch.bmm(x[:first].reshape(2, -1, x.shape[-1]), down)
            joint = y[:first].reshape(2, -1, y.shape[-1])
            parts.append(torch.baddbmm(joint, hidden, up).view_as(y[:first]))
        if first < x.shape[0]:
            parts.append(y[first:] + x[first:] @ down[0] @ up[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts)
