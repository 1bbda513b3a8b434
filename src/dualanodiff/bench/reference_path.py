"""A plain path to compare speeds with: the function of a dual model, computed as the authors' released scripts work.

One pair a call, float32, the branches in a Python loop, SAIM through a general attention kernel, pictures and prompts
encoded at every training step, the background in a pass of its own. It reads the weights of a `DualUNet`, so both
compute the same; rows alternate [image, part] of each pair, negative before positive.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dualanodiff import images
from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS
from dualanodiff.latents import background_picture
from dualanodiff.model.base import Base
from dualanodiff.model.dual import Call, DualLayer, DualUNet, attend, split_heads
from dualanodiff.model.interaction import Interaction
from dualanodiff.model.linear import BranchLoRA
from dualanodiff.model.prompts import TextAdapter


class PlainLayer(nn.Module):
    """One attention layer with what is learned beside it; rows are pairs, or backgrounds alone."""

    def __init__(self, layer: DualLayer, features: dict[str, Tensor]) -> None:
        super().__init__()
        self.layer, self.features = layer, features

    def forward(self, attn: Attention, x: Tensor, text: Tensor | None, call: Call, path: str) -> Tensor:
        """The layer's output for (rows, tokens, channels)."""
        layer, alone = self.layer, call.pairs == 0
        branches = 1 if alone else 2
        source = x if text is None else text
        if layer.background is not None and not alone and path in self.features:
            image = layer.background(x[0::2], self.features[path])
            source = torch.stack([image, x[1::2]], dim=1).flatten(0, 1)
        query = _project(layer.to_q, attn.to_q, x, branches)
        key = _project(layer.to_k, attn.to_k, source, branches)
        value = _project(layer.to_v, attn.to_v, source, branches)
        mixed = attend(split_heads(query, attn), split_heads(key, attn), split_heads(value, attn), attn)
        y = _project(layer.to_out, attn.to_out[0], mixed, branches)  # type: ignore[index]
        if alone:
            if layer.background is not None:
                self.features[path] = y if layer.background.form == "paper" else x
            return y
        return y if layer.interaction is None else _interact(layer.interaction, y)


def _project(update: BranchLoRA, frozen: Any, x: Tensor, branches: int) -> Tensor:
    """The frozen projection and its update, branch by branch."""
    results = [
        frozen(x[branch::branches]) + F.linear(F.linear(x[branch::branches], update.down[branch]), update.up[branch])
        for branch in range(branches)
    ]
    return torch.stack(results, dim=1).flatten(0, 1)


def _interact(module: Interaction, y: Tensor) -> Tensor:
    """SAIM as attention over a sequence of the 2 branches at each pixel ("bw 2 c")."""
    pixels = y.unflatten(0, (-1, 2)).transpose(1, 2).flatten(0, 1)
    z = module.enter(module.norm(pixels))
    weights, biases = module.qkv.weight.chunk(3), module.qkv.bias.chunk(3)
    q, k, v = (F.linear(z, weight, bias) for weight, bias in zip(weights, biases, strict=True))
    # One head, as a general kernel sees it.
    s = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    back = (pixels + module.leave(s)).unflatten(0, (-1, y.shape[1]))
    return back.transpose(1, 2).flatten(0, 1)


class PlainPath:
    """Training steps and pairs by the plain path, on the weights of a dual model and its text adapter."""

    def __init__(
        self, base: Base, dual: DualUNet, text: TextAdapter, schedule: Schedule, prompts: Sequence[str]
    ) -> None:
        self.base, self.dual, self.text, self.schedule = base, dual, text, schedule
        self.prompts = list(prompts)
        self.features: dict[str, Tensor] = {}
        self.layers = nn.ModuleDict(
            {key: PlainLayer(layer, self.features) for key, layer in dual.layers.items()}  # type: ignore[arg-type]
        )

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        background: Tensor | None = None,
        background_text: Tensor | None = None,
    ) -> Tensor:
        """As a DualUNet's call, with one prompt a row: latents (2, B, c, h, w), text (2, B, tokens, width)."""
        self.features.clear()
        if background is not None:
            rows = background.shape[0]
            prompt = text[0, -rows:] if background_text is None else background_text
            self._unet(background, timesteps[:rows], prompt.expand(rows, -1, -1), Call(self.layers, 0, rows, 0, None))
        pairs = latents.shape[1]
        alternating = latents.transpose(0, 1).flatten(0, 1)
        found = self._unet(
            alternating,
            timesteps.repeat_interleave(2),
            text.transpose(0, 1).flatten(0, 1),
            Call(self.layers, pairs, 0, pairs, None),
        )
        return found.unflatten(0, (pairs, 2)).transpose(0, 1)

    def _unet(self, rows: Tensor, timesteps: Tensor, text: Tensor, call: Call) -> Tensor:
        kwargs = {"dual": call}
        return self.dual.unet(rows, timesteps, text, cross_attention_kwargs=kwargs, return_dict=False)[0]

    def losses(
        self,
        pictures: Sequence[np.ndarray],
        parts: Sequence[np.ndarray],
        noise: Tensor,
        timesteps: Tensor,
        objects: Sequence[np.ndarray] | None = None,
        background_noise: Tensor | None = None,
    ) -> Tensor:
        """Both branches' losses (2,) of one training step, from pictures uint8 (h, w, 3) that are encoded here."""
        count = len(pictures)
        clean = torch.stack([self._encode(pictures), self._encode(parts)])
        image, part = self.text.embed([*self.prompts[:1] * count, *self.prompts[1:2] * count]).chunk(2)
        background = None
        if objects is not None and background_noise is not None:
            backs = [background_picture(rgb, mask) for rgb, mask in zip(pictures, objects, strict=True)]
            background = self.schedule.add_noise(self._encode(backs), background_noise, timesteps)
        noisy = self.schedule.add_noise(clean, noise, timesteps)
        found = self.predict(noisy, timesteps, torch.stack([image, part]), background)
        target = self.schedule.target(clean, noise, timesteps)
        return torch.stack([F.mse_loss(found[branch], target[branch]) for branch in (0, 1)])

    def _encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return self.base.encode(torch.stack([images.to_tensor(picture) for picture in pictures]).to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.dual.unet.device

    @torch.inference_mode()
    def draw(
        self,
        noise: Tensor,
        *,
        steps: int,
        scale: float,
        sampler: str = "pndm",
        background: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """One pair's clean latents (2, c, h, w) from noise of that shape; `background` is clean latents and their noise."""
        text = self.text.embed(["", "", *self.prompts[:2]]).unflatten(0, (2, 2)).transpose(0, 1)
        scheduler = SCHEDULERS[sampler](dict(self.base.scheduler.config))
        scheduler.set_timesteps(steps)
        latents = noise.to(self._device)
        for moment in scheduler.timesteps:
            times = moment.to(self._device).expand(2)
            behind = None
            if background is not None:
                behind = self.schedule.add_noise(background[0][None], background[1][None], times[:1])
            found = self.predict(torch.stack([latents, latents], dim=1), times, text, behind, text[0, 1:])
            negative, positive = found.unbind(1)
            latents = scheduler.step(negative + scale * (positive - negative), moment, latents).prev_sample
        return latents

    def pair(self, noise: Tensor, **how: object) -> tuple[np.ndarray, np.ndarray]:
        """Picture and part uint8 (h, w, 3) of one pair, decoded one after the other."""
        image, part = self.draw(noise, **how)  # type: ignore[arg-type]
        return images.to_rgb(self.base.decode(image[None]))[0], images.to_rgb(self.base.decode(part[None]))[0]
