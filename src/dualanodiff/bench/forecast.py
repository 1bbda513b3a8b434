"""`bench memory`: what a fit at Stable Diffusion 1.5's size would take on a GPU, counted without one.

The model is built without numbers (torch's meta device), and every tensor that its forward pass keeps for the
backward pass is counted. Attention keeps what flash attention keeps: queries, keys, values and result.
"""

from typing import Any
from unittest import mock

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dualanodiff.bench.sizes import sd15_unet
from dualanodiff.diffusion.objective import branch_losses
from dualanodiff.model.dual import DualUNet
from dualanodiff.settings import Settings

SD15_VAE, SD15_TEXT = 83_653_863, 123_060_480
"""Weights of Stable Diffusion 1.5's other parts."""
TEXT_LAYERS, TEXT_WIDTH = 12, 768


class _Flash(torch.autograd.Function):
    """Keeps what flash attention keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """An empty result of the queries' shape."""
        result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        ctx.save_for_backward(query, key, value, result)
        return result


def _attend(query: Tensor, key: Tensor, value: Tensor, attn: Any) -> Tensor:  # noqa: ARG001  as model.dual's
    return _Flash.apply(query, key, value).transpose(1, 2).flatten(2)  # type: ignore[union-attr]


def kept_bytes(
    dual: DualUNet, latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None
) -> int:
    """Bytes that the forward pass of a training step keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage()._cdata for p in [*dual.parameters(), *dual.unet.parameters()]}
    kept: list[Tensor] = []  # holds them, so that no two share an address
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor
    ):
        branch_losses(dual(latents, timesteps, text, background), torch.zeros_like(latents))
    sizes = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for address, size in sizes.items() if address not in weights)


def forecast_sd15(settings: Settings) -> dict[str, Any]:
    """GiB of GPU memory of a fit at Stable Diffusion 1.5's size in bf16, part by part; the adapters' bytes on disk."""
    model, train = settings.model, settings.train
    with torch.device("meta"), mock.patch("dualanodiff.model.dual.attend", _attend):
        unet: UNet2DConditionModel = sd15_unet()
        nn.Module.to(unet, torch.bfloat16)
        if train.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()
        dual = DualUNet(
            unet,
            rank=model.rank,
            interaction=model.interaction,
            interaction_rank=model.interaction_rank,
            background=model.background,
        )
        side, pairs = settings.data.resolution // 8, train.train_batch_size
        latents = torch.zeros(2, pairs, 4, side, side)
        background = None if model.background == "none" else latents[0]
        kept = kept_bytes(dual, latents, torch.zeros(pairs, dtype=torch.long), torch.zeros(2, 1, 77, 768), background)
    learned = sum(p.numel() for p in dual.parameters()) + TEXT_LAYERS * 4 * 2 * model.text_rank * TEXT_WIDTH
    parts = {
        "unet, bf16": 2 * sum(p.numel() for p in unet.parameters()),
        "autoencoder and text encoder, float32": 4 * (SD15_VAE + SD15_TEXT),
        "learned weights, gradients, two moments, float32": 16 * learned,
        "kept for the backward pass": kept,
    }
    gib = {name: round(size / 2**30, 2) for name, size in parts.items()}
    return {
        "gib": gib,
        "total_gib": round(sum(parts.values()) / 2**30, 2),
        "learned": learned,
        "adapter_bytes": getattr(torch, train.adapter_precision).itemsize * learned,
    }
