"""Hold the image branch to a good picture while the part branch makes the defect that belongs there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


@dataclass(frozen=True)
class Held:
    """What holds a batch of B pairs."""

    good: Tensor
    """(B, c, h, w): clean latents of the good pictures."""
    ground: Tensor
    """(1, c, h, w): clean latents of the bare key colour."""
    allowed: Tensor
    """(B, 1, h, w) in 0..1: where the part may be drawn."""

    def adjust_clean(self, freedom: float) -> Callable[[Tensor, float], Tensor]:
        """What to make of the predicted clean latents (2, B, c, h, w) of a step, for `denoise_pairs`.

        The image branch's prediction is replaced by the good picture, which keeps its latents exactly the good
        picture's under its own noise; for the last `freedom` of the steps only away from the part. The part
        branch's is the key colour wherever it may not draw.
        """

        def adjust(clean: Tensor, progress: float) -> Tensor:
            part = self.ground + self.allowed * (clean[1] - self.ground)
            image = self.good if progress < 1 - freedom else self.near(clean[0])
            return torch.stack([image, part])

        return adjust

    def near(self, image: Tensor) -> Tensor:
        """Clean latents (B, c, h, w) of images where the part may be drawn and one cell around, elsewhere the good pictures'."""
        return self.good + max_pool2d(self.allowed, 3, stride=1, padding=1) * (image - self.good)
