"""Every setting of a run: its default, and what it does in the string below it.

Values come from four layers, later ones win: these defaults (the paper's), what the base recommends
(`[settings]` in its base.toml), a TOML file, and `--set group.name=value`.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tomli_w

from dualanodiff.errors import SettingsError
from dualanodiff.setting_values import check_range, parse_value


@dataclass(frozen=True)
class DataSettings:
    """What is learned from."""

    resolution: int = 512
    """Side of the square pictures in pixels; a multiple of the base's latent factor. Halving it makes a step about four times faster."""
    key_color: str = "auto"
    """Colour outside the defect in the part picture: auto (whichever lets the shots' masks be read best after the autoencoder), black (paper), grey (released scripts), white, green, blue, magenta or #rrggbb."""
    flip_horizontal: bool = True
    """Mirror picture and mask left-right at random; switch off where orientation is the defect."""
    flip_vertical: bool = True
    """Mirror picture and mask top-bottom at random; switch off where orientation is the defect."""
    object_model: str = ""
    """A U^2-Net onnx file that finds the object for the background module; empty uses a threshold, and says so."""


@dataclass(frozen=True)
class ModelSettings:
    """What is trained beside the frozen base."""

    start: Literal["auto", "pretrained", "fresh"] = "auto"
    """Where the adapters start: pretrained (the pair that ships with the base), fresh, or auto (pretrained where the base has one)."""
    rank: int = 32
    """Rank of each branch's low-rank update in every attention layer."""
    text_rank: int = 32
    """Rank of the text encoder's low-rank update, shared by both branches; 0 leaves the text encoder frozen."""
    interaction: Literal["full", "lowrank", "none"] = "full"
    """How the branches exchange information after each attention layer: full (released code, 124 M weights on SD 1.5), lowrank (zero output at the start), none."""
    interaction_rank: int = 32
    """Width of the low-rank interaction."""
    interaction_zero: bool = False
    """Start the full interaction with a zero output matrix, so that the base is untouched at step 0; lowrank always does."""
    background: Literal["none", "paper", "released"] = "none"
    """Background compensation: none, paper (eq. 5) or released (the authors' scripts)."""
    prompt_image: str = "a vfx with sks"
    """Prompt of the image branch, "a x with y" (Paper sec. 3.2, eq. 2); rare words beat real names in the paper's table 6."""
    prompt_part: str = "sks"
    """Prompt of the part branch, nested in the image's."""


ADAPT_STEPS = 1000
"""Steps of adaptation where it is asked for without a number."""


@dataclass(frozen=True)
class TrainSettings:
    """How it is trained."""

    adapt_steps: int = 0
    """Steps of adapting the base to the product's good pictures first, once for all its defect types; 0 is none (paper)."""
    adapt_rate: float = 1e-5
    """Peak AdamW rate of that adaptation, which trains the whole UNet; 1e-5 is usual for Stable Diffusion, a small base wants far more."""
    max_train_steps: int = 5000
    """Optimiser steps; the paper's 5,000 (2,000 with background)."""
    train_batch_size: int = 4
    """Pairs per step."""
    learning_rate: float = 2e-5
    """AdamW rate; 2e-5 as the released scripts, 5e-6 as the paper prints."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate goes on after the warm-up: constant (paper), or falling to zero at the last step, linear or cosine."""
    lr_warmup_steps: int = 0
    """Steps over which the rate rises from zero."""
    adam_weight_decay: float = 1e-2
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    part_weight: float = 1.0
    """Weight of the part branch's loss against the image branch's (paper eq. 4 sums them)."""
    inclusion_weight: float = 0.0
    """Weight of the term that makes both predicted clean latents agree inside the mask; 0 is the paper."""
    snr_gamma: float = 0.0
    """Min-SNR weighting of a fit's errors: 5 is usual, a huge value makes a base that predicts v learn as one that predicts noise. 0 is the paper: all noise levels alike."""
    prompt_dropout: float = 0.0
    """Share of pairs trained with the empty prompt, which guidance relies on; 0 is the paper."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """Arithmetic of the frozen base: bf16 where the device has it (auto), or fp32 (no). Weights in training stay fp32."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw, or adamw8bit, whose state takes a quarter of the memory (bitsandbytes, installed by you)."""
    compile: bool = False
    """Compile the model first (torch.compile): minutes at the start for faster steps on a GPU; hardly any on a CPU."""
    stop: Literal["steps", "held-out"] = "steps"
    """When to stop: after max_train_steps, or earlier, when the loss on the last shot, which is then not learned from, falls no more."""
    patience: int = 200
    """Steps without a lower held-out loss after which stop=held-out ends the training."""
    adapter_precision: Literal["float32", "float16"] = "float32"
    """Numbers in the adapter files; float16 halves them (34 instead of 67 MB on SD 1.5 with the low-rank interaction)."""
    checkpointing_steps: int = 500
    """Steps between resumable states; the newest two are kept."""
    preview_steps: int = 1000
    """Steps between preview grids; 0 makes none."""
    report_to: str = "none"
    """Tracker beside metrics.jsonl: none, tensorboard, wandb, mlflow (installed by you)."""


@dataclass(frozen=True)
class SampleSettings:
    """How pairs are drawn."""

    num_inference_steps: int = 50
    """Denoising steps."""
    guidance_scale: float = 2.5
    """Pull towards the prompts, both branches; 1 means none and halves the cost."""
    guidance_from: float = 0.0
    """Share of the steps before which there is no guidance; each step without it costs half."""
    guidance_until: float = 1.0
    """Share of the steps after which there is no guidance."""
    scheduler: Literal["ddim", "dpmsolver++", "pndm", "distilled"] = "ddim"
    """Sampler from diffusers; dpmsolver++ needs about half the steps of the others, distilled is for runs that `distill` made."""
    batch_size: int = 4
    """Pairs per call; a larger one is faster until memory ends."""
    compile: bool = False
    """Compile the model first (torch.compile): pays for thousands of pairs."""
    start: Literal["mean", "noise"] = "mean"
    """Begin from the shots' mean latent under the noise (the colours are then the shots'), or from pure noise as the paper does."""
    lead: float = 0.0
    """Share of the steps, at the beginning, in which the part is led to a shot's shape, moved, mirrored, scaled and bent; 0 is the paper. For bases too small to find the shape of a crack by themselves."""
    inclusion: float = 0.0
    """Strength in 0..1 with which the image is made to show what the part draws, after the last step; 0 is the paper."""


@dataclass(frozen=True)
class OntoSettings:
    """How a defect is put onto a real good picture (`generate --onto`)."""

    freedom: float = 0.6
    """Share of the denoising, at its end, in which the image may leave the good picture; before that it is held to it. More is a stronger change."""
    begin: float = 0.3
    """Share of the denoising left out at its beginning: the part starts as a shot's shape at its place under noise. More is cheaper and nearer to the shape."""
    inclusion: float = 1.0
    """As sample.inclusion, which does not count here: how strongly the image is made to show what the part draws, where onto.strange asks for it or an attempt was too pale. 0 leaves it to the interaction."""
    strange: float = 2.0
    """From which distance (median, in Lab, 2 being just noticeable) of the shots' defects from the good parts' nearest colours on onto.inclusion counts. 0 is always."""
    view: Literal["auto", "whole", "crop"] = "auto"
    """What the model sees: the whole picture, a crop in which the defect is large enough to be drawn well, or auto (whole where an object is found, crop on textures)."""
    smallest: float = 0.03
    """Share of what the model sees that a defect shall fill at least in a crop, which sets the crop's size."""
    collar: float = 2.0
    """Width of the seam around the mask in pixels of the model's picture; beyond it every pixel is the good picture's own."""
    inside: float = 0.9
    """Share of the mask that must lie in the region, or the defect is made again."""
    visible: float = 4.0
    """Mean change inside the mask in Lab units, 2 being just noticeable; a weaker defect is made again."""
    tolerance: float = 0.2
    """How far area and contrast may be from what was asked for, as a share of it."""
    attempts: int = 4
    """Times a defect is made at most; then the best is kept, and the manifest says what it lacks."""


@dataclass(frozen=True)
class MaskSettings:
    """How a mask is read from a part picture."""

    method: Literal["key", "u2net", "sam", "attention"] = "key"
    """key (distance from the key colour), u2net (the paper), sam, or attention (averaged attention maps)."""
    model: str = ""
    """Model file or folder for u2net and sam."""
    threshold: float = 0.0
    """Cut of the method's own score; 0 takes the one calibrated on the shots, or the method's default."""
    minimum_area: int = 4
    """A part whose mask has fewer pixels than this is reported as empty."""


@dataclass(frozen=True)
class Settings:
    """All groups, and the seed that every random draw comes from."""

    seed: int = 0
    """Every random draw comes from it."""
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)
    onto: OntoSettings = field(default_factory=OntoSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)

    def updated(self, values: Mapping[str, Any], source: str) -> "Settings":
        """These settings with the nested or dotted `values` of one layer put over them.

        Raises SettingsError naming `source`, the setting and the nearest known name or allowed values.

        >>> Settings().updated({"train": {"learning_rate": 1e-4}}, "example").train.learning_rate
        0.0001
        >>> Settings().updated({"sample.batch_size": "8"}, "example").sample.batch_size
        8
        """
        flat: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Mapping):
                flat |= {f"{name}.{inner}": item for inner, item in value.items()}
            else:
                flat[name] = value
        result = self
        for name, value in flat.items():
            result = result._with(name, value, source)
        return result

    def _with(self, name: str, value: object, source: str) -> "Settings":
        known = setting_names()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            endings = [item for item in known if item.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
            msg = f"{source}: unknown setting {name!r}; did you mean {(endings or near)[0]!r}?"
            raise SettingsError(msg)
        group, _, key = name.rpartition(".")
        owner = getattr(self, group) if group else self
        parsed = parse_value(value, get_type_hints(type(owner))[key], f"{source}: {name}")
        check_range(name, parsed, source)
        changed = dataclasses.replace(owner, **{key: parsed})
        return dataclasses.replace(self, **{group: changed}) if group else changed


def setting_names() -> list[str]:
    """Dotted names of every setting, in file order.

    >>> setting_names()[:2]
    ['seed', 'data.resolution']
    """
    names: list[str] = []
    for item in dataclasses.fields(Settings):
        group = getattr(Settings(), item.name)
        if dataclasses.is_dataclass(group):
            names += [f"{item.name}.{inner.name}" for inner in dataclasses.fields(group)]
        else:
            names.append(item.name)
    return names


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`group.name=value` texts as a dict; raises SettingsError for one without an equals sign.

    >>> parse_assignments(["train.max_train_steps=100"])
    {'train.max_train_steps': '100'}
    """
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            msg = f"--set {text}: write it as group.name=value, for example train.max_train_steps=500"
            raise SettingsError(msg)
        values[name.strip()] = value.strip()
    return values


def read_settings(path: Path, over: Settings | None = None) -> Settings:
    """Settings from a TOML file put over `over` (the defaults if none)."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{path}: no such settings file"
        raise SettingsError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        msg = f"{path}: not a readable TOML file ({error}); write settings as name = value under [group] headings"
        raise SettingsError(msg) from None
    return (over or Settings()).updated(values, str(path))


def to_toml(settings: Settings) -> str:
    """The settings as TOML, each field under the comment that says what it does."""
    lines: list[str] = []
    notes = describe()
    plain = settings.to_dict()
    for name in ["seed", *(key for key in plain if key != "seed")]:
        value = plain[name]
        if isinstance(value, dict):
            lines.append(f"\n[{name}]")
            for key, item in value.items():
                lines += [f"# {notes[f'{name}.{key}']}", tomli_w.dumps({key: item}).strip()]
        else:
            lines += [f"# {notes[name]}", tomli_w.dumps({name: value}).strip()]
    return "\n".join(lines) + "\n"


def describe() -> dict[str, str]:
    """What each setting does, from the string below it in this file."""
    import ast
    import inspect
    import sys

    tree = ast.parse(inspect.getsource(sys.modules[__name__]))
    groups = {type(getattr(Settings(), item.name)).__name__: item.name for item in dataclasses.fields(Settings)}
    notes: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        prefix = "" if node.name == "Settings" else groups.get(node.name, "") + "."
        for target, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(target, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                notes[prefix + ast.unparse(target.target)] = str(text.value.value)
    return notes
