"""Pictures and masks as arrays; the only file that opens or writes picture files.

An rgb array is uint8 (h, w, 3); a mask is bool (h, w), True where the defect is. Sizes are (height, width).
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from dualanodiff.errors import PictureError
from dualanodiff.storage import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of picture files, in any case of letters."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Named, because Pillow would otherwise also run interpreters such as Ghostscript on what is inside a file.
_ORIENTATION = 0x0112
_CLASS_NUMBERS = 31
# Masks whose highest value is no higher than this hold numbers of defect classes (VisA), not shades of grey.
_CLASS_COLORS = 32
# A coloured mask with no more colours than this paints classes; one with more was stored with loss.
LOOKS_DARK = "looks dark"
"""In the note on a 16-bit picture whose values fill 12 bits at most: nobody sees its defects."""


def read_rgb(path: Path, *, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """The picture as uint8 (h, w, 3), turned as its EXIF says and resized to `size` (squashed, not cropped).

    16-bit values are divided by 257, grey and palettes become rgb, alpha is composed on white. Raises
    PictureError naming the file.
    """
    rgb, _ = load_rgb(path)
    return rgb if size is None else resize_rgb(rgb, size)


def read_mask(path: Path, *, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """The mask as bool (h, w), resized to `size` so that no defect is lost; see load_mask for which values count."""
    mask, _ = load_mask(path)
    return mask if size is None else resize_mask(mask, size)


def notes(path: Path) -> list[str]:
    """What read_rgb converts in this picture, such as "EXIF turn applied"; empty for a plain 8-bit rgb file."""
    return load_rgb(path)[1]


def load_rgb(path: Path) -> tuple[np.ndarray, list[str]]:
    """The picture at its own size as uint8 (h, w, 3), and what was converted on the way."""
    image, said = _open(path)
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _to_8_bits(np.asarray(image), path, said)
        return np.repeat(grey[..., None], 3, axis=2), [*said, "grey made RGB"]
    if image.mode in ("1", "L", "LA"):
        said.append("grey made RGB")
    elif image.mode != "RGB" and not image.mode.startswith("RGBA"):
        said.append({"P": "palette made RGB", "PA": "palette made RGB"}.get(image.mode, f"{image.mode} made RGB"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        transparent = np.asarray(layer)[..., 3].min() < 255
        said.append("alpha composed on white" if transparent else "opaque alpha dropped")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB")), said


def load_mask(path: Path) -> tuple[np.ndarray, list[str]]:
    """The mask at its own size as bool (h, w), and a note if it holds greys, which count above half of the highest.

    In masks of two values (0/255, 0/1), of small class numbers or of a few colours, all that is not zero counts.
    A layer with alpha counts where it is neither black nor transparent; one of a single colour where it is opaque.
    """
    image, said = _open(path)
    values = _mask_values(image)
    levels = np.unique(values[values > 0])
    whole_numbers = np.issubdtype(values.dtype, np.integer)
    if levels.size <= 1 or (whole_numbers and levels[-1] <= _CLASS_NUMBERS):
        return values > 0, said
    said.append(
        f"grey-valued: {levels.size + 1} values in 0..{levels[-1]:g}; above {levels[-1] / 2:g} counts as defect"
    )
    return values > levels[-1] / 2, said


def resize_rgb(rgb: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The picture squashed or stretched to `size`, smoothed when it shrinks."""
    height, width = (size, size) if isinstance(size, int) else size
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The mask at `size`: a pixel is defect where at least half of what it covers is, and no defect vanishes.

    Where no pixel near by reaches half, those count that reach half of the highest share there: a scratch
    thinner than a pixel stays a line, a speck stays a speck.

    >>> speck = np.zeros((64, 64), bool)
    >>> speck[10, 10] = True
    >>> int(resize_mask(speck, 8).sum())
    1
    """
    height, width = (size, size) if isinstance(size, int) else size
    if mask.shape == (height, width):
        return mask
    # Float, because a share below 1/255 must not round to nothing.
    source = Image.fromarray(mask.astype(np.float32))
    share = np.asarray(source.resize((width, height), Image.Resampling.BOX))
    nearby = np.lib.stride_tricks.sliding_window_view(np.pad(share, 1), (3, 3)).max(axis=(2, 3))
    return (share > 0) & (share >= 0.5 * np.where(nearby >= 0.5, 1.0, nearby))


def is_grey(rgb: np.ndarray) -> bool:
    """Whether all pixels (..., 3) are shades of grey, as a monochrome camera's."""
    return bool((rgb == rgb[..., :1]).all())


def to_tensor(rgb: np.ndarray) -> "Tensor":
    """Float32 (3, h, w) in [-1, 1] from uint8 (h, w, 3); leading axes stay where they are."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rgb, -1, -3))).float() / 127.5 - 1


def to_rgb(tensor: "Tensor") -> np.ndarray:
    """Uint8 (h, w, 3) from (3, h, w) in [-1, 1], clamped and rounded; leading axes stay where they are."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def to_pil(pixels: np.ndarray) -> Image.Image:
    """An RGB picture from uint8 (h, w, 3), or a one-channel 0/255 picture from a bool mask (h, w)."""
    return Image.fromarray(np.where(pixels, np.uint8(255), np.uint8(0)) if pixels.dtype == bool else pixels)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an rgb array, or a mask as 0/255 in one channel, whole or not at all."""
    write_atomic(path, lambda temporary: to_pil(pixels).save(temporary, "PNG"))


def _open(path: Path) -> tuple[Image.Image, list[str]]:
    """The decoded first frame, turned as EXIF says, and notes; every failure is a PictureError naming the file."""
    if path.is_dir():
        msg = f"{path}: is a folder; a picture file must be here, so rename or move the folder"
        raise PictureError(msg)
    if not path.is_file():
        msg = f"{path}: no such picture file"
        raise PictureError(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: holds 0 bytes; copy the picture again or leave it out"
        raise PictureError(msg)
    try:
        with warnings.catch_warnings():
            # A picture that decodes is used: Pillow's complaints about its metadata help nobody here.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as file:
                # Pillow keeps 16 bits in grey files only; of colours it takes the upper 8 without a word.
                deep = ";16" in str(file.tile) and not file.mode.startswith("I")
                frames = getattr(file, "n_frames", 1)
                file.load()
                turn = file.getexif().get(_ORIENTATION, 1)
                image = ImageOps.exif_transpose(file)
    except Image.DecompressionBombError:
        msg = f"{path}: too many pixels to be opened safely; crop it or save it smaller"
        raise PictureError(msg) from None
    except Image.UnidentifiedImageError:
        msg = f"{path}: its content is none of {', '.join(_FORMATS)}; save it as PNG or leave it out"
        raise PictureError(msg) from None
    except Exception as error:  # noqa: BLE001  (decoders raise a dozen kinds on damaged files)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{path}: damaged or cut off ({reason}); copy the picture again or leave it out"
        raise PictureError(msg) from None
    said = ["16-bit scaled to 8"] if deep else []
    if turn in range(2, 9):
        said.append("EXIF turn applied")
    if frames > 1:
        said.append(f"first of {frames} frames used")
    # Grey with premultiplied alpha, which converts to nothing else.
    return (image.convert("LA") if image.mode == "La" else image), said


def _to_8_bits(values: np.ndarray, path: Path, said: list[str]) -> np.ndarray:
    """Grey values of 16 bits, 32 bits or floats as uint8, by the range of their kind and not of this picture."""
    top = float(values.max())
    if not np.isfinite(values).all() or values.min() < 0 or top > 65535:
        msg = f"{path}: grey values outside 0..65535; scale them to 8 or 16 bits and save as PNG"
        raise PictureError(msg)
    if values.dtype.kind == "f" and top <= 1:
        said.append("floats in 0..1 scaled to 8 bits")
        return np.round(values * 255).astype(np.uint8)
    if values.dtype.itemsize == 4 and top <= 255:
        said.append("32-bit values in 0..255 taken as 8 bits")
        return np.round(values).astype(np.uint8)
    dark = f"; its highest value is {top:g} of 65535, so it looks dark: rescale it if its camera has 12 bits or less"
    said.append("16-bit scaled to 8" + (dark if top < 4096 else ""))
    return np.round(values / 257).astype(np.uint8)


def _mask_values(image: Image.Image) -> np.ndarray:
    """One number (h, w) a pixel of any mask file, 0 outside the defect."""
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        values = np.asarray(image)
        return values.astype(np.uint8) if values.dtype == bool else values
    red, green, blue, alpha = (np.asarray(band).astype(np.int32) for band in image.convert("RGBA").split())
    color = (red << 16) | (green << 8) | blue
    if color.min() == color.max() and alpha.min() < alpha.max():
        return alpha
    visible = alpha > 0
    if not (np.array_equal(red, green) and np.array_equal(red, blue)) and np.unique(color).size <= _CLASS_COLORS:
        return ((color > 0) & visible).astype(np.uint8)
    return np.maximum(np.maximum(red, green), blue) * visible
