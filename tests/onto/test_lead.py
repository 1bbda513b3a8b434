"""Parts of pairs from nothing, led to the shots' shapes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualanodiff.data.shots import Shot
from dualanodiff.errors import RunError
from dualanodiff.fitted import load
from dualanodiff.generation import generate_set
from dualanodiff.model.base import load_base
from dualanodiff.onto.lead import Lead
from dualanodiff.runs import RunFolder
from dualanodiff.storage import write_json
from small import SIDE, draw_shots, fit_small

KEY = (0, 255, 0)
SIDEWAYS = (True, False)


@pytest.fixture(scope="module")
def run(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose shots lie beside it."""
    folder = tmp_path_factory.mktemp("led")
    return fit_small(tiny_base_folder, folder / "run", shots=draw_shots(folder=folder / "shots"))


def lead_of(
    base: Any, shots: list[Shot], object_mask: np.ndarray | None = None, flips: tuple[bool, bool] = SIDEWAYS
) -> Lead:
    return Lead.of(base, shots, lambda _: object_mask, key=KEY, flips=flips)


def shown(lead: Lead, index: int, seed: int = 0) -> np.ndarray:
    return (lead.place(index, seed).hint != KEY).any(axis=-1)


def test_each_pair_has_a_place_of_its_own_that_seed_and_index_decide() -> None:
    lead = lead_of(None, draw_shots())
    places = [shown(lead, index) for index in range(6)]
    assert all(place.any() for place in places)
    assert len({place.tobytes() for place in places}) == 6
    assert np.array_equal(shown(lead, 3), places[3])
    assert not np.array_equal(shown(lead, 3, seed=1), places[3])


def test_defects_of_an_object_are_led_to_where_the_shots_show_it() -> None:
    object_mask = np.zeros((SIDE, SIDE), bool)
    object_mask[8:56, 4:60] = True
    shots = draw_shots()
    assert all(object_mask[shot.mask].mean() > 0.9 for shot in shots)
    lead = lead_of(None, shots, object_mask)
    assert np.array_equal(lead.usual, object_mask)
    for index in range(8):
        assert object_mask[shown(lead, index)].mean() > 0.9
    assert lead_of(None, shots).usual.all()


def test_the_part_is_the_shape_at_first_and_then_free_about_its_place(tiny_base_folder: Path) -> None:
    lead = lead_of(load_base(str(tiny_base_folder)), draw_shots())
    adjust = lead([2, 5], 0, 0.5)
    clean = torch.randn(2, 2, lead.base.vae.config["latent_channels"], 8, 8, generator=torch.Generator().manual_seed(0))
    early, also_early, late = (adjust(clean, progress) for progress in (0.0, 0.49, 0.5))
    assert torch.equal(early[0], clean[0])
    assert torch.equal(late[0], clean[0])
    assert torch.equal(early[1], also_early[1])
    assert not torch.equal(early[1, 0], early[1, 1])
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


def test_a_part_that_is_led_to_the_end_shows_its_shape_at_its_place(run: RunFolder) -> None:
    def there_against_away(share: str) -> float:
        model = load(
            run.path, assignments={"sample.lead": share, "sample.inclusion": "0", "sample.num_inference_steps": "6"}
        )
        found: list[float] = []
        for place, pair in zip(places, model.generate(len(places)), strict=True):
            away = np.abs(np.asarray(pair.part).astype(int) - np.array(model.key)).max(axis=-1)
            found.append(away[place].mean() / away[~place].mean())
        return float(np.mean(found))

    led = load(run.path, assignments={"sample.lead": "1.0"})
    assert isinstance(led.sampler.lead, Lead)
    hints = [led.sampler.lead.place(index, led.settings.seed).hint for index in range(4)]
    places = [(hint != np.array(led.key)).any(axis=-1) for hint in hints]
    assert there_against_away("1.0") > 1.15 * there_against_away("0.0")


def test_shots_that_are_gone_are_named_with_the_way_out(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    lineage = RunFolder(tmp_path / "run").lineage()
    for file in lineage["files"]:
        file["path"] = str(tmp_path / "gone" / Path(file["path"]).name)
    write_json(tmp_path / "run" / "lineage.json", lineage)
    with pytest.raises(
        RunError, match=r"lineage.json: the shots .* not there, and sample.lead above 0 takes shapes .* put them back"
    ):
        generate_set(tmp_path / "run", count=1, out=tmp_path / "set", assignments={"sample.lead": "0.5"})
    assert not (tmp_path / "set").exists()
    assert generate_set(tmp_path / "run", count=1, out=tmp_path / "set", assignments={})["count"] == 1
