import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dualanodiff.errors import ModelError
from dualanodiff.model.adapters import load_adapters, read_config, save_adapters
from dualanodiff.model.base import Base, load_base
from dualanodiff.model.dual import BRANCHES, DualUNet
from dualanodiff.model.prompts import TextAdapter
from tiny import WIDTH


def build(base: Base, *, text_rank: int = 3, seed: int = 0, **options: Any) -> tuple[DualUNet, TextAdapter]:
    """A model with random weights everywhere."""
    dual = DualUNet(base.unet, rank=4, **options)
    text = TextAdapter(base.text_encoder, base.tokenizer, rank=text_rank)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*dual.parameters(), *text.parameters()):
            parameter.normal_(std=0.2, generator=generator)
    return dual, text


def stock_pipeline(base: Base) -> StableDiffusionPipeline:
    parts = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    others: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(**parts, **others, requires_safety_checker=False)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([10, 900]), torch.randn(2, 2, 7, WIDTH, generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {"interaction": "full", "background": "paper"},
        {"interaction": "lowrank", "interaction_rank": 5, "background": "released"},
        {"interaction": "none", "text_rank": 0},
    ],
)
def test_saved_adapters_load_as_they_were(base: Base, tmp_path: Path, options: dict[str, Any]) -> None:
    dual, text = build(base, **options)
    save_adapters(dual, text, tmp_path)
    state = torch.random.get_rng_state()
    found, found_text = load_adapters(tmp_path, base)
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, two in ((dual, found), (text, found_text)):
        assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    assert read_config(tmp_path)["background"] == options.get("background", "none")
    files = {"unet_image", "unet_part"}
    files |= {name for name in ("interaction", "background") if options.get(name, "none") != "none"}
    files |= {"text"} if options.get("text_rank") != 0 else set()
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.safetensors" for name in files}


def test_saving_a_smaller_model_leaves_no_file_of_the_larger(base: Base, tmp_path: Path) -> None:
    save_adapters(*build(base, background="paper"), tmp_path)
    save_adapters(*build(base, interaction="none", text_rank=0), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"unet_image.safetensors", "unet_part.safetensors"}


def test_half_precision_files_are_half_as_large(base: Base, tmp_path: Path) -> None:
    dual, text = build(base)
    save_adapters(dual, text, tmp_path / "full")
    save_adapters(dual, text, tmp_path / "half", dtype=torch.float16)
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    found, _ = load_adapters(tmp_path / "half", base)
    for name, value in dual.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, atol=1e-3, rtol=1e-3)
        assert found.state_dict()[name].dtype == torch.float32


@pytest.mark.parametrize("way", ["unet", "pipeline"])
def test_stock_diffusers_computes_our_branches(base: Base, tiny_base_folder: Path, tmp_path: Path, way: str) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRA files through peft, which is not installed")
    dual, text = build(base, interaction="none")
    save_adapters(dual, text, tmp_path)
    latents, moments, prompts = inputs()
    with torch.no_grad():
        expected = dual(latents, moments, prompts)
    for i, branch in enumerate(BRANCHES):
        stock = load_base(tiny_base_folder)
        file = tmp_path / f"unet_{branch}.safetensors"
        if way == "unet":
            stock.unet.load_lora_adapter(file, prefix="unet")
        else:
            stock_pipeline(stock).load_lora_weights(tmp_path, weight_name=file.name)
        with torch.no_grad():
            found = stock.unet(latents[i], moments, prompts[i]).sample
        torch.testing.assert_close(found, expected[i], atol=1e-5, rtol=1e-5)


def test_stock_diffusers_computes_our_text_embeddings(base: Base, tiny_base_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRA files through peft, which is not installed")
    dual, text = build(base, interaction="none")
    save_adapters(dual, text, tmp_path)
    stock = load_base(tiny_base_folder)
    ids = stock.tokenizer(
        ["a vfx with sks"], padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    ).input_ids
    stock_pipeline(stock).load_lora_weights(tmp_path, weight_name="text.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(stock.text_encoder(ids)[0], text.embed(["a vfx with sks"]), atol=1e-5, rtol=1e-5)


@pytest.fixture
def folder(base: Base, tmp_path: Path) -> Path:
    save_adapters(*build(base, background="paper"), tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("name", ["unet_image", "unet_part", "text", "interaction", "background"])
def test_a_missing_or_damaged_file_is_named(base: Base, folder: Path, name: str) -> None:
    file = folder / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match=rf"{name}\.safetensors: not a readable safetensors file .*; copy it again"):
        load_adapters(folder, base)
    file.unlink()
    with pytest.raises(ModelError, match=rf"{name}\.safetensors: no such file; copy the whole adapter folder"):
        load_adapters(folder, base)


def test_another_bases_adapters_are_refused_with_both_sizes(base: Base, folder: Path) -> None:
    config = dict(base.unet.config) | {"cross_attention_dim": 48}
    other = Base(**{**vars(base), "unet": type(base.unet).from_config(config)})
    with pytest.raises(
        ModelError, match=r"unet_image\.safetensors: unet\..*attn2\.to_k\.lora_A\.weight is \(4, 32\) but .* \(4, 48\)"
    ):
        load_adapters(folder, other)


def test_missing_and_superfluous_keys_are_named(base: Base, folder: Path) -> None:
    file = folder / "interaction.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    save_file(tensors | {"stranger": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"interaction\.safetensors: stranger has no place in this base; load it with"):
        load_adapters(folder, base)
    save_file({key: value for key, value in tensors.items() if key != first}, file)
    with pytest.raises(ModelError, match=rf"interaction\.safetensors: lacks {first}, which this base asks for; load"):
        load_adapters(folder, base)


def test_a_foreign_lora_file_is_no_adapter_folder(folder: Path) -> None:
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, folder / "unet_image.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"unet_image\.safetensors: a LoRA file that this program did not write; give"):
        read_config(folder)


def test_the_lora_files_say_their_rank_and_targets(folder: Path) -> None:
    with safe_open(folder / "unet_part.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        keys = set(file.keys())
    assert (header["unet.r"], header["unet.lora_alpha"]) == (4, 4)
    assert header["unet.target_modules"] == ["to_q", "to_k", "to_v", "to_out.0"]
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in keys
    assert len(keys) == 14 * 4 * 2  # layers, projections, down and up


def test_a_copied_folder_needs_nothing_else(base: Base, folder: Path, tmp_path: Path) -> None:
    moved = shutil.move(folder, tmp_path / "elsewhere")
    dual, text = load_adapters(Path(moved), base)
    assert (dual.rank, dual.interaction, dual.background, text.rank) == (4, "full", "paper", 3)
