"""Pictures beside each other on one labelled sheet, readable at a glance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dualanodiff.data.shots import Shot, part_target
from dualanodiff.images import to_pil, write_png

_GAP = 6
_TEXT = 13
_LINE = _TEXT + 5
_CONTOUR = (255, 0, 90)
# Pink: rare among products, and apart from every key colour.


def overlay(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = _CONTOUR) -> np.ndarray:
    """The picture uint8 (h, w, 3) with the mask's outline drawn just outside it, so that the defect stays visible."""
    thickness = max(1, round(min(mask.shape) / 128))
    around: np.ndarray = np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3), dtype=bool), iterations=thickness))
    ring = around & np.logical_not(mask)
    if mask.any() and not ring.any():  # a full mask has no outside to draw in
        ring = mask & np.logical_not(ndimage.binary_erosion(mask, iterations=thickness))
    return np.where(ring[..., None], np.array(color, dtype=np.uint8), image)


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    path: Path,
    *,
    captions: Sequence[str] = (),
    side: int = 128,
) -> None:
    """Write a PNG with one line a row, under a title a column; a caption stands over its row, as a heading.

    Pictures are uint8 (h, w, 3) or masks bool (h, w); each is scaled to fit `side` pixels, without smoothing when it
    grows. `captions` has one text a row, "" for none.
    """
    texts = list(captions) + [""] * (len(rows) - len(captions))
    columns = max([len(titles), *(len(row) for row in rows)])
    font = ImageFont.load_default(size=_TEXT)
    height = _GAP + _LINE + len(rows) * (side + _GAP) + sum(_LINE for text in texts if text)
    sheet = Image.new("RGB", (_GAP + columns * (side + _GAP), height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (side + _GAP), _GAP - 2), title, "black", font)
    top = _GAP + _LINE
    for row, text in zip(rows, texts, strict=True):
        if text:
            draw.text((_GAP, top - 2), text, (110, 110, 110), font)
            top += _LINE
        for column, picture in enumerate(row):
            sheet.paste(_fit(picture, side), (_GAP + column * (side + _GAP), top))
        top += side + _GAP
    write_png(path, np.asarray(sheet))


def pair_grid(
    images: Sequence[np.ndarray] | np.ndarray,
    masks: Sequence[np.ndarray],
    parts: Sequence[np.ndarray] | np.ndarray,
    path: Path,
    shots: Sequence[Shot] = (),
    *,
    key: tuple[int, int, int] = (0, 0, 0),
    most: int = 8,
    side: int = 128,
) -> None:
    """Write generated pairs as a PNG: image, mask, part, and the mask's outline on the image; real shots beside them.

    At most `most` lines; shots come in three columns of their own at the left, their parts on the key colour.
    """
    lines = max(min(most, len(images)), min(most, len(shots)))
    blank = np.full((1, 1, 3), 255, dtype=np.uint8)
    rows: list[list[np.ndarray]] = []
    for line in range(lines):
        row: list[np.ndarray] = []
        if shots:
            shot = shots[line] if line < len(shots) else None
            row += [shot.image, shot.mask, part_target(shot.image, shot.mask, key)] if shot else [blank] * 3
        if line < len(images):
            row += [images[line], masks[line], parts[line], overlay(images[line], masks[line])]
        rows.append(row)
    titles = ["real image", "real mask", "real part"] if shots else []
    picture_grid(rows, [*titles, "image", "mask", "part", "mask on image"], path, side=side)


def changed_grid(
    goods: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    parts: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    path: Path,
    *,
    captions: Sequence[str] = (),
    amplified: int = 4,
    side: int = 160,
) -> None:
    """Write defects on good parts as a PNG: good part, result, the mask's outline on it, part, mask, and the difference.

    The difference is `amplified` times about grey, so that what was not touched is grey.
    """
    rows = [
        [good, image, overlay(image, mask), part, mask, difference(good, image, amplified)]
        for good, image, part, mask in zip(goods, images, parts, masks, strict=True)
    ]
    titles = ["good part", "result", "mask on result", "part", "mask", f"difference x {amplified}"]
    picture_grid(rows, titles, path, captions=captions, side=side)


def difference(good: np.ndarray, image: np.ndarray, amplified: int) -> np.ndarray:
    """Grey where two pictures are equal, lighter or darker where the second is, `amplified` times; uint8 (h, w, 3).

    >>> difference(np.array([[[9, 9, 9]]], np.uint8), np.array([[[9, 10, 200]]], np.uint8), 4).tolist()
    [[[128, 132, 255]]]
    """
    change = image.astype(np.int32) - good
    return (128 + amplified * change).clip(0, 255).astype(np.uint8)


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    """The picture scaled so that its longer side is `side` pixels."""
    image = to_pil(picture)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = Image.Resampling.NEAREST if scale >= 1 or picture.dtype == bool else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, smooth)
