from collections.abc import Callable
from pathlib import Path

import pytest

from dualanodiff.data.catalog import choose_name, find_categories, pick, visible
from dualanodiff.errors import DataError

Product = Callable[..., Path]


def test_categories_are_found_in_the_mvtec_layout_with_their_pairs(product: Product) -> None:
    root = product("nut", defects={"scratch": 3, "hole": 2})
    product("bolt")
    categories = find_categories(root.parent)
    assert list(categories) == ["bolt", "nut"]
    nut = categories["nut"]
    assert (len(nut.good), len(nut.test_good)) == (4, 2)
    assert list(nut.defects) == ["hole", "scratch"]
    sample = nut.defects["hole"][1]
    assert (sample.image, sample.defect) == (root / "test/hole/001.png", "hole")
    assert sample.mask == root / "ground_truth/hole/001_mask.png"


def test_a_single_category_is_named_after_its_folder(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    root = product("nut")
    assert list(find_categories(root)) == ["nut"]
    monkeypatch.chdir(root)
    assert list(find_categories(".")) == ["nut"]


def test_names_are_text_in_plain_order_and_suffixes_may_be_upper_case(product: Product) -> None:
    root = product()
    folder = root / "test/scratch"
    for old, new in {"000": "10.PNG", "001": "9.png", "002": "weld (a) #3.png", "003": "ä.png"}.items():
        (folder / f"{old}.png").rename(folder / new)
    names = [sample.image.name for sample in find_categories(root)["nut"].defects["scratch"]]
    assert names == ["004.png", "005.png", "10.PNG", "9.png", "weld (a) #3.png", "ä.png"]


@pytest.mark.parametrize("name", ["000.png", "000_mask.bmp", "000.TIF"])
def test_a_mask_may_carry_the_pictures_name_and_any_suffix(product: Product, name: str) -> None:
    root = product()
    mask = root / "ground_truth/scratch/000_mask.png"
    mask.rename(mask.with_name(name))
    assert pick(root)[0].defects["scratch"][0].mask == mask.with_name(name)


def test_the_mask_ending_in_mask_goes_first(product: Product) -> None:
    root = product()
    (root / "ground_truth/scratch/000.png").write_bytes(b"")
    sample = pick(root)[0].defects["scratch"][0]
    assert sample.mask is not None
    assert sample.mask.name == "000_mask.png"


def test_what_desktops_leave_behind_is_not_seen(product: Product) -> None:
    root = product()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png"):
        (root / "test/scratch" / name).write_bytes(b"x")
    (root.parent / "__MACOSX/test").mkdir(parents=True)
    assert list(find_categories(root.parent)) == ["nut"]
    assert len(pick(root)[0].defects["scratch"]) == 6


def test_ok_is_another_word_for_good(product: Product) -> None:
    root = product()
    for part in ("train", "test"):
        (root / part / "good").rename(root / part / "ok")
    found = pick(root)[0]
    assert (len(found.good), len(found.test_good), list(found.defects)) == (4, 2, ["scratch"])


def test_a_broken_neighbour_does_not_hinder_the_category_asked_for(product: Product) -> None:
    data = product().parent
    (data / "broken/train").mkdir(parents=True)
    assert pick(data, "nut")[1] == "scratch"
    with pytest.raises(DataError, match=r"broken: no test/ folder; put defect pictures into"):
        find_categories(data)


def test_the_nearest_name_is_offered(product: Product) -> None:
    root = product(defects={"scratch": 1, "hole": 1})
    with pytest.raises(DataError, match=r"test: no defect 'scrach'; did you mean 'scratch'\? There are: hole, scratch"):
        pick(root, defect="scrach")
    with pytest.raises(DataError, match=r"nut: no category 'bolt'; did you mean 'nut'\?"):
        pick(root, "bolt")
    with pytest.raises(DataError, match=r"2 to choose from \(hole, scratch\); name one with --defect"):
        pick(root)
    assert choose_name("b", ["a", "b"], "defect", root) == "b"


def test_normals_are_the_pictures_of_train_good_or_an_error(product: Product) -> None:
    assert [path.name for path in pick(product())[0].normals()] == ["000.png", "001.png", "002.png", "003.png"]
    with pytest.raises(
        DataError, match=r"train/good: no normal pictures; put some there, or use model\.background=none"
    ):
        pick(product("bare", good=0))[0].normals()


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\); check its permissions"):
        visible(tmp_path)


@pytest.mark.parametrize(
    ("name", "good", "pairs"),
    [("magnetic_tile", 120, 388), ("mvtec_bottle", 100, 63), ("mpdd_metal_plate", 48, 81), ("deeppcb", 180, 240)],
)
def test_the_real_sets_are_found_whole(shared: Path, name: str, good: int, pairs: int) -> None:
    found = find_categories(shared / "data")[name]
    samples = [sample for group in found.defects.values() for sample in group]
    assert len(found.normals()) == good
    assert len(samples) == pairs
    assert all(sample.mask is not None for sample in samples)
