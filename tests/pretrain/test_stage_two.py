"""Stage two: words, latent bank, UNet and pair, and the base folder they become."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.errors import DataError, ModelError, RunError
from dualanodiff.fitted import load
from dualanodiff.fitting import fit
from dualanodiff.images import read_rgb
from dualanodiff.model.base import load_base
from dualanodiff.pretrain.autoencoder import train_autoencoder
from dualanodiff.pretrain.bank import Bank, draw_pair, load_bank
from dualanodiff.pretrain.batch import Batch, UNetPlan, draw_batch
from dualanodiff.pretrain.stage_two import train_unet
from dualanodiff.pretrain.text import TOKENS, build_text_encoder, train_tokenizer
from dualanodiff.pretrain.unet import Training
from dualanodiff.seeds import numpy_stream
from pretrain.plans import autoencoder_plan, small_pack, unet_plan
from small import draw_shots, small_settings

CARD = '[card]\nname = "tiny"\n\n[settings.model]\nrank = 4\ninteraction = "lowrank"\ninteraction_rank = 4\n'


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage") / "one"
    train_autoencoder(small_pack(), folder, autoencoder_plan(steps=1))
    return folder


@pytest.fixture
def folder(stage_one: Path, tmp_path: Path) -> Path:
    shutil.copytree(stage_one, tmp_path / "work")
    return tmp_path / "work"


def train(folder: Path, seconds: float = float("inf"), begin: Path | None = None, **changes: Any) -> dict[str, Any]:
    counts = {"bank_pairs": 5, "bank_singles": 4}
    return train_unet(small_pack(), folder, unet_plan(**changes), **counts, card=CARD, seconds=seconds, begin=begin)


@pytest.fixture(scope="module")
def made(stage_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage two; copy it before changing it."""
    folder = tmp_path_factory.mktemp("stage") / "two"
    shutil.copytree(stage_one, folder)
    train(folder)
    return folder


# -- words


def test_the_rare_words_are_one_token_each_and_any_word_can_be_spelt(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a brushed steel disc", "a wooden plank"] * 50, tmp_path / "words", size=300)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for word in ("vfx", "sks"):
        assert len(tokenizer(word).input_ids) == 3
    [_, *rest] = tokenizer("a vfx with sks").input_ids[1:-1]
    assert len(rest) == 3
    ids = tokenizer("zebra crossing #7!", padding="max_length", max_length=TOKENS, truncation=True).input_ids
    assert len(ids) == TOKENS
    assert ids[0] == start
    assert tokenizer.unk_token_id not in ids[1 : ids.index(end)]
    assert tokenizer("SKS").input_ids == tokenizer("sks").input_ids


def test_the_same_captions_teach_the_same_words(tmp_path: Path) -> None:
    captions = [
        f"a {color} {thing} with {flaw}"
        for color in ("red", "blue")
        for thing in ("disc", "plank")
        for flaw in ("dent", "crack")
    ]
    for name in ("one", "two", "three"):
        train_tokenizer(captions, tmp_path / name, size=400)
    for file in ("vocab.json", "merges.txt"):
        assert len({(tmp_path / name / file).read_text() for name in ("one", "two", "three")}) == 1, file


def test_the_text_encoder_fits_its_words(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a disc"] * 20, tmp_path / "words", size=200)
    encoder = build_text_encoder(tokenizer, width=32, layers=1)
    ids = tokenizer(["a vfx with sks", ""], padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    assert encoder(ids).last_hidden_state.shape == (2, TOKENS, 32)


def test_a_training_keeps_the_words_of_the_one_that_it_begins_from(made: Path, folder: Path, tmp_path: Path) -> None:
    begun = shutil.copytree(made, tmp_path / "begun")
    (begun / "words" / "merges.txt").open("a").write("# mine\n")
    before = sorted(path.relative_to(begun) for path in begun.rglob("*"))
    train(folder, begin=begun, steps=2, prediction="epsilon")
    assert (folder / "words" / "merges.txt").read_bytes() == (begun / "words" / "merges.txt").read_bytes()
    assert sorted(path.relative_to(begun) for path in begun.rglob("*")) == before
    shutil.rmtree(begun)
    assert train(folder, prediction="epsilon")["steps"] == 4


@pytest.mark.parametrize("missing", ["unet.safetensors", "words"])
def test_what_a_training_begins_from_is_looked_for_first_and_not_made(
    made: Path, folder: Path, tmp_path: Path, missing: str
) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in {"unet.safetensors", "words"} - {missing}:
        (shutil.copytree if name == "words" else shutil.copyfile)(made / name, begun / name)
    with pytest.raises(ModelError, match=rf"begun/{missing}.*: not there; give --begin-from"):
        train(folder, begin=begun)
    assert not (folder / "bank-64").exists()
    assert not (begun / missing).exists()


# -- the bank


@pytest.mark.parametrize("photographs", [False, True])
def test_a_pair_shows_its_defect_alone_on_a_flat_ground(photographs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualanodiff.pretrain.bank.SPOILED", 1.0)
    pack = small_pack() if photographs else None
    for index in range(4):
        pair = draw_pair(numpy_stream(0, "test", index), 64, pack)
        image, part, (caption, part_caption) = pair.image, pair.part, pair.captions
        assert np.array_equal(image[pair.mask], part[pair.mask])
        same = (image == part).all(axis=-1)
        grounds = {tuple(color) for color in part[~same].tolist()}
        assert len(grounds) == 1
        assert grounds <= set(KEY_COLORS.values())
        assert 0 < same.mean() < 0.5
        start = caption.removesuffix(f" with {part_caption}")
        assert part_caption
        assert start in pack.captions if pack else start.startswith("a ")


def test_the_bank_holds_what_was_drawn_with_its_words(made: Path) -> None:
    bank = load_bank(made / "bank-64")
    assert bank.pairs.shape == (5, 2, 4, 8, 8)
    assert bank.singles.shape == (4, 4, 8, 8)
    assert (len(bank.pair_captions), len(bank.single_captions)) == (5, 4)
    expected = [draw_pair(numpy_stream(0, "bank pair", index), 64, small_pack()).captions for index in range(5)]
    assert bank.pair_captions == expected


@pytest.mark.parametrize("content", [None, b"12345", "foreign"])
def test_what_is_no_bank_is_named_with_the_way_out(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "bank-64" / "0000.safetensors"
    path.parent.mkdir()
    if content == "foreign":
        save_file({"pairs": torch.zeros(1)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"bank-64.*: n.* latent bank .*; delete it, and .* makes it again"):
        load_bank(path.parent)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = Bank(
        torch.randn(9, 2, 4, 8, 8, generator=generator).half(),
        torch.zeros(9, 1, 8, 8, dtype=torch.uint8),
        [(f"image {i}", f"part {i}") for i in range(9)],
        torch.randn(7, 4, 8, 8, generator=generator).half(),
        [f"single {i}" for i in range(7)],
    )
    plan = unet_plan(pairs=200, singles=50)
    one, two, other = (draw_batch(bank, plan, step) for step in (3, 3, 4))
    assert torch.equal(one.pair_noise, two.pair_noise)
    assert one.image_prompts == two.image_prompts
    assert not torch.equal(one.pair_noise, other.pair_noise)
    prompts = list(zip(one.image_prompts, one.part_prompts, strict=True))
    rare, empty = prompts.count(("a vfx with sks", "sks")), prompts.count(("", ""))
    assert 60 < rare < 120
    assert 8 < empty < 40
    for i, (image, part) in enumerate(prompts):
        if image.startswith("image"):
            row = int(image.split()[1])
            assert part == f"part {row}"
            assert torch.equal(one.pairs[:, i], bank.pairs[row].float())


def test_held_out_rows_are_never_drawn() -> None:
    bank = Bank(
        torch.arange(8.0).half().view(8, 1, 1, 1, 1).expand(8, 2, 4, 8, 8),
        torch.zeros(8, 1, 8, 8, dtype=torch.uint8),
        [(f"image {i}", f"part {i}") for i in range(8)],
        torch.arange(4.0).half().view(4, 1, 1, 1).expand(4, 4, 8, 8),
        [f"single {i}" for i in range(4)],
    )
    batch = draw_batch(bank, unet_plan(pairs=200, singles=50), 0)
    assert set(batch.pairs[0, :, 0, 0, 0].tolist()) == {0, 1, 2, 3, 4, 5}
    assert set(batch.singles[:, 0, 0, 0].tolist()) == {0, 1, 2}


# -- training


def test_a_resumed_training_is_the_uninterrupted_one(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(bank: Bank, plan: UNetPlan, step: int) -> Batch:
        if step == 3:
            raise KeyboardInterrupt
        return draw_batch(bank, plan, step)

    with monkeypatch.context() as patch:
        patch.setattr("dualanodiff.pretrain.unet.draw_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(folder)
    assert train(folder, seconds=0)["steps"] == 2  # the state that was kept
    assert train(folder)["steps"] == 4
    for name in (
        "unet.safetensors",
        "base/unet/diffusion_pytorch_model.safetensors",
        "base/pair/unet_part.safetensors",
    ):
        one, two = load_file(made / name), load_file(folder / name)
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_a_training_without_any_time_can_be_resumed(folder: Path) -> None:
    assert train(folder, seconds=0)["steps"] == 0
    assert train(folder, steps=1)["steps"] == 1


def test_what_takes_long_is_made_once(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "again")
    before = {
        name: (tmp_path / "again" / name).stat().st_mtime_ns
        for name in ("bank-64/0000.safetensors", "words/vocab.json")
    }
    assert train(tmp_path / "again")["steps"] == 4
    assert {name: (tmp_path / "again" / name).stat().st_mtime_ns for name in before} == before


def test_samples_show_pairs_above_the_truth(made: Path) -> None:
    names = sorted(path.name for path in (made / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"]
    assert read_rgb(made / "samples" / names[-1]).shape == (4 * 64, 8 * 64, 3)


def test_metrics_are_means_over_the_steps_since_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretended(self: Training) -> torch.Tensor:
        self.step += 1
        return torch.tensor([self.step, 1.0, -self.step, 0.0])

    monkeypatch.setattr(Training, "_step", pretended)
    for steps in (30, 100):  # the first half ends between two lines
        train(folder, steps=steps, save_every=1000)
    rows = [json.loads(line) for line in (folder / "unet.jsonl").read_text().splitlines()]
    assert [(row["step"], row["image"], row["part"], row["single"]) for row in rows] == [
        (50, pytest.approx(40.5), 1, pytest.approx(-40.5)),  # steps 31 to 50
        (100, pytest.approx(75.5), 1, pytest.approx(-75.5)),
    ]


def test_without_an_autoencoder_there_is_no_stage_two(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vae: no autoencoder; train it first with `dualanodiff pretrain autoencoder"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_is_named_with_the_way_out(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "again")
    (tmp_path / "again" / "unet.safetensors").write_bytes(b"12345")
    with pytest.raises(RunError, match=r"unet.safetensors: not a readable checkpoint .*; delete it"):
        train(tmp_path / "again")


# -- the base


def test_the_base_is_loaded_by_us(made: Path) -> None:
    assert not any("_name_or_path" in path.read_text() for path in (made / "base").glob("*/config.json"))
    base = load_base(made / "base")
    assert (base.resolution, base.latent_channels, base.latent_factor) == (64, 4, 8)
    assert base.scheduler.config["prediction_type"] == "v_prediction"
    assert base.card["card"]["name"] == "tiny"


def test_the_base_is_loaded_by_stock_diffusers(made: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(made / "base", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    ours = load_base(made / "base")
    for name in ("unet", "vae"):
        one, two = getattr(pipeline, name).state_dict(), getattr(ours, name).state_dict()
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    picture = pipeline(
        "a vfx with sks", num_inference_steps=2, output_type="np", generator=torch.manual_seed(0)
    ).images[0]
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()


def test_the_base_is_the_averaged_model_in_half_precision(made: Path) -> None:
    stored = load_file(made / "base" / "unet" / "diffusion_pytorch_model.safetensors")
    state = load_file(made / "unet.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    for key, value in stored.items():
        assert torch.equal(value, state[f"average:unet.{key}"].half()), key
    assert any(not torch.equal(stored[key], state[f"model:unet.{key}"].half()) for key in stored)


def test_a_fit_starts_from_the_bases_own_pair_and_makes_pairs(made: Path, tmp_path: Path) -> None:
    base = load_base(made / "base")
    settings = small_settings(train__max_train_steps=1, model__start="pretrained", model__text_rank=0)
    run = fit(draw_shots(), base, tmp_path / "run", settings)
    assert run.load_start()[1]["start"] == "pretrained"
    [pair] = load(run.path).generate(1)
    assert pair.image.size == (64, 64)
