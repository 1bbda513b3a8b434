"""The method's formulas written out one by one, slowly, on an unchanged diffusers UNet.

Independent of the package: weights come as a dictionary under the authors' names, every branch, head and background
is a turn of a loop, and softmax is softmax.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

Weights = dict[str, Tensor]


def attention_paths(unet: UNet2DConditionModel) -> list[str]:
    return [name.removesuffix(".processor") for name in unet.attn_processors]


def random_weights(
    unet: UNet2DConditionModel,
    *,
    rank: int,
    width: int | None = None,
    interaction: bool = True,
    background: bool = False,
    seed: int = 0,
) -> Weights:
    """Non-zero weights under the authors' names; `width` None is the full interaction."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    weights: Weights = {}
    for path in attention_paths(unet):
        attn: Any = unet.get_submodule(path)
        linears = {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": attn.to_out[0]}
        for name, linear in linears.items():
            for branch in (0, 1):
                weights[f"{path}.{name}_lora.{branch}.down.weight"] = draw(rank, linear.in_features)
                weights[f"{path}.{name}_lora.{branch}.up.weight"] = draw(linear.out_features, rank)
        c = attn.to_q.in_features
        w = width or c
        if interaction:
            weights[f"{path}.temporal_n.weight"] = 1 + 0.3 * draw(1, c)[0]
            shapes = {"i": (w, c), "q": (w, w), "k": (w, w), "v": (w, w), "o": (c, w)}
            for letter, shape in shapes.items():
                weights[f"{path}.temporal_{letter}.weight"] = draw(*shape)
            for letter, size in {"n": c, "i": w, "q": w, "k": w, "v": w, "o": c}.items():
                weights[f"{path}.temporal_{letter}.bias"] = draw(size, 1)[:, 0]
        if background and path.endswith("attn1"):
            for i, shape in enumerate(((320, c), (c, 320))):
                weights[f"{path}.temporal_condition_mlp.{i}.weight"] = draw(*shape)
                weights[f"{path}.temporal_condition_mlp.{i}.bias"] = draw(shape[0], 1)[:, 0]
            weights[f"{path}.temporal_a"] = 0.5 + 0.2 * draw(1)
    return weights


class Literal:
    """One attention layer's processor; rows are one pair (image, part), or one background alone."""

    def __init__(self, path: str, weights: Weights, form: str, features: dict[str, Tensor]) -> None:
        self.path, self.weights, self.form, self.features = path, weights, form, features

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{self.path}.{name}.weight"].T + self.weights[f"{self.path}.{name}.bias"]

    def projected(self, name: str, module: Any, x: Tensor, branch: int) -> Tensor:
        key = f"{self.path}.{name}_lora.{branch}"
        merged = module.weight + self.weights[f"{key}.up.weight"] @ self.weights[f"{key}.down.weight"]
        bias = 0 if module.bias is None else module.bias
        return x @ merged.T + bias

    def attention(self, attn: Any, x: Tensor, source: Tensor, branch: int) -> Tensor:
        """(tokens, channels) attends to `source`."""
        q = self.projected("to_q", attn.to_q, x, branch)
        k = self.projected("to_k", attn.to_k, source, branch)
        v = self.projected("to_v", attn.to_v, source, branch)
        heads = []
        for one_q, one_k, one_v in zip(*(part.chunk(attn.heads, dim=-1) for part in (q, k, v)), strict=True):
            heads.append(torch.softmax(one_q @ one_k.T / one_q.shape[-1] ** 0.5, dim=-1) @ one_v)
        return self.projected("to_out", attn.to_out[0], torch.cat(heads, dim=-1), branch)

    def injected(self, x: Tensor) -> Tensor:
        """What the image branch's keys and values are made from."""
        if self.path not in self.features:
            return x
        a = self.weights[f"{self.path}.temporal_a"]
        hidden = self.linear("temporal_condition_mlp.0", self.features[self.path])
        if self.form == "paper":
            return x + a * self.linear("temporal_condition_mlp.1", hidden * torch.sigmoid(hidden))
        return (1 - a) * x + a * self.linear("temporal_condition_mlp.1", hidden)

    def interacted(self, y: Tensor) -> Tensor:
        """(2, tokens, channels): SAIM as attention over sequences of 2, "bw 2 c"."""
        if f"{self.path}.temporal_n.weight" not in self.weights:
            return y
        mean, variance = y.mean(-1, keepdim=True), y.var(-1, keepdim=True, unbiased=False)
        normed = (y - mean) / (variance + 1e-6).sqrt()
        normed = normed * self.weights[f"{self.path}.temporal_n.weight"] + self.weights[f"{self.path}.temporal_n.bias"]
        z = self.linear("temporal_i", normed).transpose(0, 1)
        q, k, v = (self.linear(f"temporal_{letter}", z) for letter in "qkv")
        s = torch.softmax(q @ k.mT / z.shape[-1] ** 0.5, dim=-1) @ v
        return y + self.linear("temporal_o", s).transpose(0, 1)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        sources = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        alone = hidden_states.shape[0] == 1
        outputs = []
        for branch, (x, source) in enumerate(zip(hidden_states, sources, strict=True)):
            inject = not alone and branch == 0 and encoder_hidden_states is None
            outputs.append(self.attention(attn, x, self.injected(source) if inject else source, branch))
        y = torch.stack(outputs)
        if not alone:
            return self.interacted(y)
        if encoder_hidden_states is None:
            self.features[self.path] = (y if self.form == "paper" else hidden_states)[0]
        return y


@torch.no_grad()
def reference(
    unet: UNet2DConditionModel,
    weights: Weights,
    latents: Tensor,
    timesteps: Tensor,
    text: Tensor,
    background: Tensor | None = None,
    background_text: Tensor | None = None,
    *,
    form: str = "none",
) -> Tensor:
    """What a DualUNet of these weights must give for latents (2, B, c, h, w) and text (2, B, tokens, width)."""
    before = unet.attn_processors
    results = []
    try:
        for b in range(latents.shape[1]):
            features: dict[str, Tensor] = {}
            processors: Any = {
                f"{path}.processor": Literal(path, weights, form, features) for path in attention_paths(unet)
            }
            unet.set_attn_processor(processors)
            if background is not None:
                k = b % background.shape[0]
                prompt = text[0, b] if background_text is None else background_text[k]
                unet(background[k : k + 1], timesteps[b], prompt[None])  # records its features
            results.append(unet(latents[:, b], timesteps[b], text[:, b]).sample)
    finally:
        unet.set_attn_processor(before)
    return torch.stack(results, dim=1)


@torch.no_grad()
def put(dual: Any, weights: Weights) -> None:
    """Copy weights under the authors' names into a DualUNet, field by field."""
    for path in dual.paths:
        layer = dual.layer(path)

        def get(name: str, path: str = path) -> Tensor:
            return weights[f"{path}.{name}"]

        for name in ("to_q", "to_k", "to_v", "to_out"):
            for branch in (0, 1):
                getattr(layer, name).down[branch].copy_(get(f"{name}_lora.{branch}.down.weight"))
                getattr(layer, name).up[branch].copy_(get(f"{name}_lora.{branch}.up.weight"))
        for kind in ("weight", "bias"):
            if layer.interaction is not None:
                getattr(layer.interaction.norm, kind).copy_(get(f"temporal_n.{kind}"))
                getattr(layer.interaction.enter, kind).copy_(get(f"temporal_i.{kind}"))
                getattr(layer.interaction.leave, kind).copy_(get(f"temporal_o.{kind}"))
                together = torch.cat([get(f"temporal_{letter}.{kind}") for letter in "qkv"])
                getattr(layer.interaction.qkv, kind).copy_(together)
            if layer.background is not None:
                getattr(layer.background.first, kind).copy_(get(f"temporal_condition_mlp.0.{kind}"))
                getattr(layer.background.second, kind).copy_(get(f"temporal_condition_mlp.1.{kind}"))
        if layer.background is not None:
            layer.background.strength.copy_(get("temporal_a"))
