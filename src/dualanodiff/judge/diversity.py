"""IC-LPIPS: how different the generated pictures are that lie nearest to the same shot.

Each picture belongs to its nearest shot; the value is the mean distance of two pictures of a cluster, averaged over
the clusters. LPIPS is a squared Euclidean distance of embeddings (`judge/backbones.py`), so the mean over all pairs
follows from two sums, and nothing but the shots' embeddings and the sums is kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualanodiff.errors import DataError


@dataclass(frozen=True)
class Diversity:
    """What the clusters are like."""

    value: float
    """Mean over clusters of the mean distance of two pictures; nan where no cluster has two."""
    spread: float
    """Deviation over clusters; nan under two clusters."""
    clusters: tuple[int, ...]
    """Pictures nearest to each shot; those of fewer than two do not count in `value`."""
    nearest: tuple[int, ...]
    """The shot of each picture."""
    distances: tuple[float, ...]
    """How far each picture is from its shot."""


def cluster_diversity(made: Iterable[Tensor], shots: Tensor) -> Diversity:
    """Diversity of embeddings that come in batches (b, D), around those of the shots (k, D).

    With differences e to the shot, the mean of |e_i - e_j|^2 over i < j of n is 2 (n sum |e|^2 - |sum e|^2) / (n (n - 1)).
    Raises DataError where there is no shot or no picture.
    """
    if not len(shots):
        msg = "no shots to cluster the generated pictures around; give real pictures with --real and --shots"
        raise DataError(msg)
    sums = torch.zeros_like(shots)
    squares = torch.zeros(len(shots), dtype=torch.float64)
    nearest: list[int] = []
    distances: list[float] = []
    sizes = shots.square().sum(1)
    for batch in made:
        chosen = (sizes - 2 * batch @ shots.T).argmin(1)
        away = batch - shots[chosen]
        apart = away.square().sum(1).double()
        sums.index_add_(0, chosen, away)
        squares.index_add_(0, chosen, apart)
        nearest += chosen.tolist()
        distances += apart.tolist()
    if not nearest:
        msg = "no generated picture to measure the diversity of"
        raise DataError(msg)
    clusters = torch.bincount(torch.tensor(nearest), minlength=len(shots))
    n = clusters.double()
    means = (2 * (n * squares - sums.double().square().sum(1)) / (n * (n - 1)))[clusters > 1]
    return Diversity(
        value=float(means.clamp_min(0).mean()),
        spread=float(means.std()) if len(means) > 1 else float("nan"),
        clusters=tuple(clusters.tolist()),
        nearest=tuple(nearest),
        distances=tuple(distances),
    )
