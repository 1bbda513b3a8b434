"""How much of a defect a picture shows."""

import numpy as np
import pytest

from dualanodiff.bench.contrast import bond_of, bonds, ring_around, shown_contrast


def scene(place: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey picture with a dark square, its part on green, and the mask."""
    mask = np.zeros((64, 64), bool)
    mask[place : place + 12, 20:32] = True
    image = np.full((64, 64, 3), 180, np.uint8)
    image[mask] = 60
    return image, np.where(mask[..., None], image, np.array((0, 255, 0), np.uint8)), mask


def test_an_image_that_shows_its_part_has_a_full_bond():
    found = bond_of(*scene())
    assert found is not None
    assert found.share == pytest.approx(1)
    assert found.likeness == pytest.approx(1)


def test_a_good_image_beside_a_drawn_part_has_none():
    _, part, mask = scene()
    found = bond_of(np.full((64, 64, 3), 180, np.uint8), part, mask)
    assert found is not None
    assert found.share == pytest.approx(0)


def test_half_the_contrast_is_half_a_bond_and_looks_the_same():
    image, part, mask = scene()
    image[mask] = 120
    found = bond_of(image, part, mask)
    assert found is not None
    assert found.share == pytest.approx(0.5)
    assert found.likeness == pytest.approx(1)


def test_a_bright_mark_where_the_part_is_dark_is_a_negative_bond():
    image, part, mask = scene()
    image[mask] = 240
    found = bond_of(image, part, mask)
    assert found is not None
    assert found.share < 0
    assert found.likeness == pytest.approx(-1)


def test_what_cannot_be_told_from_its_surroundings_is_not_judged():
    image, part, mask = scene()
    image[mask], part[mask] = 180, 181
    assert bond_of(image, part, mask) is None
    assert bond_of(image, part, np.zeros_like(mask)) is None
    assert bond_of(image, part, np.ones_like(mask)) is None
    assert shown_contrast(np.zeros((0, 3)), np.zeros((0, 3))) is None


def test_a_ring_leaves_out_every_other_defect():
    mask = np.zeros((64, 64), bool)
    mask[20:24, 20:24] = mask[20:24, 27:31] = True
    region = np.zeros_like(mask)
    region[20:24, 20:24] = True
    ring = ring_around(region, mask)
    assert ring.any()
    assert not (ring & mask).any()


def test_swapped_parts_are_the_floor_of_a_bond():
    triples = [scene(place) for place in (8, 24, 40)]
    found = bonds(*zip(*triples, strict=True))
    assert found == {
        "bond_share": 1.0,
        "bond_likeness": 1.0,
        "swapped_share": 0.0,
        "swapped_likeness": 0.0,
        "bond_pairs": 3,
    }


def test_sets_without_a_mask_have_no_bond():
    image, part, mask = scene()
    found = bonds([image, image], [part, part], [np.zeros_like(mask)] * 2)
    assert found["bond_share"] is None
    assert found["bond_pairs"] == 0
    assert bonds([image], [part], [mask])["swapped_share"] is None
