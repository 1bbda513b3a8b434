"""The paper's two inspectors: a U-Net that marks defects pixel by pixel, and a ResNet-18 that names their type."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAPER_WIDTHS = (64, 128, 256, 512, 512, 512)


class UNet(nn.Module):
    """DRAEM's discriminative U-Net: pictures (b, 3, h, w) in 0..1 to logits (b, 2, h, w) of normal and defect.

    h and w are multiples of 2 ** (levels - 1), 32 for six widths.
    """

    def __init__(self, widths: Sequence[int] = PAPER_WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(*step) for step in zip([3, *widths[:-1]], widths, strict=True))
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(_conv(wide, narrow) for wide, narrow in upwards)
        self.merge = nn.ModuleList(_twice(2 * narrow, narrow) for _, narrow in upwards)
        self.out = nn.Conv2d(widths[0], 2, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits at the pictures' size."""
        x, levels = pictures, list[Tensor]()
        for down in self.down:
            x = down(F.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        for up, merge, level in zip(self.up, self.merge, levels[-2::-1], strict=True):
            x = up(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
            x = merge(torch.cat([x, level], dim=1))
        return self.out(x)


class ResNet18(nn.Module):
    """He et al.'s residual network of 18 layers, from random weights: pictures (b, 3, h, w) in 0..1 to (b, types)."""

    def __init__(self, types: int, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        for before, after in zip([width, *widths[:-1]], widths, strict=True):
            blocks += [_Residual(before, after, 1 if before == after else 2), _Residual(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(widths[-1], types)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the types."""
        x = F.max_pool2d(self.stem(pictures), 3, stride=2, padding=1)
        return self.out(self.blocks(x).mean(dim=(2, 3)))


class _Residual(nn.Module):
    """x + conv(conv(x)), both 3 x 3."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.short(x))


def focal_loss(logits: Tensor, masks: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p)^gamma log p over all pixels, p the probability given to what is there.

    `logits` (b, 2, h, w) of any precision, `masks` int64 (b, h, w).
    """
    surprise = F.cross_entropy(logits.float(), masks, reduction="none")
    return ((1 - torch.exp(-surprise)) ** gamma * surprise).mean()


def anomaly_maps(logits: Tensor) -> Tensor:
    """Probability of a defect, float32 (b, h, w)."""
    return cast("Tensor", logits.float().softmax(dim=1))[:, 1]


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _twice(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_conv(before, after), *_conv(after, after))
