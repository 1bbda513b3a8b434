"""Pictures for pre-training."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from dualanodiff.errors import DataError, PictureError
from dualanodiff.pretrain.pictures import PACKED_SIDE, Pack, caption_of, draw_crop, load_pack, pack_folders
from dualanodiff.seeds import numpy_stream


def write(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "pics" / "wood_floor" / "planks02.png", (200, 30, 30))
    write(tmp_path / "pics" / "metal" / "plate.jpg", (30, 200, 30))
    write(tmp_path / "pics" / "b.bmp", (30, 30, 200))
    (tmp_path / "pics" / "readme.txt").write_text("no picture")
    return tmp_path / "pics"


def test_packed_pictures_come_back_in_order_with_their_words(folder: Path, tmp_path: Path) -> None:
    counts = pack_folders([folder], tmp_path / "pack")
    pack = load_pack(tmp_path / "pack")
    assert len(pack) == counts["pictures"] == 3
    assert counts["folders"] == {"pics": 1, "metal": 1, "wood_floor": 1}
    assert pack.captions == ("", "metal plate", "wood floor planks")
    assert pack.pixels.shape == (3, PACKED_SIDE, PACKED_SIDE, 3)
    means = pack.pixels.reshape(3, -1, 3).mean(axis=1)
    assert np.abs(means - [(30, 30, 200), (30, 200, 30), (200, 30, 30)]).max() < 6
    assert pack.sources == counts


def test_the_pack_names_its_content_by_a_hash(folder: Path, tmp_path: Path) -> None:
    one = pack_folders([folder], tmp_path / "one")
    write(folder / "b.bmp", (30, 30, 210))
    two = pack_folders([folder], tmp_path / "two")
    assert len(one["sha256"]) == len(hashlib.sha256().hexdigest())
    assert one["sha256"] != two["sha256"]
    assert pack_folders([folder], tmp_path / "three")["sha256"] == two["sha256"]


def test_several_folders_make_one_pack(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "more" / "stone.png", (9, 9, 9))
    assert pack_folders([folder, tmp_path / "more"], tmp_path / "pack")["pictures"] == 4
    assert load_pack(tmp_path / "pack").captions[-1] == "stone"


def test_an_index_gives_the_original_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.tsv").write_text("file\toriginal\nb.bmp\tbricks/red_brick_wall.png\tmore\nbroken line\n")
    pack_folders([folder], tmp_path / "pack", index=tmp_path / "index.tsv")
    assert load_pack(tmp_path / "pack").captions[0] == "bricks red brick wall"


def test_captions_are_words_of_the_files_own_folder_and_name() -> None:
    assert caption_of(Path("p/textures/The_Rusty-Iron 01 of tex.png"), Path("p")) == "rusty iron"
    assert len(caption_of(Path("p/aaa bbb ccc ddd/eee fff ggg hhh.png"), Path("p")).split()) == 6


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures \(.png, .*\) below it; give a folder that has some"):
        pack_folders([tmp_path / "empty"], tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_broken_picture_is_named_and_no_pack_is_left(folder: Path, tmp_path: Path) -> None:
    (folder / "zz.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"zz.png"):
        pack_folders([folder], tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda _: None,
        lambda path: path.write_bytes(b"12345"),
        lambda path: save_file({"bytes": np.zeros(3, np.uint8)}, path),
        lambda path: save_file({"bytes": np.zeros(3, np.uint8), "offsets": np.zeros(2, np.int64)}, path),
    ],
)
def test_what_is_no_pack_is_named_with_the_way_out(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "pack")
    with pytest.raises(
        DataError, match=r"pack: not a packed picture file .*; make one with `dualanodiff pretrain pack`"
    ):
        load_pack(tmp_path / "pack")


def striped() -> Pack:
    rows = np.arange(PACKED_SIDE, dtype=np.uint8)[None, :, None, None]
    return Pack(np.broadcast_to(rows, (2, PACKED_SIDE, PACKED_SIDE, 3)).copy(), ("one", "two"), {})


def test_a_crop_depends_on_its_generator_alone() -> None:
    crops = [draw_crop(striped(), numpy_stream(0, "test", i), 32) for i in (1, 1, 2)]
    assert np.array_equal(crops[0][0], crops[1][0])
    assert not np.array_equal(crops[0][0], crops[2][0])
    assert {caption for _, caption in crops} <= {"one", "two"}


@pytest.mark.parametrize("size", [32, 128, PACKED_SIDE])
def test_crops_are_turned_and_mirrored_and_of_the_size(size: int) -> None:
    seen = set()
    for i in range(40):
        crop, _ = draw_crop(striped(), numpy_stream(0, "test", i), size)
        assert crop.shape == (size, size, 3)
        assert crop.flags.c_contiguous
        down, across = int(crop[-1, 0, 0]) - int(crop[0, 0, 0]), int(crop[0, -1, 0]) - int(crop[0, 0, 0])
        seen.add((np.sign(down), np.sign(across)))
    assert seen == {(1, 0), (-1, 0), (0, 1), (0, -1)}
