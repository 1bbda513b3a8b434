"""What a base is: its card, the shape of its networks, and the SHA-256 of every weight file."""

import importlib.resources
import json
import math
import textwrap
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dualanodiff.errors import ModelError
from dualanodiff.model.base import Base
from dualanodiff.storage import sha256


def card_of(base: Base) -> dict[str, Any]:
    """The card of a base: `card` and `settings` of its base.toml, `shape`, `files` by name, and `lineage` if it has one.

    Each file has bytes, weights (numbers) and sha256. Raises ModelError for a base that lies in no folder.
    """
    if base.folder is None:
        msg = f"{base.name}: lies in no folder, so nothing can be said of its files; load it by name or folder"
        raise ModelError(msg)
    files = {
        path.relative_to(base.folder).as_posix(): {
            "bytes": path.stat().st_size,
            "weights": _count(path),
            "sha256": sha256(path),
        }
        for path in sorted(base.folder.glob("*/*.safetensors"))
    }
    lineage = base.folder / "lineage.json"
    return {
        "base": base.name,
        "folder": str(base.folder),
        "card": base.card.get("card", {}),
        "settings": base.card.get("settings", {}),
        "shape": {
            "resolution": base.resolution,
            "latent_factor": base.latent_factor,
            "latent_channels": base.latent_channels,
            "prediction": base.scheduler.config["prediction_type"],
            "weights": sum(file["weights"] for file in files.values()),
            "megabytes": round(sum(file["bytes"] for file in files.values()) / 1e6, 1),
            "pair": (base.folder / "pair").is_dir(),
        },
        "files": files,
        **({"lineage": _lineage(lineage)} if lineage.is_file() else {}),
    }


WIDTH = 110
"""Letters a line."""


def render_card(card: dict[str, Any]) -> str:
    """The card as text for a person."""
    lines = [f"{card['base']}  ({card['folder']})"]
    told = card["card"]
    for name, value in told.items():
        lines += textwrap.wrap(
            f"{name.replace('_', ' ')}: {_flat(value)}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    if not told:
        lines.append("  no base.toml in it: what it was trained on, under which licences, is not known here")
    lines.append("shape")
    lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in card["shape"].items()]
    if "lineage" in card:
        lines.append(f"adapted from {card['lineage']['base']} on {card['lineage']['normals']} good pictures")
    if card["settings"]:
        lines.append("settings that it recommends")
        flat = [f"{group}.{key}={_plain(v)}" for group, keys in card["settings"].items() for key, v in keys.items()]
        lines += [f"  {text}" for text in flat]
    lines.append("files (SHA-256)")
    lines += [f"  {file['sha256']}  {name}  {file['bytes'] / 1e6:.1f} MB" for name, file in card["files"].items()]
    return "\n".join(lines)


def shipped_bases() -> list[str]:
    """Names of the bases inside the package."""
    root = Path(str(importlib.resources.files("dualanodiff"))) / "bases"
    return sorted(item.name for item in root.glob("*") if (item / "unet").is_dir())


def _lineage(path: Path) -> dict[str, Any]:
    try:
        lineage = json.loads(path.read_text(encoding="utf-8"))
        normals = [file for file in lineage["files"] if file["role"] == "normal"]
        return {"base": lineage["base"], "category": lineage["category"], "normals": len(normals)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: not a readable lineage ({error}); copy the base again, or adapt it again"
        raise ModelError(msg) from None


def _count(path: Path) -> int:
    """Numbers in a safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  a file, not a dict
    except (SafetensorError, OSError) as error:
        msg = f"{path}: not a readable safetensors file ({error}); copy the base again"
        raise ModelError(msg) from None
    return sum(math.prod(shape) for shape in shapes)


def _flat(value: object) -> str:
    """Nested tables of a card, such as figures, on one line."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else " ".join(str(value).split())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
