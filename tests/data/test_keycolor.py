import numpy as np
import pytest

from dualanodiff.data.keycolor import parse_key_color, to_lab
from dualanodiff.errors import SettingsError


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((3, 3, 3), (0.82, 0, 0)),
    ],
)
def test_lab_agrees_with_the_published_values(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert to_lab(np.array(rgb, np.uint8)) == pytest.approx(lab, abs=0.02)


def test_a_key_colour_is_a_name_or_hexadecimal() -> None:
    assert parse_key_color("black") == (0, 0, 0)
    assert parse_key_color("grey") == (128, 128, 128)
    assert parse_key_color("#0a0B0c") == (10, 11, 12)


@pytest.mark.parametrize(("text", "near"), [("gren", "green"), ("Black", "black"), ("#fff", "auto"), ("", "auto")])
def test_an_unknown_key_colour_is_answered_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"data\.key_color is '{text}' but must be auto, green, .*did you mean '\w+'"
    ):
        parse_key_color(text)
    if near != "auto":
        with pytest.raises(SettingsError, match=f"did you mean '{near}'"):
            parse_key_color(text)
