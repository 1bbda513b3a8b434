"""What a fit refuses before it begins, and what it tells a tracker."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError, ModelError, SettingsError
from dualanodiff.fitting import fit
from dualanodiff.model.base import Base, load_base
from small import draw_normals, draw_shots, fit_small, small_settings


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    return load_base(tiny_base_folder)


def assert_nothing_there(folder: Path) -> None:
    assert not (folder / "config.toml").exists()
    assert not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))


def test_no_shots_are_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shots to learn from; give at least one"):
        fit([], base, tmp_path / "run", small_settings())
    assert_nothing_there(tmp_path / "run")


def test_background_compensation_without_normals_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model.background needs normal pictures .* or set it to none"):
        fit(draw_shots(), base, tmp_path / "run", small_settings(model__background="paper"))
    assert_nothing_there(tmp_path / "run")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(64, 64), (32, 32)], r"shots have sizes \[\(32, 32\), \(64, 64\)\]; read them with find_shots"),
        ([(64, 32)], r"shots have sizes \[\(64, 32\)\]; .* one square resolution"),
        ([(72, 72)], r"data.resolution is 72, which this base cannot halve evenly; use a multiple of 16, such as"),
    ],
)
def test_a_resolution_that_does_not_fit_is_refused(
    shapes: Sequence[tuple[int, int]], message: str, base: Base, tmp_path: Path
) -> None:
    shots = [Shot(np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool), "x") for shape in shapes]
    with pytest.raises(DataError, match=message):
        fit(shots, base, tmp_path / "run", small_settings())
    assert_nothing_there(tmp_path / "run")


def test_a_tracker_that_does_not_exist_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"train.report_to is 'nonsense', .*; install it, or set none"):
        fit(draw_shots(), base, tmp_path / "run", small_settings(train__report_to="nonsense"))
    assert_nothing_there(tmp_path / "run")


def test_a_tracker_that_is_not_installed_is_refused(base: Base, tmp_path: Path) -> None:
    name = next(name for name in ("dvclive", "aim", "swanlab", "wandb") if importlib.util.find_spec(name) is None)
    with pytest.raises(SettingsError, match=rf"train.report_to is '{name}', .*it is not installed.*; install it, or"):
        fit(draw_shots(), base, tmp_path / "run", small_settings(train__report_to=name))
    assert_nothing_there(tmp_path / "run")


def test_an_optimiser_that_is_not_installed_is_refused(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(
        SettingsError, match=r"train.optimizer is adamw8bit, which cannot be used .* install bitsandbytes"
    ):
        fit(draw_shots(), base, tmp_path / "run", small_settings(train__optimizer="adamw8bit"))
    assert_nothing_there(tmp_path / "run")


def test_an_object_model_that_does_not_exist_is_refused(base: Base, tmp_path: Path) -> None:
    normals = draw_normals(tmp_path / "normals")
    settings = small_settings(model__background="paper", data__object_model=str(tmp_path / "no.onnx"))
    with pytest.raises(ModelError, match=r"no\.onnx"):
        fit(draw_shots(), base, tmp_path / "run", settings, normals=normals)
    assert_nothing_there(tmp_path / "run")


def test_a_tracker_sees_the_losses(tiny_base_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tracker tensorboard is not installed")
    run = fit_small(tiny_base_folder, tmp_path / "run", train__report_to="tensorboard")
    events = list((run.path / "tracker").rglob("events.out.tfevents.*"))
    assert any(b"inclusion" in path.read_bytes() for path in events)
