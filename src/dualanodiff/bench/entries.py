"""What `bench bases` compares: bases, a random one of the same shape, and variants of their settings."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from dualanodiff.errors import SettingsError
from dualanodiff.model.base import CONFIGS, WEIGHTS, load_base
from dualanodiff.preparing import base_files
from dualanodiff.settings import Settings, parse_assignments
from dualanodiff.storage import sha256, write_atomic, write_json

RANDOM = "random"
"""The word for a base whose UNet and text encoder were never trained."""


@dataclass(frozen=True)
class Entry:
    """One line of the comparison."""

    name: str
    """As tables show it."""
    base: str
    """As `--base` of fit, or "random"."""
    assignments: dict[str, str] = field(default_factory=dict)
    """Settings put over those of the base and the budget."""

    @property
    def fit_assignments(self) -> dict[str, str]:
        """The settings that change the fit; entries that differ only in the others share their runs."""
        return {name: value for name, value in self.assignments.items() if not name.startswith(("sample.", "mask."))}

    @property
    def sample_assignments(self) -> dict[str, str]:
        """The settings that change only what is drawn from a run."""
        return {name: value for name, value in self.assignments.items() if name.startswith(("sample.", "mask."))}


def read_entries(texts: Sequence[str]) -> list[Entry]:
    """Entries from `BASE` or `BASE@NAME:setting=value,setting=value`; SettingsError for what cannot be set.

    >>> read_entries(["mini@alone:sample.inclusion=0"])[0].assignments
    {'sample.inclusion': '0'}
    """
    entries: list[Entry] = []
    for text in texts:
        base, at, variant = ("", "", "") if Path(text).is_dir() else text.partition("@")
        if not at:
            entries.append(Entry(text, text))
            continue
        name, colon, settings = variant.partition(":")
        if not (base and name and colon and settings):
            msg = f"{text}: write a variant as BASE@NAME:setting=value,setting=value, for example mini@alone:sample.inclusion=0"
            raise SettingsError(msg)
        assignments = parse_assignments(settings.split(","))
        Settings().updated(assignments, text)
        entries.append(Entry(f"{base}@{name}", base, assignments))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            msg = f"{name}: named twice; give each base once, and each variant a name of its own"
            raise SettingsError(msg)
    return entries


def base_of(entry: Entry, entries: Sequence[Entry], out: Path) -> str:
    """The base that an entry fits: made under `out` where it is random."""
    if entry.base != RANDOM:
        return entry.base
    like = next((other.base for other in entries if other.base != RANDOM), "mini")
    return random_base(like, out / RANDOM)


def random_base(like: str, folder: Path, *, seed: int = 0) -> str:
    """A base of the same shape as `like` with a fresh UNet and text encoder, its autoencoder and words, and no pair.

    So the difference to `like` is what pre-training brings, given that pictures can be encoded. Settings that `like`
    recommends stay.
    """
    loaded = load_base(like)
    assert loaded.folder is not None
    digest = base_fingerprint(like)
    out = folder / f"like-{Path(like).name}-{digest[:8]}"
    if (out / "random.json").exists():
        return str(out)
    for part in CONFIGS:
        shutil.copytree(loaded.folder / part, out / part, dirs_exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = UNet2DConditionModel.from_config(loaded.unet.config)  # typed as a pair by diffusers
        text = CLIPTextModel(loaded.text_encoder.config)
    for model, part in ((unet, "unet"), (text, "text_encoder")):
        for path in (out / part).glob("*.safetensors"):
            path.unlink()
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        file = out / part / f"{WEIGHTS[part]}.safetensors"
        write_atomic(file, lambda path, tensors=tensors: save_file(tensors, path, metadata={"format": "pt"}))
    if (loaded.folder / "base.toml").exists():
        shutil.copyfile(loaded.folder / "base.toml", out / "base.toml")
    write_json(out / "random.json", {"like": like, "seed": seed, "files": digest})  # last: the folder is whole
    return str(out)


def base_fingerprint(name: str) -> str:
    """A base by the content of its weight files and what its card recommends, whatever it is called."""
    base = load_base(name)
    return fingerprint([sha256(path) for path in base_files(base)], base.card.get("settings", {}))


def fingerprint(*values: object) -> str:
    """A short name for what a cell is made from."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
