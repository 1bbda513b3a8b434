"""Defect pictures with pixel masks from a few real examples.

The names below are the public face; each is loaded when it is first asked for, so that importing the package
costs nothing. Everything else is private by not being here.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dualanodiff import errors as errors

if TYPE_CHECKING:
    from dualanodiff.data.shots import Shot as Shot
    from dualanodiff.data.shots import find_shots as find_shots
    from dualanodiff.fitted import load as load
    from dualanodiff.fitting import fit as fit
    from dualanodiff.model.base import load_base as load_base
    from dualanodiff.model.dual import DualUNet as DualUNet
    from dualanodiff.model.official import load_official as load_official

__version__ = "0.1.0"

_HOMES = {
    "DualUNet": "dualanodiff.model.dual",
    "Shot": "dualanodiff.data.shots",
    "find_shots": "dualanodiff.data.shots",
    "fit": "dualanodiff.fitting",
    "load": "dualanodiff.fitted",
    "load_base": "dualanodiff.model.base",
    "load_official": "dualanodiff.model.official",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'dualanodiff' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__", "errors"])
