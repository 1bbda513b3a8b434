"""How well anomaly maps find defects: AUROC, AP and F1-max by pixel and by picture, and PRO; all 0..1, higher is better."""

from importlib import import_module
from typing import Any

import numpy as np
from scipy import ndimage

from dualanodiff.errors import SettingsError

METRICS = ("pixel_ap", "pixel_auroc", "pixel_f1", "pro", "image_ap", "image_auroc", "image_f1")
IMAGE_WINDOW = 21
PRO_LIMIT = 0.3


def inspector_scores(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Every metric of METRICS for maps float (n, h, w) against masks bool (n, h, w), empty where a picture is normal.

    A picture is a defect where its mask has a pixel.
    """
    bad = np.asarray(masks.any(axis=(1, 2)))
    return {
        **{f"pixel_{name}": value for name, value in ranking_scores(maps.ravel(), masks.ravel()).items()},
        "pro": per_region_overlap(maps, masks),
        **{f"image_{name}": value for name, value in ranking_scores(image_scores(maps), bad).items()},
    }


def image_scores(maps: np.ndarray, window: int = IMAGE_WINDOW) -> np.ndarray:
    """One number (n,) a picture: the highest mean of its map float (n, h, w) over a window of 21 x 21 pixels.

    Beyond the border counts as 0, as in DRAEM.
    """
    means = [ndimage.uniform_filter(np.asarray(m, dtype=np.float64), window, mode="constant") for m in maps]
    return np.array([mean.max() for mean in means])


def ranking_scores(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """ap, auroc and f1 (the best over all thresholds) of scores (n,) against truth bool (n,), by scikit-learn."""
    metrics = _sklearn_metrics()
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    return {
        "ap": float(-np.sum(np.diff(recall) * precision[:-1])),
        "auroc": float(metrics.roc_auc_score(truth, scores)),
        "f1": float(best),
    }


def per_region_overlap(maps: np.ndarray, masks: np.ndarray, limit: float = PRO_LIMIT) -> float:
    """PRO: the mean share found of each connected defect, averaged over false positive rates 0..`limit`.

    Maps float (n, h, w), masks bool (n, h, w) with both kinds of pixels. The curve is exact: one point for every
    value that occurs in the maps, straight lines between them.
    """
    weights = np.concatenate([_region_weights(mask).ravel() for mask in masks])
    regions = round(float(weights.sum()))
    truth = masks.ravel()
    order = np.argsort(-maps.ravel(), kind="stable")
    values = maps.ravel()[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    overlap = np.concatenate([[0.0], np.cumsum(weights[order])[ends] / regions])
    false = np.concatenate([[0.0], np.cumsum(~truth[order])[ends] / (~truth).sum()])
    inside = false <= limit
    at_limit = np.interp(limit, false, overlap)
    x, y = np.append(false[inside], limit), np.append(overlap[inside], at_limit)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2 / limit)


def _region_weights(mask: np.ndarray) -> np.ndarray:
    """For each defect pixel one over the size of its region, eight neighbours connecting; 0 elsewhere."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    count = ndimage.label(mask, structure=np.ones((3, 3)), output=labels)
    sizes = np.bincount(labels.ravel(), minlength=int(count) + 1).astype(np.float64)  # pyright: ignore[reportArgumentType]
    sizes[0] = np.inf
    return 1 / sizes[labels]


def _sklearn_metrics() -> Any:
    try:
        return import_module("sklearn.metrics")
    except ImportError:
        msg = "scikit-learn is not installed; `pip install dualanodiff[eval]` brings what measuring needs"
        raise SettingsError(msg) from None
