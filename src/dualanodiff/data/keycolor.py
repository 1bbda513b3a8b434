"""The key colour: what lies outside the defect in the part picture, as a studio's green wall.

It decides how easily a mask is read back: a dark scratch cannot be told from black. keying.py tries these on the shots.
Distances between colours are CIE76 in Lab (D65), in which 2.3 is just noticeable and black to white is 100.
"""

import difflib
import re

import numpy as np

from dualanodiff.errors import SettingsError

KEY_COLORS: dict[str, tuple[int, int, int]] = {
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}
"""Colours by name; black is the paper's, grey the released scripts'."""

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def parse_key_color(text: str) -> tuple[int, int, int]:
    """The rgb of a colour's name or of #rrggbb; SettingsError with the nearest name for another text.

    >>> parse_key_color("#ff8000")
    (255, 128, 0)
    """
    if text in KEY_COLORS:
        return KEY_COLORS[text]
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        red, green, blue = bytes.fromhex(text[1:])
        return red, green, blue
    names = ["auto", *KEY_COLORS]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)[0]
    msg = f"data.key_color is {text!r} but must be {', '.join(names)} or #rrggbb; did you mean {near!r}?"
    raise SettingsError(msg)


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
