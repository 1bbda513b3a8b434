"""What the two branches are trained to predict, and how far they are from it. Pure functions.

Axes: 2 branches (image, part), B pairs, c latent channels, h x w latent cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The base's noise levels and what its UNet predicts."""

    alphas_cumprod: Tensor
    """float32 (T,): share of the clean latents' variance left at each timestep."""
    prediction_type: str
    """`epsilon` or `v_prediction`, as in the base's scheduler_config.json."""

    def levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar) and sqrt(1 - abar) of (B,) timesteps, shaped to multiply (..., B, c, h, w)."""
        share = self.alphas_cumprod.to(like.device)[timesteps].float().view(-1, 1, 1, 1)
        return share.sqrt(), (1 - share).sqrt()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents (..., B, c, h, w) noised to their pairs' timesteps (B,)."""
        signal, sigma = self.levels(timesteps, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet is asked for: the noise (Paper sec. 3.1, eq. 1), or v for a base trained on v."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self.levels(timesteps, clean)
        return signal * noise - sigma * clean

    def clean_from(self, noisy: Tensor, predicted: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that a prediction implies."""
        signal, sigma = self.levels(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - sigma * predicted) / signal
        return signal * noisy - sigma * predicted

    def snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """What squared errors of the prediction count, (B,), so that those of the clean estimate count min(abar / (1 - abar), gamma).

        Min-SNR weighting (Hang et al., ICCV 2023). 0 leaves all at 1.
        """
        share = self.alphas_cumprod.to(timesteps.device)[timesteps].float()
        if gamma == 0:
            return torch.ones_like(share)
        # min(ratio, gamma) / ratio and min(ratio, gamma) / (ratio + 1), without the 0 / 0 of pure noise.
        counted = (gamma * (1 - share) / share.clamp_min(1e-9)).clamp(max=1)
        return counted if self.prediction_type == "epsilon" else counted * share

    def prediction_from(self, noisy: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction that implies these clean latents; the inverse of `clean_from`."""
        signal, sigma = self.levels(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - signal * clean) / sigma
        return (signal * noisy - clean) / sigma


def branch_losses(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of each branch, (2,), from (2, B, c, h, w), each pair's times `weight` (B,). Paper sec. 3.2, eq. 4 is their sum.

    >>> import torch
    >>> branch_losses(torch.zeros(2, 1, 4, 2, 2), torch.ones(2, 1, 4, 2, 2))
    tensor([1., 1.])
    """
    errors = (predicted.float() - target.float()).square().mean(dim=(2, 3, 4))
    return (errors if weight is None else errors * weight).mean(dim=1)


def inclusion_loss(clean: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """How far the two predicted clean latents differ inside the mask, where the part is the image (Paper sec. 3.2: I_a = I x M).

    `clean` (2, B, c, h, w); `coverage` (B, 1, h, w), the share of each latent cell inside the mask, squared so that
    cells on the edge, which must differ, count little; `weight` (B,), small where the noise hides the picture.
    """
    share = coverage.square() * weight.view(-1, 1, 1, 1)
    difference = (clean[0] - clean[1]).square().mean(dim=1, keepdim=True)
    return (share * difference).sum() / share.sum().clamp_min(1e-6)
