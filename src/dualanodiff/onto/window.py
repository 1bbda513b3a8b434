"""What the model sees of a picture: all of it or a crop of the same proportions, squashed to a square, and back again."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dualanodiff.images import resize_mask, resize_rgb


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture in its own pixels, shown to the model as a square of `side` pixels."""

    left: int
    top: int
    width: int
    height: int
    side: int

    @classmethod
    def around(cls, shape: tuple[int, ...], center: tuple[float, float], zoom: float, side: int) -> "Window":
        """The part of a picture (h, w) that is `zoom` of its height and width, as near to `center` (y, x) as fits."""
        height, width = (max(1, min(length, round(zoom * length))) for length in shape[:2])
        top, left = (
            int(np.clip(round(middle - length / 2), 0, whole - length))
            for middle, length, whole in zip(center, (height, width), shape[:2], strict=True)
        )
        return cls(left, top, width, height, side)

    @property
    def box(self) -> list[int]:
        """x, y, width, height."""
        return [self.left, self.top, self.width, self.height]

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def scale(self) -> float:
        """Pixels of the picture to one of the model's, along its longer side."""
        return max(self.width, self.height) / self.side

    def see(self, rgb: np.ndarray) -> np.ndarray:
        """What the model is shown of a picture uint8 (h, w, 3)."""
        return resize_rgb(np.ascontiguousarray(rgb[self.place]), self.side)

    def see_mask(self, mask: np.ndarray) -> np.ndarray:
        """The same of a mask bool (h, w)."""
        return resize_mask(np.ascontiguousarray(mask[self.place]), self.side)

    def bring_back(self, values: np.ndarray) -> np.ndarray:
        """Float32 values (side, side, n) of the model's picture at the window's own size, smoothly."""
        size = (self.width, self.height)
        bands = [Image.fromarray(np.ascontiguousarray(values[..., band])) for band in range(values.shape[-1])]
        return np.stack([np.asarray(band.resize(size, Image.Resampling.BICUBIC)) for band in bands], axis=-1)

    def bring_back_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask bool (side, side) at the window's own size with smooth outlines; no defect is lost."""
        share = Image.fromarray(mask.astype(np.float32))
        found = np.asarray(share.resize((self.width, self.height), Image.Resampling.BILINEAR)) > 0.5
        return found if found.any() else resize_mask(mask, (self.height, self.width))
