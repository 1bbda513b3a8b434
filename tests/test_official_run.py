"""A checkpoint of the authors' code becomes a run that makes pairs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dualanodiff.errors import ModelError, RunError
from dualanodiff.fitted import load
from dualanodiff.generation import generate_set
from dualanodiff.model.base import Base, load_base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.official import to_official
from dualanodiff.official_run import import_official
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from small import draw_normals
from tiny import WIDTH


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    return load_base(tiny_base_folder)


def write_official(base: Base, path: Path, *, background: bool = False) -> DualUNet:
    """The authors' file of a model with random weights; the model."""
    dual = DualUNet(base.unet, rank=4, interaction="full", background="released" if background else "none")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in dual.parameters():
            parameter.normal_(std=0.05, generator=generator)
    tensors: dict[str, Tensor] = {}
    for key, value in to_official(dual).items():
        layer, _, name = key.partition(".attn1." if ".attn1." in key else ".attn2.")
        attn = "attn1" if ".attn1." in key else "attn2"
        tensors[f"unet.{layer}.{attn}.processor.{name}"] = value.clone()
    for n in range(2):
        for p in "qkv":
            for side, shape in (("down", (4, WIDTH)), ("up", (WIDTH, 4))):
                key = f"text_encoder.text_model.encoder.layers.{n}.self_attn.to_{p}_lora.{side}.weight"
                tensors[key] = 0.05 * torch.randn(shape, generator=generator)
            tensors |= {
                key.replace("to_q", "to_out"): value.clone()
                for key, value in tensors.items()
                if "to_q_lora" in key and "text" in key
            }
    torch.save(tensors, path)
    return dual


def quick(run: Path, out: Path, **options: Any) -> dict[str, Any]:
    few = {"sample.num_inference_steps": "2", "sample.batch_size": "2", "train.mixed_precision": "no"}
    return generate_set(run, count=2, out=out, assignments=few, **options)


def test_an_imported_checkpoint_makes_pairs(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    write_official(base, tmp_path / "theirs.bin")
    found = import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    assert found == {"run": str(tmp_path / "run"), "rank": 4, "background": "none"}
    assert quick(tmp_path / "run", tmp_path / "set")["made"] == 2
    pairs = PairSet.open(tmp_path / "set")
    assert pairs.done() == {0, 1}
    assert pairs.read("image", 0).shape == (64, 64, 3)


def test_the_run_computes_what_the_file_says(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    theirs = write_official(base, tmp_path / "theirs.bin")
    import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    ours = load(tmp_path / "run", assignments={"train.mixed_precision": "no"}).sampler.dual
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 2, 4, 8, 8, generator=generator), torch.randn(2, 2, 7, WIDTH, generator=generator)
    with torch.no_grad():
        expected = theirs(latents, torch.tensor([9, 900]), text)
        torch.testing.assert_close(ours(latents, torch.tensor([9, 900]), text), expected, atol=1e-5, rtol=1e-5)


def test_the_run_works_as_the_scripts_do(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    write_official(base, tmp_path / "theirs.bin")
    import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    settings, (mean, facts) = run.settings(), run.load_start()
    assert (settings.sample.start, settings.sample.scheduler, settings.sample.num_inference_steps) == (
        "noise",
        "pndm",
        100,
    )
    assert (settings.data.resolution, settings.model.rank, settings.model.text_rank) == (64, 4, 4)
    assert facts["key_color"] == [128, 128, 128]
    assert mean.shape == (2, 4, 8, 8)
    [file] = [file for file in run.lineage()["files"] if file["role"] == "official checkpoint"]
    assert file["path"] == str(tmp_path / "theirs.bin")


def test_the_background_variant_asks_for_normals_and_makes_pairs_with_them(
    base: Base, tiny_base_folder: Path, tmp_path: Path
) -> None:
    write_official(base, tmp_path / "theirs.bin", background=True)
    found = import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    assert found["background"] == "released"
    with pytest.raises(
        RunError, match=r"backgrounds.safetensors: not readable .*; give normal pictures with --normals"
    ):
        quick(tmp_path / "run", tmp_path / "set")
    draw_normals(tmp_path / "normals")
    assert quick(tmp_path / "run", tmp_path / "set", normals=tmp_path / "normals")["made"] == 2


def test_a_taken_folder_is_left_alone(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    write_official(base, tmp_path / "theirs.bin")
    import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    with pytest.raises(RunError, match=r"run: holds a run already; .*choose another --out"):
        import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    with pytest.raises(RunError, match=r"mine: is not empty and not a run"):
        import_official(tmp_path / "theirs.bin", base=str(tiny_base_folder), out=tmp_path / "mine")


def test_a_file_that_is_not_theirs_leaves_nothing_behind(tiny_base_folder: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(ModelError, match=r"other.bin: conv.weight is no part of the authors' format"):
        import_official(tmp_path / "other.bin", base=str(tiny_base_folder), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_base_that_does_not_fit_leaves_nothing_behind(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.bin"
    write_official(base, path)
    tensors = torch.load(path, weights_only=True)
    name = next(key for key in tensors if key.endswith("to_k_lora.0.down.weight") and ".attn2." in key)
    torch.save(tensors | {name: torch.zeros(4, 768)}, path)
    with pytest.raises(ModelError, match=r"theirs.bin: .*to_k_lora.0.down.weight is \(4, 768\) but this base asks for"):
        import_official(path, base=str(tiny_base_folder), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
