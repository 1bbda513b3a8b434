import numpy as np
import pytest
from scipy.linalg import sqrtm

from dualanodiff.errors import DataError
from dualanodiff.judge.distribution import fid, inception_score, kid

RANDOM = np.random.default_rng(3)


def heap(count, width=5, shift=0.0):
    return RANDOM.normal(shift, 1, (count, width)).astype(np.float32)


def kernel(a, b):
    return (float(np.dot(a.astype(float), b.astype(float))) / len(a) + 1) ** 3


def kid_by_hand(x, y):
    """The definition, one pair of pictures after the other."""
    same_x = np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
    same_y = np.mean([kernel(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j])
    return same_x + same_y - 2 * np.mean([kernel(a, b) for a in x for b in y])


def fid_by_hand(x, y):
    s, t = (np.cov(side.astype(float), rowvar=False) for side in (x, y))
    root = sqrtm(s @ t).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root))


def is_by_hand(p):
    mean = p.mean(0)
    return float(np.exp(np.mean([sum(row * np.log(row / mean)) for row in p])))


@pytest.mark.parametrize(("n", "m"), [(2, 3), (6, 9), (12, 5)])
def test_kid_is_the_definition_for_any_numbers_of_pictures(n, m):
    real, made = heap(n), heap(m, shift=0.5)
    assert kid(real, made)[0] == pytest.approx(1e3 * kid_by_hand(real, made), rel=1e-5)


def test_kid_of_one_distribution_is_around_zero_however_few_there_are():
    values = [kid(heap(5), heap(7), subsets=1, library=False)[0] for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5
    assert min(values) < 0 < max(values)


def test_kid_grows_with_the_distance():
    real = heap(40)
    near, far = (kid(real, heap(40, shift=shift), library=False)[0] for shift in (0.2, 1.0))
    assert near < far


def test_the_spread_of_kid_is_that_of_subsets():
    real, made = heap(30), heap(30)
    assert kid(real, made, subset_size=4)[1] > kid(real, made, subset_size=15)[1] > 0
    assert kid(real, made)[1] == kid(real, made)[1]
    assert np.isnan(kid(heap(3), heap(9))[1])


def test_fid_is_the_definition():
    real, made = heap(60), heap(50, shift=0.5)
    assert fid(real, made, library=False) == pytest.approx(fid_by_hand(real, made), rel=1e-5)
    assert fid(real, real, library=False) == pytest.approx(0, abs=1e-6)


def test_fid_of_fewer_pictures_than_features_is_the_definition_too():
    real, made = heap(4, 9), heap(6, 9)
    assert fid(real, made) == pytest.approx(fid_by_hand(real, made), rel=1e-3)


def test_the_inception_score_is_the_definition():
    p = RANDOM.dirichlet(np.ones(6), 40)
    assert inception_score(p, splits=1, library=False)[0] == pytest.approx(is_by_hand(p))
    assert inception_score(p)[0] < inception_score(p, splits=1)[0] * 1.5


def test_the_inception_score_goes_from_one_to_the_number_of_classes():
    assert inception_score(np.full((50, 4), 0.25), library=False)[0] == pytest.approx(1)
    sure = np.tile(np.eye(4), (25, 1))
    assert inception_score(sure, splits=1, library=False)[0] == pytest.approx(4)
    mean, spread = inception_score(sure, splits=10, library=False)
    assert 3 < mean < 4 and spread > 0
    assert np.isnan(inception_score(sure, splits=1, library=False)[1])


def test_torchmetrics_computes_the_same():
    for part in ("kid", "fid", "inception"):
        pytest.importorskip(f"torchmetrics.image.{part}", exc_type=ImportError)
    real, made, p = heap(40), heap(30, shift=0.5), RANDOM.dirichlet(np.ones(6), 45)
    assert kid(real, made, library=True) == pytest.approx(kid(real, made, library=False), rel=1e-4)
    assert kid(real, made, subset_size=8) == pytest.approx(kid(real, made, subset_size=8, library=False), rel=1e-4)
    assert fid(real, made, library=True) == pytest.approx(fid(real, made, library=False), rel=1e-4)
    assert inception_score(p, library=True) == pytest.approx(inception_score(p, library=False), rel=1e-4)


def test_torchmetrics_estimates_the_same_kid():
    module = pytest.importorskip("torchmetrics.image.kid", exc_type=ImportError)
    import torch

    real, made = heap(200), heap(200, shift=0.5)
    identity = torch.nn.Identity()
    metric = module.KernelInceptionDistance(identity, subsets=60, subset_size=100)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(made), real=False)
    mean, spread = (1e3 * float(number) for number in metric.compute())
    assert kid(real, made)[0] == pytest.approx(mean, abs=4 * spread / 60**0.5)


def test_too_few_pictures_are_refused():
    with pytest.raises(DataError, match="1 real and 4 generated pictures: a distance of distributions needs 2"):
        kid(heap(1), heap(4))
    with pytest.raises(DataError, match="1 pictures: an Inception Score needs 2"):
        inception_score(np.ones((1, 3)))


def test_features_of_two_networks_are_refused():
    with pytest.raises(DataError, match="both must come from one network"):
        fid(heap(4, 3), heap(4, 5))
