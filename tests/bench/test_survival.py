"""What an autoencoder leaves of a defect."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from dualanodiff.bench.survival import psnr, ssim, survival, survival_table
from dualanodiff.cli import app
from dualanodiff.data.shots import Shot


def lines(width: int) -> Shot:
    """Two dark lines of that width on grey."""
    rgb, mask = np.full((96, 96, 3), 170, np.uint8), np.zeros((96, 96), bool)
    mask[10:80, 20 : 20 + width] = mask[10:80, 60 : 60 + width] = True
    rgb[mask] = 40
    return Shot(rgb, mask, "lines")


def blurred(shot: Shot, pixels: float) -> np.ndarray:
    return ndimage.gaussian_filter(shot.image, (pixels, pixels, 0))


def test_an_exact_copy_keeps_all():
    shot = lines(3)
    found = survival([shot], [shot.image])
    assert (found["kept"], found["ssim"], found["psnr"]) == (1.0, 1.0, float("inf"))
    assert found["pieces"] == 2


def test_a_blur_takes_thin_defects_first():
    shots = [lines(width) for width in (2, 12)]
    found = survival(shots, [blurred(shot, 2) for shot in shots])
    thin, thick = found["by_thickness"]["0 to 2.5 px"], found["by_thickness"]["9 to 17 px"]
    assert thin["kept"] < 0.5 < 0.7 < thick["kept"]
    assert thin["pieces"] == thick["pieces"] == 2


def test_thickness_is_counted_in_pixels():
    for width, name in ((1, "0 to 2.5 px"), (3, "2.5 to 4.5 px"), (8, "4.5 to 9 px"), (30, "over 17 px")):
        found = survival([lines(width)], [lines(width).image])
        assert list(found["by_thickness"]) == [name], width


def test_a_picture_that_lost_the_defect_keeps_nothing():
    shot = lines(6)
    assert survival([shot], [np.full_like(shot.image, 170)])["kept"] == pytest.approx(0)


def test_similarity_falls_with_noise_and_not_with_a_shift_of_brightness_alone():
    shot = lines(6)
    noisy = np.clip(shot.image + np.random.default_rng(0).normal(0, 20, shot.image.shape), 0, 255).astype(np.uint8)
    brighter = shot.image + np.uint8(8)
    assert ssim(shot.image, noisy) < 0.6 < ssim(shot.image, brighter)
    assert psnr(shot.image, brighter) == pytest.approx(20 * np.log10(255 / 8))


def test_a_table_has_a_line_a_task_and_a_dash_for_what_is_not_there():
    row = {"base": "mini", "task": "tile/crack", **survival([lines(3)], [blurred(lines(3), 1)])}
    table = survival_table([row])
    assert "| mini | tile/crack | 96 |" in table
    assert table.splitlines()[-1].count(" - |") == 4


def test_the_command_writes_table_and_sheets(tiny_base_folder: Path, product, tmp_path: Path):
    data, out = product(size=64, defects={"scratch": 3, "dent": 2}), tmp_path / "out"
    words = ["bench", "survival", str(tiny_base_folder), "--data", f"{data}:dent", "--data", f"{data}:scratch"]
    result = CliRunner().invoke(app, [*words, "--out", str(out), "--most", "2", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert [(row["task"], row["pictures"], row["side"]) for row in rows] == [
        ("nut/dent", 2, 64),
        ("nut/scratch", 2, 64),
    ]
    assert len(list((out / "sheets").glob("*.png"))) == 2
    assert (out / "survival.md").is_file()
