"""The registry of methods, and how a set of each comes about."""

import numpy as np
import pytest

from dualanodiff.bench import methods
from dualanodiff.bench.methods import FITS, METHODS, Making, changed_masks, make_source, read_methods
from dualanodiff.data.catalog import pick
from dualanodiff.data.shots import Shot
from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import read_rgb, write_png
from dualanodiff.rivals.making import make_set
from dualanodiff.settings import Settings
from dualanodiff.storage import write_json


@pytest.fixture
def making(product, tmp_path):
    root = product()
    return Making(root, pick(root)[0], tmp_path / "out", count=3, size=32)


@pytest.fixture
def fits(monkeypatch):
    """Fits and sets that are noted and not made by a model."""
    calls = {"fit": [], "generate": []}

    def fit(data, **words):
        calls["fit"].append(words)
        words["out"].mkdir(parents=True)
        (words["out"] / "start.safetensors").touch()

    def generate(run, *, count, out, seed, assignments, onto):
        calls["generate"].append((run, seed, onto))
        data = run.parents[5] / "data" / "nut"
        make_set("diffaug", data, defect="scratch", category="nut", count=count, out=out, seed=seed, size=32)

    monkeypatch.setattr(methods, "fit_folder", fit)
    monkeypatch.setattr(methods, "generate_set", generate)
    return calls


def test_every_method_comes_about_in_one_way_and_every_fit_has_possible_settings():
    for method in METHODS.values():
        assert sum(map(bool, (method.rival, method.fit, method.arm))) == 1, method.name
        assert not method.fit or method.fit in FITS
    for settings in FITS.values():
        Settings().updated({name: text.format(category="nut", defect="crack") for name, text in settings.items()}, "")


def test_methods_are_read_by_name_and_by_folder(tmp_path):
    found = read_methods(["draem", f"dfmgan={tmp_path}"])
    assert [method.name for method in found] == ["draem", "dfmgan"]
    assert found[1].folder == tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["our"], "did you mean 'ours'"),
        (["draem", "draem"], "named twice"),
        (["ours=x"], "choose another name"),
        (["=x"], "NAME=FOLDER"),
    ],
)
def test_words_that_name_no_method_are_refused(words, said):
    with pytest.raises((SettingsError, DataError), match=said):
        read_methods(words)


def test_methods_that_differ_after_the_fit_share_it(making, fits):
    for name in ("ours", "ours-onto"):
        make_source(METHODS[name], making, "scratch", 0, 0)
    assert len(fits["fit"]) == 1
    assert [onto for _, _, onto in fits["generate"]] == [None, {"goods": "good"}]
    make_source(METHODS["ours-names"], making, "scratch", 1, 1)
    assert fits["fit"][1]["assignments"] == {
        "model.prompt_image": "a nut with scratch",
        "model.prompt_part": "scratch",
        "seed": "1",
    }


def test_a_base_made_anew_under_its_name_is_fitted_and_drawn_anew_and_rivals_are_not(making, fits, monkeypatch):
    folders, facts = [], []
    for content in ("old", "new"):
        monkeypatch.setattr(methods, "_content_of", lambda _, content=content: content)
        folders.append([make_source(METHODS[name], making, "scratch", 0, 0).folder for name in ("ours", "diffaug")])
        facts.append([making.facts(METHODS[name]) for name in ("ours", "diffaug", "real-shots")])
    assert len({words["out"] for words in fits["fit"]}) == 2
    (ours, rival), (ours_anew, rival_anew) = folders
    assert ours != ours_anew
    assert rival == rival_anew
    assert [old == new for old, new in zip(*facts, strict=True)] == [False, True, True]


def test_seeds_may_share_a_fit(making, fits):
    for seed in (0, 1):
        make_source(METHODS["ours"], making, "scratch", seed, 0)
    assert len(fits["fit"]) == 1
    assert [seed for _, seed, _ in fits["generate"]] == [0, 1]


def test_one_branch_has_the_pictures_of_the_fit_without_interaction_and_masks_of_its_own(making, fits):
    plain = make_source(METHODS["ours-no-saim"], making, "scratch", 0, 0)
    alone = make_source(METHODS["image-only"], making, "scratch", 0, 0)
    assert len(fits["fit"]) == 1
    assert [read_rgb(a.image).tolist() for a in plain.pairs] == [read_rgb(b.image).tolist() for b in alone.pairs]
    assert {pair.row["mask_source"] for pair in alone.pairs} == {"change"}
    roles = [file["role"] for file in alone.lineage()["files"]]
    assert roles.count("shot") == 2
    assert roles.count("normal") == 4
    assert make_source(METHODS["image-only"], making, "scratch", 0, 0) == alone


def test_u2net_as_segmenter_needs_its_file(making, fits):
    with pytest.raises(SettingsError, match="needs a U\\^2-Net; give it with --object-model"):
        make_source(METHODS["image-only-u2net"], making, "scratch", 0, 0)


def test_change_against_good_pictures_finds_a_clear_defect():
    random = np.random.default_rng(0)
    good = [random.integers(120, 130, (64, 64, 3), np.uint8) for _ in range(4)]
    mask = np.zeros((64, 64), bool)
    mask[20:36, 24:44] = True
    bad = random.integers(120, 130, (64, 64, 3), np.uint8)
    bad[mask] = (220, 40, 40)
    [found] = changed_masks([bad], good, [Shot(bad, mask, "a")])
    assert (found & mask).sum() / (found | mask).sum() > 0.8
    [clean] = changed_masks([good[0]], good[1:], [Shot(bad, mask, "a")])
    assert clean.mean() < 0.05


def test_the_sets_of_others_are_found_in_the_usual_trees(making, tmp_path):
    rgb, mask = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool)
    for place in ("tree/nut/scratch", "flat/scratch", "bare"):
        write_png(tmp_path / place / "image" / "0.png", rgb)
        write_png(tmp_path / place / "mask" / "0.png", mask)
    make_set("diffaug", making.data, defect="scratch", count=1, out=tmp_path / "sets" / "nut" / "scratch", size=32)
    for name in ("tree", "flat", "bare", "sets"):
        [method] = read_methods([f"x={tmp_path / name}"])
        assert len(make_source(method, making, "scratch", 0, 0).pairs) == 1
    write_json(tmp_path / "none" / "a.json", {})
    with pytest.raises(DataError, match="none"):
        make_source(read_methods([f"x={tmp_path / 'none'}"])[0], making, "scratch", 0, 0)
