"""A product of 64 px that scores can be tried on: a speckled disc on white, and dark ragged spots on it."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from dualanodiff.images import write_png
from dualanodiff.judge.reference import Reference, read_reference

SIDE = 64


def good_picture(seed: int) -> np.ndarray:
    """A disc that lies a little elsewhere, and is speckled otherwise, in each picture."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2 - random.uniform(-1, 1, (2, 1, 1))
    speckles = ndimage.gaussian_filter(random.normal(0, 18, (SIDE, SIDE)), 0.8)
    body = np.array([120, 140, 160]) + speckles[..., None]
    white = 245 + random.normal(0, 1.5, (SIDE, SIDE, 1))
    return np.where((np.hypot(rows, columns) < 24)[..., None], body, white).clip(0, 255).astype(np.uint8)


def spot(seed: int) -> np.ndarray:
    """Where a defect lies: a ragged blob on the disc, another for each seed."""
    random = np.random.default_rng(1000 + seed)
    angle, radius = random.uniform(0, 2 * np.pi), random.uniform(2, 14)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    distance = np.hypot(rows - radius * np.sin(angle), columns - radius * np.cos(angle))
    rag = ndimage.gaussian_filter(random.normal(0, 12, (SIDE, SIDE)), 1.5)
    return (distance + rag < random.uniform(5, 7)) & (np.hypot(rows, columns) < 22)


def defect_picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a dark ragged spot, and its mask."""
    random, mask = np.random.default_rng(2000 + seed), spot(seed)
    rgb = good_picture(500 + seed)
    rust = np.array([70, 35, 20]) + ndimage.gaussian_filter(random.normal(0, 60, (SIDE, SIDE)), 1)[..., None]
    return np.where(mask[..., None], rust, rgb).clip(0, 255).astype(np.uint8), mask


def write_toy(folder: Path, *, normals: int = 16, defects: int = 18) -> Path:
    """The product in the MVTec layout; its defect is called rust."""
    for number in range(normals):
        write_png(folder / "train" / "good" / f"{number:03}.png", good_picture(number))
    for number in range(3):
        write_png(folder / "test" / "good" / f"{number:03}.png", good_picture(100 + number))
    for number in range(defects):
        rgb, mask = defect_picture(number)
        write_png(folder / "test" / "rust" / f"{number:03}.png", rgb)
        write_png(folder / "ground_truth" / "rust" / f"{number:03}_mask.png", mask)
    return folder


def read_toy(folder: Path) -> Reference:
    """The reference of `write_toy`, six shots of eighteen."""
    return read_reference(folder, defect="rust", side=SIDE)
