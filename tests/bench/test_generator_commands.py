"""`bench make` and `bench generators` as they are typed."""

import json

import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app


def call(*words):
    return CliRunner().invoke(app, ["bench", *(str(word) for word in words)])


def test_a_rivals_set_is_made_from_one_line(product, tmp_path):
    words = [
        "make",
        "crop-paste",
        product(),
        "--defect",
        "scratch",
        "--count",
        2,
        "--size",
        32,
        "--out",
        tmp_path / "set",
    ]
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1])["made"] == 2
    assert "2 pairs are in" in call(*words).output


def test_an_unknown_rival_is_one_line_and_exit_code_1(product, tmp_path):
    result = call("make", "dream", product(), "--count", 2, "--out", tmp_path / "set")
    assert result.exit_code == 1
    assert "did you mean 'draem'" in result.output


def test_a_comparison_prints_its_tables_and_fails_where_a_cell_failed(product, tmp_path):
    root, out = product(defects={"scratch": 6}, good=5), tmp_path / "out"
    words = ["generators", "--data", root, "--out", out, "--seeds", "0", "--size", "cpu", "--tables", "3"]
    result = call(*words, "--methods", "no-defects", "--inspector", "side=32")
    assert result.exit_code == 0, result.output
    assert "| no-defects |" in result.output
    assert "Table 3" in result.output
    result = call(
        *words, "--methods", "no-defects", "--inspector", "side=32", "--method", f"theirs={tmp_path}", "--json"
    )
    assert result.exit_code == 1
    found = json.loads(result.output.splitlines()[-1])
    assert [cell["method"] for cell in found["failed"]] == ["theirs"]
    assert [row["method"] for row in found["rows"]] == ["no-defects"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "our"], "did you mean 'ours'"),
        (["--tables", "9"], "there are tables 1, 2"),
        (["--seeds", "a"], "different whole numbers"),
        (["--size", "large"], "--size large"),
        (["--inspector", "speed=3"], "no such setting"),
        (["--arms", "all"], "no arm 'all'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_made(words, said, product, tmp_path):
    result = call("generators", "--data", product(), "--out", tmp_path / "out", *words)
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "out").exists()
