"""Lead the part branch to a shot's shape while a whole pair is drawn from nothing.

At much noise a small base does not see that specks in a row are a line: it was trained too little for that, and so a crack
falls apart. Where and of which shape a defect is, is what shots can tell. So for the first steps the part's predicted
clean latents are replaced by a shot's defect, moved, mirrored, scaled and bent; the image branch sees it through the
interaction. Then both branches are free, the part about the place that it was led to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualanodiff.data.shots import Shot
from dualanodiff.latents import encode_pictures
from dualanodiff.model.base import Base
from dualanodiff.onto.hold import cells_of
from dualanodiff.onto.places import ObjectFinder, Place, Shapes, draw_place, extent, find_object
from dualanodiff.seeds import numpy_stream

BEND = 0.025
"""How far shapes are bent, as a share of their longer side: a handful of shots has but a handful of outlines."""


@dataclass(frozen=True)
class Lead:
    """What leads the pairs of a run: `lead(indices, seed, share)` is what to make of each step's clean latents."""

    base: Base
    shapes: Shapes
    key: tuple[int, int, int]
    usual: np.ndarray
    """bool (s, s), s being the side of the model's pictures: where most of the shots show the object; all where there is none."""
    flips: tuple[bool, bool]
    """Left-right and top-bottom."""

    @classmethod
    def of(
        cls,
        base: Base,
        shots: Sequence[Shot],
        find: ObjectFinder,
        *,
        key: tuple[int, int, int],
        flips: tuple[bool, bool],
    ) -> "Lead":
        """From the shots, at the side of the model's pictures."""
        found = [mask for mask in (find_object(shot.image, find) for shot in shots) if mask is not None]
        often = np.mean(found, axis=0) > 0.5 if len(found) > len(shots) / 2 else np.zeros_like(shots[0].mask)
        usual = often if often.any() else np.ones_like(often)
        return cls(base, Shapes.of(shots, find), key, usual, flips)

    def __call__(self, indices: Sequence[int], seed: int, share: float) -> Callable[[Tensor, float], Tensor]:
        """For `denoise_pairs`: clean latents (2, B, c, h, w) become the same with the part led for the first `share` of the steps."""
        places = [self.place(index, seed) for index in indices]
        device = self.base.unet.device
        pictures = [self._bare, *(place.hint for place in places)]
        ground, hint = encode_pictures(self.base, pictures).to(device).tensor_split([1])
        allowed = cells_of([place.allowed for place in places], hint).to(device)

        def adjust(clean: Tensor, progress: float) -> Tensor:
            part = hint if progress < share else ground + allowed * (clean[1] - ground)
            return torch.stack([clean[0], part])

        return adjust

    def place(self, index: int, seed: int) -> Place:
        """Where that pair's defect shall be, and of which shape: a function of seed and index alone."""
        return draw_place(
            numpy_stream(seed, "lead", index),
            self._bare,
            self.shapes,
            self.key,
            len(self.usual),
            region=self.usual if self.shapes.on_object else np.ones_like(self.usual),
            frame=extent(self.usual),
            flips=self.flips,
            bend=BEND,
            cover=False,  # no part is there yet whose outline it could take
        )

    @property
    def _bare(self) -> np.ndarray:
        """uint8 (s, s, 3): the key colour alone."""
        return np.full((*self.usual.shape, 3), self.key, np.uint8)
