"""Places and sizes, before anything is drawn there."""

import numpy as np
import pytest

from dualanodiff.data.shots import Shot
from dualanodiff.onto.places import Shapes, draw_place, extent

KEY = (0, 255, 0)
SIDE = 64


def shots() -> list[Shot]:
    found: list[Shot] = []
    for top, left, height, width in ((10, 12, 10, 14), (30, 36, 8, 20)):
        rgb = np.full((SIDE, SIDE, 3), 90, np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top : top + height, left : left + width] = True
        mask[top, left] = False
        rgb[mask] = (200, 30, 20)
        found.append(Shot(rgb, mask, f"{top:03}"))
    return found


def no_object(rgb):
    return None


def draw(seed=0, shape=(200, 300), region=None, **options):
    good = np.zeros((*shape, 3), np.uint8)
    everywhere = np.ones(shape, bool)
    chosen = everywhere if region is None else region
    shapes = Shapes.of(shots(), no_object)
    return draw_place(np.random.default_rng(seed), good, shapes, KEY, SIDE, region=chosen, **options)


def shown(place):
    """Pixels of the hint that are no key colour."""
    return (place.hint != KEY).any(axis=-1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("smallest", [0.0, 0.03])
def test_a_place_is_in_the_region_and_shows_a_shots_defect_there(seed, smallest):
    region = np.zeros((200, 300), bool)
    region[20:110, 150:280] = True
    place = draw(seed, region=region, smallest=smallest, share=0.01)
    inside = place.window.see_mask(region)
    assert shown(place).sum() > 10
    assert inside[shown(place)].mean() > 0.9
    assert not (place.allowed & ~inside).any()
    assert (place.allowed & shown(place)).sum() > 0.9 * (shown(place) & inside).sum()
    x, y = place.center
    assert region[int(y), int(x)]
    assert place.shot in {"010", "030"}


@pytest.mark.parametrize("share", [0.004, 0.02, 0.08])
@pytest.mark.parametrize("smallest", [0.0, 0.05])
def test_the_area_is_the_one_asked_for_whatever_the_model_sees(share, smallest):
    for seed in range(5):
        place = draw(seed, share=share, smallest=smallest)
        window = place.window
        got = shown(place).mean() * window.width * window.height / (200 * 300)
        assert got == pytest.approx(share, rel=0.3)
        if smallest and share < smallest:
            assert window.width < 300
            assert shown(place).mean() > 0.03
        if not smallest:
            assert window.box == [0, 0, 300, 200]


def test_an_attempt_is_stretched_by_what_the_one_before_got():
    small, large = (shown(draw(3, share=0.02, stretch=stretch)).sum() for stretch in (1, 2))
    assert large / small == pytest.approx(2, rel=0.2)


def test_a_defect_larger_than_the_region_is_made_smaller():
    region = np.zeros((200, 300), bool)
    region[50:80, 50:80] = True
    place = draw(1, region=region, share=0.3)
    assert place.window.see_mask(region)[shown(place)].mean() > 0.8


def test_places_like_the_shots_lie_where_theirs_lie_on_the_object():
    def find(rgb):
        found = np.zeros(rgb.shape[:2], bool)
        found[8:56, 8:56] = True
        return found

    shapes = Shapes.of(shots(), find)
    assert shapes.on_object
    region = np.zeros((200, 200), bool)
    region[40:190, 20:170] = True  # the object on the good picture
    good = np.zeros((200, 200, 3), np.uint8)
    centers = [
        draw_place(np.random.default_rng(seed), good, shapes, KEY, SIDE, region=region, frame=extent(region)).center
        for seed in range(40)
    ]
    relative = (np.array(centers) - (20, 40)) / 150
    expected = np.array([((12 + 7 - 8) / 48, (10 + 5 - 8) / 48), ((36 + 10 - 8) / 48, (30 + 4 - 8) / 48)])
    distance = np.linalg.norm(relative[:, None] - expected, axis=-1).min(axis=1)
    assert np.median(distance) < 0.12
    assert {int(np.linalg.norm(place - expected, axis=-1).argmin()) for place in relative} == {0, 1}


def test_a_defect_of_the_whole_object_covers_the_whole_of_another():
    rgb = np.full((SIDE, SIDE, 3), 230, np.uint8)
    rgb[10:50, 20:44] = (150, 90, 30)
    found = (rgb == (150, 90, 30)).all(axis=-1)
    mask = found.copy()
    mask[28:32, 30:34] = False  # a hole in the object
    shapes = Shapes.of([Shot(rgb, mask, "000")], lambda _: found)
    good = np.full((100, 120, 3), 230, np.uint8)
    region = np.zeros((100, 120), bool)
    region[30:60, 20:90] = True
    place = draw_place(np.random.default_rng(0), good, shapes, KEY, SIDE, region=region, frame=extent(region))
    inside = place.window.see_mask(region)
    assert (shown(place) == inside).all()
    assert np.abs(place.hint[inside].astype(int) - (150, 90, 30)).max() < 3
    assert (place.allowed == inside).all()
    # An area that was asked for is one part of the object again.
    some = draw_place(
        np.random.default_rng(0), good, shapes, KEY, SIDE, region=region, frame=extent(region), share=0.02
    )
    assert 0.3 < shown(some).mean() / 0.02 < 2


def test_shots_whose_defects_lie_elsewhere_do_not_bind_to_the_object():
    def find(rgb):
        found = np.zeros(rgb.shape[:2], bool)
        found[50:60, 2:10] = True
        return found

    assert not Shapes.of(shots(), find).on_object
    assert not Shapes.of(shots(), no_object).on_object


def test_a_defect_that_looks_like_the_ground_is_no_hole_in_the_object():
    masks = iter([shot.mask for shot in shots()])

    def find(rgb):
        found = np.zeros(rgb.shape[:2], bool)
        found[4:60, 4:60] = True
        return found & ~next(masks)

    assert Shapes.of(shots(), find).on_object


def test_flips_come_only_where_they_are_allowed():
    corners = {bool(shown(draw(seed, share=0.05))[_corner(draw(seed, share=0.05))]) for seed in range(6)}
    assert corners == {False}, "the shape's missing corner stays at the top left"
    flipped = {
        bool(shown(draw(seed, share=0.05, flips=(True, True)))[_corner(draw(seed, share=0.05, flips=(True, True)))])
        for seed in range(12)
    }
    assert flipped == {False, True}


def _corner(place):
    rows, columns = extent(shown(place))
    return rows.start, columns.start


def test_the_same_stream_draws_the_same_place():
    one, two = draw(5, smallest=0.03), draw(5, smallest=0.03)
    assert one.window == two.window
    assert np.array_equal(one.hint, two.hint)
    assert draw(6, smallest=0.03).center != one.center


def test_the_shapes_know_the_colours_of_their_defects():
    assert {tuple(color) for color in Shapes.of(shots(), no_object).colors} == {(200, 30, 20)}


@pytest.mark.parametrize(("level", "expected"), [(90, 1.0), (45, 0.5), (180, 2.0), (5, 1 / 3)])
def test_the_tone_is_the_light_around_the_place_over_that_around_the_shots_defect(level, expected):
    good = np.full((200, 300, 3), level, np.uint8)
    shapes = Shapes.of(shots(), no_object)
    assert [shape.around for shape in shapes.shapes] == [90, 90]
    region = np.ones((200, 300), bool)
    place = draw_place(np.random.default_rng(0), good, shapes, KEY, SIDE, region=region)
    assert place.tone == pytest.approx(expected, rel=0.02)
