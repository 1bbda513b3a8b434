"""Is a defect what was asked for?"""

import numpy as np
import pytest

from dualanodiff.onto.judging import judge
from dualanodiff.settings import OntoSettings

ONTO = OntoSettings(inside=0.9, visible=4, tolerance=0.2)
MASK = np.zeros((20, 20), bool)
MASK[5:10, 5:15] = True


def test_a_defect_as_asked_has_no_fault():
    verdict = judge(MASK, 9, 1.0, {"area": 45, "contrast": 8}, ONTO)
    assert verdict.faults == ()
    assert verdict.badness == 0
    assert verdict.got == {"inside": 1, "area": 50, "contrast": 9}
    assert all(verdict.met.values())
    assert set(verdict.met) == {"inside", "visible", "area", "contrast"}


@pytest.mark.parametrize(
    ("contrast", "inside", "asked", "name", "words"),
    [
        (9, 0.5, {}, "inside", "50% of it lies in the region, 90% must"),
        (3, 1.0, {}, "visible", "changes the picture by 3.0 Lab units, 4 must be"),
        (9, 1.0, {"area": 100}, "area", "area is 50, 100 was asked for"),
        (9, 1.0, {"contrast": 20}, "contrast", "contrast is 9, 20 was asked for"),
    ],
)
def test_each_fault_is_named_with_what_was_got_and_what_must_be(contrast, inside, asked, name, words):
    verdict = judge(MASK, contrast, inside, asked, ONTO)
    assert [key for key, met in verdict.met.items() if not met] == [name]
    assert [words in fault for fault in verdict.faults] == [True]
    assert verdict.badness > 0


def test_the_nearer_miss_is_the_better_one_and_an_empty_part_the_worst():
    near, far = (judge(MASK, 9, 1.0, {"area": wanted}, ONTO) for wanted in (70, 200))
    empty = judge(MASK & False, 0, 1.0, {"area": 50}, ONTO)
    assert 0 < near.badness < far.badness < empty.badness
    assert empty.faults == ("the part is empty",)
    assert not any(empty.met.values())


def test_areas_are_measured_in_the_unit_asked_in():
    verdict = judge(MASK, 9, 1.0, {"area": 0.5}, ONTO, unit=0.01)
    assert verdict.got["area"] == pytest.approx(0.5)
    assert verdict.faults == ()
