"""Bases beside each other: what is compared, that nothing is made twice, and what the tables say."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dualanodiff.bench import bases as module
from dualanodiff.bench.bases import REAL, Budget, compare_bases
from dualanodiff.bench.bases_page import bases_page, bases_table
from dualanodiff.bench.entries import RANDOM, base_fingerprint, base_of, random_base, read_entries
from dualanodiff.bench.tasks import Task, read_tasks
from dualanodiff.cli import app
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.model.base import load_base
from dualanodiff.runs import RunFolder
from small import SMALL

BUDGET = Budget(steps=1, count=3, side=64, network="mini-vae")


@pytest.fixture
def carded(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """The toy base with a card that recommends a run of a second."""
    folder = tmp_path / "carded"
    shutil.copytree(tiny_base_folder, folder)
    groups: dict[str, dict[str, Any]] = {}
    for name, value in SMALL.items():
        group, key = name.split(".")
        groups.setdefault(group, {})[key] = value
    (folder / "base.toml").write_text(tomli_w.dumps({"settings": groups}))
    return folder


# -- what is compared


def test_a_task_is_named_by_folder_category_and_defect(product, tmp_path: Path) -> None:
    nut, bolt = product("nut"), product("bolt", defects={"dent": 3, "rust": 3})
    data = nut.parent
    assert read_tasks([f"{data}:nut:scratch"]) == [Task(data, "nut", "scratch")]
    assert read_tasks([f"{nut}:scratch"]) == [Task(nut, "nut", "scratch")]
    assert [task.name for task in read_tasks([str(data)])] == ["bolt/dent", "bolt/rust", "nut/scratch"]
    assert [task.name for task in read_tasks([f"{bolt}:rust", str(bolt)])] == ["bolt/rust", "bolt/dent"]


def test_our_own_tasks_stand_for_a_folder_that_holds_them(product) -> None:
    data = product("magnetic_tile", defects={"blowhole": 3, "crack": 3, "fray": 3}).parent
    product("other")
    assert [task.name for task in read_tasks([str(data)])] == ["magnetic_tile/blowhole", "magnetic_tile/crack"]


def test_a_task_that_is_not_there_is_refused(product, tmp_path: Path) -> None:
    data = product("nut").parent
    with pytest.raises(DataError, match="no defect 'scrach'; did you mean 'scratch'"):
        read_tasks([f"{data}:nut:scrach"])
    with pytest.raises(DataError, match="no folder can be opened here"):
        read_tasks([str(tmp_path / "nothing")])


def test_a_variant_changes_settings() -> None:
    plain, alone, bare = read_entries(
        ["mini", "mini@alone:sample.inclusion=0,train.max_train_steps=9", "a/b@bare:train.adapt_steps=0"]
    )
    assert (plain.name, plain.base, plain.assignments) == ("mini", "mini", {})
    assert alone.name == "mini@alone"
    assert alone.sample_assignments == {"sample.inclusion": "0"}
    assert alone.fit_assignments == {"train.max_train_steps": "9"}
    assert (bare.base, bare.fit_assignments) == ("a/b", {"train.adapt_steps": "0"})


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["mini@alone"], "write a variant as BASE@NAME:setting=value"),
        (["mini@x:train.adapt_steps=many"], "train.adapt_steps is 'many' but must be"),
        (["mini@x:sample.incluson=0"], "did you mean 'sample.inclusion'"),
        (["mini", "mini"], "mini: named twice"),
    ],
)
def test_an_unclear_variant_is_refused(texts: list[str], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        read_entries(texts)


def test_a_random_base_has_the_shape_and_the_autoencoder_and_nothing_else(carded: Path, tmp_path: Path) -> None:
    folder = Path(random_base(str(carded), tmp_path / "random", seed=1))  # the toy itself was drawn with 0
    made, like = load_base(folder), load_base(carded)
    assert {**made.unet.config, "_name_or_path": ""} == {**like.unet.config, "_name_or_path": ""}
    for part, equal in (("vae", True), ("unet", False), ("text_encoder", False)):
        one, other = (load_file(next((place / part).glob("*.safetensors"))) for place in (folder, carded))
        assert all(torch.equal(one[key], other[key]) for key in one) is equal, part
    assert not (folder / "pair").exists()
    assert made.card == like.card
    before = (folder / "random.json").stat().st_mtime_ns
    assert random_base(str(carded), tmp_path / "random", seed=1) == str(folder)
    assert (folder / "random.json").stat().st_mtime_ns == before


def test_random_takes_the_shape_of_the_first_other_base(carded: Path, tmp_path: Path) -> None:
    entries = read_entries([RANDOM, str(carded)])
    assert Path(base_of(entries[0], entries, tmp_path)).name.startswith("like-carded-")


def test_variants_share_the_base_that_is_adapted_to_a_product(carded: Path, product, tmp_path: Path) -> None:
    tasks = read_tasks([str(product(size=64, good=8))])
    words = "train.adapt_steps=1,train.learning_rate"
    entries = read_entries([f"{carded}@slow:{words}=1e-5", f"{carded}@fast:{words}=1e-3"])
    compare_bases(entries, tasks, tmp_path / "out", BUDGET)
    [adapted] = (tmp_path / "out" / "adapted").iterdir()
    for run in (tmp_path / "out" / "runs").glob("*/*"):
        assert RunFolder(run).lineage()["base"] == str(adapted)


# -- the cells


def test_a_card_that_recommends_something_else_makes_another_cell(carded: Path) -> None:
    before, card = base_fingerprint(str(carded)), load_base(carded).card
    (carded / "base.toml").write_text(tomli_w.dumps({**card, "card": {"limits": "small"}}))
    assert base_fingerprint(str(carded)) == before
    card["settings"]["train"]["adapt_rate"] = 3e-3
    (carded / "base.toml").write_text(tomli_w.dumps(card))
    assert base_fingerprint(str(carded)) != before


def test_cells_are_made_once_and_variants_of_sampling_share_a_fit(
    carded: Path, product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = read_tasks([str(product(size=64))])
    fits: list[Path] = []
    original = module.fit_folder
    monkeypatch.setattr(module, "fit_folder", lambda *a, **k: fits.append(k["out"]) or original(*a, **k))
    entries = read_entries([str(carded), f"{carded}@noise:sample.start=noise"])
    result = compare_bases(entries, tasks, tmp_path / "out", BUDGET)
    assert [cell["base"] for cell in result["cells"]] == [REAL, str(carded), f"{carded}@noise"]
    assert len(fits) == 1
    for cell in result["cells"][1:]:
        assert cell["pairs"] == 3
        assert cell["steps"] == 1
        assert cell["start"] == "fresh"
        assert cell["kid"] is not None
        assert 0 <= cell["aligned"] <= 1
        assert (tmp_path / "out" / cell["sheet"]).is_file()
    assert result["networks"]["kid"].startswith("mini-vae")
    more = read_entries([str(carded), f"{carded}@noise:sample.start=noise", RANDOM])
    again = compare_bases(more, tasks, tmp_path / "out", BUDGET)
    assert again["cells"][:3] == result["cells"]
    assert len(fits) == 2
    assert "like-carded" in str(fits[1])


def test_a_base_made_anew_under_its_name_is_compared_anew(carded: Path, product, tmp_path: Path) -> None:
    tasks, entries = read_tasks([str(product(size=64))]), read_entries([str(carded), RANDOM])
    first = compare_bases(entries, tasks, tmp_path / "out", BUDGET)
    card = load_base(carded).card
    card["settings"]["train"]["learning_rate"] = 0.5 * card["settings"]["train"].get("learning_rate", 1e-3)
    (carded / "base.toml").write_text(tomli_w.dumps(card))
    second = compare_bases(entries, tasks, tmp_path / "out", BUDGET)
    assert first["cells"][0] == second["cells"][0]
    for before, after in zip(first["cells"][1:], second["cells"][1:], strict=True):
        assert before["sheet"] != after["sheet"]
        assert before["run"] != after["run"]


def test_the_command_prints_the_table_and_writes_the_page(carded: Path, product, tmp_path: Path) -> None:
    words = ["bench", "bases", str(carded), "--data", str(product(size=64)), "--out", str(tmp_path / "out")]
    words += ["--steps", "1", "--count", "2", "--side", "64", "--network", "mini-vae"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"| {carded} |" in result.stdout
    page = (tmp_path / "out" / "bases.html").read_text()
    assert "<img src=" in page
    again = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(again.stdout.splitlines()[-1])["budget"]["steps"] == 1


def test_tables_show_dashes_for_what_was_not_measured() -> None:
    cells = [
        {"base": REAL, "task": "nut/<scratch>", "kid": 1.5, "kid_deviation": None, "pairs": 2},
        {"base": "mini", "task": "nut/<scratch>", "bond": {"bond_share": 0.75, "swapped_share": None}, "steps": 9}
        | {"fit_seconds": 12.0, "sheet": "sets/mini/pairs.png", "good": 0.5},
    ]
    facts = {"budget": vars(BUDGET), "networks": {"kid": "a", "spread": "b"}, "cells": cells}
    table = bases_table(facts)
    assert "| 1.50 +- - |" in table
    assert "| 0.75 (-) |" in table
    assert "| 9 in 12 s |" in table
    page = bases_page(facts)
    assert "nut/&lt;scratch&gt;" in page
    assert "<scratch>" not in page
    assert '<img src="sets/mini/pairs.png"' in page
