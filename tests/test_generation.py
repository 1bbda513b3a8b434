"""Pairs from a run, in memory and as a set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dualanodiff.errors import DataError, RunError, SettingsError
from dualanodiff.fitted import FittedModel, Pair, load
from dualanodiff.generation import generate_set
from dualanodiff.images import read_rgb
from dualanodiff.runs import RunFolder
from dualanodiff.sampler import PAIRS_A_BACKGROUND, PairSampler, quick
from dualanodiff.sets import PairSet
from dualanodiff.settings import SampleSettings
from small import SIDE, draw_normals, fit_small


@pytest.fixture(scope="module")
def model(small_run: RunFolder) -> FittedModel:
    return load(small_run.path)


@pytest.fixture(scope="module")
def background_run(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("background")
    normals = draw_normals(folder / "normals")
    return fit_small(
        tiny_base_folder, folder / "run", normals=normals, model__background="paper", train__learning_rate=1e-2
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.png")}


def pixels(pair: Pair) -> tuple[bytes, bytes, bytes]:
    return pair.image.tobytes(), pair.part.tobytes(), pair.mask.tobytes()


def make(run: RunFolder, out: Path, count: int = 5, **options: Any) -> dict[str, Any]:
    return generate_set(run.path, count=count, out=out, **{"assignments": {}} | options)


# -- pairs


def test_a_pair_is_a_picture_its_part_and_its_mask(model: FittedModel) -> None:
    [pair] = model.generate(1)
    assert (pair.image.mode, pair.part.mode, pair.mask.mode) == ("RGB", "RGB", "L")
    assert pair.image.size == pair.part.size == pair.mask.size == (SIDE, SIDE)
    assert set(np.unique(np.asarray(pair.mask))) <= {0, 255}
    assert np.array_equal(np.asarray(pair.mask) > 0, pair.mask_result.mask)
    assert pair.mask_result.empty == (not pair.mask_result.mask.any())


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "pndm"])
def test_a_pair_does_not_depend_on_how_many_are_made(small_run: RunFolder, scheduler: str) -> None:
    model = load(small_run.path, assignments={"sample.scheduler": scheduler, "sample.batch_size": "4"})
    many = [pixels(pair) for pair in model.generate(6)]
    assert [pixels(pair) for pair in model.generate(1)] == many[:1]
    assert [pixels(pair) for pair in model.generate(5)] == many[:5]
    assert len(set(many)) == 6


def test_a_pair_is_the_same_to_rounding_in_batches_of_any_size(model: FittedModel) -> None:
    first, *others = ([model.generate(4, batch_size=size)] for size in (1, 2, 3, 4))
    for [pairs] in others:
        for one, two in zip(first[0], pairs, strict=True):
            assert one.seed == two.seed
            for name in ("image", "part"):
                pictures = [np.asarray(getattr(pair, name)).astype(int) for pair in (one, two)]
                assert np.abs(pictures[0] - pictures[1]).max() <= 2


def test_another_seed_is_another_pair(model: FittedModel) -> None:
    one, two = model.generate(2, seed=0), model.generate(2, seed=1)
    assert len({pixels(pair) for pair in (*one, *two)}) == 4
    assert len({pair.seed for pair in (*one, *two)}) == 4
    assert [pixels(pair) for pair in model.generate(2)] == [pixels(pair) for pair in one]  # the run's seed is 0


def test_the_learned_weights_are_what_draws_the_pair(
    small_run: RunFolder, tiny_base_folder: Path, tmp_path: Path
) -> None:
    other = fit_small(tiny_base_folder, tmp_path / "run", train__learning_rate=0)
    assert pixels(load(small_run.path).generate(1)[0]) != pixels(load(other.path).generate(1)[0])


def test_drawing_leaves_the_global_random_stream_alone(model: FittedModel) -> None:
    state = torch.random.get_rng_state()
    model.generate(1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("scale", "rows"), [("1", 2), ("2.5", 4)])
def test_no_guidance_costs_half(small_run: RunFolder, monkeypatch: pytest.MonkeyPatch, scale: str, rows: int) -> None:
    model = load(small_run.path, assignments={"sample.guidance_scale": scale})
    seen: list[int] = []
    forward = type(model.sampler.dual).forward

    def noted(self: Any, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(latents.shape[1])
        return forward(self, latents, *args, **kwargs)

    monkeypatch.setattr(type(model.sampler.dual), "forward", noted)
    model.generate(2)
    assert seen == [rows] * 3


def test_the_mean_start_carries_the_shots_colour(small_run: RunFolder) -> None:
    """An untrained base adds nothing of its own, so what is left of the start tells where it came from."""
    starts: dict[str, Tensor] = {}
    for name in ("mean", "noise"):
        model = load(small_run.path, assignments={"sample.start": name})
        seen: list[Tensor] = []

        def noted(latents: Tensor, *_: Any, seen: list[Tensor] = seen, **__: Any) -> Tensor:
            seen.append(latents)
            return torch.zeros_like(latents)

        sampler: Any = PairSampler(**{**vars(model.sampler), "dual": noted})
        sampler.draw([0], 0, model.settings.sample)
        starts[name] = seen[0][:, 0]
    mean, facts = small_run.load_start()
    abar = load(small_run.path).base.scheduler.alphas_cumprod[667]  # the first of 3 DDIM steps
    expected = abar.sqrt() * mean.mean(dim=(-2, -1))
    torch.testing.assert_close(starts["mean"].mean(dim=(-2, -1)), expected, atol=1e-5, rtol=1e-4)
    assert (starts["noise"].mean(dim=(-2, -1)) - expected).abs().max() > 0.05
    assert facts["shots"] == 2


def test_previews_take_fewer_steps() -> None:
    assert quick(SampleSettings(num_inference_steps=50)).num_inference_steps == 15
    assert quick(SampleSettings(num_inference_steps=4)).num_inference_steps == 4


# -- backgrounds


def sampler_calls(model: FittedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many background rows each call of the dual model has."""
    seen: list[int] = []
    forward = type(model.sampler.dual).forward

    def noted(self: Any, latents: Tensor, times: Tensor, text: Tensor, background: Tensor, **others: Any) -> Tensor:
        seen.append(len(background))
        return forward(self, latents, times, text, background, **others)

    monkeypatch.setattr(type(model.sampler.dual), "forward", noted)
    return seen


def test_pairs_in_a_row_share_one_background_pass(background_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(background_run.path)
    seen = sampler_calls(model, monkeypatch)
    model.sampler.draw(range(4), 0, model.settings.sample)
    assert seen == [1] * 3
    seen.clear()
    model.sampler.draw(range(PAIRS_A_BACKGROUND - 1, PAIRS_A_BACKGROUND + 1), 0, model.settings.sample)
    assert seen == [2] * 3


def test_sharing_the_background_pass_changes_no_pair(background_run: RunFolder) -> None:
    sampler, sample = load(background_run.path).sampler, load(background_run.path).settings.sample
    edge = PAIRS_A_BACKGROUND - 1
    together = sampler.draw([edge, edge + 1], 0, sample)
    for row, index in enumerate((edge, edge + 1)):
        alone = sampler.draw([index], 0, sample)
        assert np.abs(alone.image[0].astype(int) - together.image[row].astype(int)).max() <= 2


def test_the_background_makes_a_difference_and_comes_from_the_given_normals(
    background_run: RunFolder, tmp_path: Path
) -> None:
    kept = load(background_run.path)
    Image.fromarray(np.full((SIDE, SIDE, 3), 255, np.uint8)).save(tmp_path / "white.png")
    given = load(background_run.path, normals=tmp_path)
    assert kept.sampler.backgrounds is not None
    assert given.sampler.backgrounds is not None
    assert (len(kept.sampler.backgrounds), len(given.sampler.backgrounds)) == (3, 1)
    assert pixels(kept.generate(1)[0]) != pixels(given.generate(1)[0])


def test_normals_without_a_picture_are_refused(background_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r": no pictures; give a folder of good pictures of this product"):
        load(background_run.path, normals=tmp_path)


def test_normals_for_a_run_without_backgrounds_are_refused(small_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--normals .*: this run has no background compensation; fit with model.back"):
        load(small_run.path, normals=tmp_path)


# -- sets


def test_a_set_holds_what_generate_gives(small_run: RunFolder, model: FittedModel, tmp_path: Path) -> None:
    result = make(small_run, tmp_path / "set", count=3)
    pairs = model.generate(3)
    assert {key: result[key] for key in ("set", "count", "made", "seed")} == {
        "set": str(tmp_path / "set"),
        "count": 3,
        "made": 3,
        "seed": 0,
    }
    assert result["empty"] == [i for i, pair in enumerate(pairs) if pair.mask_result.empty]
    rows = PairSet.open(tmp_path / "set").rows()
    for i, pair in enumerate(pairs):
        for kind in ("image", "part", "mask"):
            with Image.open(tmp_path / "set" / kind / f"{i:06d}.png") as picture:
                assert picture.tobytes() == getattr(pair, kind).tobytes()
        assert (rows[i]["seed"], rows[i]["run"]) == (pair.seed, str(small_run.path))
    assert read_rgb(Path(result["sheet"])).std() > 0


def test_a_set_proves_what_its_run_has_seen(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=1)
    assert json.loads((tmp_path / "set" / "lineage.json").read_text()) == small_run.lineage()


INTERRUPTIONS: dict[str, Callable[[Path], Any]] = {
    "a middle image is lost": lambda out: (out / "image" / "000002.png").unlink(),
    "the parts are lost": lambda out: shutil.rmtree(out / "part"),
    "a line is torn": lambda out: (out / "manifest.jsonl").write_text((out / "manifest.jsonl").read_text()[:-40]),
    "files came before their line": lambda out: (out / "manifest.jsonl").write_text(
        "".join((out / "manifest.jsonl").read_text().splitlines(keepends=True)[:3])
    ),
    "nothing but the beginning is there": lambda out: [shutil.rmtree(out / kind) for kind in ("image", "part", "mask")],
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_an_interrupted_set_is_filled_with_the_very_same_pairs(name: str, small_run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "set"
    make(small_run, out)
    before = files(out)
    rows = PairSet.open(out).rows()
    INTERRUPTIONS[name](out)
    missing = 5 - len(PairSet.open(out).done())
    assert missing > 0
    result = make(small_run, out)
    assert (result["made"], result["count"]) == (missing, 5)
    assert files(out) == before
    assert PairSet.open(out).rows() == rows


def test_a_set_grows(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "grown", count=1)
    first = files(tmp_path / "grown")
    assert make(small_run, tmp_path / "grown", count=5)["made"] == 4
    make(small_run, tmp_path / "whole", count=5)
    assert files(tmp_path / "grown") == files(tmp_path / "whole")
    assert first.items() <= files(tmp_path / "whole").items()
    assert make(small_run, tmp_path / "grown", count=2)["made"] == 0


def test_a_failure_in_the_middle_keeps_every_pair_before_it(
    small_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, calls = PairSampler.draw, []

    def failing(self: PairSampler, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PairSampler, "draw", failing)
        with pytest.raises(KeyboardInterrupt):
            make(small_run, tmp_path / "set", count=6)
    assert PairSet.open(tmp_path / "set").done() == {0, 1, 2, 3}
    assert make(small_run, tmp_path / "set", count=6)["made"] == 2
    make(small_run, tmp_path / "whole", count=6)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 4}, "seed = 0, now 4"),
    "steps": ({"assignments": {"sample.num_inference_steps": "4"}}, r"settings.sample.num_inference_steps = 3, now 4"),
    "start": ({"assignments": {"sample.start": "noise"}}, r"settings.sample.start = 'mean', now 'noise'"),
    "mask": ({"assignments": {"mask.threshold": "0.2"}}, r"settings.mask.threshold = 0.0, now 0.2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_set_is_never_mixed(name: str, small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=1)
    before = files(tmp_path / "set")
    options, message = REFUSED[name]
    with pytest.raises(RunError, match=rf"set: was begun with {message}; use the same, or choose another --out"):
        make(small_run, tmp_path / "set", count=2, **options)
    assert files(tmp_path / "set") == before


def test_a_set_of_another_run_is_refused(small_run: RunFolder, tiny_base_folder: Path, tmp_path: Path) -> None:
    other = fit_small(tiny_base_folder, tmp_path / "run", seed=3)
    make(small_run, tmp_path / "set", count=1)
    with pytest.raises(RunError, match=r"set: was begun with run"):
        make(other, tmp_path / "set", count=2, seed=0)


def test_a_set_with_other_backgrounds_is_refused(background_run: RunFolder, tmp_path: Path) -> None:
    normals = tmp_path / "normals"
    draw_normals(normals, 1)
    make(background_run, tmp_path / "set", count=1)
    with pytest.raises(RunError, match=r"set: was begun with normals = '', now '.*normals'; use the same"):
        make(background_run, tmp_path / "set", count=2, normals=normals)


def test_a_run_that_was_moved_goes_on_with_its_set(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=1)
    shutil.copytree(small_run.path, tmp_path / "moved")
    assert make(RunFolder(tmp_path / "moved"), tmp_path / "set", count=2)["made"] == 1


def test_another_batch_size_may_go_on_with_a_set(small_run: RunFolder, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", count=1)
    assert make(small_run, tmp_path / "set", count=3, assignments={"sample.batch_size": "3"})["made"] == 2


def test_a_folder_that_is_no_set_is_left_alone(small_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty and not a set; choose another --out"):
        make(small_run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unfinished_run_makes_no_pairs(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    (tmp_path / "run" / "start.safetensors").unlink()
    with pytest.raises(RunError, match=r"run: this run has not finished; finish it with .*--resume"):
        make(RunFolder(tmp_path / "run"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_unknown_setting_is_refused_with_the_nearest(small_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--set: unknown setting 'sample.steps'; did you mean"):
        make(small_run, tmp_path / "set", assignments={"sample.steps": "4"})
    assert not (tmp_path / "set").exists()
