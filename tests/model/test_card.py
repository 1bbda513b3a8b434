"""The card of a base, as data and as text."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.errors import ModelError
from dualanodiff.model.base import load_base
from dualanodiff.model.card import card_of, render_card, shipped_bases


def test_a_card_lists_every_weight_file_by_hash(tiny_base_folder: Path) -> None:
    card = card_of(load_base(tiny_base_folder))
    assert set(card["files"]) == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    for name, file in card["files"].items():
        assert file["sha256"] == hashlib.sha256((tiny_base_folder / name).read_bytes()).hexdigest()
    base = load_base(tiny_base_folder)
    numbers = sum(weight.numel() for weight in base.unet.parameters())
    assert card["files"]["unet/diffusion_pytorch_model.safetensors"]["weights"] == numbers
    assert card["shape"]["resolution"] == 64


def test_a_base_without_a_card_says_that_nothing_is_known(tiny_base_folder: Path) -> None:
    assert "no base.toml in it" in render_card(card_of(load_base(tiny_base_folder)))


def test_the_shipped_card_names_data_licences_hardware_and_limits() -> None:
    assert "mini" in shipped_bases()
    result = CliRunner().invoke(app, ["card"])
    assert result.exit_code == 0, result.output
    for word in ("pictures:", "GPL-2+", "hardware:", "limits:", "unet/diffusion_pytorch_model.safetensors", "train."):
        assert word in result.stdout, word
    told = json.loads(CliRunner().invoke(app, ["card", "mini", "--json"]).stdout.splitlines()[-1])
    assert told["shape"]["pair"] is True
    assert told["card"]["recipe"]


def test_figures_and_lineage_are_shown_on_a_line_each(tiny_base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base_folder, folder)
    (folder / "base.toml").write_text(
        '[card]\nname = "toy"\nsizes = [64, 128]\n[card.figures]\npsnr = 31.5\nkept = 0.8\n[settings.data]\nflip_vertical = false\n'
    )
    files = [{"role": "normal"}, {"role": "normal"}, {"role": "base"}]
    (folder / "lineage.json").write_text(json.dumps({"base": "mini", "category": "nut", "files": files}))
    text = render_card(card_of(load_base(folder)))
    for line in (
        "figures: psnr 31.5; kept 0.8",
        "sizes: 64, 128",
        "adapted from mini on 2 good pictures",
        "data.flip_vertical=false",
    ):
        assert line in text


def test_a_damaged_lineage_is_named(tiny_base_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base_folder, tmp_path / "base")
    (tmp_path / "base" / "lineage.json").write_text("[]")
    with pytest.raises(ModelError, match=r"lineage.json: not a readable lineage"):
        card_of(load_base(tmp_path / "base"))


def test_a_damaged_weight_file_is_named(tiny_base_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base_folder, tmp_path / "base")
    base = load_base(tmp_path / "base")
    (tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model.safetensors: not a readable safetensors file"):
        card_of(base)


def test_a_base_in_memory_has_no_card(tiny_base_folder: Path) -> None:
    base = dataclasses.replace(load_base(tiny_base_folder), folder=None)
    with pytest.raises(ModelError, match="lies in no folder"):
        card_of(base)
