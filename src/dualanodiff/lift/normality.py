"""An inspector that has seen no defect, drawn or real: the distance of every patch to the nearest normal patches.

Nothing is trained. A patch is described by 15 numbers: at three blurs its colour, the strength of the edges there and
how much brighter or darker it is than its surroundings. They are compared with those of normal pictures.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from dualanodiff.seeds import numpy_stream

_GRID = 64
_BANK = 4000
_NEIGHBOURS = 3
_BLURS = (1.0, 2.0, 4.0)


def normality_maps(normals: np.ndarray, images: np.ndarray, seed: int) -> np.ndarray:
    """Anomaly maps float32 (n, side, side), 0 and more, of pictures uint8 (n, side, side, 3).

    `normals` uint8 (m, side, side, 3); the seed draws which of their patches are remembered.
    """
    side = images.shape[1]
    bank = np.concatenate([_describe(image) for image in normals])
    centre, spread = bank.mean(axis=0), bank.std(axis=0) + 1e-6
    kept = numpy_stream(seed, "normality").choice(len(bank), size=min(_BANK, len(bank)), replace=False)
    tree = KDTree((bank[kept] - centre) / spread)
    maps = []
    for image in images:
        distances, _ = tree.query((_describe(image) - centre) / spread, k=min(_NEIGHBOURS, len(kept)))
        cells = np.asarray(distances).reshape(min(_GRID, side), min(_GRID, side), -1).mean(axis=-1)
        maps.append(np.asarray(ndimage.zoom(cells, side / len(cells), order=1, grid_mode=True, mode="nearest")))
    return np.stack(maps).astype(np.float32)


def _describe(image: np.ndarray) -> np.ndarray:
    """Float32 (cells, 15) of a picture uint8 (side, side, 3), row by row of a grid of at most 64 x 64 cells."""
    # Scales of a picture of 128 pixels, so that other sides describe the same things.
    unit = image.shape[0] / 128
    rgb = image.astype(np.float32) / 255
    grey = rgb.mean(axis=2)
    layers: list[np.ndarray] = []
    for blur in _BLURS:
        layers += [ndimage.gaussian_filter(rgb[..., channel], blur * unit) for channel in range(3)]
        layers.append(ndimage.gaussian_gradient_magnitude(grey, blur * unit))
        layers.append(ndimage.gaussian_filter(grey, blur * unit) - ndimage.gaussian_filter(grey, 3 * blur * unit))
    cells = min(_GRID, image.shape[0])
    return np.stack([_shrink(layer, cells).ravel() for layer in layers], axis=1)


def _shrink(layer: np.ndarray, cells: int) -> np.ndarray:
    """Means over cells of equal size; the side is a multiple of the number of cells."""
    step = layer.shape[0] // cells
    return layer[: cells * step, : cells * step].reshape(cells, step, cells, step).mean(axis=(1, 3))
