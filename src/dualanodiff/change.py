"""Does a generated picture show the defect that its mask claims? Judged against the product's good pictures.

The change map of a picture says how far each pixel is from every good picture's pixels at about that place, less how
far good pictures are from one another there (or any mask on a part would seem right against a plain ground). Where the
mask is right, the map is high inside it and low outside. No threshold is involved: the agreement is the area under
the ROC curve of the map against the mask, 0.5 for a mask that has nothing to do with the picture, 1 for a perfect one.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab
from dualanodiff.seeds import numpy_stream

_REACH = 3
"""A good pixel may lie this many 1/128 of the side away: parts are never placed alike."""
_COMPARED = 6
"""Good pictures that are compared with all others to learn how much they differ."""
_GRID, _REMEMBERED = 64, 6000
"""Cells of descriptors a side, and descriptors remembered: together 0.1 s a picture."""


def change_maps(pictures: Sequence[np.ndarray], normals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Change map (h, w), in Lab units, of each uint8 (h, w, 3); `normals` are two or more good ones of the same size."""
    chosen = np.linspace(0, len(normals) - 1, min(_COMPARED, len(normals))).round().astype(int)
    usual = np.mean([distance_map(normals[i], [*normals[:i], *normals[i + 1 :]]) for i in chosen], axis=0)
    smooth = ndimage.uniform_filter(usual, max(1, round(9 * usual.shape[0] / 128)))
    return [distance_map(rgb, normals) - smooth for rgb in pictures]


def distance_map(rgb: np.ndarray, normals: Sequence[np.ndarray]) -> np.ndarray:
    """Distance (h, w), in Lab units, of each pixel of uint8 (h, w, 3) from the nearest good pixel around its place."""
    scale = rgb.shape[0] / 128
    reach = max(1, round(_REACH * scale))
    blur = (0.6 * scale, 0.6 * scale, 0)
    lab = ndimage.gaussian_filter(to_lab(rgb).astype(np.float32), blur)
    nearest = np.full(rgb.shape[:2], np.inf, np.float32)
    for normal in normals:
        good = ndimage.gaussian_filter(to_lab(normal).astype(np.float32), blur)
        padded = np.pad(good, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        for down in range(0, 2 * reach + 1, max(1, reach // 3)):
            for across in range(0, 2 * reach + 1, max(1, reach // 3)):
                window = padded[down : down + rgb.shape[0], across : across + rgb.shape[1]]
                np.minimum(nearest, np.square(lab - window).sum(axis=-1), out=nearest)
    return np.sqrt(nearest)


def agreement(change: np.ndarray, mask: np.ndarray) -> float:
    """Area under the ROC curve of a change map (h, w) against a mask bool (h, w); 0.5 for an empty or a full mask.

    >>> agreement(np.array([[0.0, 1.0], [2.0, 9.0]]), np.array([[False, False], [False, True]]))
    1.0
    """
    inside = int(mask.sum())
    outside = mask.size - inside
    if inside == 0 or outside == 0:
        return 0.5
    # The rank-sum form, ties sharing their mean rank.
    _, places, counts = np.unique(change.ravel(), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    return float((ranks[mask.ravel()].sum() - inside * (inside + 1) / 2) / (inside * outside))


def contrast(change: np.ndarray, mask: np.ndarray) -> float:
    """Mean change inside the mask minus the 90th percentile outside it, in Lab units; above 0 the defect stands out."""
    if not mask.any() or mask.all():
        return 0.0
    return float(change[mask].mean() - np.percentile(change[~mask], 90))


class GoodPictures:
    """What a product's good pictures look like around each place, kept as a memory of local descriptors.

    Needs no registration: a part may be turned, and a texture may differ from picture to picture, as long as the good
    pictures show such turns and textures. A descriptor holds colours and edges at several scales; how far the nearest
    one in the memory lies says how new a place is. `place` makes descriptors far from one another in the picture
    differ as well, which helps where parts always lie alike. Every fourth good picture is not remembered but measured:
    change 1 is what one pixel in a hundred of them reaches.
    """

    def __init__(self, normals: Sequence[np.ndarray], *, place: float = 0.0) -> None:
        remembered = [_describe(rgb) for i, rgb in enumerate(normals) if i % 4]
        self.place = place
        self._scale = np.maximum(np.concatenate([each.reshape(-1, each.shape[-1]) for each in remembered]).std(0), 1.0)
        cells = np.concatenate([self._with_places(each) for each in remembered])
        chosen = numpy_stream(0, "good pictures").permutation(len(cells))[:_REMEMBERED]
        self._memory, self._unit = Memory(cells[chosen]), 1.0
        self.spare = [self.change(rgb) for rgb in normals[::4]]
        """Change maps of the good pictures that are not remembered."""
        self._unit = max(float(np.percentile(np.array(self.spare), 99)), 1e-3)
        self.spare = [change / self._unit for change in self.spare]

    def describe(self, rgb: np.ndarray) -> np.ndarray:
        """Descriptors (g, g, d) of a picture uint8 (s, s, 3), on a grid of about 64 x 64, in spreads of the good ones."""
        return (_describe(rgb) / self._scale).astype(np.float32)

    def change(self, rgb: np.ndarray) -> np.ndarray:
        """Change map float32 (s, s) of a picture uint8 (s, s, 3): 0 as the good ones, 1 as few of their places."""
        described = _describe(rgb)
        grid = described.shape[0]
        distance = self._memory.distances(self._with_places(described)).reshape(grid, grid)
        larger = ndimage.zoom(distance, rgb.shape[0] / grid, order=1, mode="nearest", grid_mode=True)
        return np.asarray(larger) / self._unit

    def _with_places(self, described: np.ndarray) -> np.ndarray:
        side = described.shape[0]
        places = np.moveaxis(np.indices((side, side)), 0, -1) * (self.place / side)
        return np.concatenate([described / self._scale, places], axis=-1).reshape(side * side, -1).astype(np.float32)


class Memory:
    """Vectors (n, d), asked for the distance of the nearest."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors, self._squares = vectors, np.square(vectors).sum(1)

    def distances(self, queries: np.ndarray) -> np.ndarray:
        """Euclidean distance of each query (m, d) from the nearest vector."""
        found = np.empty(len(queries), np.float32)
        # In pieces that stay in the processor's cache.
        for begin in range(0, len(queries), 512):
            some = queries[begin : begin + 512]
            found[begin : begin + 512] = (self._squares - 2 * some @ self._vectors.T).min(1) + np.square(some).sum(1)
        return np.sqrt(np.maximum(found, 0))


def cells_of(mask: np.ndarray, grid: int) -> np.ndarray:
    """The cells bool (grid, grid) of descriptors that a mask bool (s, s) touches; no mark is too small to touch one."""
    rows, columns = np.nonzero(mask)
    cells = np.zeros((grid, grid), dtype=bool)
    cells[rows * grid // mask.shape[0], columns * grid // mask.shape[1]] = True
    return cells


def _describe(rgb: np.ndarray) -> np.ndarray:
    """Colours, edges and roughness at several scales on a grid of about 64 x 64, float32 (g, g, 26)."""
    side = rgb.shape[0]
    unit, step = side / 128, max(1, side // _GRID)
    lab = to_lab(rgb).astype(np.float32)
    light = lab[..., 0]
    parts = [ndimage.gaussian_filter(lab, (s * unit, s * unit, 0), truncate=3) for s in (0.7, 2, 4, 8)]
    for size in (1, 2):
        edges = [
            ndimage.gaussian_filter(light, size * unit, order=order, truncate=3) * size * unit  # type: ignore[arg-type]
            for order in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
        ]
        parts.append(np.stack(edges, axis=-1) * 1.5)
    for size in (2, 4):
        mean, square = (ndimage.gaussian_filter(x, size * unit, truncate=3) for x in (light, light * light))
        parts.append(np.sqrt(np.maximum(square - mean * mean, 0))[..., None])
    return np.concatenate(parts, axis=-1)[step // 2 :: step, step // 2 :: step]
