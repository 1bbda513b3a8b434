"""Test pictures beside what an inspector says about them, to look at."""

from pathlib import Path

import numpy as np

from dualanodiff.grid import overlay, picture_grid
from dualanodiff.lift.task import GOOD, Tests

_ROWS = 8


def write_sheet(path: Path, tests: Tests, maps: np.ndarray) -> None:
    """A PNG of up to six defect pictures, evenly over the test set, and two good ones: picture, truth, map.

    Maps float (n, side, side) are shown on one scale, from black to the highest of all.
    """
    bad, good = np.flatnonzero(tests.types != GOOD), np.flatnonzero(tests.types == GOOD)
    chosen = [*_evenly(bad, _ROWS - 2), *_evenly(good, 2)]
    top = float(maps.max()) or 1.0
    rows = []
    for i in chosen:
        level = np.round(maps[i].astype(np.float64) / top * 255).astype(np.uint8)
        rows.append([tests.images[i], overlay(tests.images[i], tests.masks[i]), np.repeat(level[..., None], 3, axis=2)])
    captions = [f"{tests.paths[i].parent.name}/{tests.paths[i].name}" for i in chosen]
    picture_grid(rows, ["test picture", "its real mask", "anomaly map"], path, captions=captions)


def _evenly(places: np.ndarray, most: int) -> list[int]:
    return [
        int(places[i]) for i in np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
    ]
