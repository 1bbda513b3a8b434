"""The `fit` command's work: a data folder and settings from four layers to a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dualanodiff.errors import DataError, ModelError, RunError, SettingsError
from dualanodiff.fit_folder import base_and_settings, fit_folder, summarise
from dualanodiff.runs import RunFolder
from small import SMALL, logged

Product = Callable[..., Path]
SHORT = {key: str(value) for key, value in SMALL.items()} | {"train.max_train_steps": "2"}


@pytest.fixture
def carded(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """A base whose card recommends settings."""
    shutil.copytree(tiny_base_folder, tmp_path / "base")
    (tmp_path / "base" / "base.toml").write_text("[settings.model]\nrank = 5\ntext_rank = 6\ninteraction_rank = 7\n")
    return tmp_path / "base"


def test_later_layers_of_settings_win(carded: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[model]\ntext_rank = 60\ninteraction_rank = 70\n")
    _, settings = base_and_settings(str(carded), tmp_path / "mine.toml", {"model.interaction_rank": "700"})
    model = settings.model
    assert (model.rank, model.text_rank, model.interaction_rank) == (5, 60, 700)
    assert settings.train.learning_rate == 2e-5  # nobody changed the paper's


@pytest.mark.parametrize(("choice", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_the_frozen_unet_comes_in_the_precision_asked_for(
    choice: str, dtype: torch.dtype, tiny_base_folder: Path
) -> None:
    base, _ = base_and_settings(str(tiny_base_folder), None, {"train.mixed_precision": choice})
    assert base.unet.dtype == dtype
    assert base.vae.dtype == base.text_encoder.dtype == torch.float32


def test_a_data_folder_becomes_a_run_that_tells_of_itself(
    product: Product, tiny_base_folder: Path, tmp_path: Path
) -> None:
    product("nut", defects={"scratch": 6, "dent": 3}, size=64)
    found = fit_folder(
        tmp_path / "data",
        defect="scratch",
        category="nut",
        out=tmp_path / "run",
        base=str(tiny_base_folder),
        assignments=SHORT,
    )
    run = RunFolder(tmp_path / "run")
    assert found["run"] == str(run.path)
    assert (found["shots"], found["steps"], found["start"]) == (2, 2, "fresh")
    assert found["loss"] == logged(run)[-1]["loss"]
    assert found["seconds"] == logged(run)[-1]["seconds"]
    lineage = run.lineage()
    assert (lineage["category"], lineage["defect"]) == ("nut", "scratch")
    shots = [Path(file["path"]).name for file in lineage["files"] if file["role"] == "shot"]
    assert shots == ["000.png", "001.png"]  # the strict first third


def test_good_pictures_of_the_folder_become_backgrounds(
    product: Product, tiny_base_folder: Path, tmp_path: Path
) -> None:
    found = fit_folder(
        product(size=64, good=3),
        defect="scratch",
        out=tmp_path / "run",
        base=str(tiny_base_folder),
        assignments=SHORT | {"model.background": "paper", "train.max_train_steps": "1"},
    )
    roles = [file["role"] for file in RunFolder(tmp_path / "run").lineage()["files"]]
    assert roles.count("normal") == 3
    assert "threshold" in found["object_masks"]


def test_other_shots_can_be_asked_for(product: Product, tiny_base_folder: Path, tmp_path: Path) -> None:
    data = product(size=64)
    (tmp_path / "list.txt").write_text("004\n002 # the best\n")
    found = fit_folder(
        data,
        defect="scratch",
        out=tmp_path / "run",
        base=str(tiny_base_folder),
        shots=str(tmp_path / "list.txt"),
        assignments=SHORT,
    )
    assert found["shots"] == 2
    shots = [file["path"] for file in RunFolder(tmp_path / "run").lineage()["files"] if file["role"] == "shot"]
    assert [Path(path).name for path in shots] == ["002.png", "004.png"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"defect": "scrach"}, DataError, "scratch"),
        ({"category": "bolt"}, DataError, "nut"),
        ({"base": "nowhere"}, ModelError, "nowhere: no such base"),
        ({"assignments": {"train.learnig_rate": "1"}}, SettingsError, "did you mean 'train.learning_rate'"),
        ({"assignments": SHORT | {"data.resolution": "100"}}, DataError, "use a multiple of 16, such as 96"),
        ({"config": Path("no.toml")}, SettingsError, r"no\.toml: no such settings file"),
        ({"shots": "99"}, DataError, "ask for 1 to 6"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    options: dict, error: type[Exception], message: str, product: Product, tiny_base_folder: Path, tmp_path: Path
) -> None:
    given = {"defect": "scratch", "base": str(tiny_base_folder), "assignments": SHORT} | options
    with pytest.raises(error, match=message):
        fit_folder(product(size=64), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_without_metrics_cannot_be_summed_up(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert summarise(folder)["steps"] == 6
    folder.metrics.write_text("")
    with pytest.raises(RunError, match=r"metrics.jsonl: empty, so nothing is known .*; fit it again into a new folder"):
        summarise(folder)


def test_a_summary_is_plain_values(small_run: RunFolder) -> None:
    found = summarise(small_run)
    assert json.loads(json.dumps(found)) == found
