"""Detectors by their maps, and anomalib behind a stand-in module: it cannot be installed everywhere."""

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dualanodiff.bench.detectors import TEXTURES, read_detectors, read_map, run_anomalib, score_maps
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.lift.task import open_task


@pytest.fixture
def task(product):
    return open_task(product(), side=32)


def write_maps(folder, task, values):
    for path, value in zip(task.tests.paths, values, strict=True):
        place = folder / task.category / path.parent.name / f"{path.stem}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, value)


def test_perfect_maps_score_one_and_inverted_ones_do_not(task, tmp_path):
    masks = task.tests.masks.astype(np.float32)
    write_maps(tmp_path / "good", task, masks)
    write_maps(tmp_path / "bad", task, 1 - masks)
    assert score_maps(tmp_path / "good", task)["pixel_ap"] == pytest.approx(1)
    assert score_maps(tmp_path / "bad", task)["pixel_auroc"] == pytest.approx(0)


def test_a_missing_map_is_named(task, tmp_path):
    write_maps(tmp_path, task, task.tests.masks.astype(np.float32))
    (tmp_path / "nut" / "scratch" / "003.npy").unlink()
    with pytest.raises(DataError, match=r"no map 003\.npy"):
        score_maps(tmp_path, task)


def test_a_map_may_be_a_grey_picture_and_of_another_size(tmp_path):
    rgb = np.zeros((16, 8, 3), np.uint8)
    rgb[:8] = 200
    write_png(tmp_path / "a.png", rgb)
    found = read_map(tmp_path / "a.png", 32)
    assert found.shape == (32, 32)
    assert found[0, 0] == 200
    assert found[-1, -1] == 0


@pytest.mark.parametrize(
    ("content", "said"), [(np.zeros((2, 3, 4)), "a map is"), (np.full((4, 4), np.nan), "a map is"), (b"no", "no array")]
)
def test_what_is_no_map_is_refused(content, said, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(DataError, match=said):
        read_map(path, 8)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="no array of numbers"):
        read_map(tmp_path / "a.npy", 8)


def test_words_for_detectors_are_checked(tmp_path):
    found = read_detectors(["patchcore"], [f"mine={tmp_path}"])
    assert [(each.name, each.folder) for each in found] == [("patchcore", None), ("mine", tmp_path)]
    with pytest.raises(DataError, match="did you mean 'patchcore'"):
        read_detectors(["patch-core"], [])
    with pytest.raises(SettingsError, match="write NAME=FOLDER"):
        read_detectors([], ["mine"])
    with pytest.raises(DataError, match="no such folder"):
        read_detectors([], ["mine=absent"])


def test_without_anomalib_the_way_out_is_said(task, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(SettingsError, match=r"cannot be imported.*dualanodiff\[anomalib\].*--maps"):
        run_anomalib("patchcore", task, tmp_path, 0)


@pytest.fixture
def anomalib(monkeypatch):
    """The face of anomalib 2 that is used; it answers with what is not green and notes what it was given."""
    calls = SimpleNamespace(trained=[], predicted=[], seeds=[], epochs=[], models=[])

    class PredictDataset:
        def __init__(self, path, transform):
            self.files = sorted(path.iterdir()) if path.is_dir() else [path]
            self.transform = transform
            self.collate_fn = torch.stack

        def __len__(self):
            return len(self.files)

        def __getitem__(self, number):
            return self.transform(torch.from_numpy(read_rgb(self.files[number])).permute(2, 0, 1).float())

    class Engine:
        def __init__(self, **words):
            assert set(words) == {"default_root_dir", "logger", "max_epochs"}
            calls.epochs.append(words["max_epochs"])

        def fit(self, model, datamodule):
            assert model == calls.models[-1]
            train_dataloaders = datamodule.train_dataloader()
            calls.trained.append((list(train_dataloaders.dataset.files), [len(batch) for batch in train_dataloaders]))

        def predict(self, model, dataset):
            assert model == calls.models[-1]
            calls.predicted += dataset.files
            return [SimpleNamespace(anomaly_map=255 - dataset[0][None, None, 1])]

    def named(name):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    def patchcore(**words):
        folder = words.get("dtd_dir")
        calls.models.append(words if folder is None else {**words, "dtd_dir": sorted(folder.iterdir())})
        return calls.models[-1]

    named("anomalib")
    data, engine, models = (named(f"anomalib.{part}") for part in ("data", "engine", "models"))
    data.PredictDataset, engine.Engine = PredictDataset, Engine
    models.Patchcore = models.Draem = patchcore
    lightning = named("lightning")
    lightning.seed_everything = lambda seed, **_: calls.seeds.append(seed)
    lightning.LightningDataModule = SimpleNamespace
    return calls


def test_a_detector_of_anomalib_learns_from_good_pictures_and_maps_every_test_picture(task, tmp_path, anomalib):
    out = run_anomalib("patchcore", task, tmp_path / "maps", 7)
    assert anomalib.trained == [(list(task.good), [4])]
    assert anomalib.predicted == list(task.tests.paths)
    assert (anomalib.seeds, anomalib.epochs) == ([7], [1])
    assert anomalib.models == [{"post_processor": False, "evaluator": False, "visualizer": False}]
    assert score_maps(out, task)["pixel_ap"] > 0.9
    run_anomalib("patchcore", task, tmp_path / "maps", 7)
    assert len(anomalib.trained) == 1


def test_pictures_of_different_sizes_meet_in_one_batch(product, tmp_path, anomalib):
    root = product()
    write_png(root / "train" / "good" / "000.png", np.full((20, 50, 3), 200, np.uint8))
    run_anomalib("patchcore", open_task(root, side=32), tmp_path / "maps", 0)
    assert anomalib.trained[0][1] == [4]


def test_draem_blends_given_or_drawn_textures_and_fetches_none(task, tmp_path, anomalib):
    run_anomalib("draem-detector", task, tmp_path / "drawn", 0)
    assert len(anomalib.models[-1]["dtd_dir"]) == TEXTURES
    (tmp_path / "own").mkdir()
    write_png(tmp_path / "own" / "a.png", np.zeros((8, 8, 3), np.uint8))
    run_anomalib("draem-detector", task, tmp_path / "maps", 0, textures=tmp_path / "own")
    assert [path.name for path in anomalib.models[-1]["dtd_dir"]] == ["a.png"]


def test_weights_that_cannot_be_fetched_are_one_clear_line(task, tmp_path, anomalib, monkeypatch):
    def offline(**words):
        msg = "Name or service not known"
        raise OSError(msg)

    monkeypatch.setattr(sys.modules["anomalib.models"], "Patchcore", offline)
    with pytest.raises(SettingsError, match=r"patchcore: anomalib cannot fetch.*not known.*hub cache"):
        run_anomalib("patchcore", task, tmp_path / "maps", 0)
    assert not (tmp_path / "maps").exists()
