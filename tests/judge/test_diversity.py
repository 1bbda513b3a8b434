import numpy as np
import pytest
import torch

from dualanodiff.errors import DataError
from dualanodiff.judge.diversity import cluster_diversity


def draw(count, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (count, width)).astype(np.float32))


def by_hand(made, shots):
    """The definition, one pair after the other."""
    nearest = [min(range(len(shots)), key=lambda k: float(((e - shots[k]) ** 2).sum())) for e in made]
    means = []
    for k in range(len(shots)):
        members = [made[i] for i, shot in enumerate(nearest) if shot == k]
        apart = [float(((a - b) ** 2).sum()) for i, a in enumerate(members) for b in members[:i]]
        if apart:
            means.append(np.mean(apart))
    return nearest, means


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_it_is_the_definition_whatever_the_batches(batch):
    made, shots = draw(40), draw(4, seed=1)
    nearest, means = by_hand(made, shots)
    found = cluster_diversity(made.split(batch), shots)
    assert list(found.nearest) == nearest
    assert found.value == pytest.approx(np.mean(means), rel=1e-5)
    assert found.spread == pytest.approx(np.std(means, ddof=1), rel=1e-5)
    assert sum(found.clusters) == 40
    assert found.distances[5] == pytest.approx(float(((made[5] - shots[nearest[5]]) ** 2).sum()), rel=1e-4)


def test_copies_of_one_picture_have_no_diversity():
    made = draw(1).repeat(9, 1)
    assert cluster_diversity([made], draw(3, seed=1)).value == pytest.approx(0, abs=1e-6)


def test_a_constant_far_from_zero_costs_no_precision():
    made, shots = draw(20) + 300, draw(3, seed=1) + 300
    assert cluster_diversity([made], shots).value == pytest.approx(np.mean(by_hand(made, shots)[1]), rel=1e-2)


def test_clusters_of_one_picture_do_not_count():
    shots = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    found = cluster_diversity([torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 0.0]])], shots)
    assert (found.clusters, found.value) == ((2, 1), pytest.approx(4.0))
    assert np.isnan(found.spread)
    assert np.isnan(cluster_diversity([shots], shots).value)


def test_nothing_to_measure_is_refused():
    with pytest.raises(DataError, match="no shots to cluster"):
        cluster_diversity([draw(2)], draw(0))
    with pytest.raises(DataError, match="no generated picture"):
        cluster_diversity([], draw(2))
