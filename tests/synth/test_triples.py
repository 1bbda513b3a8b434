"""What pre-training relies on: exact masks, visible defects on the part, variety, the same picture for the same seed."""

import numpy as np
import pytest

from dualanodiff.seeds import numpy_stream
from dualanodiff.synth.defects import DEFECTS
from dualanodiff.synth.objects import SHAPES
from dualanodiff.synth.photograph import NOTICED, VISIBLE, grown
from dualanodiff.synth.product import draw_part_on_ground, draw_triple

COUNT = 250


@pytest.fixture(scope="module")
def triples():
    generator = numpy_stream(0, "test", "triples")
    return [draw_triple(generator, 64) for _ in range(COUNT)]


def change(triple):
    return np.abs(triple.image.astype(int) - triple.normal)


def test_a_seed_repeats_a_triple():
    first, again, other = (draw_triple(numpy_stream(seed, "test"), 64) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert first.caption == again.caption
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [32, 96, 128, 256])
def test_a_triple_can_be_drawn_at_any_size(size):
    triple = draw_triple(numpy_stream(3, "test"), size)
    assert triple.image.shape == triple.normal.shape == (size, size, 3)
    assert triple.mask.shape == triple.object_mask.shape == (size, size)
    assert (triple.image.dtype, triple.normal.dtype, triple.mask.dtype, triple.object_mask.dtype) == (
        "u1",
        "u1",
        "?",
        "?",
    )


def test_a_picture_looks_the_same_at_every_size():
    small, large = (draw_triple(numpy_stream(5, "test"), size) for size in (64, 256))
    shrunk = large.normal.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert small.caption == large.caption
    assert np.abs(shrunk - small.normal).mean() < 12


def test_nothing_changes_outside_the_mask_but_a_faint_collar(triples):
    for triple in triples:
        collar = grown(grown(triple.mask))
        assert change(triple)[~triple.mask].max() <= NOTICED
        assert change(triple)[~collar].max(initial=0) == 0


def test_every_defect_can_be_seen(triples):
    assert min(change(triple)[triple.mask].mean() for triple in triples) >= VISIBLE


def test_the_mask_holds_little_that_did_not_change(triples):
    unchanged = [1 - (change(t).max(axis=2) > NOTICED)[t.mask].mean() for t in triples]
    assert np.mean(unchanged) < 0.1
    assert np.max(unchanged) < 0.8


def test_defects_lie_on_the_part(triples):
    shares = np.array([(t.mask & t.object_mask).sum() / t.mask.sum() for t in triples if t.defect != "chipped edge"])
    assert shares.min() >= 0.95
    assert min((t.mask & t.object_mask).sum() / t.mask.sum() for t in triples) > 0.5


def test_defects_have_the_sizes_of_real_ones(triples):
    areas = np.array([triple.mask.mean() for triple in triples[:200]])
    assert areas.min() >= 0.001
    assert areas.max() <= 0.25
    assert 0.012 < np.median(areas) < 0.035
    assert np.quantile(areas, 0.05) < 0.007
    assert np.quantile(areas, 0.95) > 0.06


def test_every_shape_and_every_defect_occurs(triples):
    assert {triple.shape for triple in triples} == {*SHAPES, "surface"}
    assert {triple.defect for triple in triples} == set(DEFECTS)
    assert 0.35 < np.mean([triple.shape == "surface" for triple in triples]) < 0.55
    assert len({triple.material for triple in triples}) > 25


def test_captions_name_material_shape_and_defect(triples):
    for triple in triples:
        assert triple.material in triple.normal_caption
        assert triple.shape in triple.normal_caption
        assert triple.caption == f"{triple.normal_caption} with {triple.defect_caption}"


def test_grey_pictures_have_no_colour_word(triples):
    grey = [t for t in triples if (np.ptp(t.image, axis=2).max() == 0) and t.shape != "surface"]
    assert len(grey) > 5
    words = {"red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "magenta", "brown"}
    assert not any(words & set(t.normal_caption.split(" on ")[0].split()) for t in grey)


def test_a_part_lies_on_one_flat_colour():
    generator = numpy_stream(0, "test", "grounds")
    grounds = set()
    for _ in range(60):
        rgb, caption = draw_part_on_ground(generator, 64)
        colours, counts = np.unique(rgb.reshape(-1, 3), axis=0, return_counts=True)
        assert rgb.shape == (64, 64, 3)
        assert counts.max() > 0.1 * 64 * 64
        assert " on flat " in caption
        grounds.add((caption.split()[-1], *colours[counts.argmax()]))
    assert {name for name, *_ in grounds} >= {"black", "grey", "green", "blue", "red"}
    assert len(grounds) > 20
