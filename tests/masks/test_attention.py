"""Masks from cross-attention maps."""

import numpy as np
import pytest
import torch

from dualanodiff.errors import ModelError
from dualanodiff.masks.attention import (
    MEAN_GREY,
    AttentionRecorder,
    attention_mask,
    merge_maps,
    part_rows,
    to_grey,
    to_plane,
)
from dualanodiff.masks.key import overlap
from masks.drawings import SHAPE, disc


def test_a_place_that_is_looked_at_becomes_the_mask():
    mask = disc(32, 48, 12)
    layers = [np.where(mask, 0.08, 0.01)[::step, ::step] for step in (4, 2, 8)]
    result = attention_mask(layers, SHAPE)
    assert overlap(result.mask, mask) > 0.75
    assert result.source == "attention"
    assert result.score > 0.5


def test_the_scale_of_the_maps_does_not_matter():
    layers = [np.where(disc(32, 48, 12), 8.0, 1.0)]
    found = attention_mask(layers, SHAPE).mask
    assert np.array_equal(found, attention_mask([layers[0] * 1e-4], SHAPE).mask)
    assert np.array_equal(found, attention_mask([to_grey(layers[0])], SHAPE).mask)


@pytest.mark.parametrize("noise", [0, 0.1])
def test_a_map_that_points_nowhere_is_empty(noise):
    flat = 0.05 * (1 + noise * np.random.default_rng(0).normal(size=(16, 24)))
    for layers in ([flat], [to_grey(flat)], [np.zeros((16, 24))]):
        result = attention_mask(layers, SHAPE)
        assert result.empty
        assert result.mask.shape == SHAPE


def test_a_threshold_that_is_given_is_used():
    ramp = np.tile(np.linspace(1, 10, 96), (64, 1))
    assert attention_mask([ramp], SHAPE, 0.9).area < attention_mask([ramp], SHAPE, 0.2).area
    assert attention_mask([ramp], SHAPE, 0.9).threshold == 0.9


def test_small_pieces_do_not_count():
    layer = np.ones(SHAPE)
    layer[5, 5:10], layer[40:60, 40:60] = 9, 9
    assert attention_mask([layer], SHAPE, minimum_area=10).mask.sum() == 400
    assert attention_mask([layer], SHAPE, minimum_area=4).mask.sum() == 405


def test_maps_are_averaged_at_the_largest_size():
    merged = merge_maps([np.full((2, 3), 1.0), np.full((8, 12), 3.0)])
    assert merged.shape == (8, 12)
    assert np.allclose(merged, 2)


def test_a_stored_map_is_never_stretched():
    assert (to_grey(np.full((4, 4), 1e-5)) == MEAN_GREY).all()
    assert to_grey(np.zeros((4, 4))).max() == 0


def test_places_take_the_proportions_of_the_picture():
    assert to_plane(np.arange(6 * 9), (64, 96)).shape == (6, 9)


def queries(rows: int, looked: slice, words: int = 5, word: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Two heads, 8 x 12 places; those of `looked` attend to one word, the others to the first."""
    key = torch.eye(words).expand(rows, 2, words, words) * 10
    query = torch.zeros(rows, 2, 96, words)
    query[..., 0] = 1
    query[:, :, looked] = 0
    query[:, :, looked, word] = 1
    return query, key


def test_the_recorder_computes_the_attention_to_the_parts_own_words():
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 24, 4, generator=random), torch.randn(2, 2, 7, 4, generator=random)
    recorder = AttentionRecorder([3, 4])
    recorder.add("a", query, key)
    recorder.add("a", query, key)
    expected = torch.zeros(24)
    for head in range(2):
        expected += (query[1, head] @ key[1, head].T / 2).softmax(-1)[:, 3:5].sum(-1)
    assert np.array_equal(recorder.maps(1, (4, 6))[0], to_grey(expected.view(4, 6).numpy()))


@pytest.mark.parametrize("backgrounds", [0, 1, 2])
@pytest.mark.parametrize("guided", [False, True])
def test_only_the_part_branch_under_its_own_prompt_is_recorded(guided, backgrounds):
    pairs = 2
    branch = 2 * pairs if guided else pairs
    names = [f"image{i}" for i in range(branch)] + [f"part{i}" for i in range(branch)] + ["back"] * backgrounds
    kept = part_rows(torch.arange(len(names)), pairs)
    assert [names[i] for i in kept] == [f"part{i}" for i in range(branch - pairs, branch)]


def test_each_pair_has_its_own_map():
    recorder = AttentionRecorder([2])
    query, key = queries(4, slice(0, 0))
    query[2, :, :24] = queries(1, slice(0, 24))[0][0, :, :24]
    query[3, :, 72:] = queries(1, slice(72, 96))[0][0, :, 72:]
    recorder.add("a", query, key)
    first, second = recorder.maps(2, SHAPE)
    assert first.dtype == np.uint8
    assert first.shape == SHAPE
    top, bottom = attention_mask([first], SHAPE).mask, attention_mask([second], SHAPE).mask
    assert top[:12].all() and not top[24:].any()
    assert bottom[52:].all() and not bottom[:40].any()


def test_a_part_prompt_without_words_is_said():
    with pytest.raises(ModelError, match=r"the part prompt has no words of its own to look at; set model\.prompt_part"):
        AttentionRecorder([])


def test_a_base_without_cross_attention_is_said():
    with pytest.raises(ModelError, match="no attention was recorded; use a base with cross-attention"):
        AttentionRecorder([1]).maps(1, SHAPE)
