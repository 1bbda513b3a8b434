"""The frozen parts of a Stable-Diffusion-layout model: autoencoder, text encoder, tokenizer, UNet, noise schedule."""

import contextlib
import importlib.resources
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dualanodiff.errors import ModelError

WEIGHTS = {"vae": "diffusion_pytorch_model", "text_encoder": "model", "unet": "diffusion_pytorch_model"}
"""Folder of each network, and the stem of its weight files."""
CONFIGS = {
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "unet": "config.json",
    "scheduler": "scheduler_config.json",
}
PIXELS = 512 * 512
"""So many go through the autoencoder at once: more would take more memory and no less time."""
_SHIPPED = Path(str(importlib.resources.files("dualanodiff"))) / "bases"


@dataclass(frozen=True)
class Base:
    """A frozen base. Nothing of it is trained; adapters live beside it."""

    name: str
    """As given to `load_base`."""
    folder: Path | None
    """Where its files lie; None for one built in memory."""
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    """Always float32: its update is learned, and it costs little."""
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    """The training schedule; `scheduler.config` makes any sampler of diffusers with `from_config`."""
    card: dict[str, Any] = field(default_factory=dict)
    """The content of base.toml: what it was trained on, and the [settings] it recommends."""

    @property
    def latent_factor(self) -> int:
        """Picture pixels along one side of a latent cell."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures the UNet was trained on."""
        return int(self.unet.config["sample_size"]) * self.latent_factor

    @property
    def latent_channels(self) -> int:
        """Numbers a latent cell holds."""
        return int(self.vae.config["latent_channels"])

    @torch.no_grad()
    def encode(self, rgb: Tensor) -> Tensor:
        """Latents (b, c, h/f, w/f) at the UNet's scale, float32, from pictures (b, 3, h, w) in [-1, 1].

        The mean of the autoencoder's distribution: the same picture is always the same latents.
        """
        weight = next(self.vae.parameters())
        few = max(1, PIXELS // (rgb.shape[-2] * rgb.shape[-1]))
        means = [self.vae.encode(some.to(weight)).latent_dist.mean.float() for some in rgb.split(few)]  # type: ignore[union-attr]
        return (torch.cat(means).contiguous() - self._shift) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (b, 3, h, w) in [-1, 1], float32, from latents at the UNet's scale."""
        weight = next(self.vae.parameters())
        inner = latents.float() / self.vae.config["scaling_factor"] + self._shift
        few = max(1, PIXELS // (latents.shape[-2] * latents.shape[-1] * self.latent_factor**2))
        pictures = [self.vae.decode(some.to(weight), return_dict=False)[0].float() for some in inner.split(few)]
        return torch.cat(pictures).clamp(-1, 1).contiguous()

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0)


def load_base(
    name: str | Path = "mini", *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Base:
    """The base that ships as `name`, lies in the folder `name`, or is fetched from the Hugging Face hub as `name`.

    Autoencoder and UNet come in `dtype` whatever the files hold; all parts in evaluation mode without gradients.
    Raises ModelError naming the file that is missing or damaged, and the way out.
    """
    folder = _find_folder(str(name))
    if not folder.is_dir() and _is_hub_id(str(name)):
        folder = _fetch(str(name))
    _check_layout(folder, str(name))
    with _quiet():
        vae = _load(AutoencoderKL, folder, "vae", dtype)
        unet = _load(UNet2DConditionModel, folder, "unet", dtype)
        text_encoder = _load(CLIPTextModel, folder, "text_encoder", torch.float32)
    for part in (vae, unet, text_encoder):
        part.requires_grad_(False).eval().to(device)
    channels_last(vae)
    return Base(
        name=str(name),
        folder=folder,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_load(CLIPTokenizer, folder, "tokenizer"),
        unet=unet,
        scheduler=_load(DDPMScheduler, folder, "scheduler"),
        card=_read_card(folder / "base.toml"),
    )


def channels_last(vae: AutoencoderKL) -> AutoencoderKL:
    """Keep the filters of an autoencoder with channels innermost, which convolutions read fastest: the same pictures.

    The UNet stays as it is: its attention layers would turn every feature map around again.
    """
    return nn.Module.to(vae, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (unknown to torch's stubs)


def _find_folder(name: str) -> Path:
    """A folder of that name which holds a base, else the base that ships under it, else where one would lie."""
    own, shipped = Path(name).expanduser(), _SHIPPED / name
    if not re.fullmatch(r"[\w-]+", name) or (own / "unet").is_dir():
        return own
    return shipped if shipped.is_dir() or not own.is_dir() else own


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


def _fetch(name: str) -> Path:
    """The local copy of a base on the hub, fetched if need be."""
    wanted = [f"{part}/{file}" for part in CONFIGS for file in ("*.json", "*.txt", "*.safetensors")]
    # Only what is loaded: one precision, no second copy of the UNet, no safety checker.
    unwanted = ["*.fp16.*", "*non_ema*", "*.msgpack*"]
    try:
        return Path(
            snapshot_download(name, allow_patterns=[*wanted, "base.toml", "model_index.json"], ignore_patterns=unwanted)
        )
    except Exception as error:  # noqa: BLE001  the hub's library raises its network client's own errors, too
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = (
            f"{name}: no such folder, and it cannot be fetched from the Hugging Face hub ({reason}); "
            "give a folder in Stable Diffusion's layout (vae, text_encoder, tokenizer, unet, scheduler)"
        )
        raise ModelError(msg) from None


def _check_layout(folder: Path, name: str) -> None:
    """Raise ModelError for the first file that every base has and this folder has not."""
    if not folder.is_dir():
        shipped = sorted(item.name for item in _SHIPPED.glob("*") if (item / "unet").is_dir())
        known = f" (shipped: {', '.join(shipped)})" if shipped else ""
        msg = f"{name}: no such base{known}; give a folder in Stable Diffusion's layout, or a hub id as owner/name"
        raise ModelError(msg)
    for part, config in CONFIGS.items():
        if not (folder / part / config).is_file():
            what = "no such file" if (folder / part).is_dir() else "no such folder"
            path = folder / part / config if (folder / part).is_dir() else folder / part
            msg = (
                f"{path}: {what}; a base has the folders {', '.join(CONFIGS)} "
                "as Stable Diffusion in diffusers' layout, so copy or convert it again"
            )
            raise ModelError(msg)
    if not any((folder / "tokenizer" / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        msg = f"{folder / 'tokenizer' / 'vocab.json'}: no such file, nor tokenizer.json; copy the base again"
        raise ModelError(msg)
    for part, stem in WEIGHTS.items():
        if _weights(folder / part) is not None:
            continue
        pickles = sorted((folder / part).glob("*.bin"))
        if pickles:
            msg = f"{pickles[0]}: weights in a pickle are not read; convert them to {stem}.safetensors"
        else:
            msg = f"{folder / part / stem}.safetensors: no such file; the weights are missing, so copy the base again"
        raise ModelError(msg)


def _weights(folder: Path) -> Path | None:
    """The weight file of a folder (its first shard), preferring full precision; None if it has none."""
    files = sorted(path for path in folder.glob("*.safetensors") if "non_ema" not in path.name)
    return min(files, key=lambda path: ".fp16" in path.name, default=None)


def _load(kind: Any, folder: Path, part: str, dtype: torch.dtype | None = None) -> Any:
    """One part from its folder; ModelError where it is damaged or incomplete."""
    file = _weights(folder / part) or folder / part / CONFIGS[part]
    options: dict[str, Any] = {}
    if part in WEIGHTS:
        options = {
            "variant": "fp16" if ".fp16" in file.name else None,
            "use_safetensors": True,
            "torch_dtype": dtype,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # to name them below
        }
    try:
        loaded = kind.from_pretrained(folder / part, local_files_only=True, **options)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{file}: cannot be loaded ({reason}); copy or convert this folder of the base again"
        raise ModelError(msg) from None
    if part not in WEIGHTS:
        return loaded
    model, info = loaded
    missing, wrong = sorted(map(str, info["missing_keys"])), sorted(info["mismatched_keys"])
    if wrong:
        name, found, wanted = wrong[0]
        msg = f"{file}: {name} is {tuple(found)} but {CONFIGS[part]} beside it asks for {tuple(wanted)}"
    elif missing:
        msg = f"{file}: lacks {missing[0]}, the first of {len(missing)} that are missing"
    else:
        return model
    msg += "; copy or convert this folder of the base again"
    raise ModelError(msg)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' bars and reports: what matters of them becomes a ModelError."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def _read_card(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not a readable TOML file ({error}); correct or delete it"
        raise ModelError(msg) from None


def copy_base(base: Path, out: Path, *, without: str = "") -> None:
    """Copy what every base has from one folder to another, of the part `without` all but its weights; no card, no pair."""
    for part in CONFIGS:
        wanted = (".json", ".txt") if part == without else (".json", ".txt", ".safetensors")
        (out / part).mkdir(parents=True, exist_ok=True)
        for path in (path for path in (base / part).iterdir() if path.suffix in wanted):
            shutil.copyfile(path, out / part / path.name)
    if (base / "model_index.json").exists():
        shutil.copyfile(base / "model_index.json", out / "model_index.json")
