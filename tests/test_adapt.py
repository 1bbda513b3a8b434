"""Adapting a base to a product: what changes, what stays, what is recorded, and that it can be killed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dualanodiff.adapt import adapt, adapted_base
from dualanodiff.cli import app
from dualanodiff.data.catalog import pick
from dualanodiff.data.split import trained_test_pictures
from dualanodiff.errors import DataError, RunError, TrainingStopped
from dualanodiff.fit_folder import FEWEST_GOOD, fit_folder
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import load_base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.preparing import recommended
from dualanodiff.pretrain.adaptation import Adaptation, AdaptPlan
from dualanodiff.runs import RunFolder
from dualanodiff.settings import Settings
from dualanodiff.storage import sha256
from small import SMALL, fit_small

PLAN = AdaptPlan(steps=3, singles=2, pairs=2, drawn=4, save_every=1, rate=1e-3)


def small_settings(base: Path) -> Settings:
    return recommended(load_base(base)).updated({"data.resolution": "64", "train.mixed_precision": "no"}, "test")


@pytest.fixture(scope="module")
def paired(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy base with a pair and a card."""
    folder = tmp_path_factory.mktemp("paired") / "base"
    shutil.copytree(tiny_base_folder, folder)
    base = load_base(folder)
    dual = DualUNet(base.unet, rank=4, interaction="lowrank", interaction_rank=4, generator=torch.Generator())
    save_adapters(dual, TextAdapter(base.text_encoder, base.tokenizer, rank=0), folder / "pair")
    (folder / "base.toml").write_text('[card]\nname = "toy"\n\n[settings.model]\nrank = 4\n')
    return folder


@pytest.fixture(scope="module")
def nuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product whose good pictures are light grey."""
    import numpy as np

    from dualanodiff.images import write_png

    root = tmp_path_factory.mktemp("data") / "nut"
    random = np.random.default_rng(0)
    for number in range(3):
        write_png(root / "train" / "good" / f"{number}.png", random.integers(180, 220, (64, 64, 3), np.uint8))
        write_png(root / "test" / "scratch" / f"{number}.png", random.integers(100, 220, (64, 64, 3), np.uint8))
        mask = np.zeros((64, 64), bool)
        mask[8:24, 8:24] = True
        write_png(root / "ground_truth" / "scratch" / f"{number}_mask.png", mask)
    return root


def run(nuts: Path, base: Path, out: Path, plan: AdaptPlan = PLAN) -> dict:
    return adapt(nuts, base=str(base), out=out, plan=plan, settings=small_settings(base))


@pytest.fixture(scope="module")
def adapted(paired: Path, nuts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished adaptation; copy it before changing it."""
    out = tmp_path_factory.mktemp("adapted") / "nut"
    result = run(nuts, paired, out)
    assert result["steps"] == 3
    assert result["normals"] == 3
    return out


def test_an_adapted_base_has_another_unet_and_pair_and_the_rest_as_it_was(paired: Path, adapted: Path) -> None:
    for part in ("vae", "text_encoder"):
        for path in (paired / part).glob("*.safetensors"):
            assert sha256(path) == sha256(adapted / part / path.name)
    for part in ("unet/diffusion_pytorch_model", "pair/interaction"):
        before, after = (load_file(folder / f"{part}.safetensors") for folder in (paired, adapted))
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[key], after[key].to(before[key].dtype)) for key in before)
    assert not (adapted / "work").exists()


def test_a_fit_on_an_adapted_base_starts_from_its_pair_and_names_the_good_pictures_it_has_seen(
    adapted: Path, nuts: Path, tmp_path: Path
) -> None:
    folder = fit_small(adapted, tmp_path / "run", model__start="pretrained", train__max_train_steps=1)
    assert folder.load_start()[1]["start"] == "pretrained"
    good = pick(nuts, None, None)[0].good
    assert [path for path, _ in trained_test_pictures(folder.lineage(), good)] == list(good)


def test_the_card_says_what_was_done_and_keeps_the_settings(adapted: Path) -> None:
    card = load_base(adapted).card
    assert card["card"]["name"] == "toy"
    assert "3 good pictures of nut" in card["card"]["adapted_to"]
    assert card["settings"] == {"model": {"rank": 4}, "train": {"adapt_steps": 0}}


def test_a_killed_adaptation_goes_on_to_the_same_weights(
    paired: Path, nuts: Path, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Adaptation._step

    def dying(self: Adaptation, singles: torch.Tensor, pairs: torch.Tensor, step: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return original(self, singles, pairs, step)

    with monkeypatch.context() as patched:
        patched.setattr(Adaptation, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            run(nuts, paired, tmp_path / "nut")
    assert not (tmp_path / "nut" / "base.toml").exists()
    run(nuts, paired, tmp_path / "nut")
    once, twice = (
        load_file(out / "unet" / "diffusion_pytorch_model.safetensors") for out in (adapted, tmp_path / "nut")
    )
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_a_finished_adaptation_is_not_made_again(adapted: Path, paired: Path, nuts: Path) -> None:
    before = (adapted / "base.toml").stat().st_mtime_ns
    run(nuts, paired, adapted)
    assert (adapted / "base.toml").stat().st_mtime_ns == before


def test_another_plan_does_not_go_into_the_same_folder(adapted: Path, paired: Path, nuts: Path) -> None:
    with pytest.raises(RunError, match=r"was begun with other plan steps 3, now 4; go on with the same"):
        run(nuts, paired, adapted, AdaptPlan(**{**vars(PLAN), "steps": 4}))


def test_a_folder_of_something_else_is_refused(paired: Path, nuts: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and was not begun by this command"):
        run(nuts, paired, tmp_path)


def test_a_product_without_good_pictures_is_refused(paired: Path, nuts: Path, tmp_path: Path) -> None:
    shutil.copytree(nuts, tmp_path / "nut")
    shutil.rmtree(tmp_path / "nut" / "train")
    with pytest.raises(DataError, match=r"train/good: no good pictures to adapt to"):
        run(tmp_path / "nut", paired, tmp_path / "out")


def test_good_pictures_on_which_no_defect_shows_are_refused(
    paired: Path, nuts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualanodiff.pretrain.adaptation.draw_spoiled_pair", lambda *_: None)
    with pytest.raises(DataError, match="no defect shows on these pictures"):
        run(nuts, paired, tmp_path / "out")


def test_a_loss_that_is_no_number_stops_it(
    paired: Path, nuts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adaptation, "_step", lambda *_: torch.full((3,), float("nan")))
    with pytest.raises(TrainingStopped, match="the loss is not a number at step 3; adapt into a new folder"):
        run(nuts, paired, tmp_path / "out")


def test_a_base_without_a_pair_gets_none(tiny_base_folder: Path, nuts: Path, tmp_path: Path) -> None:
    run(nuts, tiny_base_folder, tmp_path / "out", AdaptPlan(**{**vars(PLAN), "steps": 1}))
    assert not (tmp_path / "out" / "pair").exists()
    load_base(tmp_path / "out")


def test_half_precision_weights_stay_half(paired: Path, nuts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(paired, folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file, {"format": "pt"})
    run(nuts, folder, tmp_path / "out", AdaptPlan(**{**vars(PLAN), "steps": 1}))
    stored = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}


def test_a_damaged_lineage_of_an_adapted_base_is_named(adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted, tmp_path / "base")
    (tmp_path / "base" / "lineage.json").write_text("{")
    with pytest.raises(DataError, match=r"lineage.json: not a readable lineage .* adapt the base again"):
        fit_small(tmp_path / "base", tmp_path / "run")


def test_all_defect_types_of_a_product_share_one_adapted_base(paired: Path, nuts: Path, tmp_path: Path) -> None:
    settings = small_settings(paired)
    first, second, third = (
        adapted_base(
            nuts,
            category=None,
            base=load_base(paired),
            folder=tmp_path / "adapted",
            settings=settings.updated({"train.adapt_steps": steps}, "test"),
        )
        for steps in (2, 2, 1)
    )
    assert first == second
    assert Path(first).parent == tmp_path / "adapted"
    assert third != first


@pytest.mark.parametrize(
    ("words", "rate"), [((), 3e-3), (("--set", "train.adapt_rate=2e-3"), 2e-3), (("--rate", "1e-3"), 1e-3)]
)
def test_the_rate_is_the_bases_own_unless_another_is_given(
    paired: Path, nuts: Path, tmp_path: Path, words: tuple[str, ...], rate: float
) -> None:
    base = tmp_path / "base"
    shutil.copytree(paired, base)
    (base / "base.toml").write_text("[settings.data]\nresolution = 64\n[settings.train]\nadapt_rate = 3e-3\n")
    given = ["adapt", str(nuts), "--base", str(base), "--out", str(tmp_path / "out"), "--steps", "1", *words]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "lineage.json").read_text())["plan"]["rate"] == rate


@pytest.fixture
def many_nuts(product) -> Path:
    """A product with enough good pictures."""
    return product(size=64, good=FEWEST_GOOD)


def fit_words(data: Path, base: Path, run: Path, *words: str, **changes: object) -> list[str]:
    settings = {**SMALL, "train.max_train_steps": 1, **changes}
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return ["fit", str(data), "--defect", "scratch", "--base", str(base), "--out", str(run), *words, *options, "--json"]


def test_fit_with_normals_adapts_first(
    paired: Path, many_nuts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualanodiff.cli.ADAPT_STEPS", 2)
    result = CliRunner().invoke(app, fit_words(many_nuts, paired, tmp_path / "run", "--normals"))
    assert result.exit_code == 0, result.output
    [made] = (tmp_path / "adapted").iterdir()
    run = RunFolder(tmp_path / "run")
    assert run.lineage()["base"] == str(made)
    assert run.settings().train.adapt_steps == 2
    assert json.loads((made / "lineage.json").read_text())["category"] == "nut"


def test_a_base_that_recommends_it_is_adapted_once_and_only_where_there_are_good_pictures(
    paired: Path, many_nuts: Path, nuts: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(paired, base)
    (base / "base.toml").write_text("[settings.train]\nadapt_steps = 2\nadapt_rate = 3e-3\n")
    given = {"defect": "scratch", "base": str(base), "assignments": {**SMALL, "train.max_train_steps": "1"}}
    fit_folder(many_nuts, out=tmp_path / "a", **given)
    [made] = (tmp_path / "adapted").iterdir()
    assert load_base(made).card["settings"]["train"]["adapt_steps"] == 0
    assert json.loads((made / "lineage.json").read_text())["plan"]["rate"] == 3e-3
    fit_folder(many_nuts, out=tmp_path / "b", **{**given, "base": str(made)})
    assert len(list((tmp_path / "adapted").iterdir())) == 1
    fit_folder(nuts, out=tmp_path / "few" / "c", **given)
    assert RunFolder(tmp_path / "few" / "c").base_name() == str(base)
    result = CliRunner().invoke(app, fit_words(many_nuts, base, tmp_path / "none" / "d", "--no-normals"))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "none" / "adapted").exists()


def test_what_is_wrong_is_found_before_the_base_is_adapted(paired: Path, many_nuts: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    given = {"defect": "scratch", "base": str(paired), "assignments": {**SMALL, "train.adapt_steps": "2"}}
    with pytest.raises(RunError, match="is not empty and not a run"):
        fit_folder(many_nuts, out=tmp_path / "run", **given)
    assert not (tmp_path / "adapted").exists()


def test_a_run_goes_on_with_the_base_that_it_has_whatever_is_recommended_today(
    paired: Path, many_nuts: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(paired, tmp_path / "base")
    given = {"defect": "scratch", "base": str(base)}
    settings = {**SMALL, "train.adapt_steps": "1"}
    fit_folder(many_nuts, out=tmp_path / "run", **given, assignments={**settings, "train.max_train_steps": "1"})
    [made] = (tmp_path / "adapted").iterdir()
    config = tmp_path / "run" / "config.toml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "adapt_rate" not in line))
    (base / "base.toml").write_text((base / "base.toml").read_text() + "\n[settings.train]\nadapt_rate = 1e-3\n")
    longer = {**settings, "train.max_train_steps": "2"}
    result = fit_folder(many_nuts, out=tmp_path / "run", **given, assignments=longer, resume=True)
    assert result["steps"] == 2
    assert list((tmp_path / "adapted").iterdir()) == [made]


@pytest.mark.parametrize("rate", ["0", "inf", "1"])
def test_a_rate_that_teaches_nothing_is_refused_before_anything_is_made(
    paired: Path, nuts: Path, tmp_path: Path, rate: str
) -> None:
    given = ["adapt", str(nuts), "--base", str(paired), "--out", str(tmp_path / "out"), "--rate", rate]
    result = CliRunner().invoke(app, given)
    assert result.exit_code != 0
    assert "must be between 0 and 1, such as 1e-3" in result.output
    assert not (tmp_path / "out").exists()


def test_a_run_is_moved_together_with_the_adapted_base_beside_it(paired: Path, many_nuts: Path, tmp_path: Path) -> None:
    given = {"defect": "scratch", "base": str(paired)}
    settings = {**SMALL, "train.max_train_steps": "1", "train.adapt_steps": "1"}
    fit_folder(many_nuts, out=tmp_path / "runs" / "a", **given, assignments=settings)
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    run = RunFolder(tmp_path / "moved" / "a")
    [made] = (tmp_path / "moved" / "adapted").iterdir()
    assert run.base_name() == str(made)
    made.rename(tmp_path / "lost")
    with pytest.raises(RunError, match=r"the adapted base of .* is not there; put it back"):
        run.base_name()


def test_normals_asked_for_where_there_are_too_few_is_an_error(paired: Path, nuts: Path, tmp_path: Path) -> None:
    given = {"defect": "scratch", "base": str(paired), "assignments": {**SMALL, "train.adapt_steps": "2"}}
    with pytest.raises(
        DataError, match=r"train/good: 3 good pictures, but a base is adapted to 8 or more.*--no-normals"
    ):
        fit_folder(nuts, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
