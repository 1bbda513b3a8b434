"""The public face: what is exported, that it is what it says, and that it stays so."""

import ast
from pathlib import Path

import pytest

import dualanodiff

NAMES = ["DualUNet", "Shot", "errors", "find_shots", "fit", "load", "load_base", "load_official"]
ROOT = Path(__file__).parents[1]


def test_the_face_is_exactly_this():
    assert dir(dualanodiff) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_every_exported_name_is_there(name):
    assert getattr(dualanodiff, name).__name__.rpartition(".")[2] == name


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(dualanodiff.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert imported == set(NAMES)
    assert (Path(dualanodiff.__file__).parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dualanodiff' has no attribute 'train'"):
        _ = dualanodiff.train


def test_a_name_stays_what_it_is_after_its_module_was_imported():
    # A module called like an exported function would take its place.
    folder = Path(dualanodiff.__file__).parent
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules & set(NAMES) == {"errors"}


def test_every_error_of_ours_is_one_of_the_tree():
    for name in dir(dualanodiff.errors):
        found = getattr(dualanodiff.errors, name)
        if isinstance(found, type):
            assert issubclass(found, dualanodiff.errors.DualAnoDiffError)


def test_the_version_is_one_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dualanodiff.__version__}\n" in citation
