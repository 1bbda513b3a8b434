"""Shots as latents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dualanodiff.data.shots import Shot, part_target
from dualanodiff.errors import DataError
from dualanodiff.images import to_tensor
from dualanodiff.latents import LatentShots, background_picture, check_resolution, encode_pictures, encode_shots
from dualanodiff.model.base import Base, load_base
from small import SIDE, draw_shots

KEY = (0, 177, 64)


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    return load_base(tiny_base_folder)


def encode(base: Base, shots: list[Shot], cache: Path, **changes: Any) -> LatentShots:
    options: dict[str, Any] = {"horizontal": True, "vertical": True} | changes
    return encode_shots(base, shots, options.pop("key", KEY), cache=cache, **options)


def test_each_form_is_encoded_as_the_picture_and_its_part_would_be(base: Base, tmp_path: Path) -> None:
    shots = draw_shots(2)
    found = encode(base, shots, tmp_path / "cache", vertical=False)
    assert found.pairs.shape == (2, 2, 2, 4, 8, 8)
    for i, shot in enumerate(shots):
        for form, turn in enumerate((1, -1)):
            rgb, mask = shot.image[:, ::turn], shot.mask[:, ::turn]
            for branch, picture in enumerate((rgb, part_target(rgb, mask, KEY))):
                alone = base.encode(to_tensor(np.ascontiguousarray(picture))[None])[0]
                torch.testing.assert_close(found.pairs[i, form, branch], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("horizontal", "vertical", "forms"), [(False, False, 1), (True, False, 2), (True, True, 4)])
def test_only_allowed_mirror_images_are_made(
    horizontal: bool, vertical: bool, forms: int, base: Base, tmp_path: Path
) -> None:
    found = encode(base, draw_shots(1), tmp_path / "cache", horizontal=horizontal, vertical=vertical)
    assert found.pairs.shape[1] == forms
    assert found.coverage.shape == (1, forms, 1, 8, 8)


def test_coverage_is_the_share_of_a_cell_inside_the_mask(base: Base, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0:8, 0:8] = True
    mask[8:16, 8:12] = True
    found = encode(base, [Shot(np.zeros((SIDE, SIDE, 3), np.uint8), mask, "x")], tmp_path / "cache")
    assert found.coverage[0, 0, 0, :2, :2].tolist() == [[1, 0], [0, 0.5]]
    assert found.coverage[0, 1, 0, 0, 6:].tolist() == [0, 1]
    assert found.coverage.sum() == 4 * 1.5


def test_backgrounds_turn_with_their_pictures_and_have_no_object(base: Base, tmp_path: Path) -> None:
    [shot] = draw_shots(1)
    object_mask = np.zeros((SIDE, SIDE), bool)
    object_mask[12:52, 12:40] = True
    found = encode(base, [shot], tmp_path / "cache", objects=[object_mask], vertical=False)
    assert found.backgrounds is not None
    for form, turn in enumerate((1, -1)):
        rgb = shot.image[:, ::turn].copy()
        rgb[object_mask[:, ::turn]] = 0
        alone = base.encode(to_tensor(rgb)[None])[0]
        torch.testing.assert_close(found.backgrounds[0, form], alone, atol=1e-5, rtol=1e-5)


def test_a_background_picture_is_black_where_the_object_was() -> None:
    rgb = np.full((1, 2, 3), 77, np.uint8)
    assert background_picture(rgb, np.array([[True, False]])).tolist() == [[[0, 0, 0], [77, 77, 77]]]


def test_pictures_in_several_batches_are_the_pictures_in_order(base: Base) -> None:
    pictures = [np.full((16, 16, 3), 10 * i, np.uint8) for i in range(11)]
    found = encode_pictures(base, pictures)
    assert found.shape[0] == 11
    for i in (0, 7, 8, 10):
        torch.testing.assert_close(found[i], base.encode(to_tensor(pictures[i])[None])[0], atol=1e-5, rtol=1e-5)


def test_kept_latents_are_read_again(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [np.ones((SIDE, SIDE), bool)] * 2
    first = encode(base, draw_shots(), tmp_path / "cache", objects=objects)

    def forbidden(*_: Any) -> None:
        pytest.fail("encoded again")

    monkeypatch.setattr(type(base), "encode", forbidden)
    second = encode(base, draw_shots(), tmp_path / "cache", objects=objects)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


OTHERS: dict[str, Any] = {
    "another key": {"key": (255, 0, 255)},
    "other flips": {"vertical": False},
    "objects": {"objects": [np.ones((SIDE, SIDE), bool)] * 2},
    "another mask": {},
    "another picture": {},
}


@pytest.mark.parametrize("change", OTHERS)
def test_latents_of_other_inputs_are_not_taken_for_these(change: str, base: Base, tmp_path: Path) -> None:
    shots = draw_shots()
    encode(base, shots, tmp_path / "cache")
    if change == "another mask":
        shots[1].mask[0, 0] = True
    if change == "another picture":
        shots[1].image[0, 0] = 0
    found = encode(base, shots, tmp_path / "cache", **OTHERS[change])
    fresh = encode(base, shots, tmp_path / "fresh", **OTHERS[change])
    assert torch.equal(found.pairs, fresh.pairs)
    assert torch.equal(found.coverage, fresh.coverage)
    assert (found.backgrounds is None) == (fresh.backgrounds is None)
    assert load_file(tmp_path / "cache").keys() == load_file(tmp_path / "fresh").keys()


def test_the_same_objects_in_another_shots_place_are_other_inputs(base: Base, tmp_path: Path) -> None:
    objects = [np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)]
    one = encode(base, draw_shots(), tmp_path / "cache", objects=objects)
    other = encode(base, draw_shots(), tmp_path / "cache", objects=objects[::-1])
    assert one.backgrounds is not None
    assert other.backgrounds is not None
    assert not torch.equal(one.backgrounds, other.backgrounds)


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_damaged_latents_are_made_again(damage: str, base: Base, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = encode(base, draw_shots(), cache)
    if damage == "cut":
        cache.write_bytes(cache.read_bytes()[:-10])
    else:
        save_file({"pairs": torch.zeros(1)}, cache)
    assert torch.equal(encode(base, draw_shots(), cache).pairs, first.pairs)
    assert load_file(cache).keys() == {"pairs", "coverage"}


def test_a_resolution_that_fits_is_returned(base: Base) -> None:
    assert check_resolution(base, draw_shots()) == SIDE


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(64, 64), (32, 32)], r"shots have sizes \[\(32, 32\), \(64, 64\)\]; read them with find_shots"),
        ([(64, 32)], r"shots have sizes \[\(64, 32\)\]; .* one square resolution"),
        ([(72, 72)], r"data.resolution is 72, which this base cannot halve evenly; use a multiple of 16, such as 64$"),
        ([(8, 8)], r"data.resolution is 8, .* multiple of 16, such as 16$"),
    ],
)
def test_a_resolution_that_does_not_fit_is_refused(shapes: list[tuple[int, int]], message: str, base: Base) -> None:
    shots = [Shot(np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool), "x") for shape in shapes]
    with pytest.raises(DataError, match=message):
        check_resolution(base, shots)
