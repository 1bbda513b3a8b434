"""A pair for a base that exists already: what is learned, what stays, that it can be stopped, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.errors import DataError, RunError
from dualanodiff.model.base import load_base
from dualanodiff.preparing import recommended
from dualanodiff.pretrain.bank import Bank, build_bank, choose_prompts
from dualanodiff.pretrain.pair import PairPlan, PairTraining, pretrain_pair
from dualanodiff.settings import Settings
from dualanodiff.storage import read_jsonl, sha256
from small import fit_small

PLAN = PairPlan(steps=4, batch=2, drawn=8, save_every=2, rate=1e-3)
SIZES = {"model.rank": "4", "model.interaction": "lowrank", "model.interaction_rank": "4"}


def settings_of(base: Path) -> Settings:
    small = {"data.resolution": "64", "train.mixed_precision": "no", **SIZES}
    return recommended(load_base(base)).updated(small, "test")


def learn(base: Path, out: Path, seconds: float = float("inf"), **changes: Any) -> dict[str, Any]:
    plan = PairPlan(**{**vars(PLAN), **changes})
    return pretrain_pair(load_base(base), out, plan, settings_of(base), seconds=seconds)


@pytest.fixture(scope="module")
def made(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair") / "base"
    result = learn(tiny_base_folder, out)
    assert result["done"]
    assert result["step"] == 4
    return out


def test_the_base_stays_as_it_was_and_the_pair_is_where_fits_begin(
    tiny_base_folder: Path, made: Path, tmp_path: Path
) -> None:
    for part in ("vae", "text_encoder", "unet"):
        for path in (tiny_base_folder / part).glob("*.safetensors"):
            assert sha256(path) == sha256(made / part / path.name)
    base = load_base(made)
    assert recommended(base).model.interaction == "lowrank"
    assert recommended(base).data.resolution == 64
    assert not (made / "work").exists()
    assert "4 steps of 2 on 8 procedural pairs at 64 px" in base.card["card"]["pair"]
    run = fit_small(made, tmp_path / "run", model__start="pretrained", train__max_train_steps=1)
    assert run.load_start()[1]["start"] == "pretrained"


def test_both_branches_and_the_interaction_have_learned(made: Path) -> None:
    for name, up in (("unet_image", "lora_B"), ("unet_part", "lora_B"), ("interaction", "leave")):
        learned = {key: value for key, value in load_file(made / "pair" / f"{name}.safetensors").items() if up in key}
        assert learned
        # They begin at zero, where a branch changes nothing.
        assert all(value.abs().max() > 0 for value in learned.values())


def test_a_stopped_training_goes_on_to_the_same_pair(
    tiny_base_folder: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PairTraining.step

    def dying(self: PairTraining, bank: Bank, step: int) -> torch.Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return original(self, bank, step)

    out = tmp_path / "base"
    with monkeypatch.context() as patched:
        patched.setattr(PairTraining, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            learn(tiny_base_folder, out)
    assert not (out / "base.toml").exists()
    assert learn(tiny_base_folder, out)["done"]
    assert [row["step"] for row in read_jsonl(out / "pair.jsonl")] == [4]
    for path in (made / "pair").iterdir():
        once, twice = load_file(path), load_file(out / "pair" / path.name)
        assert all(torch.equal(once[key], twice[key]) for key in once), path.name


def test_time_that_runs_out_leaves_a_state_and_no_base(tiny_base_folder: Path, tmp_path: Path) -> None:
    result = learn(tiny_base_folder, tmp_path / "base", seconds=0)
    assert not result["done"]
    assert (result["step"], result["loss"]) == (0, None)
    assert not (tmp_path / "base" / "base.toml").exists()


def test_what_was_begun_otherwise_is_refused(tiny_base_folder: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was begun with other --learning-rate 0.001, now 0.5; go on with the same"):
        learn(tiny_base_folder, made, rate=0.5)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty and was not begun by this command"):
        learn(tiny_base_folder, tmp_path)
    with pytest.raises(RunError, match=r"notes.txt: is a file; choose another --out"):
        learn(tiny_base_folder, tmp_path / "notes.txt")
    base = load_base(tiny_base_folder)
    odd = settings_of(tiny_base_folder).updated({"data.resolution": "72"}, "test")
    with pytest.raises(DataError, match=r"data.resolution is 72, which this base cannot halve evenly"):
        pretrain_pair(base, tmp_path / "odd", PLAN, odd)
    assert not (tmp_path / "odd").exists()


def test_a_bank_of_another_encoder_is_refused(tiny_base_folder: Path, tmp_path: Path) -> None:
    base = load_base(tiny_base_folder)
    wanted = {"pairs": 2, "singles": 0, "size": 64, "seed": 0}
    assert build_bank(base, None, tmp_path, **wanted)
    assert build_bank(base, None, tmp_path, **wanted)
    assert not build_bank(base, None, tmp_path, **{**wanted, "pairs": 600}, seconds=0)
    next(base.vae.encoder.parameters()).data.add_(1)
    with pytest.raises(DataError, match=r"was made by another autoencoder, .*; delete it"):
        build_bank(base, None, tmp_path, **wanted)


def test_the_shares_of_prompts_are_what_the_plan_says() -> None:
    chances = [i / 1000 for i in range(1000)]
    chosen = [choose_prompts(("a", "b"), ("vfx", "sks"), chance, dropout=0.1, share=0.5) for chance in chances]
    assert [chosen.count(words) for words in (("", ""), ("vfx", "sks"), ("a", "b"))] == [100, 450, 450]


def test_the_command_says_where_it_stands(tiny_base_folder: Path, tmp_path: Path) -> None:
    words = ["pretrain", "pair", "--base", str(tiny_base_folder), "--out", str(tmp_path / "base"), "--steps", "2"]
    words += ["--pairs", "4", "--batch-pairs", "1", "--set", "data.resolution=64", "--set", "model.rank=4"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "2 of 2 steps" in result.output
    assert "Next: dualanodiff fit DATA --defect D --base" in result.output


def test_the_command_that_ran_out_of_time_says_so(tiny_base_folder: Path, tmp_path: Path) -> None:
    words = ["pretrain", "pair", "--base", str(tiny_base_folder), "--out", str(tmp_path / "base"), "--minutes", "0"]
    result = CliRunner().invoke(app, [*words, "--set", "data.resolution=64", "--set", "model.rank=4"])
    assert result.exit_code == 0, result.output
    assert "0 of 3000 steps" in result.output
    assert "Next: the same command again" in result.output
    as_json = CliRunner().invoke(app, [*words, "--set", "data.resolution=64", "--set", "model.rank=4", "--json"])
    assert '"loss": null' in as_json.output
