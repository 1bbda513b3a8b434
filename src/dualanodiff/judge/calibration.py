"""Do the scores tell real defects from what is none? Measured on a product's own pictures, before a set is judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from dualanodiff.data.catalog import pick
from dualanodiff.errors import DataError
from dualanodiff.images import read_rgb
from dualanodiff.judge.aspects import ASPECTS, BLUR
from dualanodiff.judge.reference import Reference
from dualanodiff.judge.scoring import Scores, score
from dualanodiff.masks.saliency import object_mask
from dualanodiff.progress import progress
from dualanodiff.seeds import numpy_stream

_T = TypeVar("_T")
REAL, COPIES = "held-out real", "copy of a shot"
TRUSTED = 0.75
"""Share of the real defects that must pass, and of each kind of control that must not, for scores to be trusted."""
Case = tuple[np.ndarray, np.ndarray]
"""A picture uint8 (s, s, 3) and a mask bool (s, s)."""


def check_reference(reference: Reference, data: Path, *, most: int = 30) -> dict[str, Any]:
    """How many real held-out defects pass each check, and how many of the kinds of pairs that must not.

    `most` cases of each kind are taken. Returns thresholds, and for each kind its pairs and the share that passes each
    aspect, is no copy, and passes all. Raises DataError where nothing is held out.
    """
    if not reference.held_out:
        msg = f"{reference.category}/{reference.defect}: no held-out pictures to check with; take fewer as shots"
        raise DataError(msg)
    kinds = controls(reference, _good_pictures(reference, data), most)
    rows = {}
    with progress("check", sum(map(len, kinds.values()))) as bar:
        for name, cases in kinds.items():
            scores = []
            for image, mask in cases:
                scores.append(score(image, mask, reference))
                bar.step()
            rows[name] = _shares(scores)
    return {
        "category": reference.category,
        "defect": reference.defect,
        "side": reference.side,
        "shots": len(reference.shots),
        "note": reference.note,
        "thresholds": {name: getattr(reference.thresholds, name) for name in (*ASPECTS, "copy")},
        "rows": rows,
        "conclusion": conclude(rows),
    }


def conclude(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """What the shares say, in a sentence or three.

    >>> rows = {REAL: {"good": 1.0, "copy": 1.0}, "empty mask": {"good": 0.0}, COPIES: {"copy": 0.0}}
    >>> conclude(rows)
    'Trust the scores: 1.00 of the real defects pass, of what is none 0.00 (empty mask) at most.'
    """
    real = rows[REAL]["good"]
    wrong = {name: row["good"] for name, row in rows.items() if name not in (REAL, COPIES)}
    worst = max(wrong, key=lambda name: wrong[name])
    shares = f"{real:.2f} of the real defects pass, of what is none {wrong[worst]:.2f} ({worst}) at most"
    if real >= TRUSTED and wrong[worst] <= 1 - TRUSTED:
        text = [f"Trust the scores: {shares}."]
    else:
        text = [f"Use the scores with care: {shares}."]
    if real < TRUSTED:
        text.append("Good pairs will be dropped as well: more shots, of more parts, tell better what is real.")
    passed = [name for name, share in wrong.items() if share > 1 - TRUSTED]
    if passed:
        text.append(f"Pairs like these slip through: {', '.join(passed)}; look at what is kept.")
    if COPIES in rows and rows[COPIES]["copy"] > 1 - TRUSTED:
        text.append("Copies of shots are not found reliably.")
    return " ".join(text)


def controls(reference: Reference, good: Sequence[np.ndarray], most: int) -> dict[str, list[Case]]:
    """Cases by kind: real defects that were held out, and pairs with something wrong with them."""
    real = [(shot.image, shot.mask) for shot in _spread(reference.held_out, most)]
    has_object = reference.gauge.object is not None
    masks, blur = [mask for _, mask in real], BLUR * reference.side / 128
    kinds = {
        REAL: real,
        "good picture, real mask": [(good[i % len(good)], mask) for i, mask in enumerate(masks)],
        "another picture's mask": [
            (image, other) for (image, _), other in zip(real, masks[1:] + masks[:1], strict=True)
        ],
        "empty mask": [(image, np.zeros_like(mask)) for image, mask in real[:3]],
        "mask off the object": [case for image, mask in real if has_object and (case := _off(image, mask)) is not None],
        "blurred picture": [(ndimage.gaussian_filter(image, (blur, blur, 0)), mask) for image, mask in real],
        "defect of noise": [(_noisy(image, mask, i), mask) for i, (image, mask) in enumerate(real)],
        COPIES: [turned((shot.image, shot.mask), i) for i, shot in enumerate(_spread(reference.shots, most))],
    }
    return {name: cases for name, cases in kinds.items() if cases}


def turned(case: Case, turn: int) -> Case:
    """The same pair in another of eight turns and moved by some pixels, cut where it leaves the picture."""
    image, mask = case
    shift = max(1, mask.shape[0] // 20)
    moved = np.zeros_like(mask)
    moved[shift:, :-shift] = mask[:-shift, shift:]
    if moved.any():
        mask, image = moved, np.pad(image, [(shift, 0), (0, shift), (0, 0)], mode="reflect")[:-shift, shift:]

    def turn_it(pixels: np.ndarray) -> np.ndarray:
        out = np.rot90(pixels, turn % 4)
        return np.ascontiguousarray(out if turn % 8 < 4 else out[:, ::-1])

    return turn_it(image), turn_it(mask)


def _noisy(image: np.ndarray, mask: np.ndarray, index: int) -> np.ndarray:
    """The picture with coloured noise in place of its defect."""
    noise = numpy_stream(0, "noise", index).integers(0, 256, image.shape, np.uint8)
    return np.where(mask[..., None], noise, image)


def _off(image: np.ndarray, mask: np.ndarray) -> Case | None:
    """The mask moved to the corner farthest from the object; None where it would still lie on it, or there is none."""
    body, _ = object_mask(image, None)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    shape = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    best, least = mask, np.inf
    for top in (0, mask.shape[0] - shape.shape[0]):
        for left in (0, mask.shape[1] - shape.shape[1]):
            moved = np.zeros_like(mask)
            moved[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
            if (share := (moved & body).sum() / moved.sum()) < least:
                best, least = moved, share
    return (image, best) if least < 0.5 else None


def _good_pictures(reference: Reference, data: Path) -> list[np.ndarray]:
    """Good pictures of test/, which the reference has not seen; its own where there are none."""
    category, _ = pick(data, reference.category, reference.defect)
    unseen = [read_rgb(path, size=reference.side) for path in _spread(category.test_good, 30)]
    return unseen or list(reference.normals)


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]


def _shares(scores: Sequence[Scores]) -> dict[str, Any]:
    names = (*ASPECTS, "copy")
    shares = {name: round(float(np.mean([each.passed[name] for each in scores])), 3) for name in names}
    return {"pairs": len(scores), **shares, "good": round(float(np.mean([each.good for each in scores])), 3)}
