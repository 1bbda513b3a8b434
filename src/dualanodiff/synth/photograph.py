"""From a scene and a defect to a pair of pictures and the exact mask of what differs."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dualanodiff.synth.defects import Defect
from dualanodiff.synth.marks import Place
from dualanodiff.synth.noise import Field, Rgb, between, mix, to_bytes
from dualanodiff.synth.scene import Scene

Generator = np.random.Generator
Bytes = NDArray[np.uint8]
"""A picture (size, size, 3), 0..255."""
Mask = NDArray[np.bool_]
"""True on the defect, (size, size)."""

VISIBLE = 18.0
"""Mean grey levels that a defect changes inside its mask, at least."""
NOTICED = 10
"""Grey levels in one channel above which a pixel belongs to the mask."""


@dataclass(frozen=True)
class Camera:
    """What happens to the light after the part: blur, noise, cast, grey; the same in both pictures of a pair."""

    blur: float
    grain: Field
    cast: Rgb
    grey: bool

    def shoot(self, rgb: Rgb) -> Bytes:
        """The picture that the camera takes of the light (3, size, size)."""
        rgb = rgb * self.cast
        if self.grey:
            rgb = np.broadcast_to(
                rgb[0] * np.float32(0.3) + rgb[1] * np.float32(0.59) + rgb[2] * np.float32(0.11), rgb.shape
            )
        taken = to_bytes(rgb + self.grain)
        return (
            np.asarray(Image.fromarray(taken).filter(ImageFilter.GaussianBlur(self.blur))) if self.blur > 0.2 else taken
        )


def draw_camera(form: Generator, shot: Generator, size: int) -> Camera:
    """Any ordinary camera; its grain differs from shot to shot."""
    blur, strength = between(form, -0.6, 0.8) * size / 128, between(form, 0, 0.015)
    cast, grey = 1 + form.normal(0, 0.03, (3, 1, 1)).astype(np.float32), form.random() < 0.22
    return Camera(blur, draw_grain(shot, size, strength), cast, grey)


def draw_grain(shot: Generator, size: int, strength: float) -> Field:
    """Noise of that deviation in every pixel; what is drawn next does not depend on the size."""
    grain = np.random.default_rng(int(shot.integers(2**62))).standard_normal((size, size), dtype=np.float32)
    return grain * np.float32(strength)


@dataclass(frozen=True)
class Photograph:
    """A picture with a defect, its mask, and what the defect is called."""

    image: Bytes
    mask: Mask
    caption: str


def photograph(
    form: Generator,
    shot: Generator,
    scene: Scene,
    camera: Camera,
    normal: Bytes,
    defect: Defect,
    area: float,
    *,
    spot: str,
    count: int = 1,
) -> Photograph | None:
    """The scene with that defect, at `count` places; None if it cannot be seen well enough, or covers under 0.1 % or over 25 %.

    `normal` is the camera's picture of the scene. Outside the mask, image and normal are equal but for a narrow collar that
    differs by at most `NOTICED` grey levels.
    """
    damaged, cover, whole, caption = scene, np.zeros_like(scene.part), False, ""
    look = int(form.integers(2**62))  # every place shows the same kind of defect
    for _ in range(count):
        change = defect(np.random.default_rng(look), shot, damaged, _place(shot, scene, area / count, spot))
        support = np.minimum(change.cover * 4, 1) * scene.part
        damaged = replace(damaged, rgb=mix(damaged.rgb, change.rgb, support))
        cover, whole, caption = np.maximum(cover, change.cover * scene.part), change.whole, change.caption
    image = camera.shoot(damaged.rgb)
    apart = np.abs(image.astype(np.int16) - normal)
    most = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])
    mask = _seen(most > NOTICED, cover, whole)
    if not 0.001 <= mask.mean() <= 0.25 or apart[mask].mean() < VISIBLE:
        return None
    if spot != "edge" and (mask & (scene.part > 0.5)).sum() < 0.95 * mask.sum():
        return None
    collar = mask
    for _ in range(max(2, len(mask) // 64)):
        collar = grown(collar)
    kept = mask | (collar & (most <= NOTICED))
    return Photograph(np.where(kept[..., None], image, normal), mask, caption)


def _seen(different: Mask, cover: Field, whole: bool) -> Mask:
    """The visibly different pixels, closed to sensible regions without lone pixels; all the cover where it counts whole."""
    if whole:
        return (different & (cover > 0.02)) | (cover > 0.25)
    closed = (shrunk(grown(different)) | different) & (cover > 0.02)
    pairs, columns = np.zeros_like(closed), np.zeros_like(closed)
    pairs[1:] = closed[1:] & closed[:-1]
    columns[:, 1:] = closed[:, 1:] & closed[:, :-1]
    return closed & (grown(pairs) | grown(columns))


def grown(mask: Mask) -> Mask:
    """The mask and its eight neighbours."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide


def shrunk(mask: Mask) -> Mask:
    """The pixels whose eight neighbours all belong to the mask."""
    return ~grown(~mask)


def _place(shot: Generator, scene: Scene, area: float, spot: str) -> Place:
    """A place on the part: anywhere ("part"), on its edge ("edge"), or where the print is ("print")."""
    size, allowed = scene.size, scene.part > 0.5
    if spot == "edge":
        allowed = allowed & ~shrunk(shrunk(allowed))
    elif spot == "print" and scene.bare is not None:
        allowed = allowed & (np.abs(scene.rgb - scene.bare).max(axis=0) > 0.15)
    elif scene.shape == "surface":
        margin = size // 12
        allowed = np.zeros_like(allowed)
        allowed[margin:-margin, margin:-margin] = True
    spots = np.flatnonzero(allowed)
    chosen = int(spots[int(shot.random() * len(spots))]) if len(spots) else size * size // 2
    return Place((chosen % size + 0.5) * 2 / size - 1, (chosen // size + 0.5) * 2 / size - 1, area)
