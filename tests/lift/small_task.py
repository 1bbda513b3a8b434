"""A tiny product, tiny inspectors, and sets written as the generators do."""

from pathlib import Path

import numpy as np

from dualanodiff.images import write_png
from dualanodiff.judge.source import Source, open_source
from dualanodiff.lift.training import Plan
from dualanodiff.runs import file_record, make_lineage
from dualanodiff.storage import write_json

PLAN = Plan(
    side=32, widths=(8, 16, 16), steps=60, batch=8, resnet_width=4, resnet_steps=40, resnet_batch=8, resnet_rate=1e-2
)
QUICK = Plan(side=32, widths=(4, 4), steps=2, batch=4, resnet_width=2, resnet_steps=2, resnet_batch=4)


def make_pairs(count, seed=0, color=(90, 10, 10), size=32):
    """Pictures and masks of the kind that the `product` fixture draws."""
    random = np.random.default_rng((seed, 1))
    images = random.integers(180, 220, (count, size, size, 3), np.uint8)
    masks = np.zeros((count, size, size), bool)
    for image, mask in zip(images, masks, strict=True):
        top, left = random.integers(0, size // 2, 2)
        mask[top : top + size // 3, left : left + size // 3] = True
        image[mask] = color
    return images, masks


def write_source(folder: Path, images, masks, shots=(), defect="scratch") -> Source:
    """A tree of image/ and mask/ with the lineage of `shots`; none where that is None."""
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        write_png(folder / "image" / f"{number:03}.png", image)
        write_png(folder / "mask" / f"{number:03}.png", mask)
    if shots is not None:
        records = [file_record(path, "shot") for path in shots]
        lineage = make_lineage(base="none", seed=0, files=records, category="nut", defect=defect)
        write_json(folder / "lineage.json", lineage)
    return open_source(folder)
