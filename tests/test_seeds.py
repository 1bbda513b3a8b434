"""Random streams depend on the seed and their name, and on nothing else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualanodiff.seeds import numpy_stream, stream_seed, torch_stream


def test_a_stream_is_the_same_on_every_machine():
    # Written down once; another number here would change everybody's pictures.
    assert stream_seed(0, "pair", 7) == 1395670986666713319
    assert numpy_stream(0, "pair", 7).integers(1000) == numpy_stream(0, "pair", 7).integers(1000)


def test_a_stream_ignores_what_was_drawn_before():
    expected = torch.randn(3, generator=torch_stream(1, "noise"))
    torch.manual_seed(5)
    torch.randn(100)
    torch_stream(1, "other")
    assert torch.equal(torch.randn(3, generator=torch_stream(1, "noise")), expected)


def test_drawing_from_a_stream_leaves_the_global_state_alone():
    torch.manual_seed(5)
    expected = torch.randn(1)
    torch.manual_seed(5)
    torch.randn(10, generator=torch_stream(0, "noise"))
    assert torch.equal(torch.randn(1), expected)


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.text(max_size=8))
def test_different_seeds_or_indices_give_different_streams(first, second, name):
    assert 0 <= stream_seed(first, name) < 2**63
    assert (stream_seed(first, name) == stream_seed(second, name)) == (first == second)
    assert (stream_seed(0, name, first) == stream_seed(0, name, second)) == (first == second)
