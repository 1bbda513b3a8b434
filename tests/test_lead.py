"""Parts of pairs from nothing, led to the shots' shapes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from dualanodiff.data.shots import Shot
from dualanodiff.errors import RunError
from dualanodiff.fitted import load
from dualanodiff.fitting import Fit, fit
from dualanodiff.generation import generate_set
from dualanodiff.images import write_png
from dualanodiff.lead import Lead, moved
from dualanodiff.model.base import load_base
from dualanodiff.runs import RunFolder
from dualanodiff.storage import write_json
from small import SIDE, draw_shots, fit_small, small_settings

KEY = (0, 255, 0)


@pytest.fixture(scope="module")
def run(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose shots lie beside it."""
    folder = tmp_path_factory.mktemp("led")
    return fit_small(tiny_base_folder, folder / "run", shots=draw_shots(folder=folder / "shots"))


def lead_of(base: Any, shots: list[Shot], flips: tuple[bool, bool] = (False, False)) -> Lead:
    return Lead(base, tuple(shots), KEY, flips)


def line(width: int, side: int = 256) -> Shot:
    """A shot of a thin crack from edge to edge."""
    rgb, mask = np.full((side, side, 3), 200, np.uint8), np.zeros((side, side), bool)
    for row in range(side):
        left = side // 2 + int(9 * np.sin(row / 30))
        mask[row, left : left + width] = True
    rgb[mask] = 20
    return Shot(rgb, mask, "line")


def shown(lead: Lead, index: int, seed: int = 0) -> np.ndarray:
    return (lead.shape(index, seed).hint != KEY).any(axis=-1)


def test_each_pair_has_a_shape_of_its_own_that_seed_and_index_decide() -> None:
    lead = lead_of(None, draw_shots())
    shapes = [shown(lead, index) for index in range(6)]
    assert all(shape.any() for shape in shapes)
    assert len({shape.tobytes() for shape in shapes}) == 6
    assert np.array_equal(shown(lead, 3), shapes[3])
    assert not np.array_equal(shown(lead, 3, seed=1), shapes[3])


def test_a_shape_stays_about_where_and_what_it_was() -> None:
    shots = draw_shots()
    for index in range(12):
        shape = lead_of(None, shots).shape(index, 0)
        mask = (shape.hint != KEY).any(axis=-1)
        middles = [np.argwhere(shot.mask).mean(axis=0) for shot in shots]
        nearest = min(np.linalg.norm(np.argwhere(mask).mean(axis=0) - middle) for middle in middles)
        assert nearest < 0.15 * SIDE
        assert 0.5 < mask.sum() / np.mean([shot.mask.sum() for shot in shots]) < 2
        assert shape.allowed[mask].all()
        assert not shape.allowed.all()


def test_mirrored_shapes_lie_where_mirrored_pictures_have_them() -> None:
    [shot] = draw_shots(1)
    sides: dict[bool, set[bool]] = {}
    for flip in (False, True):
        lead = lead_of(None, [shot], (flip, False))
        sides[flip] = {bool(np.argwhere(shown(lead, index)).mean(axis=0)[1] > SIDE / 2) for index in range(12)}
    assert abs(np.argwhere(shot.mask).mean(axis=0)[1] - SIDE / 2) > 0.1 * SIDE
    assert len(sides[False]) == 1
    assert len(sides[True]) == 2


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_thin_line_stays_one_and_goes_on_to_the_edges(width: int) -> None:
    lead = lead_of(None, [line(width)])
    for index in range(6):
        mask = shown(lead, index)
        _, pieces = ndimage.label(mask, np.ones((3, 3)))
        assert pieces == 1
        assert mask[0].any()
        assert mask[-1].any()
        assert 0.6 < mask.sum() / (256 * width) < 1.9


def test_a_defect_of_the_whole_picture_is_led_to_all_of_it() -> None:
    rgb = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert shown(lead_of(None, [Shot(rgb, np.ones((SIDE, SIDE), bool), "all")]), 0).all()


def test_a_mask_that_would_run_off_the_picture_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualanodiff.lead.MOVE", 1000.0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[30:34, 30:34] = True
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    found = moved(rgb, mask, np.random.default_rng(0))
    assert np.array_equal(found[1], mask)


def spreads(height: int, width: int) -> np.ndarray:
    """Deviations of the middle's row and column and of the logarithm of the height of a block, over 40 draws."""
    mask = np.zeros((SIDE, SIDE), bool)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    mask[top : top + height, left : left + width] = True
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    found = [np.argwhere(moved(rgb, mask, np.random.default_rng(seed))[1]) for seed in range(40)]
    return np.array([[*at.mean(axis=0), np.log(np.ptp(at[:, 0]) + 1)] for at in found]).std(axis=0)


def test_a_shape_that_extends_far_stays_where_and_as_large_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualanodiff.lead.BEND", 0.0)
    small, large, tall = spreads(16, 16), spreads(56, 56), spreads(56, 16)
    assert (large < 0.5 * small).all()
    assert tall[0] < 0.5 * small[0]  # a line runs along itself no more than it has room
    assert tall[1] > 0.7 * small[1]  # but moves aside as far as anything


def test_an_empty_mask_leads_nowhere() -> None:
    empty = Shot(np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), bool), "empty")
    assert not shown(lead_of(None, [empty]), 0).any()


def test_the_part_is_the_shape_at_first_and_then_free_about_its_place(tiny_base_folder: Path) -> None:
    lead = lead_of(load_base(str(tiny_base_folder)), draw_shots())
    adjust = lead([2, 5], 0, 0.5)
    clean = torch.randn(2, 2, lead.base.vae.config["latent_channels"], 8, 8, generator=torch.Generator().manual_seed(0))
    early, also_early, late = (adjust(clean, progress) for progress in (0.0, 0.49, 0.5))
    assert torch.equal(early[0], clean[0])
    assert torch.equal(late[0], clean[0])
    assert torch.equal(early[1], also_early[1])
    assert not torch.equal(early[1, 0], early[1, 1])
    assert torch.equal(lead([2, 5], 0, 1.0)(clean, 1.0)[1], early[1])
    for row, index in enumerate((2, 5)):
        cells = shown(lead, index).reshape(8, 8, 8, 8).mean(axis=(1, 3))
        kept = ((late[1, row] - clean[1, row]).abs() < 1e-5).all(dim=0).numpy()
        ground = late[1, row][:, ~kept]
        assert kept[cells > 0.5].all()
        assert not kept.all()
        assert ground.std(dim=1).max() < clean.std()


def test_a_led_pair_does_not_depend_on_how_many_are_made_and_0_leads_nothing(run: RunFolder) -> None:
    plain, led = load(run.path), load(run.path, assignments={"sample.lead": "0.5"})
    assert plain.sampler.lead is None
    three = [np.asarray(pair.part).tobytes() for pair in led.generate(3)]
    assert [np.asarray(pair.part).tobytes() for pair in led.generate(1)] == three[:1]
    assert three != [np.asarray(pair.part).tobytes() for pair in plain.generate(3)]


def test_shots_that_are_gone_are_asked_for_only_where_they_lead(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    lineage = RunFolder(tmp_path / "run").lineage()
    for file in lineage["files"]:
        file["path"] = str(tmp_path / "gone" / Path(file["path"]).name)
    write_json(tmp_path / "run" / "lineage.json", lineage)
    with pytest.raises(
        RunError,
        match=r"lineage.json: the shots .* not all there, .* put them back, .*first, or give --set sample.lead=0",
    ):
        generate_set(tmp_path / "run", count=1, out=tmp_path / "set", assignments={"sample.lead": "0.5"})
    assert not (tmp_path / "set").exists()
    assert generate_set(tmp_path / "run", count=1, out=tmp_path / "set", assignments={})["count"] == 1
    assert load(tmp_path / "run", assignments={"sample.lead": "0.5"}, led=False).sampler.lead is None


def test_a_shot_that_was_changed_after_the_fit_is_named(tiny_base_folder: Path, tmp_path: Path) -> None:
    shots = draw_shots(folder=tmp_path / "shots")
    run = fit_small(tiny_base_folder, tmp_path / "run", shots=shots)
    for path, changed in ((shots[1].mask_path, np.flipud(shots[1].mask)), (shots[0].path, np.flipud(shots[0].image))):
        assert path is not None
        write_png(path, changed)  # each is named before those that come after it in the lineage
        with pytest.raises(
            RunError,
            match=rf"{path.name}: has changed since .* learned from it, .*; fit again with another --out, or put",
        ):
            load(run.path, assignments={"sample.lead": "0.5"})
    assert load(run.path).sampler.lead is None


def test_previews_of_a_fit_are_led_as_its_pairs_will_be(tiny_base_folder: Path, tmp_path: Path) -> None:
    settings = small_settings(sample__lead=0.5, data__flip_vertical=True, train__max_train_steps=1)
    shots = draw_shots(folder=tmp_path / "shots")
    job = Fit(shots, load_base(str(tiny_base_folder)), RunFolder(tmp_path / "job"), settings, [])
    job.encode()
    run = fit(shots, load_base(str(tiny_base_folder)), tmp_path / "run", settings)
    early, late = job.sampler().lead, load(run.path).sampler.lead
    assert isinstance(early, Lead)
    assert isinstance(late, Lead)
    assert all(np.array_equal(early.shape(i, 0).hint, late.shape(i, 0).hint) for i in range(6))
    strangers = [replace(shot, mask_path=None) for shot in shots]  # of which a run could not be led
    job = Fit(strangers, load_base(str(tiny_base_folder)), RunFolder(tmp_path / "other"), settings, [])
    job.encode()
    assert job.sampler().lead is None


def test_a_run_that_learned_from_no_files_is_not_led(tiny_base_folder: Path, tmp_path: Path) -> None:
    run = fit_small(tiny_base_folder, tmp_path / "run")
    assert load(run.path, assignments={"sample.lead": "0.5"}).sampler.lead is None


def test_a_set_from_before_there_was_a_lead_goes_on_without_one(run: RunFolder, tmp_path: Path) -> None:
    generate_set(run.path, count=1, out=tmp_path, assignments={})
    facts = json.loads((tmp_path / "set.json").read_text())
    del facts["settings"]["sample"]["lead"]
    write_json(tmp_path / "set.json", facts)
    assert generate_set(run.path, count=2, out=tmp_path, assignments={})["made"] == 1
    with pytest.raises(RunError, match=r"settings.sample.lead = 0.0, now 0.5"):
        generate_set(run.path, count=3, out=tmp_path, assignments={"sample.lead": "0.5"})
