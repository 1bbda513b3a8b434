"""Lead the part branch to a shot's shape while a whole pair is drawn from nothing.

At much noise a small base does not see that specks in a row are a line: it was trained too little for that, and so a crack
falls apart. Where and of which shape a defect is, is what shots can tell. So for the first steps the part's predicted
clean latents are replaced by a shot's defect, mirrored, moved, scaled and bent as a whole picture; the image branch sees it
through the interaction. Then both branches are free, the part about the place that it was led to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dualanodiff.data.shots import Shot, part_target
from dualanodiff.latents import allowed_cells, encode_pictures
from dualanodiff.model.base import Base
from dualanodiff.seeds import numpy_stream

MOVE, SCALE, BEND = 0.03, 0.1, 0.012
"""Deviations of how far a small shape is moved, of the logarithm of its scale, and of how far it is bent; in sides of the picture."""
_WAVES = 0.12
"""It is bent in waves of about this length."""
_FINE = 3
"""A mask is moved at so many times its size, so that a line of a pixel stays whole."""
_SHARE = 0.3
"""A pixel of which more than this lies in the mask belongs to it; at a half a thin line that runs between two rows would break."""


@dataclass(frozen=True)
class Led:
    """Where a part is led to: `hint` uint8 (s, s, 3) on the key colour, and `allowed` bool (s, s), where it may be drawn."""

    hint: np.ndarray
    allowed: np.ndarray


@dataclass(frozen=True)
class Lead:
    """What leads the pairs of a run: `lead(indices, seed, share)` is what to make of each step's clean latents."""

    base: Base
    shots: tuple[Shot, ...]
    """At the side s of the model's pictures."""
    key: tuple[int, int, int]
    flips: tuple[bool, bool]
    """Left-right and top-bottom."""

    def __call__(self, indices: Sequence[int], seed: int, share: float) -> Callable[[Tensor, float], Tensor]:
        """For `denoise_pairs`: clean latents (2, B, c, h, w) become the same with the part led for the first `share` of the steps.

        1 leads at the last step too.
        """
        shapes = [self.shape(index, seed) for index in indices]
        device = self.base.unet.device
        hint = encode_pictures(self.base, [shape.hint for shape in shapes]).to(device)
        ground = self._ground.to(device)
        allowed = allowed_cells([shape.allowed for shape in shapes], hint).to(device)

        def adjust(clean: Tensor, progress: float) -> Tensor:
            led = progress < share or share >= 1
            return torch.stack([clean[0], hint if led else ground + allowed * (clean[1] - ground)])

        return adjust

    def shape(self, index: int, seed: int) -> Led:
        """Where that pair's defect shall be, and of which shape: a function of seed and index alone."""
        random = numpy_stream(seed, "lead", index)
        shot = self.shots[int(random.integers(len(self.shots)))]
        turned = [-1 if flip and random.random() < 0.5 else 1 for flip in self.flips]
        turn = (slice(None, None, turned[1]), slice(None, None, turned[0]))
        rgb, mask = moved(np.ascontiguousarray(shot.image[turn]), np.ascontiguousarray(shot.mask[turn]), random)
        room = max(2.0, 0.35 * (float(mask.sum()) / np.pi) ** 0.5)
        allowed = np.asarray(ndimage.distance_transform_edt(~mask)) <= room
        return Led(part_target(rgb, mask, self.key), allowed)

    @cached_property
    def _ground(self) -> Tensor:
        """(1, c, h, w): latents of the key colour alone."""
        return encode_pictures(self.base, [np.full((*self.shots[0].mask.shape, 3), self.key, np.uint8)])


def moved(rgb: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (s, s, 3) and its mask bool (s, s), moved and bent a little and scaled about the mask's middle.

    The further the mask extends, the less it is moved that way and the less it is scaled: what is as wide as the picture
    would leave its object. What runs off the picture goes on beyond its edge. A mask that would be lost stays where it
    was.
    """
    if not mask.any():
        return rgb, mask
    side, inside = len(mask), np.argwhere(mask)
    middle, room = inside.mean(axis=0), 1 - np.ptp(inside, axis=0) / side
    move = room * MOVE * side * random.standard_normal(2)
    scale = float(np.exp(room.min() * SCALE * random.standard_normal()))
    move[[mask[[0, -1]].any(), mask[:, [0, -1]].any()]] = 0  # what comes in over an edge stays at it
    waves = np.stack([_wave(random, side) for _ in range(2)])

    def places(fine: int) -> np.ndarray:
        # Middles of pixels, so that those of a finer grid lie between them.
        grid = (np.mgrid[: side * fine, : side * fine] + 0.5) / fine - 0.5
        bend = waves if fine == 1 else waves.repeat(fine, axis=1).repeat(fine, axis=2)
        return (grid - (middle + move)[:, None, None]) / scale + middle[:, None, None] + bend

    source = mask.repeat(_FINE, axis=0).repeat(_FINE, axis=1).astype(np.float32)
    fine = ndimage.map_coordinates(source, (places(_FINE) + 0.5) * _FINE - 0.5, order=1, mode="nearest") > 0.5
    kept = fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3)) > _SHARE
    if not kept.any():
        return rgb, mask
    bands = [ndimage.map_coordinates(rgb[..., band], places(1), order=1, mode="nearest") for band in range(3)]
    return np.stack(bands, axis=-1), kept


def _wave(random: np.random.Generator, side: int) -> np.ndarray:
    """Smooth displacements (side, side) in pixels."""
    smooth = ndimage.gaussian_filter(random.standard_normal((side, side)), _WAVES * side, mode="wrap")
    return BEND * side * np.clip(smooth / float(smooth.std()), -2, 2)
