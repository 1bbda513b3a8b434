"""Is a defect what was asked for? Measured on the result: place, area, contrast, and whether it can be seen at all."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dualanodiff.settings import OntoSettings

NAMES = ("inside", "visible", "area", "contrast")


@dataclass(frozen=True)
class Verdict:
    """What an attempt came to."""

    got: dict[str, float]
    """inside (share of the mask in its region), area (in the unit asked in), contrast (Lab)."""
    met: dict[str, bool]
    """By name; area and contrast only where they were asked for."""
    faults: tuple[str, ...]
    """What is wrong with it, in words; empty for a good one."""
    badness: float
    """How far it is from what was asked; 0 for a good one."""


def judge(
    mask: np.ndarray,
    contrast: float,
    inside: float,
    asked: Mapping[str, float],
    onto: OntoSettings,
    *,
    unit: float = 1.0,
) -> Verdict:
    """Judge a result's mask bool (h, w), its contrast (Lab units) and how much of it lies `inside` its region (0..1).

    `unit` is the area of a pixel in the unit of asked["area"].
    """
    pixels = int(mask.sum())
    got = {"inside": inside, "area": pixels * unit, "contrast": contrast}
    if not pixels:
        return Verdict(got, dict.fromkeys(["inside", "visible", *asked], False), ("the part is empty",), float("inf"))
    met = {"inside": inside >= onto.inside, "visible": contrast >= onto.visible}
    faults: list[str] = []
    badness = 0.0
    if not met["inside"]:
        faults.append(f"{inside:.0%} of it lies in the region, {onto.inside:.0%} must")
        badness += 4 * (onto.inside - inside)
    if not met["visible"]:
        faults.append(f"it changes the picture by {contrast:.1f} Lab units, {onto.visible:g} must be")
        badness += 2 * (onto.visible - contrast) / onto.visible
    for name, wanted in asked.items():
        met[name] = abs(got[name] - wanted) <= onto.tolerance * wanted
        if not met[name]:
            faults.append(f"{name} is {got[name]:.4g}, {wanted:.4g} was asked for")
            badness += abs(float(np.log(max(got[name], 1e-6) / wanted)))
    return Verdict(got, met, tuple(faults), badness)
