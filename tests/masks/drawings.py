"""Parts with known masks, clean and as a decoder would give them."""

import numpy as np
from scipy import ndimage

KEY = (0, 255, 0)
SHAPE = (64, 96)


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def draw_part(
    mask: np.ndarray,
    key: tuple[int, int, int] = KEY,
    color: tuple[int, int, int] = (90, 30, 40),
    *,
    drift: float = 0,
    noise: float = 0,
    blur: float = 0,
    shade: float = 0,
) -> np.ndarray:
    """A defect of one colour on the key colour, then blurred, shaded from left to right, drifted and noisy."""
    part = np.where(mask[..., None], np.array(color, float), np.array(key, float))
    part = ndimage.gaussian_filter(part, (blur, blur, 0)) if blur else part
    part = part * np.linspace(1 - shade, 1 + shade, mask.shape[1])[:, None]
    part = part + drift + np.random.default_rng(0).normal(0, noise, part.shape) if noise else part + drift
    return part.round().clip(0, 255).astype(np.uint8)
