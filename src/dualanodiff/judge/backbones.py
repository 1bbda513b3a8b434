"""Networks that pictures are compared with, in plain torch, so that they run where torchvision does not.

All take pictures (b, 3, h, w) in [-1, 1]. Parameter names are those of the published weight files.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from dualanodiff.seeds import torch_stream

# (repeats, kernel, stride, expansion, channels) of the seven stages.
_LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
# Channels of each 3 x 3 convolution, 0 for a halving; each level ends before the next halving.
_EPS = 1e-10


class SamePadded(nn.Conv2d):
    """A convolution whose output is ceil(input / stride) wide, padded as TensorFlow does: the odd pixel at the end."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c', ceil(h / stride), ceil(w / stride))."""
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(input.shape[2:]), self.kernel_size, self.stride, strict=True):
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    """An inverted bottleneck without squeeze and excitation."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        if expansion > 1:
            self._expand_conv = SamePadded(inner, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SamePadded(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SamePadded(wide, outer, 1, bias=False)
        self._bn2 = _norm(outer)
        self.expands, self.skips = expansion > 1, stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, with its input added where the shapes agree."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """An ImageNet classifier: `forward` gives (features (b, 1280), logits (b, 1000)) at 224 px."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadded(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks: list[nn.Module] = []
        inner = 32
        for repeats, kernel, stride, expansion, outer in _LITE0:
            for number in range(repeats):
                blocks.append(_Block(inner, outer, kernel, stride if number == 0 else 1, expansion))
                inner = outer
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePadded(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Features after the pooling, and class scores."""
        # Trained on (value - 127) / 128 of 0..255.
        x = (resized(rgb, 224) * 127.5 + 0.5) / 128
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        pooled = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return pooled, self._fc(pooled)


class Perceptual(nn.Module):
    """LPIPS as an embedding: the squared Euclidean distance of two embeddings is the distance of the pictures.

    A level's features have unit length at each place, and a weight a channel. The square root of the weight over the
    number of places goes into the embedding, so that a picture is embedded once and not once for each pair.
    """

    def __init__(self, trunk: nn.Sequential, taps: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.taps = tuple(taps)
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(count)) for count in channels)
        shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Embeddings (b, D); D grows with the picture."""
        x = (rgb - self.get_buffer("shift")) / self.get_buffer("scale")
        levels: list[Tensor] = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.taps:
                levels.append(x)
        return joined(levels, list(self.heads))


def joined(levels: Iterable[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """Embeddings (b, D) from maps (b, c, h, w) and the weights (c,) of their channels."""
    parts: list[Tensor] = []
    for level, head in zip(levels, heads, strict=True):
        unit = level / (level.square().sum(1, keepdim=True).sqrt() + _EPS)
        parts.append((unit * (head / level[0, 0].numel()).sqrt()[:, None, None]).flatten(1))
    return torch.cat(parts, 1)


def lpips_vgg() -> Perceptual:
    """LPIPS over VGG-16, version 0.1, without its weights."""
    layers: list[nn.Module] = []
    taps: list[int] = []
    inner = 3
    for outer in _VGG16:
        if outer == 0:
            taps.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU()]
            inner = outer
    return Perceptual(nn.Sequential(*layers), [*taps, len(layers) - 1], (64, 128, 256, 512, 512))


class Blur(nn.Module):
    """Every second pixel of a 3 x 3 binomial blur, mirrored by two pixels at the border."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (line[:, None] * line).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c, h / 2 + 1, w / 2 + 1)."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.get_buffer("filt"), stride=2, groups=x.shape[1])


def stlpips_alex() -> Perceptual:
    """The shift-tolerant LPIPS over AlexNet (Ghildyal and Liu, 2022), without its weights."""
    layers = [
        *(nn.Conv2d(3, 64, 11, padding=2), Blur(64), nn.ReLU(), nn.MaxPool2d(3, 1), Blur(64)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 1), Blur(192)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
    return Perceptual(nn.Sequential(*layers), (2, 6, 10, 12, 14), (64, 192, 384, 256, 256))


class EncoderLevels(nn.Module):
    """What an autoencoder's encoder sees at each of its resolutions, in units of what it sees in brown noise."""

    def __init__(self, vae: AutoencoderKL, side: int) -> None:
        super().__init__()
        self.encoder = vae.encoder
        with torch.no_grad():
            for i, level in enumerate(self.levels(brown_noise(side))):
                self.register_buffer(f"size{i}", level.square().mean().sqrt().clamp_min(1e-6))
                self.register_buffer(f"deviation{i}", level.std((2, 3), correction=0).mean(0).clamp_min(1e-6))

    def levels(self, rgb: Tensor) -> list[Tensor]:
        """Maps (b, c, h, w) after each down block and after the middle."""
        x = self.encoder.conv_in(rgb)
        levels: list[Tensor] = []
        for block in self.encoder.down_blocks:
            x = block(x)
            levels.append(x)
        if self.encoder.mid_block is not None:
            levels.append(self.encoder.mid_block(x))
        return levels

    def pooled(self, rgb: Tensor) -> Tensor:
        """Mean, and logarithm of the deviation, over the picture of each channel of each level: (b, d).

        The logarithm sees what most often is wrong with a generated picture: that it is a little too smooth.
        """
        parts: list[Tensor] = []
        for i, level in enumerate(self.levels(rgb)):
            size, deviation = self.get_buffer(f"size{i}"), self.get_buffer(f"deviation{i}")
            parts += [level.mean((2, 3)) / size, (level.std((2, 3), correction=0) / deviation + 1e-3).log()]
        return torch.cat(parts, 1)

    def embedded(self, rgb: Tensor) -> Tensor:
        """Embeddings (b, D) as `Perceptual` makes them, all channels weighing the same."""
        levels = self.levels(rgb)
        return joined(levels, [level.new_ones(level.shape[1]) for level in levels])


def brown_noise(side: int, count: int = 4) -> Tensor:
    """Always the same coloured noise (count, 3, side, side) in [-1, 1], with about the spectrum of photographs."""
    white = torch.randn((count, 3, side, side), generator=torch_stream(0, "judge", "brown noise"))
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)).clamp_min(1 / side)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(side, side))
    return (noise / noise.std() * 0.4).clamp(-1, 1)


def resized(rgb: Tensor, side: int) -> Tensor:
    """Pictures at side x side, smoothed when they shrink."""
    if rgb.shape[2:] == (side, side):
        return rgb
    return F.interpolate(rgb, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
