import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dualanodiff.errors import ModelError
from dualanodiff.model.base import Base
from dualanodiff.model.official import load_official, load_official_text, read_official
from model.reference import random_weights, reference
from tiny import WIDTH

FORMS = {
    "old": "text_encoder.text_model.encoder.layers.{n}.self_attn.to_{p}_lora.{side}.weight",
    "linear layer": "text_encoder.text_model.encoder.layers.{n}.self_attn.{p}_proj.lora_linear_layer.{side}.weight",
    "peft": "text_encoder.text_model.encoder.layers.{n}.self_attn.{p}_proj.lora_{ab}.weight",
    "flat peft": "text_encoder.encoder.layers.{n}.self_attn.{p}_proj.lora_{ab}.weight",
}


def text_weights(form: str, rank: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    weights: dict[str, Tensor] = {}
    for n in range(2):
        for p in ("q", "k", "v", "out"):
            for side, ab, shape in (("down", "A", (rank, WIDTH)), ("up", "B", (WIDTH, rank))):
                weights[form.format(n=n, p=p, side=side, ab=ab)] = 0.1 * torch.randn(shape, generator=generator)
    return weights


def official_weights(base: Base, *, background: bool, prefix: str = "unet.") -> tuple[dict, dict[str, Tensor]]:
    """Random weights by our reference's names, and as the authors' file has them."""
    weights = random_weights(base.unet, rank=4, background=background)
    file: dict[str, Tensor] = {}
    for key, value in weights.items():
        path, attn, name = key.partition(".attn1.") if ".attn1." in key else key.partition(".attn2.")
        file[f"{prefix}{path}{attn}processor.{name}"] = value
        if background and name.startswith(("temporal_condition", "temporal_a")):
            # The released class builds these in every processor; the cross-attention layers never use theirs.
            file[f"{prefix}{path}.attn2.processor.{name}"] = torch.full_like(value, 7)
    return weights, file


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("kind", ["bin", "safetensors", "bin without prefix"])
def test_the_imported_model_computes_what_the_formulas_say(
    base: Base, tmp_path: Path, background: bool, kind: str
) -> None:
    weights, tensors = official_weights(base, background=background, prefix="" if "without" in kind else "unet.")
    path = tmp_path / f"pytorch_lora_weights.{kind.split()[0]}"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors | text_weights(FORMS["old"]), path)
    dual = load_official(path, base.unet)
    generator = torch.Generator().manual_seed(9)
    latents = torch.randn(2, 2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 2, 7, WIDTH, generator=generator)
    back = torch.randn(2, 4, 8, 8, generator=generator) if background else None
    moments = torch.tensor([20, 800])
    expected = reference(base.unet, weights, latents, moments, text, back, form="released")
    with torch.no_grad():
        torch.testing.assert_close(dual(latents, moments, text, back), expected, atol=1e-5, rtol=1e-5)
    assert dual.background == ("released" if background else "none")
    assert read_official(path).rank == 4


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_text_encoders_update_is_found_under_each_of_its_names(base: Base, tmp_path: Path, form: str) -> None:
    _, tensors = official_weights(base, background=False)
    weights = text_weights(FORMS[form])
    torch.save(tensors | weights, tmp_path / "file.bin")
    adapter = load_official_text(tmp_path / "file.bin", base.text_encoder, base.tokenizer)
    found = adapter.embed(["a vfx with sks"])
    for n, layer in enumerate(base.text_encoder.encoder.layers):
        for p in ("q", "k", "v", "out"):
            down, up = (
                weights[FORMS[form].format(n=n, p=p, side=side, ab=ab)] for side, ab in (("down", "A"), ("up", "B"))
            )
            getattr(layer.self_attn, f"{p}_proj").weight += up @ down
    ids = base.tokenizer(
        ["a vfx with sks"], padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    ).input_ids
    torch.testing.assert_close(found, base.text_encoder(ids)[0], atol=1e-5, rtol=1e-5)


def test_a_file_without_a_text_update_leaves_the_encoder_plain(base: Base, tmp_path: Path) -> None:
    _, tensors = official_weights(base, background=False)
    torch.save(tensors, tmp_path / "file.bin")
    assert load_official_text(tmp_path / "file.bin", base.text_encoder, base.tokenizer).rank == 0


class Intruder:
    """Runs code when a careless program opens its pickle."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("intruder-was-here"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_pickle_with_a_program_is_refused_and_not_run(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("torch.bin", torch.save),
        ("raw.bin", lambda value, path: path.write_bytes(pickle.dumps(value))),
    ):
        write({"unet.x": Intruder()}, tmp_path / name)
        with pytest.raises(ModelError, match=rf"{name}: refused, since it .* holds more than tensors .* safetensors"):
            load_official(tmp_path / name, base.unet)
    assert not Path("intruder-was-here").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given | {"unet.stray": torch.zeros(1)}, "unet.stray is no part of the authors' format"),
        (
            lambda given: given | {"text_encoder.text_model.final.weight": torch.zeros(1)},
            "text_encoder.text_model.final.weight is no part of the authors' format",
        ),
        (
            lambda given: given | {"unet.down_blocks.9.attn1.processor.to_q_lora.0.up.weight": torch.zeros(1)},
            "down_blocks.9.attn1.to_q_lora.0.up.weight has no place in this base; load it with the base",
        ),
        (
            lambda given: {
                key: value for key, value in given.items() if not key.endswith("attn1.processor.temporal_o.bias")
            },
            r"lacks .*attn1.temporal_o.bias, which this base asks for",
        ),
        (
            lambda given: {key: value[:1] if "to_v_lora.1.up" in key else value for key, value in given.items()},
            r"to_v_lora.1.up.weight is \(1, 4\) but this base asks for \(32, 4\)",
        ),
        (lambda _: {}, "no keys as unet.<path>.processor.to_q_lora.0.down.weight; give the authors' checkpoint"),
        (lambda _: {"unet.x": 3}, "not a dictionary of tensors; give the authors' pytorch_lora_weights.bin"),
        (lambda _: [torch.zeros(1)], "not a dictionary of tensors; give the authors' pytorch_lora_weights.bin"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_first_wrong_key(
    base: Base, tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    _, tensors = official_weights(base, background=False)
    torch.save(change(tensors), tmp_path / "file.bin")
    with pytest.raises(ModelError, match=rf"file\.bin: .*{message}"):
        load_official(tmp_path / "file.bin", base.unet)


def test_a_text_update_for_another_encoder_is_refused(base: Base, tmp_path: Path) -> None:
    _, tensors = official_weights(base, background=False)
    extra = {FORMS["old"].format(n=2, p="q", side="down"): torch.zeros(3, WIDTH)}
    torch.save(tensors | text_weights(FORMS["old"]) | extra, tmp_path / "file.bin")
    with pytest.raises(ModelError, match=r"file\.bin: encoder\.layers\.2\.self_attn\.q_proj\.down has no place"):
        load_official_text(tmp_path / "file.bin", base.text_encoder, base.tokenizer)


def test_a_missing_or_damaged_file_is_named(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.bin: no such file; give the authors' pytorch_lora_weights\.bin"):
        load_official(tmp_path / "none.bin", base.unet)
    torch.save({"unet.x": torch.zeros(1000)}, tmp_path / "half.bin")
    (tmp_path / "half.bin").write_bytes((tmp_path / "half.bin").read_bytes()[:800])
    with pytest.raises(ModelError, match=r"half\.bin: not a readable checkpoint \(.*\); get the authors' file again"):
        load_official(tmp_path / "half.bin", base.unet)
    (tmp_path / "text.bin").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.bin: refused, since it is damaged or holds more than tensors"):
        load_official(tmp_path / "text.bin", base.unet)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.safetensors: not a readable safetensors file"):
        load_official(tmp_path / "text.safetensors", base.unet)
