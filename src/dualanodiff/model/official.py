"""The authors' released checkpoint, `pytorch_lora_weights.bin`: read without executing it, loaded to compute the same."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dualanodiff.errors import ModelError
from dualanodiff.model.adapters import check_fit, fill, read_tensors
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter

UNET_KEY = re.compile(r"(?:unet\.)?(?P<path>.+\.attn[12])\.processor\.(?P<name>.+)")
TEXT_KEY = re.compile(
    r"(?:text_model\.)?(?P<path>encoder\.layers\.\d+\.self_attn)\.(?:to_)?(?P<projection>q|k|v|out)"
    r"_(?:proj\.lora_linear_layer|proj\.lora|proj|lora)\.(?P<side>down|up|lora_A|lora_B)\.weight"
)
"""The three ways in which diffusers has named a text encoder's LoRA."""


@dataclass(frozen=True)
class Official:
    """An authors' checkpoint, float32, its keys freed of prefixes."""

    file: Path
    unet: dict[str, Tensor]
    """By `<path of the attention layer>.<name>`, names as the authors'."""
    text: dict[str, Tensor]
    """By `encoder.layers.<n>.self_attn.<q|k|v|out>_proj.<down|up>`; empty where the text encoder was not trained."""
    rank: int
    background: bool
    """Whether it has the background variant's weights."""


def read_official(file: Path) -> Official:
    """The tensors of an authors' checkpoint, a pickle of tensors only or a safetensors file.

    Raises ModelError naming the first key that is no part of their format.
    """
    unet: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for key, value in _read_tensors(file).items():
        if key.startswith("text_encoder."):
            match = TEXT_KEY.fullmatch(key.removeprefix("text_encoder."))
            side = {"lora_A": "down", "lora_B": "up"}
            if match is not None:
                name = f"{match['path']}.{match['projection']}_proj.{side.get(match['side'], match['side'])}"
                text[name] = value.float()
        else:
            match = UNET_KEY.fullmatch(key)
            if match is not None:
                unet[f"{match['path']}.{match['name']}"] = value.float()
        if match is None:
            msg = f"{file}: {key} is no part of the authors' format; give their pytorch_lora_weights.bin"
            raise ModelError(msg)
    ranks = [value.shape[0] for key, value in unet.items() if key.endswith("_lora.0.down.weight")]
    if not ranks:
        msg = f"{file}: no keys as unet.<path>.processor.to_q_lora.0.down.weight; give the authors' checkpoint"
        raise ModelError(msg)
    background = any(key.endswith(".temporal_a") for key in unet)
    if background:
        # The authors' cross-attention layers may carry these weights, too, and never use them.
        unused = re.compile(r".+\.attn2\.temporal_(a|condition_mlp\..+)")
        unet = {key: value for key, value in unet.items() if not unused.fullmatch(key)}
    return Official(file, unet, text, ranks[0], background)


def load_official(file: str | Path | Official, unet: UNet2DConditionModel) -> DualUNet:
    """A DualUNet that computes what the authors' code computes; ModelError where the file does not fit the UNet."""
    official = file if isinstance(file, Official) else read_official(Path(file))
    dual = DualUNet(
        unet,
        rank=official.rank,
        interaction="full",
        background="released" if official.background else "none",
        generator=torch.Generator(),  # leaves the global stream alone; every weight is replaced
    )
    places = to_official(dual)
    check_fit(official.file, official.unet, {key: value.shape for key, value in places.items()})
    fill(places, official.unet)
    return dual


def load_official_text(
    file: str | Path | Official, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> TextAdapter:
    """The text encoder's part of an authors' checkpoint; rank 0 where it has none."""
    official = file if isinstance(file, Official) else read_official(Path(file))
    rank = next((value.shape[0] for key, value in official.text.items() if key.endswith(".down")), 0)
    adapter = TextAdapter(text_encoder, tokenizer, rank=rank, generator=torch.Generator())
    places = {f"{path}.down": adapter.down.detach()[i] for i, path in enumerate(adapter.paths)}
    places |= {f"{path}.up": adapter.up.detach()[i] for i, path in enumerate(adapter.paths)}
    check_fit(official.file, official.text, {key: value.shape for key, value in places.items()})
    fill(places, official.text)
    return adapter


@torch.no_grad()
def to_official(dual: DualUNet) -> dict[str, Tensor]:
    """Views of a DualUNet's tensors under the authors' keys, `<path>.<name>` without `unet.` and `.processor`."""
    places: dict[str, Tensor] = {}
    for path in dual.paths:
        layer = dual.layer(path)
        for projection in ("to_q", "to_k", "to_v", "to_out"):
            update = getattr(layer, projection)
            for branch in (0, 1):
                key = f"{path}.{projection}_lora.{branch}"
                places |= {f"{key}.down.weight": update.down[branch], f"{key}.up.weight": update.up[branch]}
        if layer.interaction is not None:
            part = layer.interaction
            weights, biases = part.qkv.weight.chunk(3), part.qkv.bias.chunk(3)
            for letter, weight, bias in zip("qkv", weights, biases, strict=True):
                places |= {f"{path}.temporal_{letter}.weight": weight, f"{path}.temporal_{letter}.bias": bias}
            for letter, module in {"n": part.norm, "i": part.enter, "o": part.leave}.items():
                places |= {
                    f"{path}.temporal_{letter}.weight": module.weight,
                    f"{path}.temporal_{letter}.bias": module.bias,
                }
        if layer.background is not None:
            for i, module in enumerate((layer.background.first, layer.background.second)):
                key = f"{path}.temporal_condition_mlp.{i}"
                places |= {f"{key}.weight": module.weight, f"{key}.bias": module.bias}
            places[f"{path}.temporal_a"] = layer.background.strength
    return places


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return read_tensors(file)[0]
    if not file.is_file():
        msg = f"{file}: no such file; give the authors' pytorch_lora_weights.bin"
        raise ModelError(msg)
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        msg = f"{file}: not a readable checkpoint ({reason}); get the authors' file again"
        raise ModelError(msg) from None
    except Exception:  # noqa: BLE001  bytes that are no pickle of tensors make the unpickler raise almost anything
        msg = (
            f"{file}: refused, since it is damaged or holds more than tensors and opening it could run a program; "
            "get the authors' own file again, or save its tensors as safetensors under the same keys"
        )
        raise ModelError(msg) from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        msg = f"{file}: not a dictionary of tensors; give the authors' pytorch_lora_weights.bin"
        raise ModelError(msg)
    return values
