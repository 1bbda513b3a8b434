from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualanodiff.data.catalog import Sample
from dualanodiff.data.shots import choose_samples, find_shots, flips, part_target
from dualanodiff.errors import DataError
from dualanodiff.images import read_mask, write_png

Product = Callable[..., Path]


def samples(count: int) -> list[Sample]:
    return [Sample(Path(f"nut/test/hole/{number:03}.png"), None, "hole") for number in range(count)]


@pytest.mark.parametrize(("count", "expected"), [(3, 1), (5, 1), (6, 2), (8, 2), (20, 6), (22, 7)])
def test_the_first_third_is_rounded_down(count: int, expected: int) -> None:
    chosen = choose_samples(list(reversed(samples(count))), "first-third")
    assert [sample.image.stem for sample in chosen] == [f"{number:03}" for number in range(expected)]


def test_all_and_a_number_take_that_many() -> None:
    assert len(choose_samples(samples(7), "all")) == 7
    assert [sample.image.stem for sample in choose_samples(samples(7), "2")] == ["000", "001"]


def test_a_list_names_pictures_with_or_without_suffix_and_may_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "shots.txt"
    file.write_text("\ufeff# mine\n004.png\n\n  001 # clear\n004\n", encoding="utf-8")
    assert [sample.image.stem for sample in choose_samples(samples(6), str(file))] == ["001", "004"]


def test_a_list_with_an_unknown_name_says_where_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "shots.txt"
    file.write_text("001\n\n01.png\n")
    with pytest.raises(DataError, match=r"shots\.txt: line 3: no picture '01\.png'; did you mean '001\.png'\?"):
        choose_samples(samples(6), str(file))


def test_a_third_of_two_is_an_error_that_says_what_to_type() -> None:
    with pytest.raises(DataError, match=r"test/hole: 2 pictures, a third of which is no shot; use --shots all"):
        choose_samples(samples(2))


def test_shots_have_the_resolution_and_know_their_files(product: Product) -> None:
    root = product(size=40)
    shots = find_shots(root.parent, defect="scratch", category="nut", resolution=16)
    assert [shot.name for shot in shots] == ["000", "001"]
    for shot in shots:
        assert (shot.image.shape, shot.image.dtype) == ((16, 16, 3), np.uint8)
        assert (shot.mask.shape, shot.mask.dtype) == ((16, 16), bool)
        assert shot.path == root / "test/scratch" / f"{shot.name}.png"
        assert shot.mask_path == root / "ground_truth/scratch" / f"{shot.name}_mask.png"
        assert np.median(shot.image[shot.mask][:, 1]) < 60
        assert np.median(shot.image[~shot.mask][:, 1]) > 180


def test_pictures_that_are_not_square_are_squashed_with_their_masks(product: Product) -> None:
    root = product(defects={"scratch": 1})
    mask = np.zeros((10, 40), bool)
    mask[:, 20:] = True
    write_png(root / "test/scratch/000.png", np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 200)
    write_png(root / "ground_truth/scratch/000_mask.png", mask)
    [shot] = find_shots(root, defect="scratch", rule="all", resolution=8)
    assert shot.image.shape == (8, 8, 3)
    assert shot.mask[:, 4:].all()
    assert not shot.mask[:, :4].any()


def test_the_part_is_the_picture_inside_and_the_key_outside(product: Product) -> None:
    [shot, *_] = find_shots(product(), defect="scratch", resolution=32)
    part = part_target(shot.image, shot.mask, (1, 2, 3))
    assert part.dtype == np.uint8
    assert np.array_equal(part[shot.mask], shot.image[shot.mask])
    assert (part[~shot.mask] == (1, 2, 3)).all()
    assert not part_target(shot.image, shot.mask, (0, 0, 0))[~shot.mask].any()


@pytest.mark.parametrize(
    ("horizontal", "vertical", "count"), [(False, False, 1), (True, False, 2), (False, True, 2), (True, True, 4)]
)
def test_flips_turn_picture_and_mask_together(product: Product, horizontal: bool, vertical: bool, count: int) -> None:
    [shot, *_] = find_shots(product(), defect="scratch", resolution=32)
    variants = flips(shot, horizontal=horizontal, vertical=vertical)
    assert len({variant.image.tobytes() for variant in variants}) == count
    assert np.array_equal(variants[0].image, shot.image)
    for variant in variants:
        # The patch is the only red thing, so the mask must still lie on it.
        assert np.array_equal(variant.image[..., 1] < 100, variant.mask)
        assert variant.image.flags.c_contiguous
        assert variant.path == shot.path
    if horizontal:
        assert np.array_equal(variants[1].image, shot.image[:, ::-1])
    if vertical:
        assert np.array_equal(variants[-1].image[::-1, :: -1 if horizontal else 1], shot.image)


def test_a_tiny_defect_is_still_in_its_shot(product: Product) -> None:
    root = product(defects={"scratch": 1}, size=64)
    mask = np.zeros((64, 64), bool)
    mask[40, 9] = True
    write_png(root / "ground_truth/scratch/000_mask.png", mask)
    [shot] = find_shots(root, defect="scratch", rule="1", resolution=8)
    assert np.argwhere(shot.mask).tolist() == [[5, 1]]


def test_an_exif_turn_reaches_the_shot(product: Product) -> None:
    root = product(defects={"scratch": 1})
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (root / "test/scratch/000.png", root / "ground_truth/scratch/000_mask.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    [shot] = find_shots(root, defect="scratch", rule="all", resolution=32)
    assert np.array_equal(shot.mask, read_mask(root / "ground_truth/scratch/000_mask.png"))
    assert np.array_equal(shot.image[..., 1] < 100, shot.mask)


def test_real_shots_keep_their_defects_at_a_low_resolution(shared: Path) -> None:
    shots = find_shots(shared / "data", category="magnetic_tile", defect="blowhole", resolution=64)
    assert len(shots) == 38
    assert all(0 < shot.mask.mean() < 0.1 for shot in shots)
