import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from dualanodiff.model.base import Base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter

PROMPTS = ["a vfx with sks", "sks", ""]


def random_adapter(base: Base, rank: int = 4) -> TextAdapter:
    adapter = TextAdapter(base.text_encoder, base.tokenizer, rank=rank)
    with torch.no_grad():
        adapter.up.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return adapter


@pytest.mark.parametrize("rank", [0, 4])
@torch.no_grad()
def test_a_fresh_adapter_embeds_as_stable_diffusion_does(base: Base, rank: int) -> None:
    ids = base.tokenizer(PROMPTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt").input_ids
    expected = base.text_encoder(ids)[0]
    adapter = TextAdapter(base.text_encoder, base.tokenizer, rank=rank)
    assert torch.equal(adapter.embed(PROMPTS), expected)
    assert expected.shape == (3, 12, 32)


@torch.no_grad()
def test_the_update_is_a_low_rank_change_of_every_attention_matrix(base: Base) -> None:
    adapter = random_adapter(base)
    found = adapter.embed(PROMPTS)
    for path, down, up in zip(adapter.paths, adapter.down, adapter.up, strict=True):
        base.text_encoder.get_submodule(path).weight += up @ down  # type: ignore[operator]
    assert adapter.paths[0] == "encoder.layers.0.self_attn.k_proj"
    assert len(adapter.paths) == 8
    torch.testing.assert_close(found, TextAdapter(base.text_encoder, base.tokenizer, rank=0).embed(PROMPTS))


def test_only_the_update_is_learned_and_the_encoder_stays_as_it_was(base: Base) -> None:
    before = {key: value.clone() for key, value in base.text_encoder.state_dict().items()}
    adapter = random_adapter(base)
    adapter.embed(PROMPTS).square().mean().backward()
    assert set(adapter.state_dict()) == {"down", "up"}
    assert adapter.down.grad is not None
    assert (adapter.down.grad.abs().amax((1, 2)) > 0).all()
    assert not any(parameter.requires_grad for parameter in base.text_encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in base.text_encoder.state_dict().items())


def test_the_update_learns_from_both_branches(base: Base) -> None:
    dual = DualUNet(base.unet, rank=4, interaction="none")
    latents, moments = torch.randn(2, 2, 4, 8, 8), torch.tensor([5, 500])
    for branch in (0, 1):
        adapter = random_adapter(base)
        text = adapter.embed(PROMPTS[:2]).unsqueeze(1)
        dual(latents, moments, text)[branch].square().mean().backward()
        assert adapter.up.grad is not None
        assert (adapter.up.grad.abs().amax((1, 2)) > 0).all()


@torch.no_grad()
def test_autocast_does_not_round_the_update_away(base: Base) -> None:
    adapter = random_adapter(base)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter.embed(PROMPTS), adapter(PROMPTS))


@torch.no_grad()
def test_a_long_prompt_is_cut(base: Base) -> None:
    adapter = TextAdapter(base.text_encoder, base.tokenizer, rank=0)
    assert torch.equal(adapter.embed(["a b c " * 20]), adapter.embed(["a b c " * 30]))


def test_fresh_weights_come_from_the_generator(base: Base) -> None:
    one, two = (
        TextAdapter(base.text_encoder, base.tokenizer, rank=16, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(one.down, two.down)
    assert one.down.std().item() == pytest.approx(1 / 16, rel=0.1)
    assert one.up.abs().max() == 0


def test_the_count_on_clip_l_is_the_papers(base: Base) -> None:
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    with torch.device("meta"):
        encoder = CLIPTextModel(config)
    adapter = TextAdapter(encoder, base.tokenizer)
    assert sum(value.numel() for value in adapter.parameters()) == 2_359_296  # method.md: 2.36 M
