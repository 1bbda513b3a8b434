"""The RUN folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dualanodiff.errors import RunError, SettingsError
from dualanodiff.runs import CHANGEABLE, RunFolder, file_record, make_lineage
from dualanodiff.settings import Settings
from dualanodiff.storage import append_jsonl
from small import draw_normals, draw_shots, fit_small


def lineage(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"base": "mini", "seed": 0, "files": [], "category": "nut", "defect": "hole"}
    return make_lineage(**facts | changes)


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    """A run that has just begun."""
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), lineage(), resume=False)
    return run


def test_a_begun_run_says_what_it_was_asked_and_made_from(begun: RunFolder) -> None:
    assert begun.settings() == Settings()
    assert begun.lineage() == lineage()
    assert not begun.finished
    assert begun.checkpoints() == []


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").begin(Settings(), lineage(), resume=False)
    assert (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize(
    "left", [["lineage.json"], [".lineage-ab12cd_4.json"], ["lineage.json", ".config-x0x0x0x0.toml"]]
)
@pytest.mark.parametrize("resume", [False, True])
def test_what_a_kill_at_the_very_beginning_left_is_no_obstacle(tmp_path: Path, left: list[str], resume: bool) -> None:
    for name in left:
        (tmp_path / name).write_text("{")
    RunFolder(tmp_path).begin(Settings(), lineage(), resume=resume)
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml", "lineage.json"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: (path / "photo").mkdir(parents=True)])
def test_a_folder_of_something_else_is_never_touched(
    tmp_path: Path, make: Callable[[Path], object], resume: bool
) -> None:
    make(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"run: is not empty and not a run; choose another --out"):
        RunFolder(tmp_path / "run").begin(Settings(), lineage(), resume=resume)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_not_begun_twice(begun: RunFolder) -> None:
    with pytest.raises(RunError, match=r"run: holds a run already; add --resume to continue it, or choose another"):
        begun.begin(Settings(), lineage(), resume=False)


def test_only_settings_that_make_no_other_run_may_change(begun: RunFolder) -> None:
    changed = {
        "train.max_train_steps": 9,
        "train.checkpointing_steps": 3,
        "train.preview_steps": 4,
        "train.report_to": "tensorboard",
        "train.gradient_checkpointing": "true",
        "train.compile": "true",
        "train.adapt_rate": 1e-3,
    }
    assert changed.keys() == CHANGEABLE
    wished = Settings().updated(changed | {"sample.batch_size": 9, "mask.method": "attention"}, "test")
    begun.begin(wished, lineage(), resume=True)
    assert begun.settings() == wished


OTHER_SETTINGS = {
    "seed": 1,
    "data.key_color": "black",
    "model.rank": 8,
    "train.learning_rate": 1e-5,
    "train.train_batch_size": 2,
    "train.mixed_precision": "no",
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_another_setting_is_refused_by_name(name: str, begun: RunFolder) -> None:
    wished = Settings().updated({name: OTHER_SETTINGS[name]}, "test")
    with pytest.raises(RunError, match=rf"run: was begun with {name} = .*, now .*; resume with the same"):
        begun.begin(wished, lineage(), resume=True)
    assert begun.settings() == Settings()


@pytest.mark.parametrize(("name", "value"), [("defect", "dent"), ("category", "bolt")])
def test_another_product_is_refused_by_name(name: str, value: str, begun: RunFolder) -> None:
    with pytest.raises(RunError, match=rf"run: was begun with {name} (hole|nut), now {value}; resume with the same"):
        begun.begin(Settings(), lineage(**{name: value}), resume=True)


def test_other_shots_are_refused_by_name(tiny_base_folder: Path, tmp_path: Path) -> None:
    shots = draw_shots(3, tmp_path / "shots")
    fit_small(tiny_base_folder, tmp_path / "run", shots=shots[:2], train__max_train_steps=1)
    for other, name in (
        (shots[1:], r"shot 1 000.png \(sha256 \w+\), now 001.png"),
        (shots[:1], r"shot 2 001.png \(sha256 \w+\), now None"),
        (shots, r"shot 3 None, now 002.png"),
    ):
        with pytest.raises(RunError, match=rf"run: was begun with {name}.*; resume with the same"):
            fit_small(tiny_base_folder, tmp_path / "run", shots=other, resume=True)


def test_a_shot_whose_mask_was_drawn_anew_is_another_shot(tiny_base_folder: Path, tmp_path: Path) -> None:
    shots = draw_shots(1, tmp_path / "shots")
    fit_small(tiny_base_folder, tmp_path / "run", shots=shots, train__max_train_steps=1)
    assert shots[0].mask_path is not None
    shots[0].mask_path.write_bytes(shots[0].mask_path.read_bytes() + b" ")
    with pytest.raises(RunError, match=r"was begun with mask 1 000_mask.png \(sha256 .*, now 000_mask.png"):
        fit_small(tiny_base_folder, tmp_path / "run", shots=shots, resume=True)


def test_shots_and_base_may_be_moved(tiny_base_folder: Path, tmp_path: Path) -> None:
    fit_small(tiny_base_folder, tmp_path / "run", shots=draw_shots(1, tmp_path / "here"), train__max_train_steps=1)
    shutil.copytree(tiny_base_folder, tmp_path / "base")
    moved = draw_shots(1, tmp_path / "there")
    assert fit_small(tmp_path / "base", tmp_path / "run", shots=moved, resume=True, train__max_train_steps=2).finished


def test_another_base_is_refused_by_name(tiny_base_folder: Path, tmp_path: Path) -> None:
    from tiny import save_tiny_base

    fit_small(tiny_base_folder, tmp_path / "run", train__max_train_steps=1)
    with pytest.raises(RunError, match=r"run: was begun with base 1 \S+.safetensors \(sha256 \w+\), now .*; resume"):
        fit_small(save_tiny_base(tmp_path / "other", seed=1), tmp_path / "run", resume=True)


# -- reading


def test_a_folder_that_is_no_run_is_named_with_the_way_out(tmp_path: Path) -> None:
    for read in (RunFolder(tmp_path).settings, RunFolder(tmp_path).load_start):
        with pytest.raises(RunError, match=r": not a run \(no config.toml in it\); make one with `dualanodiff fit"):
            read()


def test_a_damaged_settings_file_is_named(begun: RunFolder) -> None:
    (begun.path / "config.toml").write_text("seed = ")
    with pytest.raises(SettingsError, match=r"config.toml: not a readable TOML file"):
        begun.settings()


@pytest.mark.parametrize("damage", [lambda path: path.write_text('{"base": '), lambda path: path.unlink()])
def test_a_damaged_lineage_is_named(begun: RunFolder, damage: Callable[[Path], object]) -> None:
    damage(begun.path / "lineage.json")
    with pytest.raises(RunError, match=r"lineage.json: not a readable lineage .*; the run is incomplete, fit it again"):
        begun.lineage()


def test_an_unfinished_run_says_how_to_finish_it(begun: RunFolder) -> None:
    with pytest.raises(RunError, match=r"run: this run has not finished; finish it with `.* --out .*run --resume`"):
        begun.load_start()


def test_an_unfinished_distillation_is_finished_by_distill(begun: RunFolder) -> None:
    lineage = {**begun.lineage(), "distilled": {"run": "teacher", "lessons": 4}}
    (begun.path / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(RunError, match=r"finish it with `dualanodiff distill .*run --resume`"):
        begun.load_start()


def test_the_start_comes_back_as_it_was_and_marks_the_run_finished(begun: RunFolder) -> None:
    mean = torch.randn(2, 4, 8, 8)
    begun.save_start(mean, {"key_color": [1, 2, 3], "key_threshold": 0.25})
    found, facts = begun.load_start()
    assert begun.finished
    assert torch.equal(found, mean)
    assert facts == {"key_color": [1, 2, 3], "key_threshold": 0.25}


@pytest.mark.parametrize("content", [b"", b"12345678" * 9])
def test_a_damaged_start_is_named_with_the_way_out(begun: RunFolder, content: bytes) -> None:
    (begun.path / "start.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"start.safetensors: damaged .*; delete it and finish the run again"):
        begun.load_start()


def test_backgrounds_come_back_to_half_precision(begun: RunFolder) -> None:
    latents = torch.randn(3, 4, 8, 8)
    assert not begun.has_backgrounds
    begun.save_backgrounds(latents)
    assert begun.has_backgrounds
    torch.testing.assert_close(begun.load_backgrounds(), latents, atol=2e-3, rtol=1e-3)
    assert begun.load_backgrounds().dtype == torch.float32


def test_missing_backgrounds_are_named_with_the_way_out(begun: RunFolder) -> None:
    with pytest.raises(
        RunError, match=r"backgrounds.safetensors: not readable .*; give normal pictures with --normals"
    ):
        begun.load_backgrounds()


def test_metrics_of_steps_that_a_kill_undid_are_forgotten(begun: RunFolder) -> None:
    for step in (10, 20, 30):
        append_jsonl(begun.metrics, {"step": step, "loss": 1 / step})
    with begun.metrics.open("a") as file:
        file.write('{"step": 40, "lo')
    assert [row["step"] for row in begun.trim_metrics(20)] == [10, 20]
    assert [json.loads(line)["step"] for line in begun.metrics.read_text().splitlines()] == [10, 20]


def test_states_are_listed_oldest_first_and_half_written_ones_not_at_all(begun: RunFolder) -> None:
    for name in ("step-00000100.safetensors", "step-00000020.safetensors", ".step-00000300-abcd1234.safetensors"):
        path = begun.path / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert begun.checkpoints() == [begun.checkpoint_path(20), begun.checkpoint_path(100)]


def test_a_file_record_is_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_record(tmp_path / "x", "shot") == {
        "path": str(tmp_path / "x"),
        "role": "shot",
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_a_run_needs_its_data_no_more(tiny_base_folder: Path, tmp_path: Path) -> None:
    from dualanodiff.fitted import load

    shots, normals = draw_shots(1, tmp_path / "shots"), draw_normals(tmp_path / "normals")
    run = fit_small(
        tiny_base_folder,
        tmp_path / "run",
        shots=shots,
        normals=normals,
        model__background="paper",
        train__max_train_steps=1,
    )
    shutil.rmtree(tmp_path / "shots")
    shutil.rmtree(tmp_path / "normals")
    assert len(load(run.path).generate(1)) == 1
