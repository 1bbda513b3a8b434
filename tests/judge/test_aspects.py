"""Each aspect falls for its own fault, and for no other's."""

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.change import GoodPictures, Memory, agreement, cells_of
from dualanodiff.data.shots import Shot
from dualanodiff.judge.aspects import ASPECTS, REAL, Aspects, Gauge
from dualanodiff.judge.memorisation import Originals
from toy_product import SIDE, defect_picture, good_picture

SEEDS = range(30, 36)


@pytest.fixture(scope="module")
def gauge(toy_reference):
    return toy_reference.gauge


def scores(gauge, cases):
    found = [gauge.measure(image, mask) for image, mask in cases]
    return {name: np.median([getattr(each, name) for each in found]) for name in ASPECTS}


def test_a_real_defect_scores_high_in_every_aspect(gauge):
    found = scores(gauge, [defect_picture(seed) for seed in SEEDS])
    assert found["valid"] > 0.75
    assert found["realistic"] > 0.6
    assert found["aligned"] > 0.7
    assert found["on_object"] == 1


def test_an_empty_mask_scores_nothing(gauge):
    assert gauge.measure(good_picture(40), np.zeros((SIDE, SIDE), bool)) == Aspects(0, 0, 0, 0)


def test_a_full_mask_is_not_aligned(gauge):
    assert gauge.measure(defect_picture(30)[0], np.ones((SIDE, SIDE), bool)).aligned == 0


def test_an_unchanged_picture_is_as_valid_as_good_ones_are(gauge):
    found = scores(gauge, [(good_picture(40 + seed), defect_picture(seed)[1]) for seed in SEEDS])
    assert found["valid"] == pytest.approx(0.5, abs=0.12)
    assert found["aligned"] < 0.35


def test_a_mask_elsewhere_on_the_object_is_not_aligned(gauge):
    cases = [(image, np.rot90(mask, 2)) for image, mask in map(defect_picture, range(30, 46))]
    cases = [
        (image, mask)
        for (image, mask), seed in zip(cases, range(30, 46), strict=True)
        if not (mask & defect_picture(seed)[1]).any()
    ]
    assert len(cases) >= 4
    assert scores(gauge, cases)["aligned"] < 0.35
    assert scores(gauge, cases)["on_object"] > 0.95


def test_a_mask_beside_the_object_is_off_it(gauge):
    image, _ = defect_picture(30)
    corner = np.zeros((SIDE, SIDE), bool)
    corner[:6, :6] = True
    half = corner.copy()
    half[30:36, 30:36] = True
    assert gauge.measure(image, corner).on_object == 0
    assert gauge.measure(image, half).on_object == pytest.approx(0.5)


def test_a_picture_that_shows_no_object_is_measured_by_where_good_ones_have_theirs(gauge):
    grain = np.random.default_rng(0).integers(90, 160, (SIDE, SIDE, 3), np.uint8)
    corner = np.zeros((SIDE, SIDE), bool)
    corner[:6, :6] = True
    assert gauge.on_object(grain, corner) == 0
    assert gauge.on_object(grain, np.rot90(corner, 2)) == 0


def test_a_defect_of_another_kind_and_a_blurred_picture_are_less_real(gauge):
    real, other, blurred = [], [], []
    for seed in SEEDS:
        image, mask = defect_picture(seed)
        noise = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
        real.append((image, mask))
        other.append((np.where(mask[..., None], noise, image), mask))
        blurred.append((ndimage.gaussian_filter(image, (1.2, 1.2, 0)), mask))
    usual = scores(gauge, real)["realistic"]
    assert scores(gauge, other)["realistic"] < 0.5 * usual
    assert scores(gauge, blurred)["realistic"] < 0.8 * usual


def test_another_mask_or_attention_that_disagrees_takes_away_and_one_that_agrees_does_not(gauge):
    image, mask = defect_picture(31)
    alone = gauge.measure(image, mask).aligned
    attention = np.where(mask, 200, 10).astype(np.uint8)
    assert gauge.measure(image, mask, others=[mask], attention=attention).aligned == pytest.approx(alone)
    assert gauge.measure(image, mask, others=[~mask]).aligned == pytest.approx(alone / 2)
    assert gauge.measure(image, mask, attention=255 - attention).aligned == pytest.approx(alone / 2)


def test_a_shot_is_judged_without_itself(toy_reference, gauge):
    """Its descriptors lie in the bank, where they would find themselves."""
    shot = toy_reference.shots[0]
    known = gauge.measure(shot.image, shot.mask)
    assert gauge.measure_shot(0).valid == pytest.approx(known.valid)
    cells = gauge._defects[0]
    assert gauge._strangeness(cells, frozenset()) < 0.01 < gauge._strangeness(cells, frozenset({0}))


def test_a_turned_part_and_a_moved_texture_are_no_change():
    """Where colours at a place say nothing, the change map still finds the defect."""

    def stripes(seed):
        random = np.random.default_rng(round(10 * seed))
        rows, columns = np.mgrid[:SIDE, :SIDE]
        wave = np.sin((rows * np.sin(seed) + columns * np.cos(seed)) * 0.8 + random.uniform(0, 6))
        return (
            (128 + 50 * wave[..., None] + random.normal(0, 3, (SIDE, SIDE, 1)))
            .repeat(3, 2)
            .clip(0, 255)
            .astype(np.uint8)
        )

    good = GoodPictures([stripes(seed / 2) for seed in range(40)])
    picture, mask = stripes(3.3), np.zeros((SIDE, SIDE), bool)
    mask[20:28, 30:40] = True
    assert (good.change(picture) > 1).mean() < 0.1
    broken = picture.copy()
    broken[mask] = 128  # the stripes' own mean
    assert agreement(good.change(broken), mask) > 0.9


@pytest.mark.parametrize("side", [64, 100, 128])
def test_a_change_map_has_the_pictures_size_and_no_unit_of_its_own(side):
    pictures = [np.random.default_rng(seed).integers(90, 160, (side, side, 3), np.uint8) for seed in range(8)]
    good = GoodPictures(pictures)
    assert good.change(pictures[1]).shape == (side, side)
    assert np.percentile(np.stack(good.spare), 99) == pytest.approx(1, rel=1e-3)


def test_a_memory_finds_the_nearest():
    random = np.random.default_rng(0)
    kept, asked = random.normal(size=(700, 5)).astype(np.float32), random.normal(size=(600, 5)).astype(np.float32)
    brute = np.linalg.norm(asked[:, None] - kept[None], axis=-1).min(1)
    assert Memory(kept).distances(asked) == pytest.approx(brute, abs=1e-4)


def test_no_mark_is_too_small_for_a_cell():
    mask = np.zeros((128, 128), bool)
    mask[77, 3] = True
    assert np.argwhere(cells_of(mask, 64)).tolist() == [[38, 1]]


def test_doubles_among_the_shots_do_not_make_real_defects_look_unreal():
    """One part photographed twice would find itself, and every other real defect would seem far off beside that."""
    shots = [Shot(*defect_picture(seed), str(seed)) for seed in (0, 0, 1, 1, 2, 2)]
    normals = [good_picture(seed) for seed in range(8)]
    found = {}
    for name, doubles in (("known", Originals(shots).doubles), ("unknown", None)):
        gauge = Gauge(normals, shots, doubles)
        found[name] = gauge.measure(*defect_picture(31)).realistic
    assert found["known"] >= REAL > found["unknown"]


def test_all_of_a_texture_is_on_the_object():
    """Even where one of its pictures happens to look like an object on a ground."""
    random = np.random.default_rng(0)
    normals = [random.integers(90, 160, (SIDE, SIDE, 3), np.uint8) for _ in range(8)]
    gauge = Gauge(normals, [Shot(normals[0], defect_picture(0)[1], "0")])
    corner = np.zeros((SIDE, SIDE), bool)
    corner[:6, :6] = True
    assert gauge.object is None
    assert gauge.on_object(good_picture(3), corner) == 1
