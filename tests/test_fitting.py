"""What a fit computes, keeps and refuses."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dualanodiff import fitting
from dualanodiff.data.shots import part_target
from dualanodiff.errors import SettingsError
from dualanodiff.fitted import load
from dualanodiff.fitting import fit, recommended
from dualanodiff.images import read_rgb
from dualanodiff.model.base import Base, load_base
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.pair_model import wants_bf16
from small import SIDE, adapters, draw_normals, draw_shots, fit_small, logged, same, small_settings


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    return load_base(tiny_base_folder)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """A list that grows by the first argument's length, or by 1, with every call."""
    calls: list[int] = []
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[-1]) if args and hasattr(args[-1], "__len__") else 1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


# -- what it learns


def test_one_shot_can_be_overfitted(tmp_path: Path) -> None:
    """On the shipped base, from pure noise, so that nothing but the training can know the shot."""
    base, [shot] = load_base("mini"), draw_shots(1)
    key = (0, 177, 64)
    wanted = {"image": shot.image, "part": part_target(shot.image, shot.mask, key)}
    changes: dict[str, Any] = {
        "data": {"resolution": SIDE, "flip_horizontal": False, "flip_vertical": False, "key_color": "#00b140"},
        "train": {
            "train_batch_size": 4,
            "lr_scheduler": "constant",
            "prompt_dropout": 0,
            "mixed_precision": "no",
            "checkpointing_steps": 1000,
            "preview_steps": 0,
        },
        "sample": {"num_inference_steps": 10, "guidance_scale": 1, "start": "noise", "batch_size": 3},
    }
    errors: list[dict[str, float]] = []
    losses: list[float] = []
    for steps, rate in ((10, 0.0), (120, 2e-3)):
        train = {"train.max_train_steps": steps, "train.learning_rate": rate}
        settings = recommended(base).updated(changes, "test").updated(train, "test")
        run = fit([shot], base, tmp_path / f"{steps}", settings)
        losses.append(logged(run)[-1]["loss"])
        pairs = load(run.path).generate(3)
        errors.append(
            {
                name: np.mean([np.square(np.asarray(getattr(pair, name)) - target.astype(float)) for pair in pairs])
                for name, target in wanted.items()
            }
        )
    assert losses[1] < 0.6 * losses[0]
    assert errors[1]["image"] < 0.5 * errors[0]["image"]
    assert errors[1]["part"] < 0.65 * errors[0]["part"]


def test_the_same_seed_learns_the_same_and_another_does_not(tiny_base_folder: Path, tmp_path: Path) -> None:
    runs = [fit_small(tiny_base_folder, tmp_path / str(i), seed=seed) for i, seed in enumerate((5, 5, 6))]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_previews_and_checkpoints_do_not_disturb_what_is_learned(tiny_base_folder: Path, tmp_path: Path) -> None:
    plain = fit_small(tiny_base_folder, tmp_path / "plain")
    changes = {"train__preview_steps": 2, "train__checkpointing_steps": 100, "train__max_train_steps": 6}
    other = fit_small(tiny_base_folder, tmp_path / "other", **changes)
    assert same(plain, other)
    assert sorted(path.name for path in (other.path / "preview").iterdir()) == [
        "step-00000002.png",
        "step-00000004.png",
        "step-00000006.png",
    ]
    assert read_rgb(other.path / "preview" / "step-00000002.png").std() > 0
    assert not (plain.path / "preview").exists()


def test_the_base_is_not_changed(base: Base, tmp_path: Path) -> None:
    before = {
        name: [value.clone() for value in getattr(base, name).state_dict().values()]
        for name in ("unet", "vae", "text_encoder")
    }
    fit(draw_shots(), base, tmp_path / "run", small_settings())
    for name, values in before.items():
        after = getattr(base, name).state_dict().values()
        assert all(torch.equal(one, other) for one, other in zip(values, after, strict=True)), name


def test_every_kind_of_adapter_learns(tiny_base_folder: Path, tmp_path: Path) -> None:
    normals = draw_normals(tmp_path / "normals")
    still, moved = (
        fit_small(
            tiny_base_folder,
            tmp_path / name,
            normals=normals,
            model__background="paper",
            model__interaction="full",
            train__learning_rate=rate,
        )
        for name, rate in (("still", 0), ("moved", 1e-3))
    )
    before, after = adapters(still), adapters(moved)
    changed = {key.split("/")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"{n}.safetensors" for n in ("unet_image", "unet_part", "text", "interaction", "background")}


# -- how it computes


def test_gradient_checkpointing_computes_the_same(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fit_small(tiny_base_folder, tmp_path / "plain")
    recomputed = count_calls(monkeypatch, torch.utils.checkpoint, "checkpoint")
    saving = fit_small(tiny_base_folder, tmp_path / "saving", train__gradient_checkpointing="true")
    assert len(recomputed) >= 6 * 4
    assert logged(saving)[-1]["loss"] == pytest.approx(logged(plain)[-1]["loss"], abs=1e-5)
    learned = adapters(saving)
    for name, value in adapters(plain).items():
        torch.testing.assert_close(learned[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("whole_base", [False, True])
def test_bf16_learns_float32_weights_of_about_the_same_loss(
    base: Base, tiny_base_folder: Path, tmp_path: Path, whole_base: bool
) -> None:
    plain = fit_small(tiny_base_folder, tmp_path / "plain")
    if whole_base:  # as the command line loads it
        torch.nn.Module.to(base.unet, torch.bfloat16)
    half = fit(draw_shots(), base, tmp_path / "half", small_settings(train__mixed_precision="bf16"))
    assert logged(half)[-1]["loss"] == pytest.approx(logged(plain)[-1]["loss"], rel=0.05)
    assert {value.dtype for value in adapters(half).values()} == {torch.float32}
    assert not same(half, plain)


def test_auto_precision_is_the_devices() -> None:
    for choice, expected in (("bf16", True), ("no", False)):
        assert wants_bf16(small_settings(train__mixed_precision=choice), torch.device("cpu")) is expected
    auto = small_settings(train__mixed_precision="auto")
    assert isinstance(wants_bf16(auto, torch.device("cpu")), bool)
    assert wants_bf16(auto, torch.device("mps")) is False


def test_pictures_are_encoded_once_and_never_again(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = count_calls(monkeypatch, base.vae, "encode")
    settings = small_settings(data__key_color="green", train__max_train_steps=2)
    fit(draw_shots(), base, tmp_path / "run", settings)
    assert sum(encoded) == 2 * 4 * 2  # shots, mirrored forms, branches
    encoded.clear()
    fit(draw_shots(), base, tmp_path / "run", small_settings(data__key_color="green"), resume=True)
    assert encoded == []


def test_backgrounds_are_encoded_once_and_never_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normals = draw_normals(tmp_path / "normals")
    encoded = count_calls(monkeypatch, base.vae, "encode")
    short, long = (
        small_settings(data__key_color="green", model__background="paper", train__max_train_steps=n) for n in (2, 4)
    )
    fit(draw_shots(), base, tmp_path / "run", short, normals=normals)
    assert sum(encoded) == 2 * 4 * 3 + 3  # shots, mirrored forms, image and part and background; normal pictures
    encoded.clear()
    fit(draw_shots(), base, tmp_path / "run", long, normals=normals, resume=True)
    assert encoded == []


@pytest.mark.parametrize(("rank", "calls"), [(0, 1), (2, 6)])
def test_prompts_are_embedded_once_where_the_text_encoder_does_not_learn(
    rank: int, calls: int, tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = count_calls(monkeypatch, TextAdapter, "embed")
    run = fit_small(tiny_base_folder, tmp_path / "run", model__text_rank=rank)
    assert embedded == [3] * calls  # image, part and empty prompt
    assert (run.adapter / "text.safetensors").exists() == (rank > 0)


def test_the_rate_rises_over_the_warmup(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit_small(tiny_base_folder, tmp_path / "run", train__lr_warmup_steps=4, train__learning_rate=1e-3)
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_falling_rate_falls_to_the_end(
    name: str, tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit_small(tiny_base_folder, tmp_path / "run", train__lr_scheduler=name, train__learning_rate=1e-3)
    assert rates[0] == pytest.approx(1e-3, rel=0.2)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.35 * rates[0]


# -- what it keeps


def test_at_most_two_states_are_kept(tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    checkpoint = fitting.Fit._checkpoint

    def counted(self: fitting.Fit, step: int) -> None:
        checkpoint(self, step)
        counts.append(len(self.folder.checkpoints()))

    monkeypatch.setattr(fitting.Fit, "_checkpoint", counted)
    run = fit_small(tiny_base_folder, tmp_path / "run", train__checkpointing_steps=1)
    assert counts == [1, 2, 2, 2, 2, 2]
    assert [path.stem for path in run.checkpoints()] == ["step-00000005", "step-00000006"]


def test_metrics_have_the_mean_of_ten_steps_and_the_last(tiny_base_folder: Path, tmp_path: Path) -> None:
    run = fit_small(tiny_base_folder, tmp_path / "run", train__max_train_steps=13)
    rows = logged(run)
    assert [row["step"] for row in rows] == [10, 13]
    for row in rows:
        assert row["loss"] == pytest.approx(row["image"] + row["part"] + 0.1 * row["inclusion"], abs=1e-5)
        assert min(row["image"], row["part"], row["inclusion"]) > 0


def test_the_loss_weighs_the_part_as_asked(tiny_base_folder: Path, tmp_path: Path) -> None:
    run = fit_small(tiny_base_folder, tmp_path / "run", train__part_weight=3, train__inclusion_weight=0)
    [row] = logged(run)
    assert row["inclusion"] == 0
    assert row["loss"] == pytest.approx(row["image"] + 3 * row["part"], abs=1e-5)


def test_the_lineage_has_the_hash_of_every_file_that_was_read(tiny_base_folder: Path, tmp_path: Path) -> None:
    shots, normals = draw_shots(2, tmp_path / "shots"), draw_normals(tmp_path / "normals")
    run = fit_small(tiny_base_folder, tmp_path / "run", shots=shots, normals=normals, model__background="paper")
    lineage = json.loads((run.path / "lineage.json").read_text())
    found = {(file["role"], file["path"]): (file["sha256"], file["bytes"]) for file in lineage["files"]}
    expected = {("shot", shot.path) for shot in shots} | {("mask", shot.mask_path) for shot in shots}
    expected |= {("normal", path) for path in normals}
    expected |= {("base", path) for path in tiny_base_folder.glob("*/*.safetensors")}
    assert found.keys() == {(role, str(path)) for role, path in expected}
    for (_, path), (digest, size) in found.items():
        content = Path(path).read_bytes()
        assert (digest, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert lineage["seed"] == 0
    assert lineage["base"] == str(tiny_base_folder)
    assert {"dualanodiff", "torch", "diffusers"} <= lineage["versions"].keys()


def test_normals_are_spread_evenly_when_there_are_too_many(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "MAX_BACKGROUNDS", 3)
    normals = draw_normals(tmp_path / "normals", 3) + draw_normals(tmp_path / "more", 2)
    run = fit_small(
        tiny_base_folder, tmp_path / "run", normals=normals, model__background="paper", train__max_train_steps=1
    )
    kept = [file["path"] for file in run.lineage()["files"] if file["role"] == "normal"]
    assert kept == [str(normals[0]), str(normals[2]), str(normals[4])]
    assert load_file(run.path / "backgrounds.safetensors")["backgrounds"].shape[0] == 3


def test_a_run_with_backgrounds_goes_from_shots_to_pairs(tiny_base_folder: Path, tmp_path: Path) -> None:
    normals = draw_normals(tmp_path / "normals")
    run = fit_small(tiny_base_folder, tmp_path / "run", normals=normals, model__background="paper")
    pairs = load(run.path).generate(2)
    assert [pair.image.size for pair in pairs] == [(SIDE, SIDE)] * 2
    assert "threshold" in run.load_start()[1]["object_masks"]


def test_the_settings_of_the_base_are_the_default(base: Base) -> None:
    base.card["settings"] = {"model": {"rank": 7}, "sample": {"scheduler": "pndm"}}
    found = recommended(base)
    assert (found.model.rank, found.sample.scheduler, found.train.learning_rate) == (7, "pndm", 2e-5)
    base.card["settings"] = {"model": {"rang": 7}}
    with pytest.raises(SettingsError, match=r"base/base.toml: unknown setting 'model.rang'"):
        recommended(base)


# -- what it refuses, and leaves nothing behind
