"""A run taught to draw in few steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dualanodiff.diffusion.start import start_latents
from dualanodiff.distilling import Distillation, distill, draw_lessons, student_settings
from dualanodiff.errors import RunError, SettingsError
from dualanodiff.fitted import FittedModel, load
from dualanodiff.generation import generate_set
from dualanodiff.runs import RunFolder
from dualanodiff.sampler import schedule_of
from small import adapters, draw_normals, fit_small, logged, same


def teach(run: RunFolder, out: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"steps": 4, "lessons": 3, "sampling_steps": 2, "assignments": {}, "resume": False}
    return distill(run.path, out, **options | changes)


@pytest.fixture(scope="module")
def taught(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("distilled") / "run"
    teach(small_run, out)
    return RunFolder(out)


def test_a_distilled_run_is_drawn_from_like_any_other(taught: RunFolder, small_run: RunFolder, tmp_path: Path) -> None:
    calls: list[int] = []
    model = load(taught.path)
    model.sampler.base.unet.register_forward_hook(lambda *_: calls.append(1))
    [first, _, third] = model.generate(3, batch_size=3)
    assert len(calls) == 2  # two steps, and no second call for guidance
    assert generate_set(taught.path, count=2, out=tmp_path / "set", assignments={})["made"] == 2
    assert first.image.tobytes() != third.image.tobytes()
    assert not same(taught, small_run)


def test_its_lineage_names_the_shots_and_the_teacher(taught: RunFolder, small_run: RunFolder) -> None:
    files = taught.lineage()["files"]
    before = small_run.lineage()["files"]
    assert files[: len(before)] == before
    assert {Path(file["path"]).parent for file in files[len(before) :]} == {small_run.adapter}
    assert {file["role"] for file in files[len(before) :]} == {"teacher"}
    assert taught.load_start()[1]["key_threshold"] == small_run.load_start()[1]["key_threshold"]


def test_only_safetensors_hold_numbers_and_the_lessons_are_gone(taught: RunFolder) -> None:
    kinds = {path.suffix for path in taught.path.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".toml", ".json", ".jsonl"}
    assert not (taught.path / "lessons").exists()


def test_lessons_are_the_teachers_own_path(small_run: RunFolder, tmp_path: Path) -> None:
    teacher = load(small_run.path)
    times = torch.tensor([999, 499])
    lessons = draw_lessons(teacher, tmp_path, 3, times)
    assert lessons.states.shape == (3, 2, 2, 4, 8, 8)
    noise = teacher.sampler.noise(teacher.settings.seed, [("lesson", i) for i in range(3)])
    signal = schedule_of(teacher.base).alphas_cumprod[999].item()
    begin = start_latents(noise, teacher.sampler.mean, signal)
    torch.testing.assert_close(lessons.states[:, 0], begin.transpose(0, 1))
    # The way from the middle to the end is shorter than from the beginning.
    apart = [(lessons.states[:, place] - lessons.ends).square().mean() for place in (0, 1)]
    assert apart[1] < apart[0]
    again = draw_lessons(teacher, tmp_path, 3, times)
    assert torch.equal(again.states, lessons.states)


def test_the_student_comes_nearer_to_the_teachers_ends(small_run: RunFolder, tmp_path: Path) -> None:
    changes = {"train.learning_rate": "0.01", "train.train_batch_size": "4"}
    teach(small_run, tmp_path / "run", steps=40, assignments=changes)
    losses = [row["loss"] for row in logged(RunFolder(tmp_path / "run"))]
    assert losses[-1] < 0.8 * losses[0]


def test_a_stopped_distillation_goes_on_to_the_same_run(
    small_run: RunFolder, taught: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Distillation.step

    def stopped(self: Distillation, lessons: Any, step: int) -> torch.Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return original(self, lessons, step)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            teach(small_run, tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints()
    with pytest.raises(RunError, match="add --resume"):
        teach(small_run, tmp_path / "run")
    with pytest.raises(RunError, match="was begun with 3 lessons, now 5"):
        teach(small_run, tmp_path / "run", lessons=5, resume=True)
    teach(small_run, tmp_path / "run", resume=True)
    assert same(RunFolder(tmp_path / "run"), taught)


def test_backgrounds_come_along(tiny_base_folder: Path, tmp_path: Path) -> None:
    normals = draw_normals(tmp_path / "normals")
    run = fit_small(
        tiny_base_folder, tmp_path / "run", normals=normals, model__background="paper", train__max_train_steps=1
    )
    teach(run, tmp_path / "few", steps=2)
    before, after = adapters(run), adapters(RunFolder(tmp_path / "few"))
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert any(key.startswith("background") for key in changed)
    assert not any(key.startswith("text") for key in changed)
    assert len(load(tmp_path / "few").generate(1)) == 1


def test_what_cannot_be_distilled_is_refused(small_run: RunFolder, taught: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="made by distill already"):
        teach(taught, tmp_path / "twice")
    with pytest.raises(SettingsError, match=r"sample.guidance_scale is 1.0 in a distilled run"):
        teach(small_run, tmp_path / "other", assignments={"sample.guidance_scale": "2"})
    assert not (tmp_path / "other").exists()
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.toml").write_bytes((small_run.path / "config.toml").read_bytes())
    with pytest.raises(RunError, match="has not finished"):
        teach(RunFolder(begun), tmp_path / "third")


def test_a_student_keeps_its_teachers_other_settings(small_run: RunFolder) -> None:
    teacher: FittedModel = load(small_run.path)
    settings = student_settings(teacher.settings, 7, 3, {"train.learning_rate": "0.5"})
    assert (settings.sample.scheduler, settings.sample.num_inference_steps) == ("distilled", 3)
    assert (settings.train.max_train_steps, settings.train.learning_rate) == (7, 0.5)
    assert settings.model == teacher.settings.model
    assert json.dumps(settings.to_dict()["data"]) == json.dumps(teacher.settings.to_dict()["data"])
