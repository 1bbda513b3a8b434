"""What calibrate says of its shares."""

from dualanodiff.judge.calibration import COPIES, REAL, conclude


def test_the_conclusion_names_what_slips_through_and_what_is_lost():
    fine = {REAL: {"good": 1.0, "copy": 1.0}, "empty mask": {"good": 0.0}, COPIES: {"good": 0.0, "copy": 0.1}}
    assert conclude(fine).startswith("Trust the scores")
    blind = {**fine, "defect of noise": {"good": 0.9}}
    assert "slip through: defect of noise" in conclude(blind)
    strict = {**fine, REAL: {"good": 0.5, "copy": 1.0}, COPIES: {"good": 0.4, "copy": 0.6}}
    assert "with care" in conclude(strict) and "dropped as well" in conclude(strict) and "Copies" in conclude(strict)
