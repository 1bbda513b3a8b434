"""DRAEM's anomalies: a texture of something else, seen through a mask of Perlin noise.

After Zavrtanik, Kristan and Skocaj, "DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection" (ICCV 2021):
Perlin noise of 1 to 32 cells a side, turned and cut at 0.5; a texture changed by three of its augmentations; blended in with an opacity of
0.1 to 1. Different: textures are procedural, or pictures of a folder that is given (the publication's are those of DTD); every
picture has a defect, where the publication leaves half of them good; good pictures are not turned as a whole.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from dualanodiff.rivals.materials import Drawn, Materials, Stream

_OPACITY = (0.1, 1.0)
_CUT = 0.5
_SMALLEST = 4
"""Pixels that a mask must have at least; another is drawn instead."""


def draw_draem(materials: Materials, stream: Stream) -> Drawn:
    """A good picture with patches of an augmented texture in it."""
    good, name = materials.good(stream)
    mask = perlin_mask(materials.size, stream)
    texture = augmented(materials.texture(stream), stream)
    return Drawn(blended(good.image, texture, mask, stream.uniform(*_OPACITY)), mask, {"good": name})


def perlin_mask(size: int, stream: Stream, within: np.ndarray | None = None) -> np.ndarray:
    """A mask bool (size, size) that is not empty, of turned Perlin noise, inside `within` where given."""
    while True:
        rows, columns = (2 ** int(stream.integers(6)) for _ in range(2))
        field = perlin(size, rows, columns, stream)
        field = ndimage.rotate(field, stream.uniform(-90, 90), reshape=False, order=1)
        mask = field > _CUT
        if within is not None:
            mask &= within
        if mask.sum() >= _SMALLEST:
            return mask


def perlin(size: int, rows: int, columns: int, stream: Stream) -> np.ndarray:
    """Perlin's gradient noise float (size, size) in about -1..1 over a lattice of rows x columns cells."""
    angles = stream.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    slopes = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    down, across = np.meshgrid(np.arange(size) * (rows / size), np.arange(size) * (columns / size), indexing="ij")
    top, left = down.astype(int), across.astype(int)
    y, x = down - top, across - left

    def corner(below: int, right: int) -> np.ndarray:
        slope = slopes[top + below, left + right]
        return slope[..., 0] * (y - below) + slope[..., 1] * (x - right)

    fade_y, fade_x = (t**3 * (t * (t * 6 - 15) + 10) for t in (y, x))
    upper = corner(0, 0) + fade_x * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade_x * (corner(1, 1) - corner(1, 0))
    return np.sqrt(2) * (upper + fade_y * (lower - upper))


def blended(image: np.ndarray, over: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """The picture uint8 (h, w, 3) with another one over it inside the mask, at an opacity of 0..1."""
    weight = opacity * mask[..., None].astype(np.float32)
    return np.round(image * (1 - weight) + over * weight).clip(0, 255).astype(np.uint8)


def augmented(rgb: np.ndarray, stream: Stream, *, count: int = 3, turn: bool = True) -> np.ndarray:
    """The picture uint8 (h, w, 3) changed by `count` different ones of DRAEM's augmentations; `turn` is one of them."""
    names = ["gamma", "multiply", "sharpen", "hue", "solarize", "posterize", "invert", "autocontrast", "equalize"]
    image = Image.fromarray(rgb)
    for name in stream.choice([*names, "turn"] if turn else names, count, replace=False):
        image = _augment(image, str(name), stream)
    return np.array(image)


def _augment(image: Image.Image, name: str, stream: Stream) -> Image.Image:
    if name == "gamma":
        power = stream.uniform(0.5, 2.0)
        return image.point([round(255 * (level / 255) ** power) for level in range(256)] * 3)
    if name == "multiply":
        values = np.asarray(image) * stream.uniform(0.8, 1.2, 3) + stream.uniform(-30, 30)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if name == "sharpen":
        return ImageEnhance.Sharpness(image).enhance(stream.uniform(1, 4))
    if name == "hue":
        return _shift_hue(image, stream)
    if name == "solarize":
        return ImageOps.solarize(image, int(stream.integers(32, 129)))
    if name == "posterize":
        return ImageOps.posterize(image, int(stream.integers(2, 6)))
    if name == "turn":
        mean = tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)))
        return image.rotate(stream.uniform(-45, 45), Image.Resampling.BILINEAR, fillcolor=mean)
    return {"invert": ImageOps.invert, "autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](
        image
    )


def _shift_hue(image: Image.Image, stream: Stream) -> Image.Image:
    """Hue and saturation moved by up to 50 of 255 each."""
    shift = stream.integers(-50, 51, 2)
    hsv = np.asarray(image.convert("HSV")).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + shift[0]) % 256
    hsv[..., 1] = (hsv[..., 1] + shift[1]).clip(0, 255)
    return Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")
