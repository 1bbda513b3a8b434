"""Defects on good parts by a run of the toy base: pixels, files, batches, interruptions, targets and kinds."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from scipy import ndimage

from dualanodiff.errors import DataError, RunError
from dualanodiff.fitted import load
from dualanodiff.generation import generate_set, kind_of
from dualanodiff.images import read_rgb, write_png
from dualanodiff.masks.result import MaskResult
from dualanodiff.onto import making
from dualanodiff.onto.making import Kind, make_parts
from dualanodiff.onto.wishes import Span, Wishes
from dualanodiff.runs import RunFolder
from dualanodiff.sets import PairSet
from dualanodiff.storage import sha256
from small import draw_normals, fit_small

FEW = {"sample.num_inference_steps": "2", "onto.attempts": "2", "onto.visible": "0"}


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good pictures of different sizes, none of them the model's."""
    folder = tmp_path_factory.mktemp("goods")
    for i, path in enumerate(draw_normals(folder)):
        rgb = np.kron(read_rgb(path), np.ones((2, 3, 1), np.uint8))[: 100 + 10 * i]
        noise = np.random.default_rng(i).integers(0, 30, rgb.shape, np.uint8)
        write_png(path, rgb - np.minimum(noise, rgb))
    return folder


def make(run: RunFolder, out: Path, goods: Path, count: int = 3, **options: Any) -> dict[str, Any]:
    words = {key: options.pop(key) for key in list(options) if key not in ("seed", "assignments")}
    settings = {"assignments": FEW} | options
    return generate_set(run.path, count=count, out=out, onto={"goods": str(goods), **words}, **settings)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.png")}


def maker(kind: Kind, mask_of: Any) -> Kind:
    """The kind with masks of our own, so that what is measured is known."""
    return dataclasses.replace(kind, mask_maker=lambda *_: mask_of())


def disc(pixels: int, side: int = 64) -> MaskResult:
    y, x = np.mgrid[:side, :side]
    order = np.argsort(((y - 32) ** 2 + (x - 32) ** 2).ravel(), kind="stable")
    mask = np.zeros(side * side, bool)
    mask[order[:pixels]] = True
    return MaskResult.found(mask.reshape(side, side), "key", 1.0, 0.1)


@pytest.fixture(scope="module")
def kind(small_run: RunFolder) -> Kind:
    return kind_of(load(small_run.path, assignments=FEW))


# -- pixels and files


def test_every_pixel_outside_masks_and_collars_is_the_good_pictures_own(
    small_run: RunFolder, goods: Path, tmp_path: Path
) -> None:
    result = make(small_run, tmp_path / "set", goods, count=4, defects=2)
    pairs = PairSet.open(tmp_path / "set")
    used: set[str] = set()
    for index, row in pairs.rows().items():
        good = read_rgb(Path(row["onto"]["good"]))
        assert row["onto"]["sha256"] == sha256(Path(row["onto"]["good"]))
        image, mask, part = (pairs.read(name, index) for name in ("image", "mask", "part"))
        assert image.shape == part.shape == good.shape
        assert mask.shape == good.shape[:2]
        assert row["onto"]["size"] == [good.shape[1], good.shape[0]]
        assert len(row["onto"]["defects"]) == 2
        outside = np.ones(mask.shape, bool)
        for defect in row["onto"]["defects"]:
            x, y, width, height = defect["window"]
            assert x + width <= good.shape[1]
            assert y + height <= good.shape[0]
            outside &= ndimage.distance_transform_edt(~mask) > defect["collar"] if mask.any() else outside
        assert np.array_equal(image[outside], good[outside])
        used.add(row["onto"]["good"])
    assert used == {str(path) for path in goods.iterdir()}, "every good picture is used before one is used again"
    assert result["count"] == 4
    assert set(result["met"]) == {"inside", "visible", "all"}
    assert read_rgb(Path(result["sheet"])).std() > 0
    lineage = json.loads((tmp_path / "set" / "lineage.json").read_text())
    assert lineage["files"] == small_run.lineage()["files"]


def test_a_pair_is_the_same_in_any_batch_and_after_an_interruption(
    small_run: RunFolder, goods: Path, tmp_path: Path
) -> None:
    make(small_run, tmp_path / "whole", goods, count=4)
    whole = files(tmp_path / "whole")
    make(small_run, tmp_path / "grown", goods, count=1)
    make(small_run, tmp_path / "grown", goods, count=4)
    assert files(tmp_path / "grown") == whole
    (tmp_path / "whole" / "image" / "000002.png").unlink()
    assert make(small_run, tmp_path / "whole", goods, count=4)["made"] == 1
    assert files(tmp_path / "whole") == whole
    make(small_run, tmp_path / "other", goods, count=4, assignments={**FEW, "sample.batch_size": "3"})
    for index in range(4):
        one, two = (PairSet.open(tmp_path / name).read("image", index).astype(int) for name in ("whole", "other"))
        assert np.abs(one - two).max() <= 4


def test_a_set_is_never_mixed_with_other_wishes(small_run: RunFolder, goods: Path, tmp_path: Path) -> None:
    make(small_run, tmp_path / "set", goods, count=1)
    for options, message in (
        ({"where": "anywhere"}, r"begun with onto.where = 'shots', now 'anywhere'"),
        ({"area": "50"}, r"begun with onto.area = \[\], now \[50.0, 50.0\]"),
        ({"assignments": {**FEW, "onto.freedom": "0.3"}}, r"begun with settings.onto.freedom = 0.6, now 0.3"),
    ):
        with pytest.raises(RunError, match=message):
            make(small_run, tmp_path / "set", goods, count=2, **options)
    with pytest.raises(RunError, match=r"begun with onto"):
        generate_set(small_run.path, count=1, out=tmp_path / "set", assignments=FEW | {"onto.attempts": "4"})
    generate_set(small_run.path, count=1, out=tmp_path / "plain", assignments={})
    with pytest.raises(RunError, match=r"plain: was begun with"):
        make(small_run, tmp_path / "plain", goods)


def test_with_background_compensation_and_attention_masks(tiny_base_folder: Path, goods: Path, tmp_path: Path) -> None:
    from small import draw_shots

    shots = draw_shots(2, tmp_path / "shots")
    normals = draw_normals(tmp_path / "normals")
    run = fit_small(tiny_base_folder, tmp_path / "run", shots=shots, normals=normals, model__background="paper")
    make(run, tmp_path / "set", goods, count=2, assignments={**FEW, "mask.method": "attention"})
    pairs = PairSet.open(tmp_path / "set")
    for index, row in pairs.rows().items():
        assert row["mask_source"] == "attention"
        assert pairs.read("attention", index).shape == pairs.read("mask", index).shape


def test_shots_that_are_gone_are_an_error_that_says_so(small_run: RunFolder, goods: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    text = (tmp_path / "run" / "lineage.json").read_text().replace("shots/", "gone/")
    (tmp_path / "run" / "lineage.json").write_text(text)
    with pytest.raises(RunError, match=r"lineage.json: the shots that it names are not all there, and --onto takes"):
        make(RunFolder(tmp_path / "run"), tmp_path / "set", goods)
    with pytest.raises(DataError, match=r"--onto good: no good pictures in"):
        make(small_run, tmp_path / "set", Path("good"))


# -- where, how big, how strong


def test_an_empty_part_is_made_again_and_then_given_up_with_the_reason(kind: Kind, goods: Path) -> None:
    wishes = Wishes(tuple(sorted(goods.iterdir())))
    [part] = make_parts([(maker(kind, lambda: disc(0)), 1.0)], wishes, [0], 0)
    assert part.defects[0]["attempts"] == 2
    assert part.defects[0]["given_up"] == "the part is empty"
    assert part.mask_result.empty
    assert np.array_equal(part.image, part.good)


def test_a_defect_that_lands_elsewhere_is_made_again(kind: Kind, goods: Path) -> None:
    wishes = Wishes(tuple(sorted(goods.iterdir())), box=(0, 0, 40, 30))
    answers = iter([disc(60), disc(0)])
    [part] = make_parts([(maker(kind, lambda: next(answers)), 1.0)], wishes, [0], 0)
    assert part.defects[0]["attempts"] == 2
    assert "of it lies in the region, 90% must" in part.defects[0]["given_up"]
    assert part.defects[0]["met"]["inside"] is False


@pytest.mark.parametrize(("strange", "expected"), [("1000", [False, True]), ("0", [True, True])])
def test_the_image_is_made_to_show_strange_colours_and_what_was_too_pale(
    strange: str, expected: list[bool], kind: Kind, goods: Path
) -> None:
    settings = kind.settings.updated({"onto.strange": strange, "onto.visible": "500", "onto.attempts": "2"}, "test")
    own = maker(dataclasses.replace(kind, settings=settings), lambda: disc(60))
    shown: list[bool] = []
    original = making._denoise

    def denoise(*args: Any, **options: Any) -> Any:
        shown.append(options["shown"])
        return original(*args, **options)

    with mock.patch.object(making, "_denoise", denoise):
        make_parts([(own, 1.0)], Wishes(tuple(sorted(goods.iterdir()))), [0], 0)
    assert shown == expected


def test_a_good_first_attempt_is_the_only_one(kind: Kind, goods: Path) -> None:
    [part] = make_parts([(maker(kind, lambda: disc(60)), 1.0)], Wishes(tuple(sorted(goods.iterdir()))), [0], 0)
    assert part.defects[0]["attempts"] == 1
    assert part.defects[0]["given_up"] == ""


def test_contrast_is_met_by_making_the_change_stronger_or_weaker(kind: Kind, goods: Path) -> None:
    own = maker(kind, lambda: disc(400))
    paths = tuple(sorted(goods.iterdir()))
    [free] = make_parts([(own, 1.0)], Wishes(paths), [0], 0)
    natural = free.defects[0]["got"]["contrast"]
    assert natural > 0
    [part] = make_parts([(own, 1.0)], Wishes(paths, contrast=Span(natural * 0.6, natural * 0.6)), [0], 0)
    assert part.defects[0]["asked"]["contrast"] == pytest.approx(natural * 0.6, abs=0.01)
    assert part.defects[0]["met"]["contrast"] is True
    assert part.defects[0]["got"]["contrast"] == pytest.approx(natural * 0.6, rel=0.2)


def test_area_is_measured_at_the_pictures_own_size_and_in_mm2(kind: Kind, goods: Path) -> None:
    whole = dataclasses.replace(kind, settings=kind.settings.updated({"onto.view": "whole"}, "test"))
    wishes = Wishes(tuple(sorted(goods.iterdir())), area=Span(3, 3), scale=0.1)
    [part] = make_parts([(maker(whole, lambda: disc(100)), 1.0)], wishes, [0], 0)
    defect = part.defects[0]
    assert defect["unit"] == "mm2"
    assert defect["got"]["area"] == pytest.approx(part.mask.sum() * 0.01, abs=1e-3)
    assert part.mask.mean() == pytest.approx(100 / 64**2, rel=0.1)
    assert "area is" in defect["given_up"]


def test_a_defect_of_the_wrong_size_is_made_again_stretched(kind: Kind, goods: Path) -> None:
    """What is drawn follows the shape it begins with: here it is half of it, so the second attempt begins twice as large."""
    sizes: list[int] = []

    def half(part: np.ndarray, attention: Any) -> MaskResult:
        sizes.append(place_sizes[-1] // 2)
        return disc(sizes[-1])

    place_sizes: list[int] = []
    original = making.draw_place

    def noted(*args: Any, **options: Any) -> Any:
        place = original(*args, **options)
        place_sizes.append(int((place.hint != kind.key).any(axis=-1).sum()))
        return place

    whole = kind.settings.updated({"onto.view": "whole", "onto.attempts": 3}, "test")
    own = dataclasses.replace(kind, settings=whole, mask_maker=half)
    with mock.patch.object(making, "draw_place", noted):
        good = sorted(goods.iterdir())[0]
        wanted = read_rgb(good).shape[0] * read_rgb(good).shape[1] * 0.04
        [part] = make_parts([(own, 1.0)], Wishes((good,), area=Span(wanted, wanted)), [0], 0)
    assert part.defects[0]["attempts"] == 2
    assert part.defects[0]["met"]["area"] is True
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.2)


def test_a_mix_of_runs_has_the_asked_shares_and_shares_the_base(
    small_run: RunFolder, tiny_base_folder: Path, goods: Path, tmp_path: Path
) -> None:
    from small import draw_shots

    other = fit_small(tiny_base_folder, tmp_path / "other", shots=draw_shots(2, tmp_path / "shots"), seed=5)
    one = load(small_run.path)
    two = load(other.path, beside=one)
    assert two.base is one.base
    make(small_run, tmp_path / "set", goods, count=8, mix=[f"{other.path}=0.5"])
    rows = PairSet.open(tmp_path / "set").rows().values()
    runs = [row["onto"]["defects"][0]["run"] for row in rows]
    assert set(runs) == {str(small_run.path), str(other.path)}
    assert 2 <= runs.count(str(other.path)) <= 6
    listed = {file["path"] for file in json.loads((tmp_path / "set" / "lineage.json").read_text())["files"]}
    assert listed >= {str(path) for path in (tmp_path / "shots").glob("*.png")}
