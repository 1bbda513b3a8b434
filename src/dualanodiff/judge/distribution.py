"""How far two heaps of features lie apart (KID, FID), and how clear and varied the classes of one heap are (IS).

torchmetrics computes them where it is installed and imports; else the formulas here do, from the same draws and to the
same value. Features are float (n, d), one row a picture.
"""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dualanodiff.errors import DataError
from dualanodiff.seeds import stream_seed

SUBSETS = 100
SUBSET_SIZE = 1000
SPLITS = 10


def kid(
    real: np.ndarray,
    made: np.ndarray,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
    library: bool = True,
) -> tuple[float, float]:
    """The squared kernel distance of two heaps, unbiased, x 1000; and its deviation over subsets, x 1000.

    The kernel is (x.y / d + 1)^3. Its mean over all pairs of different pictures is unbiased for any n and m of 2 and
    more: two samples of one distribution come out below 0 as often as above. The subsets are of `subset_size`
    pictures, or of half the smaller side where that is less, so that they differ on both sides; nan for sides under 4.
    """
    x, y = _checked(real, made)
    value = float(_kernel_distance(x, y))
    size = min(subset_size, len(x) // 2, len(y) // 2)
    if size < 2:
        return value * 1e3, float("nan")
    metrics = torchmetrics("kid") if library else None
    with _draws(seed, "kid"):
        if metrics is not None:
            metric = metrics.KernelInceptionDistance(_Given(x.shape[1]), subsets=subsets, subset_size=size)
            metric.update(x, real=True)
            metric.update(y, real=False)
            spread = metric.compute()[1]
        else:
            pairs = [(x[torch.randperm(len(x))[:size]], y[torch.randperm(len(y))[:size]]) for _ in range(subsets)]
            spread = torch.stack([_kernel_distance(*pair) for pair in pairs]).std(correction=0)
    return value * 1e3, float(spread) * 1e3


def fid(real: np.ndarray, made: np.ndarray, *, library: bool = True) -> float:
    """The squared Frechet distance of the two heaps' Gaussians.

    With fewer pictures than features the covariances are singular: the value then is biased upwards by far, and
    eigenvalues of their product are mostly rounding, so the singular values of the pictures' own products are used.
    """
    x, y = _checked(real, made)
    metrics = torchmetrics("fid") if library and min(len(x), len(y)) > x.shape[1] else None
    if metrics is not None:
        metric = metrics.FrechetInceptionDistance(_Given(x.shape[1])).set_dtype(torch.float64)
        metric.update(x, real=True)
        metric.update(y, real=False)
        return float(metric.compute())
    a, b = ((heap - heap.mean(0)) / (len(heap) - 1) ** 0.5 for heap in (x, y))
    # With S = A'A and T = B'B, the eigenvalues of ST are the squared singular values of AB'.
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap)


def inception_score(
    probabilities: np.ndarray, *, splits: int = SPLITS, seed: int = 0, library: bool = True
) -> tuple[float, float]:
    """Mean and deviation over splits of exp(mean KL(p(class | picture) || p(class))); 1 at least, the classes at most.

    `probabilities` (n, classes) are shuffled, and cut into `splits` or fewer. The deviation of one split is nan.
    """
    if probabilities.ndim != 2 or len(probabilities) < 2:
        msg = f"{len(probabilities)} pictures: an Inception Score needs 2 and more; generate more pairs"
        raise DataError(msg)
    p = torch.from_numpy(np.asarray(probabilities, np.float64)).clamp_min(1e-16)
    metrics = torchmetrics("inception") if library else None
    with _draws(seed, "is"):
        if metrics is not None:
            metric = metrics.InceptionScore(_Given(p.shape[1]), splits=splits)
            metric.update(p.log())  # a softmax makes probabilities of it again
            mean, spread = metric.compute()
            return float(mean), float(spread)
        chunks = (p / p.sum(1, keepdim=True))[torch.randperm(len(p))].chunk(splits)
    scores = torch.stack([(c * (c.log() - c.mean(0).log())).sum(1).mean().exp() for c in chunks])
    return float(scores.mean()), float(scores.std()) if len(scores) > 1 else float("nan")


def torchmetrics(part: str) -> Any:
    """The module torchmetrics.image.<part>, or None where it is not installed or does not import.

    Where torch-fidelity is installed torchmetrics imports it, and with it torchvision, whose compiled half may be made
    for another torch: that fails with whatever the loader says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"torchmetrics.image.{part}")
    except Exception:  # noqa: BLE001  as said above
        return None


def _kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    within = [(kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (_k(x, x), _k(y, y))]
    return within[0] + within[1] - 2 * _k(x, y).mean()


def _k(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _checked(real: np.ndarray, made: np.ndarray) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1]:
        msg = f"features of {real.shape} and {made.shape} cannot be compared; both must come from one network"
        raise DataError(msg)
    if min(len(real), len(made)) < 2:
        msg = f"{len(real)} real and {len(made)} generated pictures: a distance of distributions needs 2 and more on each side"
        raise DataError(msg)
    x, y = (torch.from_numpy(np.asarray(heap, np.float64)) for heap in (real, made))
    return x, y


@contextmanager
def _draws(seed: int, name: str) -> Iterator[None]:
    """Draws of torch's own stream, as torchmetrics makes them, from a named one; libraries keep their advice."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(stream_seed(seed, "judge", name))
        yield


class _Given(nn.Module):
    """Stands for a network where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """What was given."""
        return features
