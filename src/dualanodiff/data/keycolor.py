"""The key colour: what lies outside the defect in the part picture, as a studio's green wall.

It decides how easily a mask is read back: a dark scratch cannot be told from black. Distances are CIE76 in
Lab (D65), in which 2.3 is just noticeable and black to white is 100.
"""

import difflib
import re
from collections.abc import Sequence

import numpy as np

from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError, SettingsError

KEY_COLORS: dict[str, tuple[int, int, int]] = {
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}
"""Colours by name, the preferred first; black is the paper's, grey the released scripts'."""

_FAR_ENOUGH = 60.0
# Lab units. Farther than this a mask is read without doubt, so that the order above decides, not a decimal.
_PIXELS = 100_000
# More defect pixels than this do not change a percentile.

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def parse_key_color(text: str, shots: Sequence[Shot]) -> tuple[int, int, int]:
    """The rgb of a colour's name, of #rrggbb, or of the colour chosen for these shots if `text` is auto.

    >>> parse_key_color("#ff8000", [])
    (255, 128, 0)
    """
    if text == "auto":
        return choose_key_color(shots)
    if text in KEY_COLORS:
        return KEY_COLORS[text]
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        red, green, blue = bytes.fromhex(text[1:])
        return red, green, blue
    names = ["auto", *KEY_COLORS]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)[0]
    msg = f"data.key_color is {text!r} but must be {', '.join(names)} or #rrggbb; did you mean {near!r}?"
    raise SettingsError(msg)


def choose_key_color(shots: Sequence[Shot]) -> tuple[int, int, int]:
    """The first of KEY_COLORS that is far from nearly all pixels inside the masks, or else the farthest one.

    Far counts for the closest 5 % of the pixels; the very closest may be an error of the mask's edge.
    """
    if not any(shot.mask.any() for shot in shots):
        msg = "no shot has a defect pixel to choose a key colour for; give shots with masks, or name data.key_color"
        raise DataError(msg)
    pixels = np.concatenate([shot.image[shot.mask] for shot in shots])
    pixels = pixels[:: -(-len(pixels) // _PIXELS)]
    distances = {
        name: min(float(np.percentile(color_distance(pixels, color), 5)), _FAR_ENOUGH)
        for name, color in KEY_COLORS.items()
    }
    return KEY_COLORS[max(distances, key=distances.__getitem__)]


def color_distance(rgb: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Lab distance of each pixel of uint8 (..., 3) to `color`; float32 (...)."""
    return np.linalg.norm(to_lab(rgb) - to_lab(np.array(color, dtype=np.uint8)), axis=-1).astype(np.float32)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab (..., 3) of sRGB bytes (..., 3): lightness 0..100, green-red, blue-yellow.

    >>> np.abs(to_lab(np.array([255, 255, 255], np.uint8)) - (100, 0, 0)).max() < 0.01
    np.True_
    """
    srgb = rgb / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
