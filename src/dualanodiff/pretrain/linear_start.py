"""Begin the autoencoder as a linear codec: it then has colours and coarse shape at step 0 and learns detail only.

The encoder starts as a Haar transform over 8 x 8 blocks followed by principal components, the decoder as smooth
interpolation of the block's mean colour. Both run along the networks' own skip connections: residual branches start
silent, and a value kept as a pair (x, -x) passes SiLU unchanged, since silu(x) - silu(-x) = x. Constants beside it
keep the group norms from normalising a flat colour away. From a random start two cores need hours for the same.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

_CONSTANT = 4.0
_HAAR = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]).float() / 4
_SMOOTH = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])) / 16
_CENTER = torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(1.0))


@torch.no_grad()
def start_linear(vae: AutoencoderKL, pictures: Tensor, *, latent_std: float = 1.0) -> None:
    """Set the fresh weights of `vae` (f = 8, no attention) from pictures (n, 3, h, w) in [-1, 1]."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            assert module.conv2.bias is not None
            nn.init.zeros_(module.conv2.bias)
    _start_encoder(vae, pictures, latent_std)
    _start_decoder(vae, pictures)


def _start_encoder(vae: AutoencoderKL, pictures: Tensor, latent_std: float) -> None:
    # Any: diffusers builds its blocks at run time, so a checker knows nothing of them.
    whole: Any = vae
    encoder, latents = whole.encoder, int(vae.config["latent_channels"])
    _pass(encoder.conv_in, 3)
    x, known = encoder.conv_in(pictures), 3
    for block in encoder.down_blocks[:-1]:
        _pass(block.resnets[0].conv_shortcut, known)
        x = block.resnets[0](x, None)
        conv = block.downsamplers[0].conv
        chosen = _haar_rows(x[:, :known], conv.out_channels)
        conv.weight[: len(chosen)] = 0
        conv.bias[: len(chosen)] = 0
        for row, (channel, k) in enumerate(chosen):
            conv.weight[row, channel, :2, :2] = _HAAR[k]
        x, known = block.downsamplers[0](x), len(chosen)
    last = encoder.down_blocks[-1].resnets[0].conv_shortcut
    values = x[:, :known].permute(0, 2, 3, 1).reshape(-1, known)
    mean = values.mean(dim=0)
    _, strength, directions = torch.pca_lowrank(values - mean, q=latents, center=False, niter=8)
    last.weight[: 2 * latents + 4] = 0
    last.bias[: 2 * latents + 4] = 0
    for j in range(latents):
        for sign, row in ((1, 2 * j), (-1, 2 * j + 1)):
            last.weight[row, :known, 0, 0] = sign * directions[:, j]
            last.bias[row] = -sign * (directions[:, j] @ mean)
    last.bias[2 * latents : 2 * latents + 4] = _CONSTANT * torch.tensor([1.0, -1.0, 1.0, -1.0])
    out = encoder.conv_out
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    std = strength / len(values) ** 0.5
    for j in range(latents):
        # Between keeping the components' own strengths and making all equal: detail matters, noise does not.
        gain = latent_std / (std[j] * std[0]).sqrt()
        out.weight[j, 2 * j, 1, 1], out.weight[j, 2 * j + 1, 1, 1] = gain, -gain
    out.bias[latents:] = -4.0
    for conv in (whole.quant_conv, whole.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None])
        nn.init.zeros_(conv.bias)


def _start_decoder(vae: AutoencoderKL, pictures: Tensor) -> None:
    whole: Any = vae
    decoder = whole.decoder
    codes = whole.encode(pictures).latent_dist.mean
    flat = codes.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    colors = avg_pool2d(pictures, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    # In double precision: LAPACK's last digits vary from call to call, and a repeated training must repeat.
    known = torch.cat([flat, torch.ones(len(flat), 1)], dim=1).double()
    solved = torch.linalg.lstsq(known, colors.double()).solution.float()
    conv = decoder.conv_in
    conv.weight[:8] = 0
    conv.bias[:8] = 0
    for color in range(3):
        for sign, row in ((1, 2 * color), (-1, 2 * color + 1)):
            conv.weight[row, :, 1, 1] = sign * solved[:-1, color]
            conv.bias[row] = sign * solved[-1, color]
    conv.bias[6:8] = _CONSTANT * torch.tensor([1.0, -1.0])
    for block in decoder.up_blocks:
        _pass(block.resnets[0].conv_shortcut, 8)
        if block.upsamplers is not None:
            _pass(block.upsamplers[0].conv, 8, _SMOOTH)
    out = decoder.conv_out
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    group = decoder.conv_norm_out.num_channels // decoder.conv_norm_out.num_groups
    spread = ((2 * _CONSTANT**2 + 6 * colors.square().mean()) / group).sqrt()
    for color in range(3):
        out.weight[color, 2 * color, 1, 1], out.weight[color, 2 * color + 1, 1, 1] = spread, -spread


def _pass(conv: Any, channels: int, kernel: Tensor = _CENTER) -> None:
    """Let the first channels go through a convolution unchanged (or through `kernel`); None is the identity."""
    if conv is None:
        return
    conv.weight[:channels] = 0
    if conv.bias is not None:
        conv.bias[:channels] = 0
    for channel in range(channels):
        conv.weight[channel, channel] = kernel if conv.kernel_size == (3, 3) else 1.0


def _haar_rows(x: Tensor, room: int) -> list[tuple[int, int]]:
    """(channel, filter) of the Haar coefficients that vary most, at most `room`, strongest first."""
    filters = _HAAR.to(x)[:, None]
    strengths = {
        (channel, k): torch.nn.functional.conv2d(x[:, channel : channel + 1], filters[k : k + 1], stride=2).std().item()
        for channel in range(x.shape[1])
        for k in range(4)
    }
    return sorted(strengths, key=lambda key: -strengths[key])[:room]
