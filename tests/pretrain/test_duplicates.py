"""Copies are found whatever was done to them, and other pictures are not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.errors import DataError
from dualanodiff.images import write_png
from dualanodiff.pretrain.duplicates import find_duplicates, prove_apart
from dualanodiff.pretrain.pictures import pack_folders
from dualanodiff.seeds import numpy_stream
from dualanodiff.synth.product import draw_triple

PICTURES = [draw_triple(numpy_stream(0, "duplicates", i), 128).image for i in range(6)]


def resized(rgb: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((side, side)))


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: rgb,
        lambda rgb: resized(rgb, 90),
        lambda rgb: rgb[::-1],
        lambda rgb: np.rot90(rgb),
        lambda rgb: (rgb * 0.7 + 30).astype(np.uint8),
        lambda rgb: np.clip(rgb + np.random.default_rng(0).normal(0, 6, rgb.shape), 0, 255).astype(np.uint8),
        lambda rgb: resized(rgb[16:112, 16:112], 128),
        lambda rgb: resized(rgb[:64, 64:], 128),
    ],
    ids=["same", "smaller", "mirrored", "turned", "paler", "noisy", "three quarters", "a corner"],
)
def test_a_copy_is_found(change):
    found = find_duplicates([("copy", change(PICTURES[2]))], [(str(i), rgb) for i, rgb in enumerate(PICTURES)])
    assert [(each.trained, each.evaluated) for each in found] == [("copy", "2")]


def test_other_pictures_are_not_taken_for_copies():
    evaluated = [(str(i), rgb) for i, rgb in enumerate(PICTURES)]
    others = [(str(i), draw_triple(numpy_stream(1, "duplicates", i), 128).image) for i in range(20)]
    assert find_duplicates(others, evaluated) == []
    assert find_duplicates(others, []) == []


def test_smooth_grounds_are_not_taken_for_copies():
    slopes = [
        np.broadcast_to(np.linspace(low, 255, 128).astype(np.uint8)[:, None, None], (128, 128, 3)) for low in (0, 90)
    ]
    grain = np.random.default_rng(0).integers(-20, 20, (2, 128, 128, 3))
    noisy = [np.clip(slope + noise, 0, 255).astype(np.uint8) for slope, noise in zip(slopes, grain, strict=True)]
    assert find_duplicates([("a", noisy[0])], [("b", noisy[1])]) == []


def test_the_command_compares_a_pack_with_a_data_folder(tmp_path: Path, product) -> None:
    data = product(size=64)
    for i, rgb in enumerate(PICTURES[:3]):
        write_png(tmp_path / "pics" / f"{i}.png", rgb)
    pack_folders([tmp_path / "pics"], tmp_path / "free.pack")
    words = ["bench", "duplicates", str(tmp_path / "free.pack"), "--data", str(data), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout.splitlines()[-1])
    assert (counts["trained"], counts["evaluated"], counts["duplicates"]) == (3, 12, [])  # and no masks
    write_png(data / "test" / "good" / "leak.png", PICTURES[1])
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert [each["evaluated"] for each in json.loads(result.stdout.splitlines()[-1])["duplicates"]] == [
        "test/good/leak.png"
    ]


def test_a_folder_without_pictures_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pictures .* below it; give a pack, or a folder that has some"):
        prove_apart(tmp_path, [tmp_path])


def test_no_evaluation_picture_is_in_the_corpus(shared: Path) -> None:
    """A share of the real corpus and of every set, spread evenly; `bench duplicates` compares them whole."""
    from dualanodiff.images import read_rgb

    corpus = sorted((shared / "corpus").rglob("*.webp"))[::40]
    sets = [folder for folder in (shared / "data").iterdir() if (folder / "test").is_dir()]
    pictures = [path for folder in sets for path in sorted(folder.glob("t*/*/*.png"))[::25]]
    assert len(corpus) > 100
    assert len(pictures) > 40
    named = [[(path.name, read_rgb(path, size=128)) for path in paths] for paths in (corpus, pictures)]
    assert find_duplicates(*named) == []
