"""The inclusion law while sampling: the image shows what its part draws (Paper sec. 3.2), without the key's tint.

A decoder blurs the key colour into a dark or thin defect, and the opposite hue beside it. Real defects say how much of
that hue they have, so the rest is taken away, as a studio takes its green wall's light off a face.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dualanodiff.data.shots import Shot

USUAL = (0.05, 0.95)
"""Of all shots' defect pixels, those between these shares are usual; the rest may be masks that were drawn too wide."""
MIDDLE = (0.25, 0.75)
"""Of any one shot's, those between these are, so that a colour counts which few or small shots have."""
COLOURED = 20.0
"""So many grey levels from the grey of its lightness a key colour has a hue."""


def show(
    image: Tensor, part: Tensor, color: tuple[int, int, int], strength: float, tint: tuple[float, float] | None = None
) -> Tensor:
    """Pictures (B, 3, h, w) in [-1, 1] with what their parts draw in them.

    `color` is the key colour, `strength` 0 for the pictures as they are and 1 for the parts' own colours. `tint` is as
    `key_tint` gives it: what is shown has no more and no less of the key's hue than that, or than the picture has there.
    """
    key = torch.tensor(color, device=image.device).view(1, 3, 1, 1) / 127.5 - 1
    shown = image + strength * defect_share(part, key) * (part - image)
    if tint is None:
        return shown
    axis = torch.from_numpy(_hue(color)).to(image).view(1, 3, 1, 1)
    has, own = ((rgb * axis).sum(dim=1, keepdim=True) for rgb in (shown, image))
    least, most = (own.new_tensor(level) / 127.5 for level in tint)
    usual = torch.minimum(torch.maximum(has, torch.minimum(own, least)), torch.maximum(own, most))
    return (shown + axis * (usual - has)).clamp(-1, 1)


def key_tint(shots: Sequence[Shot], color: tuple[int, int, int]) -> tuple[float, float] | None:
    """How much of the key colour's hue the shots' defects have, least and most, in grey levels; None where it has none.

    Grey is always among it.

    >>> rust = np.full((2, 2, 3), (120, 60, 30), np.uint8)
    >>> key_tint([Shot(rust, np.ones((2, 2), bool), "rust")], (0, 255, 0))
    (-12.25, 0.0)
    """
    axis = _hue(color)
    found = [shot.image[shot.mask].astype(np.float32) @ axis for shot in shots if shot.mask.any()]
    if not axis.any() or not found:
        return None
    levels = [np.quantile(np.concatenate(found), USUAL), *(np.quantile(one, MIDDLE) for one in found)]
    least, most = np.min(levels, initial=0.0), np.max(levels, initial=0.0)
    return round(float(least), 2), round(float(most), 2)


def _hue(color: tuple[int, int, int]) -> np.ndarray:
    """The direction float32 (3,) of length 1 from grey to a colour of the same lightness; zeros where it is nearly grey."""
    away = np.array(color, np.float32) - np.float32(np.mean(color))
    length = float(np.linalg.norm(away))
    return away / length if length >= COLOURED else np.zeros_like(away)


def defect_share(part: Tensor, key: Tensor) -> Tensor:
    """How surely each pixel of parts (B, 3, h, w) is the defect's own, (B, 1, h, w) in 0..1; 0 for an empty part.

    Judged by its distance from the key colour against the farthest pixels of the same part, so that the blurred edge
    between defect and ground, which is tinted by the key colour, stays out.
    """
    distance = (part - key).square().sum(dim=1, keepdim=True).sqrt()
    farthest = distance.flatten(1).quantile(0.998, dim=1).view(-1, 1, 1, 1)
    # Less than this is the ground's own noise: 0.6 is 44 grey levels in each channel.
    return ((distance / farthest.clamp_min(0.6) - 0.5) / 0.3).clamp(0, 1)
