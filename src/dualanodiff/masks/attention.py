"""The mask from averaged cross-attention maps of the part branch (Paper sec. 3.2, "Mask Generation", the second way).

While a pair is sampled, `AttentionRecorder` sums how much each place of the picture looks at the part prompt's own
words. A set keeps the sum as a grey picture, so that masks can be made from it later.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dualanodiff.errors import ModelError
from dualanodiff.masks.result import MaskResult, drop_specks, otsu

if TYPE_CHECKING:
    from torch import Tensor

MEAN_GREY = 64
"""Grey value of a picture's mean attention in stored maps; four times the mean and more is white."""
_LEAST_CONTRAST = 1.5
# A map whose brightest places get less than this many times the median's attention points nowhere.


class AttentionRecorder:
    """Sums softmax(Q K^T / sqrt(d)) of the words at positions `tokens`, over heads, steps and layers.

    `add` is called for every cross-attention layer of every step of one batch; `maps` then gives its maps.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        if not tokens:
            msg = (
                "the part prompt has no words of its own to look at; set model.prompt_part, or use another mask.method"
            )
            raise ModelError(msg)
        self.tokens = list(tokens)
        self._sums: dict[str, Tensor] = {}

    def add(self, path: str, query: "Tensor", key: "Tensor") -> None:
        """One layer of one step: queries (rows, heads, places, d) and keys (rows, heads, words, d).

        Rows are [image, part] of the pairs, twice as many in a guided call ([negative, positive] in each branch),
        then backgrounds.
        """
        scores = query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
        attention = scores.softmax(dim=-1)[..., self.tokens].sum(dim=-1).mean(dim=1)
        known = self._sums.get(path)
        self._sums[path] = attention if known is None else known + attention

    def maps(self, pairs: int, size: tuple[int, int]) -> np.ndarray:
        """Stored maps uint8 (pairs, h, w) of the batch that was recorded, at `size` = (h, w)."""
        if not self._sums:
            msg = "no attention was recorded; use a base with cross-attention, or another mask.method than attention"
            raise ModelError(msg)
        rows = [part_rows(sums, pairs).cpu().numpy() for sums in self._sums.values()]
        layers = [[to_plane(layer[pair], size) for layer in rows] for pair in range(pairs)]
        return np.stack([to_grey(resize(merge_maps(planes), size)) for planes in layers])


def part_rows(rows: "Tensor", pairs: int) -> "Tensor":
    """The rows of the part branch under its own prompt: (pairs, ...) of the rows of one call."""
    branch = 2 * pairs if len(rows) >= 4 * pairs else pairs
    # Backgrounds are no more than the pairs, so that a plain call has at most three rows a pair.
    return rows[2 * branch - pairs : 2 * branch]


def to_plane(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A layer's values (h_i * w_i,) as (h_i, w_i), in the proportions of `size`."""
    height = round((len(places) * size[0] / size[1]) ** 0.5)
    return places.reshape(height, -1)


def merge_maps(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of maps (h_i, w_i) of any sizes, float32 at the largest of them."""
    largest = max((item.shape for item in maps), key=lambda shape: shape[0] * shape[1])
    return np.stack([resize(item, (largest[0], largest[1])) for item in maps]).mean(axis=0)


def resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) as float32 at `size` = (h, w), bilinear."""
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def to_grey(attention: np.ndarray) -> np.ndarray:
    """A map as it is stored: uint8, 64 at its mean. Never stretched, so that a flat map stays flat.

    >>> to_grey(np.array([[1.0, 3.0]])).tolist()
    [[32, 96]]
    """
    return (attention / max(float(attention.mean()), 1e-12) * MEAN_GREY).round().clip(0, 255).astype(np.uint8)


def attention_mask(
    maps: Sequence[np.ndarray], size: tuple[int, int], threshold: float | None = None, *, minimum_area: int = 4
) -> MaskResult:
    """Where attention stands out, as a mask at `size` = (h, w), from maps (h_i, w_i) of any scale and sizes.

    `threshold` in 0..1 runs from the median place to the brightest; none or 0 is Otsu's. A map that is nearly flat is
    empty.
    """
    merged = merge_maps(maps)
    low, high = float(np.median(merged)), float(np.percentile(merged, 99.5))
    if high < _LEAST_CONTRAST * max(low, 1e-12):
        return MaskResult.nothing(size, "attention", threshold or 0.0)
    share = np.clip((resize(merged, size) - low) / (high - low), 0, 1)
    cut = threshold or otsu(share)
    mask = drop_specks(share > cut, minimum_area)
    return MaskResult.found(mask, "attention", 1 - low / high, cut)
