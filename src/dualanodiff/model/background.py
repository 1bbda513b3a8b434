"""BCM: what the background's pass adds to the image branch's keys and values (Paper sec. 3.3, eq. 5)."""

from typing import Literal

import torch
from torch import Tensor, nn

from dualanodiff.model.linear import Linear

HIDDEN = 320
"""Width inside the MLP, the same in every layer, as in the released code."""


class BackgroundInjection(nn.Module):
    """One self-attention layer's injection.

    `paper`: the feature is what the layer gives for the background, x + gamma MLP(f), gamma 0.1 at the start.
    `released`: the feature is what the layer takes, (1 - a) x + a MLP(f), a 0 at the start, MLP without activation.

    >>> x, feature = torch.randn(4, 16, 8), torch.randn(2, 16, 8)
    >>> torch.equal(BackgroundInjection(8, form="released")(x, feature), x)
    True
    """

    def __init__(self, channels: int, *, form: Literal["paper", "released"]) -> None:
        super().__init__()
        self.form = form
        self.first = Linear(channels, HIDDEN)
        self.second = Linear(HIDDEN, channels)
        self.strength = nn.Parameter(torch.tensor([0.1 if form == "paper" else 0.0]))

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """What the image branch's keys and values are made from: (B, tokens, channels) from x of that shape.

        `feature` is (K, tokens, channels), K a divisor of B; background k serves every pair b with b % K == k.
        """
        hidden = self.first(feature)
        if self.form == "paper":
            hidden = nn.functional.silu(hidden)
        grouped = x.unflatten(0, (-1, feature.shape[0]))
        addition, strength = self.second(hidden), self.strength.to(x.dtype)
        # Paper sec. 3.3, eq. 5; the released code fades x out by as much as it adds.
        kept = grouped if self.form == "paper" else (1 - strength) * grouped
        return (kept + strength * addition).flatten(0, 1)
