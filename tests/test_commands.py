"""The commands together, for real, on a toy base: data -> run -> set -> other masks; and what they refuse."""

import json
import os
import re

import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.images import read_mask, read_rgb
from dualanodiff.progress import silent
from dualanodiff.storage import read_jsonl
from tiny import save_tiny_base

SMALL = [
    "model.rank=2",
    "model.text_rank=2",
    "train.max_train_steps=4",
    "train.checkpointing_steps=2",
    "train.preview_steps=4",
]


@pytest.fixture(autouse=True)
def loud():
    """--json of one test must not silence the next."""
    token = silent.set(False)
    yield
    silent.reset(token)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


def run(*words):
    """A command's exit code, its object, and what it wrote on standard error."""
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr


def settings(*texts):
    return [word for text in [*SMALL, *texts] for word in ("--set", text)]


def test_from_a_folder_of_pictures_to_a_set_in_four_commands(product, base, tmp_path):
    data, runs, sets = product(size=64), tmp_path / "run", tmp_path / "set"
    size = settings("data.resolution=64")

    code, report, _ = run("check", data, "--base", base, *size)
    assert (code, report["errors"], report["costs"]["train_steps"]) == (0, False, 4)
    assert report["costs"]["train_seconds"] > 0

    code, fitted, _ = run("fit", data, "--defect", "scratch", "--base", base, "--out", runs, *size)
    assert (code, fitted["steps"], fitted["shots"]) == (0, 4, 2)
    assert [row["step"] for row in read_jsonl(runs / "metrics.jsonl")][-1] == 4

    few = ["--set", "sample.num_inference_steps=2", "--set", "sample.batch_size=2"]
    code, made, _ = run("generate", runs, "--count", 3, "--out", sets, "--seed", 5, *few)
    assert (code, made["count"], made["made"]) == (0, 3, 3)
    assert {read_rgb(sets / name / "000002.png").shape for name in ("image", "part")} == {(64, 64, 3)}
    assert read_mask(sets / "mask" / "000002.png").shape == (64, 64)

    code, more, _ = run("generate", runs, "--count", 4, "--out", sets, "--seed", 5, *few)
    assert (code, more["count"], more["made"]) == (0, 4, 1)

    code, remade, _ = run("mask", sets, "--method", "key", "--set", "mask.threshold=0.01")
    assert (code, remade["count"], remade["made"]) == (0, 4, 4)


def test_what_a_command_refuses_it_leaves_no_trace_of(product, base, tmp_path):
    data = product(size=64)
    (data / "ground_truth" / "scratch" / "000_mask.png").unlink()
    out = tmp_path / "run"
    code, result, errors = run("fit", data, "--defect", "scratch", "--base", base, "--out", out, *settings())
    assert code == 1
    assert re.fullmatch(r"error: .*000\.png: .*\n", errors)
    assert result == {"error": errors.removeprefix("error: ").strip(), "exit_code": 1}
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "DATA", "--defect", "scrach", "--out", "OUT"], "scrach.*scratch"),
        (["fit", "DATA", "--defect", "scratch", "--category", "nit", "--out", "OUT"], "nit.*nut"),
        (["fit", "DATA/none", "--defect", "scratch", "--out", "OUT"], "none: "),
        (["fit", "DATA", "--defect", "scratch", "--base", "DATA", "--out", "OUT"], "vae"),
        (["fit", "DATA", "--defect", "scratch", "--base", "minii", "--out", "OUT"], "minii: no such base"),
        (["fit", "DATA", "--defect", "scratch", "--shots", "99", "--out", "OUT"], "99"),
        (["fit", "DATA", "--defect", "scratch", "--shots", "none.txt", "--out", "OUT"], "none.txt"),
        (["fit", "DATA", "--defect", "scratch", "--out", "DATA"], "not empty and not a run"),
        (["fit", "DATA", "--defect", "scratch", "--set", "data.resolution=20", "--out", "OUT"], "resolution is 20"),
        (["fit", "DATA", "--defect", "scratch", "--out", "OUT", "--set", "data.key_color=bluish"], "bluish"),
        (
            ["fit", "DATA", "--defect", "scratch", "--out", "OUT", "--set", "model.start=pretrained"],
            "no pre-trained pair",
        ),
        (["fit", "DATA", "--defect", "scratch", "--out", "OUT", "--set", "train.report_to=none-such"], "none-such"),
        (["check", "DATA/none"], "none: "),
        (["check", "DATA", "--defect", "dent"], "dent"),
        (["check", "DATA", "--set", "data.resolution=20"], "resolution is 20"),
        (["generate", "DATA", "--count", "1", "--out", "OUT"], "not a run"),
        (["generate", "DATA/none", "--count", "1", "--out", "OUT"], "none"),
        (["mask", "DATA"], "not a set|no set"),
        (["mask", "DATA/none"], "none"),
        (["import-official", "DATA/none.bin", "--base", "BASE", "--out", "OUT"], "none.bin"),
        (["import-official", "DATA/test/scratch/000.png", "--base", "BASE", "--out", "OUT"], "000.png"),
        (["pretrain", "pack", "DATA/none", "--out", "OUT"], "none: no pictures"),
        (["pretrain", "autoencoder", "DATA/test/scratch/000.png", "--out", "OUT"], "000.png: not a packed"),
        (["pretrain", "unet", "DATA/test/scratch/000.png", "--out", "OUT"], "000.png: not a packed"),
        (["pretrain", "unet", "DATA/pack", "--out", "OUT", "--card", "none.toml"], "none.toml: No such file"),
    ],
)
def test_wrong_input_ends_in_one_clear_line(words, message, product, base, tmp_path):
    data, out = product(size=64), tmp_path / "out"
    places = {"DATA": str(data), "OUT": str(out), "BASE": str(base)}
    words = [re.sub("DATA|OUT|BASE", lambda found: places[found[0]], word) for word in words]
    if words[0] in ("fit", "check") and "--base" not in words:
        words += ["--base", str(base)]
    code, _, errors = run(*words)
    assert code == 1
    assert re.fullmatch(rf"error: .*(?:{message}).*\n", errors), errors
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(product, base, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, errors = run(
        "fit", product(size=64), "--defect", "scratch", "--base", base, "--out", locked / "run", *settings()
    )
    assert code == 1
    assert re.fullmatch(r"error: .*locked.*: Permission denied\n", errors)
