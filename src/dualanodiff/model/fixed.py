"""A dual model whose weights no longer change, made quick for sampling: what can be multiplied out beforehand, is.

Every projection holds its branch's update already, queries, keys and values are one product, SAIM's five matrices
become two, keys and values of the prompts are computed once, and nothing is cast from float32 at each step.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from dualanodiff.model.dual import Call, DualLayer, DualUNet, attend, split_heads, spread_prompts
from dualanodiff.model.interaction import Interaction
from dualanodiff.model.linear import BranchLoRA


class FixedDual:
    """Called like the DualUNet it is made from, and gives the same to rounding; it does not see later training."""

    @torch.no_grad()
    def __init__(self, dual: DualUNet) -> None:
        self.dual = dual
        dtype = dual.unet.conv_in.weight.dtype
        self.layers = {key: FixedLayer(layer, dual.attention(key), dtype) for key, layer in dual.layers.items()}  # type: ignore[arg-type]
        self._prompts: tuple[Any, ...] = ()

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None = None, **others: Any
    ) -> Tensor:
        """As the DualUNet's. The same text tensor, given again, is taken to hold the same prompts."""
        behind = None if background is None else len(background)
        prompts = (text, others.get("background_text"), latents.shape[1], behind)
        if len(self._prompts) != 4 or any(
            a is not b and not _same(a, b) for a, b in zip(prompts, self._prompts, strict=True)
        ):
            for layer in self.layers.values():
                layer.prompts = None
            self._prompts = prompts
        return self.dual(latents, timesteps, text, background, layers=self.layers, **others)


def _same(one: object, other: object) -> bool:
    return isinstance(one, int) and one == other


class FixedLayer:
    """One attention layer with its updates multiplied in; weights are (2 branches, out, in)."""

    def __init__(self, layer: DualLayer, attn: Attention, dtype: torch.dtype) -> None:
        query, key, value = (
            _merged(update, linear)
            for update, linear in ((layer.to_q, attn.to_q), (layer.to_k, attn.to_k), (layer.to_v, attn.to_v))
        )
        self.crosses = attn.is_cross_attention
        first = [query] if self.crosses else [query, key, value]
        self.inputs = _joined(first, dtype)
        self.sources = _joined([key, value], dtype) if self.crosses else self.inputs.tail(query[0].shape[1])
        self.queries = self.inputs if self.crosses else self.inputs.head(query[0].shape[1])
        self.output = _joined([_merged(layer.to_out, attn.to_out[0])], dtype)  # type: ignore[index]
        self.widths = [query[0].shape[1], key[0].shape[1], value[0].shape[1]]
        self.interaction = None if layer.interaction is None else FixedInteraction(layer.interaction, dtype)
        self.background = None if layer.background is None else copy.deepcopy(layer.background).to(dtype)
        self.prompts: tuple[Tensor, Tensor] | None = None

    def __call__(self, attn: Attention, x: Tensor, text: Tensor | None, call: Call, path: str) -> Tensor:
        """As DualLayer's."""
        pairs, both = call.pairs, 2 * call.pairs
        if text is not None:
            if self.prompts is None:
                key, value = self.sources(text, call.prompts).split(self.widths[1:], dim=-1)
                self.prompts = (
                    split_heads(spread_prompts(key, call), attn),
                    split_heads(spread_prompts(value, call), attn),
                )
            query = split_heads(self.queries(x, pairs), attn)
            if call.watch is not None:
                call.watch(path, query, self.prompts[0])
            y = self._mix(attn, query, *self.prompts, pairs)
        elif self.background is None or call.backgrounds == 0:
            y = self._self_attend(attn, x, pairs)
        elif self.background.form == "paper":
            feature = self._self_attend(attn, x[both:], 0)
            y = torch.cat([self._injected(attn, x[:both], feature, pairs), feature])
        else:
            y = torch.cat([self._injected(attn, x[:both], x[both:], pairs), self._self_attend(attn, x[both:], 0)])
        if self.interaction is None:
            return y
        shared = self.interaction(y[:both].unflatten(0, (2, pairs))).flatten(0, 1)
        return shared if call.backgrounds == 0 else torch.cat([shared, y[both:]])

    def _self_attend(self, attn: Attention, x: Tensor, pairs: int) -> Tensor:
        query, key, value = (split_heads(part, attn) for part in self.inputs(x, pairs).split(self.widths, dim=-1))
        return self._mix(attn, query, key, value, pairs)

    def _injected(self, attn: Attention, x: Tensor, feature: Tensor, pairs: int) -> Tensor:
        assert self.background is not None
        source = torch.cat([self.background(x[:pairs], feature), x[pairs:]])
        key, value = self.sources(source, pairs).split(self.widths[1:], dim=-1)
        query = split_heads(self.queries(x, pairs), attn)
        return self._mix(attn, query, split_heads(key, attn), split_heads(value, attn), pairs)

    def _mix(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, pairs: int) -> Tensor:
        return self.output(attend(query, key, value, attn), pairs)


class _Projection:
    """A linear map a branch; rows are pairs of the image, as many of the part, then backgrounds, which are image rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def head(self, count: int) -> "_Projection":
        """The first outputs."""
        return _Projection(self.weight[:, :count], None if self.bias is None else self.bias[:, :, :count])

    def tail(self, begin: int) -> "_Projection":
        """The outputs from `begin` on."""
        return _Projection(self.weight[:, begin:], None if self.bias is None else self.bias[:, :, begin:])

    def __call__(self, x: Tensor, pairs: int) -> Tensor:
        first, parts = 2 * pairs, []
        if first:
            rows = x[:first].reshape(2, -1, x.shape[-1])
            y = torch.bmm(rows, self.weight.mT) if self.bias is None else torch.baddbmm(self.bias, rows, self.weight.mT)
            parts.append(y.view(first, x.shape[1], -1))
        if first < len(x):
            parts.append(F.linear(x[first:], self.weight[0], None if self.bias is None else self.bias[0, 0]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _merged(update: BranchLoRA, frozen: Any) -> tuple[Tensor, Tensor | None]:
    """Weights (2, out, in) float32 of a frozen projection with each branch's update, and its bias."""
    weight = frozen.weight.float() + torch.bmm(update.up.float(), update.down.float())
    return weight, frozen.bias


def _joined(parts: list[tuple[Tensor, Tensor | None]], dtype: torch.dtype) -> _Projection:
    """Projections of the same input as one."""
    weight = torch.cat([weight for weight, _ in parts], dim=1).to(dtype)
    if all(bias is None for _, bias in parts):
        return _Projection(weight, None)
    biases = [weight.new_zeros(weight.shape[1]) if bias is None else bias for weight, bias in parts]
    return _Projection(weight, torch.cat(biases).to(dtype).expand(2, 1, -1))


class FixedInteraction:
    """SAIM with its matrices multiplied out (Paper sec. 3.2, eq. 3).

    With z the normalised input (its scale and shift multiplied in) and d = z_part - z_image, the two scores of a
    branch differ by z_b A d + a d, and the result is U z_image + u + sigmoid(that) U d: products with one branch's rows
    each, and two matrices where there were five.
    """

    def __init__(self, module: Interaction, dtype: torch.dtype) -> None:
        scale, shift = module.norm.weight.float(), module.norm.bias.float()
        enter = module.enter.weight.float()
        entered = enter * scale
        offset = enter @ shift + module.enter.bias.float()
        q, k, v = (part.float() for part in module.qkv.weight.chunk(3))
        q_bias, _, v_bias = (part.float() for part in module.qkv.bias.chunk(3))
        leave = module.leave.weight.float()
        width, channels = entered.shape
        strength = width**-0.5
        self.channels, self.eps = channels, module.norm.eps
        self.row = (strength * (q @ offset + q_bias) @ (k @ entered)).to(dtype)[:, None]
        self.bias = (leave @ (v @ offset + v_bias) + module.leave.bias.float()).to(dtype)
        scores, result = [k @ entered, strength * (q @ entered).mT], [v @ entered, leave]
        if 2 * width >= channels:  # one square matrix is the smaller work
            scores, result = [scores[1] @ scores[0]], [result[1] @ result[0]]
        self.scores = [matrix.to(dtype) for matrix in scores]
        self.result = [matrix.to(dtype) for matrix in result]

    def __call__(self, y: Tensor) -> Tensor:
        """(2, B, tokens, channels) to the same shape."""
        z = F.layer_norm(y, (self.channels,), eps=self.eps)
        d = z[1] - z[0]
        direction, image, change = d, z[0], d
        for matrix in self.scores:
            direction = F.linear(direction, matrix)
        for matrix in self.result:
            image, change = F.linear(image, matrix), F.linear(change, matrix)
        lean = (z * direction).sum(dim=-1, keepdim=True) + d @ self.row
        return y + (image + self.bias) + torch.sigmoid(lean) * change
