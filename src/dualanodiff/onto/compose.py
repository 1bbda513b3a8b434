"""The result: the good picture, changed inside the mask and a small collar, every other pixel its own bit for bit.

What is put into it is not the decoded picture but its difference from the decoded good picture, so that what the
autoencoder loses of the good picture's detail and colour is not lost here. Only where the defect replaces what was
there does the good picture's own detail give way.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from dualanodiff.data.keycolor import to_lab
from dualanodiff.images import is_grey
from dualanodiff.onto.window import Window

_COLORS = 4000
"""Colours that a palette keeps at most."""
_LIKE = 8.0
"""So many grey levels from a colour of the palette are still that colour."""
_SEVERAL = 12
"""Pixels of the shots that make a colour one of the palette."""
_LIGHTNESS = 0.4
"""A wrong lightness counts so much of a wrong hue."""
_OPPONENT = np.array([[_LIGHTNESS / 3] * 3, [1, -1, 0], [0.5, 0.5, -1]], dtype=np.float32)
# Rows that make lightness, red against green and yellow against blue from rgb.
_REPLACED = 120.0
"""A change of so many grey levels, as where a hole is filled, takes two thirds of the good picture's own detail away."""


@dataclass(frozen=True)
class Palette:
    """The colours that a kind of defect has, so that none of the key colour comes along into a result."""

    axes: np.ndarray
    """float32 (n, 3)."""

    @classmethod
    def of(cls, colors: np.ndarray) -> "Palette":
        """Of pixels uint8 (n, 3) of real defects."""
        chosen = colors[:: max(1, len(colors) // _COLORS)]
        return cls(_axes(chosen.astype(np.float32)))

    def limit(self, values: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Rgb values (n, 3) moved as little as needed to be like the palette's, or no less like them than `own` (n, 3)."""
        tree, many = KDTree(self.axes), min(_SEVERAL, len(self.axes))
        axes = _axes(values)
        away, places = (found.reshape(len(axes), -1) for found in tree.query(axes, k=many))
        usual = tree.query(_axes(own), k=many)[0].reshape(len(axes), -1)
        nearest = self.axes[places].mean(axis=1)
        # The farthest of several, so that a few odd pixels of the shots are no colour of the palette.
        share = np.clip(np.maximum(_LIKE, usual[:, -1:]) / np.maximum(away[:, -1:], 1e-6), 0, 1)
        return (nearest + share * (axes - nearest)) @ np.linalg.inv(_OPPONENT).T.astype(np.float32)


def _axes(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float32) @ _OPPONENT.T


@dataclass(frozen=True)
class Composed:
    """A result at the good picture's native size."""

    image: np.ndarray
    """uint8 (h, w, 3)."""
    part: np.ndarray
    """uint8 (h, w, 3): the part as drawn, exactly on the key colour outside mask and collar."""
    mask: np.ndarray
    """bool (h, w)."""
    drawn: np.ndarray
    """bool (h, w): the mask before what lies beyond the object was cut off."""
    collar: int
    """Width of the seam in the picture's own pixels."""
    contrast: float
    """Mean change inside the mask in Lab units; 0 for an empty mask."""


def compose(
    good: np.ndarray,
    window: Window,
    defective: np.ndarray,
    plain: np.ndarray,
    part: np.ndarray,
    mask: np.ndarray,
    key: tuple[int, int, int],
    *,
    collar: float,
    palette: Palette,
    gain: float = 1.0,
    tone: float = 1.0,
    within: np.ndarray | None = None,
) -> Composed:
    """Put a defect into a good picture uint8 (h, w, 3), through the window in which the model drew it.

    `defective`, `plain` and `part` are what the model decoded with and without the defect, and the part, float32 (s, s,
    3) in 0..255; `mask` bool (s, s). The colours keep to the `palette`. The seam is `collar` pixels of the model's
    picture wide. `gain` makes the change stronger or weaker, `tone` what lies inside the mask darker or lighter. Nothing
    outside of `within`, bool (h, w), the object, is touched: a defect ends sharply where the object does.
    """
    drawn = np.zeros(good.shape[:2], dtype=bool)
    if mask.any():
        drawn[window.place] = window.bring_back_mask(mask)
    whole = drawn if within is None else drawn & within
    width = max(1, round(collar * window.scale)) if collar > 0 else 0
    share = seam(whole[window.place], width)[..., None]
    if within is not None:
        share = share * within[window.place][..., None]
    usual = window.bring_back(plain)
    own = good[window.place].astype(np.float32)
    change = window.bring_back(defective) - usual
    size = np.abs(ndimage.gaussian_filter(change, (window.scale, window.scale, 0))).max(axis=-1, keepdims=True)
    lost = 1 - np.exp(-((size / _REPLACED) ** 2))
    change = gain * change - lost * (own - usual)
    image, on_key = good.copy(), np.empty_like(good)
    on_key[:] = key
    changed = share[..., 0] > 0
    if changed.any():
        weight, usual = share[changed], own[changed]
        colors = palette.limit(usual + change[changed], usual)
        if is_grey(own):
            colors = colors.mean(axis=-1, keepdims=True)
        inside = ndimage.gaussian_filter(whole[window.place].astype(np.float32), 0.7 * window.scale)[changed]
        colors = colors * (1 + (tone - 1) * inside[:, None])
        image[window.place][changed] = to_levels(usual + weight * (colors - usual))
    ground = np.array(key, dtype=np.float32)
    on_key[window.place] = to_levels(ground + share * (window.bring_back(part) - ground))
    return Composed(image, on_key, whole, drawn, width, change_inside(good, image, whole))


def seam(mask: np.ndarray, width: int) -> np.ndarray:
    """How far the change counts at each pixel, float32 (h, w): 1 inside the mask, falling to 0 beyond `width` pixels.

    >>> seam(np.array([[True, False, False, False]]), 1).round(2).tolist()
    [[1.0, 0.5, 0.0, 0.0]]
    """
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    away = np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float32)
    share = np.where(away > width, 0, 1 - away / (width + 1)).astype(np.float32)
    return share * share * (3 - 2 * share)


def change_inside(good: np.ndarray, image: np.ndarray, mask: np.ndarray) -> float:
    """Mean Lab distance between two pictures uint8 (h, w, 3) inside a mask; 0 for an empty one."""
    if not mask.any():
        return 0.0
    return float(np.linalg.norm(to_lab(image[mask][None]) - to_lab(good[mask][None]), axis=-1).mean())


def to_levels(values: np.ndarray) -> np.ndarray:
    """Float values rounded and cut to uint8."""
    return np.round(values).clip(0, 255).astype(np.uint8)
