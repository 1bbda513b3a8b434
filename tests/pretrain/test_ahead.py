"""Drawing ahead: the same pictures in the same order, whoever draws them."""

import os
from functools import partial

import numpy as np
import torch

from dualanodiff.pretrain.ahead import _loader, drawn_ahead
from dualanodiff.seeds import numpy_stream


def draw(index: int, scale: float = 1.0) -> tuple[int, np.ndarray, str, int]:
    return index, scale * numpy_stream(0, "ahead", index).random((2, 3)), f"picture {index}", os.getpid()


def test_processes_of_their_own_draw_the_same_in_the_same_order() -> None:
    indices = range(3, 20, 2)
    here = list(drawn_ahead(partial(draw, scale=2.0), indices, torch.device("cpu")))
    there = list(_loader(partial(draw, scale=2.0), indices, 2))
    assert [made[0] for made in there] == list(indices)
    for one, other in zip(here, there, strict=True):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])
        assert one[2] == other[2]
    assert {made[3] for made in here} == {os.getpid()}
    assert os.getpid() not in {made[3] for made in there}
