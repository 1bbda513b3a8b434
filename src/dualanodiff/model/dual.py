"""DualUNet: one frozen UNet that denoises image and part together (Paper sec. 3.2).

The only file that touches diffusers' attention processors. One stateless processor sits on every attention layer;
the DualUNet that is running hands itself over with each call, so a plain call of the same UNet computes the base,
and several DualUNets can share one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dualanodiff.errors import ModelError
from dualanodiff.model.background import BackgroundInjection
from dualanodiff.model.interaction import Interaction
from dualanodiff.model.linear import BranchLoRA

BRANCHES = ("image", "part")
FEW_SCORES = 512 * 512
"""Up to so many scores a head, plain products beat a CPU's own attention in bf16, whose backward pass is slow."""

Watch = Callable[[str, Tensor, Tensor], None]
"""Is shown the path, queries and keys (rows, heads, tokens, width) of every cross-attention layer."""


@dataclass(frozen=True)
class Call:
    """One forward pass: whose layers compute it, and what its rows are."""

    layers: Any
    """A module for each attention layer, by its key: called as a DualLayer."""
    pairs: int
    """Rows are this many image rows, as many part rows, then the backgrounds."""
    backgrounds: int
    prompts: int
    """Text rows a branch; pairs b with b // (pairs / prompts) == p share prompt p."""
    watch: Watch | None


class DualAttention:
    """The processor of one attention layer: the base's own unless a DualUNet is calling."""

    def __init__(self, path: str, plain: Any) -> None:
        self.path = path
        self.plain = plain

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        dual: Call | None = None,
    ) -> Tensor:
        """The layer's output for (rows, tokens, channels)."""
        if dual is None:
            return self.plain(
                attn, hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=attention_mask
            )
        layer = dual.layers[_key(self.path)]
        return layer(attn, hidden_states, encoder_hidden_states, dual, self.path)


class DualLayer(nn.Module):
    """Everything learned beside one attention layer."""

    def __init__(
        self, attn: Attention, *, rank: int, width: int | None, zero_output: bool, background: str = "none"
    ) -> None:
        super().__init__()
        channels, inner, source = attn.query_dim, attn.inner_dim, attn.cross_attention_dim
        self.to_q = BranchLoRA(channels, inner, rank=rank)
        self.to_k = BranchLoRA(source, attn.inner_kv_dim, rank=rank)
        self.to_v = BranchLoRA(source, attn.inner_kv_dim, rank=rank)
        self.to_out = BranchLoRA(inner, channels, rank=rank)
        self.interaction = (
            None if width is None else Interaction(channels, width=width or channels, zero_output=zero_output)
        )
        self.background = (
            BackgroundInjection(channels, form="paper" if background == "paper" else "released")
            if background != "none" and not attn.is_cross_attention
            else None
        )

    def forward(self, attn: Attention, x: Tensor, text: Tensor | None, call: Call, path: str) -> Tensor:
        """The layer's output for (rows, tokens, channels), interaction included."""
        pairs, both = call.pairs, 2 * call.pairs
        if text is not None:
            key, value = (spread_prompts(row, call) for row in self._keys_values(attn, text, call.prompts))
            query = self.to_q(attn.to_q, x, pairs)
            if call.watch is not None:
                call.watch(path, split_heads(query, attn), split_heads(key, attn))
            y = self._mix(attn, query, key, value, pairs)
        elif self.background is None or call.backgrounds == 0:
            y = self._self_attend(attn, x, x, pairs)
        elif self.background.form == "paper":
            feature = self._self_attend(attn, x[both:], x[both:], 0)
            source = torch.cat([self.background(x[:pairs], feature), x[pairs:both]])
            y = torch.cat([self._self_attend(attn, x[:both], source, pairs), feature])
        else:
            source = torch.cat([self.background(x[:pairs], x[both:]), x[pairs:]])
            y = self._self_attend(attn, x, source, pairs)
        if self.interaction is None:
            return y
        shared = self.interaction(y[:both].unflatten(0, (2, pairs))).flatten(0, 1)
        return shared if call.backgrounds == 0 else torch.cat([shared, y[both:]])

    def _keys_values(self, attn: Attention, source: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
        return self.to_k(attn.to_k, source, pairs), self.to_v(attn.to_v, source, pairs)

    def _self_attend(self, attn: Attention, x: Tensor, source: Tensor, pairs: int) -> Tensor:
        return self._mix(attn, self.to_q(attn.to_q, x, pairs), *self._keys_values(attn, source, pairs), pairs)

    def _mix(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, pairs: int) -> Tensor:
        mixed = attend(split_heads(query, attn), split_heads(key, attn), split_heads(value, attn), attn)
        linear, dropout = cast(nn.ModuleList, attn.to_out)
        return dropout(self.to_out(linear, mixed, pairs))


def attend(query: Tensor, key: Tensor, value: Tensor, attn: Attention) -> Tensor:
    """Softmax attention of (rows, heads, tokens, width), as (rows, tokens, heads x width)."""
    scores = query.shape[-2] * key.shape[-2]
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and scores <= FEW_SCORES:
        # Rows and heads as one axis: laid out anew once, not by each of the products and their backward passes.
        scaled, keys, values = (part.flatten(0, 1) for part in (query * attn.scale, key, value))
        mixed = torch.bmm(torch.softmax(torch.bmm(scaled, keys.mT), dim=-1), values).unflatten(0, query.shape[:2])
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
    return mixed.transpose(1, 2).flatten(2)


def split_heads(rows: Tensor, attn: Attention) -> Tensor:
    """(rows, tokens, heads x width) as (rows, heads, tokens, width)."""
    return rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def spread_prompts(rows: Tensor, call: Call) -> Tensor:
    """Keys or values of the prompts repeated for the pairs that share them."""
    both = 2 * call.prompts
    pair, back = rows[:both], rows[both:]
    if call.prompts < call.pairs:
        pair = pair.repeat_interleave(call.pairs // call.prompts, dim=0)
    if back.shape[0] < call.backgrounds:
        back = back.expand(call.backgrounds, -1, -1)
    return torch.cat([pair, back]) if call.backgrounds else pair


def _key(path: str) -> str:
    """`path` as a name that nn.ModuleDict takes."""
    return path.replace(".", "/")


class DualUNet(nn.Module):
    """Two branches over one frozen UNet; parameters and state_dict are what is learned, never the UNet.

    `interaction` "full" is the released code's, "lowrank" has `interaction_rank` channels and starts at zero output,
    as "full" does with `interaction_zero`. `background` is the form of the background compensation (Paper sec. 3.3).
    `generator` (on the CPU) makes the fresh weights repeatable on every machine.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        rank: int = 32,
        interaction: Literal["full", "lowrank", "none"] = "full",
        interaction_rank: int = 32,
        interaction_zero: bool = False,
        background: Literal["none", "paper", "released"] = "none",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_choice("interaction", interaction, ("full", "lowrank", "none"))
        _check_choice("background", background, ("none", "paper", "released"))
        unet.requires_grad_(False)
        # In a tuple, so that neither state_dict nor parameters nor .to() reaches the frozen base.
        self._frozen = (unet, _attention_layers(unet))
        self._compiled: tuple[Any, ...] = ()
        self.rank, self.interaction, self.background = rank, interaction, background
        self.interaction_rank = interaction_rank
        width = {"none": None, "full": 0, "lowrank": interaction_rank}[interaction]
        zero = interaction_zero or interaction == "lowrank"
        device = next(unet.parameters()).device
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None:
                torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            with torch.device("meta" if device.type == "meta" else "cpu"):
                self.layers = nn.ModuleDict(
                    {
                        _key(path): DualLayer(attn, rank=rank, width=width, zero_output=zero, background=background)
                        for path, attn in self._frozen[1].items()
                    }
                )
        self.to(device)
        self._install()

    @property
    def unet(self) -> UNet2DConditionModel:
        """The frozen base."""
        return self._frozen[0]

    def layer(self, path: str) -> DualLayer:
        """What is learned beside the attention layer at `path` of the UNet."""
        return self.layers[_key(path)]  # type: ignore[return-value]

    def compile_unet(self) -> None:
        """Let the first call of each shape compile the UNet together with what is learned; later calls are faster."""
        self._compiled = (torch.compile(self.unet, dynamic=False),)

    def attention(self, key: str) -> Attention:
        """The frozen attention layer beside the learned layer of this key."""
        return self._frozen[1][key.replace("/", ".")]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the UNet's attention layers, in its own order."""
        return tuple(self._frozen[1])

    def parameter_counts(self) -> dict[str, int]:
        """Numbers learned by the low-rank updates, the interaction and the background compensation."""
        counts = {"lora": 0, "interaction": 0, "background": 0}
        for name, parameter in self.named_parameters():
            kind = name.split(".")[2]
            counts[kind if kind in counts else "lora"] += parameter.numel()
        return counts

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        background: Tensor | None = None,
        *,
        background_text: Tensor | None = None,
        watch: Watch | None = None,
        layers: Mapping[str, Callable[..., Tensor]] | None = None,
    ) -> Tensor:
        """The UNet's prediction for both branches, (2, B, c, h, w) from latents of that shape.

        `timesteps` is (B,) or a scalar, one a pair for both branches. `text` is (2, P, tokens, width), P a divisor
        of B: pairs share prompts in consecutive groups, so P = 1 is one prompt a branch, and P = 2 is a guided call
        [negative x B/2, positive x B/2], each prompt projected once. `background` is (K, c, h, w), noised to the
        first K timesteps, K a divisor of B: background k serves every pair b with b % K == k. Its prompt
        `background_text`, (K or 1, tokens, width), is by default the image prompt of the last pairs, which in a guided
        call are the positive ones. `layers` compute in place of this model's own.
        """
        self._check(latents, timesteps, text, background, background_text)
        self._install()
        dtype, pairs = self.unet.conv_in.weight.dtype, latents.shape[1]
        rows, prompts = [latents.flatten(0, 1)], [text.flatten(0, 1)]
        times = timesteps.expand(pairs)
        moments, count = [times, times], 0
        if background is not None:
            count = background.shape[0]
            rows.append(background)
            moments.append(times[:count])
            if background_text is None:  # of the last pairs; one row where they share it
                group = pairs // text.shape[1]
                shared = text[0, (pairs - count) // group :]
                background_text = shared if len(shared) == 1 else text[0].repeat_interleave(group, dim=0)[-count:]
            prompts.append(background_text)
        call = Call(self.layers if layers is None else layers, pairs, count, text.shape[1], watch)
        run = self._compiled[0] if self._compiled else self.unet
        predicted = run(
            torch.cat(rows).to(dtype),
            torch.cat(moments),
            encoder_hidden_states=torch.cat(prompts).to(dtype),
            cross_attention_kwargs={"dual": call},
            return_dict=False,
        )[0]
        return predicted[: 2 * pairs].unflatten(0, (2, pairs)).to(latents.dtype)

    def _install(self) -> None:
        """Put our processor on every attention layer, over whichever is there now."""
        for path, attn in self._frozen[1].items():
            if not isinstance(attn.processor, DualAttention):
                attn.set_processor(DualAttention(path, attn.processor))  # type: ignore[arg-type]

    def _check(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, background: Tensor | None, prompt: Tensor | None
    ) -> None:
        if latents.ndim != 5 or latents.shape[0] != 2:
            msg = f"latents are {tuple(latents.shape)} but must be (2, pairs, channels, height, width): image, part"
            raise ModelError(msg)
        pairs = latents.shape[1]
        if text.ndim != 4 or text.shape[0] != 2 or not _divides(text.shape[1], pairs):
            msg = (
                f"text is {tuple(text.shape)} but must be (2, prompts, tokens, width) "
                f"with a number of prompts that divides the {pairs} pairs"
            )
            raise ModelError(msg)
        if timesteps.shape not in {(), (pairs,)}:
            msg = f"timesteps are {tuple(timesteps.shape)} but must be ({pairs},), one a pair for both branches"
            raise ModelError(msg)
        if background is None:
            return
        if self.background == "none":
            msg = "a background was given to a model without background compensation; build it with background='paper'"
            raise ModelError(msg)
        if background.shape[1:] != latents.shape[2:] or not _divides(background.shape[0], pairs):
            msg = (
                f"background is {tuple(background.shape)} but must be (K, {', '.join(map(str, latents.shape[2:]))}) "
                f"with a K that divides the {pairs} pairs"
            )
            raise ModelError(msg)
        if prompt is not None and (prompt.shape[1:] != text.shape[2:] or len(prompt) not in {1, len(background)}):
            msg = (
                f"background_text is {tuple(prompt.shape)} but must be ({len(background)} or 1, "
                f"{', '.join(map(str, text.shape[2:]))}): tokens and width as the text's"
            )
            raise ModelError(msg)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} is {value!r} but must be one of {', '.join(choices)}"
        raise ModelError(msg)


def _divides(part: int, whole: int) -> bool:
    return part > 0 and whole % part == 0


def _attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The UNet's self- and cross-attention layers by path; ModelError for one that is not Stable Diffusion's."""
    layers: dict[str, Attention] = {}
    for name in unet.attn_processors:
        path = name.removesuffix(".processor")
        attn = unet.get_submodule(path)
        if not isinstance(attn, Attention):
            continue
        special = (attn.group_norm, attn.spatial_norm, attn.norm_q, attn.norm_cross, attn.added_kv_proj_dim)
        if attn.fused_projections or attn.residual_connection or any(item is not None for item in special):
            msg = f"{path}: not an attention layer as in Stable Diffusion 1 and 2; choose a base of their layout"
            raise ModelError(msg)
        layers[path] = attn
    if not layers:
        msg = "the UNet has no attention layers; choose a base in the layout of Stable Diffusion 1 or 2"
        raise ModelError(msg)
    return layers
