import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from dualanodiff.errors import ModelError
from dualanodiff.model.base import Base, load_base

STEMS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy base, to be broken."""
    return Path(shutil.copytree(tiny_base_folder, tmp_path / "base"))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], to: Path | None = None) -> None:
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, to or path, metadata={"format": "pt"})


def test_a_base_knows_its_sizes(base: Base, tiny_base_folder: Path) -> None:
    assert (base.resolution, base.latent_factor, base.latent_channels) == (64, 8, 4)
    assert base.folder == tiny_base_folder
    assert base.card == {}
    assert base.scheduler.config["steps_offset"] == 1
    for part in (base.vae, base.unet, base.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_latents_are_the_scaled_mean_and_decode_to_pictures_in_range(base: Base) -> None:
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = base.encode(rgb)
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(latents, base.encode(rgb))
    with torch.no_grad():
        torch.testing.assert_close(latents, base.vae.encode(rgb).latent_dist.mean * 0.5)  # the toy's scaling_factor
        picture = base.vae.decode(latents / 0.5).sample.clamp(-1, 1)
    assert torch.equal(base.decode(latents), picture)
    assert base.decode(latents * 1e4).abs().max() == 1


def test_a_shift_factor_is_taken_off_and_put_back(folder: Path, base: Base) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"shift_factor": 0.25}))
    shifted, rgb = load_base(folder), torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(shifted.encode(rgb), base.encode(rgb) - 0.25 * 0.5)
    torch.testing.assert_close(shifted.decode(shifted.encode(rgb)), base.decode(base.encode(rgb)))


@pytest.mark.parametrize("suffix", ["", ".fp16"])
def test_half_precision_files_load_into_the_asked_dtype(folder: Path, base: Base, suffix: str) -> None:
    for part, stem in STEMS.items():
        rewrite(
            folder / part / f"{stem}.safetensors",
            lambda tensors: {key: value.half() for key, value in tensors.items()},
            folder / part / f"{stem}{suffix}.safetensors",
        )
    full = load_base(folder)
    for part in (full.vae, full.unet, full.text_encoder):
        assert {value.dtype for value in part.parameters()} == {torch.float32}
    torch.testing.assert_close(full.unet.conv_in.weight, base.unet.conv_in.weight, atol=1e-3, rtol=1e-3)
    brief = load_base(folder, dtype=torch.bfloat16)
    assert {value.dtype for part in (brief.vae, brief.unet) for value in part.parameters()} == {torch.bfloat16}
    assert brief.text_encoder.dtype == torch.float32
    assert brief.encode(torch.zeros(1, 3, 64, 64)).dtype == torch.float32


def test_weights_named_as_in_stable_diffusion_load(folder: Path, base: Base) -> None:
    def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in tensors.items()} | {
            "text_model.embeddings.position_ids": torch.arange(12)[None]
        }

    rewrite(folder / "text_encoder" / "model.safetensors", rename)
    expected = base.text_encoder.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in load_base(folder).text_encoder.state_dict().items())


def test_a_base_with_sd_15s_own_sampler_keeps_what_it_asks_for(folder: Path) -> None:
    config = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    PNDMScheduler(**config, skip_prk_steps=True, steps_offset=1).save_pretrained(folder / "scheduler")
    scheduler = load_base(folder).scheduler
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)
    assert PNDMScheduler.from_config(scheduler.config).config["skip_prk_steps"] is True


def test_the_card_comes_along(folder: Path) -> None:
    (folder / "base.toml").write_text('name = "toy"\n[settings.train]\nlearning_rate = 1e-3\n')
    assert load_base(folder).card == {"name": "toy", "settings": {"train": {"learning_rate": 1e-3}}}


def test_a_base_loads_in_silence(tiny_base_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_base(tiny_base_folder)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_name_says_what_a_base_is() -> None:
    with pytest.raises(ModelError, match=r"^nosuch: no such base.*; give a folder in Stable Diffusion's layout"):
        load_base("nosuch")


def test_a_folder_that_is_no_base_does_not_hide_the_one_that_ships(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_base_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()  # as `bench speed --out mini` makes it
    assert load_base("mini").resolution == 256
    shutil.copytree(tiny_base_folder, tmp_path / "mini", dirs_exist_ok=True)
    assert load_base("mini").resolution == 64
    with pytest.raises(ModelError, match=r"^nosuch: no such base.*mini"):
        load_base("nosuch")


def test_a_hub_id_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        msg = "no connection\nand a second line"
        raise ConnectionError(msg)

    monkeypatch.setattr("dualanodiff.model.base.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"^owner/name: no such folder, .* \(no connection\); give a folder .*\)$"):
        load_base("owner/name")


def test_a_hub_id_is_fetched_once_and_loaded(monkeypatch: pytest.MonkeyPatch, tiny_base_folder: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "dualanodiff.model.base.snapshot_download", lambda name, **_: asked.append(name) or str(tiny_base_folder)
    )
    assert load_base("owner/name").resolution == 64
    assert asked == ["owner/name"]


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "unet", "scheduler"])
def test_a_missing_folder_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=rf"base/{part}: no such folder; a base has the folders vae, text_encoder"):
        load_base(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer/vocab\.json: no such file, nor tokenizer\.json; copy the base"):
        load_base(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"unet/config\.json: no such file; a base has the folders"):
        load_base(folder)


@pytest.mark.parametrize("part", STEMS)
def test_missing_weights_are_named(folder: Path, part: str) -> None:
    file = folder / part / f"{STEMS[part]}.safetensors"
    torch.save({}, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(ModelError, match=rf"{part}/\w+\.bin: weights in a pickle are not read; convert them to"):
        load_base(folder)
    file.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=rf"{part}/\w+\.safetensors: no such file; the weights are missing"):
        load_base(folder)


@pytest.mark.parametrize("part", STEMS)
def test_damaged_weights_are_named(folder: Path, part: str) -> None:
    file = folder / part / f"{STEMS[part]}.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=rf"{part}/\w+\.safetensors: cannot be loaded .*; copy or convert"):
        load_base(folder)
    file.write_bytes(whole)
    key = next(key for key, value in sorted(load_file(file).items()) if value.ndim > 1)
    rewrite(file, lambda tensors: tensors | {key: tensors[key][:-1].contiguous()})
    with pytest.raises(ModelError, match=rf"{part}/\w+\.safetensors: {key} is \(\d+, .* but config\.json beside it"):
        load_base(folder)
    file.write_bytes(whole)
    rewrite(file, lambda tensors: {name: value for name, value in tensors.items() if name != key})
    with pytest.raises(ModelError, match=rf"{part}/\w+\.safetensors: lacks {key}, the first of 1 that are missing"):
        load_base(folder)


@pytest.mark.parametrize("file", ["unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_configuration_is_one_line(folder: Path, file: str) -> None:
    (folder / file).write_text("{ no json")
    with pytest.raises(ModelError, match=rf"base/{file.split('/')[0]}/.*: cannot be loaded \(.*\); copy or convert"):
        load_base(folder)


def test_a_damaged_card_is_named(folder: Path) -> None:
    (folder / "base.toml").write_text("settings = ")
    with pytest.raises(ModelError, match=r"base\.toml: not a readable TOML file .*; correct or delete it"):
        load_base(folder)
