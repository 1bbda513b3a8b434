"""Where sampling begins: noise over the shots' mean latent, or pure noise.

At the last timestep SD's schedule leaves 7 % of the clean latent in place, so the network reads the noise's own
mean as the picture's colour. Replacing that mean by the shots' makes the colours the shots' own.
"""

import torch
from torch import Tensor


def mean_latents(latents: Tensor) -> Tensor:
    """(2, c, h, w) from the shots' (n, 2, c, h, w): the image branch keeps its layout, the part branch its colour."""
    mean = latents.float().mean(dim=0)
    flat = mean[1].mean(dim=(1, 2), keepdim=True).expand_as(mean[1])
    return torch.stack([mean[0], flat])


def start_latents(noise: Tensor, mean: Tensor | None, signal_share: float) -> Tensor:
    """First latents (2, B, c, h, w) from noise of that shape.

    With `mean` (2, c, h, w), or one a pair (2, B, c, h, w): sqrt(abar) mean + sqrt(1 - abar) (noise - its spatial
    mean), `signal_share` being abar at the first timestep. Without: the noise itself, as in the paper.
    """
    if mean is None:
        return noise
    centred = noise - noise.mean(dim=(-2, -1), keepdim=True)
    mean = mean if mean.ndim == noise.ndim else mean[:, None]
    return signal_share**0.5 * mean.to(noise) + (1 - signal_share) ** 0.5 * centred
