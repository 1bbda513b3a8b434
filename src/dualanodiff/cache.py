"""Where what was measured once is kept: $DUALANODIFF_CACHE, else the user's cache folder; never beside pictures of others."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualanodiff.storage import write_json


def cache_folder(kind: str, cache: Path | None = None) -> Path:
    """The folder of one kind of measurements, such as "features"; below `cache` where it is given. It need not exist."""
    if cache is None and (named := os.environ.get("DUALANODIFF_CACHE")):
        cache = Path(named)
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualanodiff"
    return cache / kind


def read_kept(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file of the cache; None where there is none, or a damaged one, which is then made again."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def keep(file: Path, value: Mapping[str, Any]) -> None:
    """Write an object into the cache; a cache that cannot be written keeps nothing, and nothing else is lost."""
    with contextlib.suppress(OSError):
        write_json(file, value)
