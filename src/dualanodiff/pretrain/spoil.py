"""Procedural defects on real good pictures, with exact masks: pairs that look like the product, in any number."""

import numpy as np

from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.data.shots import part_target
from dualanodiff.masks.saliency import object_mask
from dualanodiff.synth.defects import DEFECTS, suits
from dualanodiff.synth.noise import between
from dualanodiff.synth.photograph import Camera, photograph
from dualanodiff.synth.scene import Scene

_TRIES = 12
_GREY = 4.0
"""Mean grey levels between a picture's channels under which it counts as grey: its defects are grey then, too."""
_KEY_DISTANCE = 90
"""Grey levels by which the key colour differs from the defect in one channel at least."""


def spoil(generator: np.random.Generator, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, str] | None:
    """A good picture uint8 (h, h, 3) with a defect, the mask of what differs, and the defect's name.

    The defect lies on the object where the picture shows one on a plain ground, anywhere on a texture. None where no
    defect that was tried shows, as on a picture that is black all over.
    """
    scene = _scene(generator, good)
    size = len(good)
    names = [name for name in DEFECTS if suits(name, scene)]
    weights = np.array([DEFECTS[name][1] for name in names])
    for _ in range(_TRIES):
        name = str(generator.choice(names, p=weights / weights.sum()))
        area = float(np.clip(np.exp(generator.normal(np.log(0.03), 1.1)), 0.0015, 0.2))
        blur = between(generator, 0, 0.8) * size / 128
        grain, white = np.zeros((size, size), np.float32), np.ones((3, 1, 1), np.float32)
        camera = Camera(blur, grain, white, bool(np.ptp(good.astype(np.int16), axis=-1).mean() < _GREY))
        spot = "edge" if name == "chipped edge" else "part"
        made = photograph(generator, generator, scene, camera, good, DEFECTS[name][0], area, spot=spot)
        if made is not None:
            return made.image, made.mask, made.caption
    return None


def draw_key(generator: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """One of the key colours that the defect can be told from."""
    inside = image[mask].mean(axis=0)
    colors = list(KEY_COLORS.values())
    far = [color for color in colors if np.abs(np.array(color) - inside).max() > _KEY_DISTANCE] or colors
    return far[int(generator.integers(len(far)))]


def draw_spoiled_pair(generator: np.random.Generator, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, str] | None:
    """A spoiled picture, its part on a flat key colour, and the defect's name; None as `spoil`."""
    made = spoil(generator, good)
    if made is None:
        return None
    image, mask, caption = made
    return image, part_target(image, mask, draw_key(generator, image, mask)), caption


def _scene(generator: np.random.Generator, good: np.ndarray) -> Scene:
    """The picture as a scene of synth: where the part is, and what would be there without it."""
    mask, _ = object_mask(good, None)
    rgb = np.ascontiguousarray(good.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    outside = good[~mask] if not mask.all() else good[:1].reshape(-1, 3)
    ground = np.broadcast_to((np.median(outside, axis=0) / 255).astype(np.float32)[:, None, None], rgb.shape)
    turn = between(generator, 0, 2 * np.pi)
    return Scene(
        rgb=rgb,
        part=mask.astype(np.float32),
        ground=ground,
        bare=None,
        light=(float(np.cos(turn)), float(np.sin(turn))),
        material="",
        shape="surface" if mask.all() else "part",
        ground_name="",
    )
