"""The shots themselves, augmented: colour, translation, cutout, flips; picture and mask together.

After Zhao, Liu, Lin, Zhu and Han, "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS 2020), whose three policies are used.
Different: no GAN is trained; the augmentations, which never show in a GAN's own pictures, are the pictures. So colours change at
half the strength (8 bits clip where a GAN's numbers do not), the picture's edge is drawn out where the publication shifts in black, and the
cutout has a quarter of the side instead of a half and hides at most half of the defect.
"""

import numpy as np

from dualanodiff.rivals.materials import Drawn, Materials, Stream

_SHIFT = 1 / 8
_CUTOUT = 1 / 4
_TRIES = 20


def draw_diffaug(materials: Materials, stream: Stream) -> Drawn:
    """One shot, flipped, recoloured, shifted and with a grey square over it."""
    shot = materials.shot(stream)
    turn = tuple(slice(None, None, int(stream.choice((1, -1)))) for _ in range(2))
    image, mask = recolored(shot.image[turn], stream), shot.mask[turn]
    image, mask = _keeping(mask, [_shifted(image, mask, stream) for _ in range(_TRIES)], (image, mask))
    image, mask = _keeping(mask, [_cut_out(image, mask, stream) for _ in range(_TRIES)], (image, mask))
    return Drawn(np.ascontiguousarray(image), np.ascontiguousarray(mask), {"shot": shot.name})


def recolored(rgb: np.ndarray, stream: Stream) -> np.ndarray:
    """The picture uint8 (h, w, 3), brightness moved by up to an eighth of the range, saturation x 0.5..1.5, contrast x 0.75..1.25."""
    values = rgb / 127.5 - 1 + stream.uniform(-0.25, 0.25)
    grey = values.mean(axis=-1, keepdims=True)
    values = (values - grey) * stream.uniform(0.5, 1.5) + grey
    values = (values - values.mean()) * stream.uniform(0.75, 1.25) + values.mean()
    return np.round((values + 1) * 127.5).clip(0, 255).astype(np.uint8)


def _keeping(
    before: np.ndarray, forms: list[tuple[np.ndarray, np.ndarray]], otherwise: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The first form that keeps half of the defect."""
    return next((form for form in forms if 2 * form[1].sum() >= before.sum()), otherwise)


def _shifted(image: np.ndarray, mask: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    most = max(1, round(len(image) * _SHIFT))
    down, across = stream.integers(0, 2 * most + 1, 2)
    window = (slice(down, down + image.shape[0]), slice(across, across + image.shape[1]))
    around = ((most, most), (most, most))
    return np.pad(image, (*around, (0, 0)), mode="edge")[window], np.pad(mask, around, mode="edge")[window]


def _cut_out(image: np.ndarray, mask: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    side = max(1, round(len(image) * _CUTOUT))
    top, left = stream.integers(0, len(image) - side + 1, 2)
    image, mask = image.copy(), mask.copy()
    image[top : top + side, left : left + side] = 128
    mask[top : top + side, left : left + side] = False
    return image, mask
