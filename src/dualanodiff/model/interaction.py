"""SAIM, the interaction of the two branches after an attention layer (Paper sec. 3.2, eq. 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualanodiff.model.linear import Linear


class Interaction(nn.Module):
    """Attention between the two branches at each pixel, added to what an attention layer gives.

    `width` equal to `channels` is the released code's full form; a smaller one is the low-rank form. With
    `zero_output` it changes nothing until it is trained.

    >>> y = torch.randn(2, 3, 16, 8)
    >>> torch.equal(Interaction(8, width=4, zero_output=True)(y), y)
    True
    """

    def __init__(self, channels: int, *, width: int, zero_output: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.enter = Linear(channels, width)
        self.qkv = Linear(width, 3 * width)
        self.leave = Linear(width, channels)
        if zero_output:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)

    def forward(self, y: Tensor) -> Tensor:
        """(2, B, tokens, channels) to the same shape."""
        norm = self.norm
        normed = F.layer_norm(y, norm.normalized_shape, norm.weight.to(y.dtype), norm.bias.to(y.dtype), norm.eps)
        q, k, v = self.qkv(self.enter(normed)).chunk(3, dim=-1)
        # Paper sec. 3.2, eq. 3: a sequence of the 2 branches at each pixel ("bw 2 c"). A softmax over two scores is a
        # sigmoid of their difference; this one is what either branch takes from the part.
        lean = (q * (k[1] - k[0])).sum(dim=-1, keepdim=True) * q.shape[-1] ** -0.5
        mixed = v[0] + torch.sigmoid(lean) * (v[1] - v[0])
        return y + self.leave(mixed)
