"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dualanodiff"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CODE = SOURCES + sorted((ROOT / "tests").rglob("*.py"))
TEXT = [
    *CODE,
    *(
        path
        for name in ("docs", "recipes", "src")
        for path in (ROOT / name).rglob("*")
        if path.suffix in {".md", ".toml"}
    ),
    *(path for path in ROOT.iterdir() if path.is_file() and path.suffix in {".md", ".toml", ".cff", ""}),
    ROOT / ".ci" / "run",
]
LONGEST = 350
# What the paper is cited for; a line may cite several.
CITATION = re.compile(r"\b(?:sec\. [\d.]*\d|eq\. \d+|table \d+|fig\. \d+)")


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def citations(path: Path) -> set[str]:
    """What a source file cites: the places after each "Paper", on its line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {found for line in lines for tail in line.split("Paper ")[1:] for found in CITATION.findall(tail)}


@pytest.mark.parametrize("path", CODE, ids=place)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", CODE, ids=place)
def test_a_file_is_named_after_its_subject(path):
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_nothing_names_a_place_on_somebodys_machine():
    private = re.compile(r"(?<![\w.])/(?:work|root|tmp/w|home/\w+)/")
    assert [place(path) for path in TEXT if private.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_a_module_says_what_it_is_in_its_first_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring.splitlines()[0]) <= 120


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (r"\bImage\.open\(", {"images.py", "pretrain/pictures.py"}),
        (r"set_attn_processor|cross_attention_kwargs", {"model/dual.py", "bench/reference_path.py"}),
        (r"\btorch\.load\(", {"model/official.py", "judge/networks.py"}),
        (r"\btorch\.save\(|\bimport pickle\b|\bpickle\.", set()),
        (r"(?<!\.)\bprint\(", set()),
        (r"\b(?:TODO|FIXME|XXX)\b", set()),
    ],
)
def test_one_file_does_it(pattern, allowed):
    found = {path.relative_to(PACKAGE).as_posix() for path in SOURCES if re.search(pattern, path.read_text("utf-8"))}
    assert found <= allowed


@pytest.mark.parametrize("name", ["model/official.py", "judge/networks.py"])
def test_a_checkpoint_of_others_is_never_run(name):
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert text.count("torch.load(") == len(re.findall(r"torch\.load\([^()]*weights_only=True", text)) == 1


@pytest.mark.parametrize("module", ["dualanodiff", "dualanodiff.cli", "dualanodiff.images", "dualanodiff.data.check"])
def test_importing_loads_no_heavy_library(module):
    heavy = "torch diffusers transformers accelerate onnxruntime scipy"
    code = f"import sys, {module}; print(*(name for name in '{heavy}'.split() if name in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


def test_importing_the_package_leaves_the_disk_alone(tmp_path):
    code = "import dualanodiff, dualanodiff.cli"
    subprocess.run([sys.executable, "-B", "-c", code], cwd=tmp_path, env={"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_every_citation_of_the_paper_is_in_the_method_table():
    method = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    rows = [line for line in method.splitlines() if line.startswith("|")]
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        for citation in citations(path):
            assert any(name in row and citation in row for row in rows), f"{name} cites {citation}"


def test_every_file_and_citation_in_the_method_table_exists():
    method = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    names = {path.relative_to(PACKAGE).as_posix(): citations(path) for path in SOURCES}
    for row in (line for line in method.splitlines() if line.startswith("|")):
        files = re.findall(r"[\w/]+\.py\b", row)
        assert set(files) <= set(names), row
        cited = set(CITATION.findall(row)) if files else set()
        assert cited <= set().union(*(names[name] for name in files)), row


def test_the_architecture_page_knows_every_file():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = [path.relative_to(PACKAGE).as_posix() for path in SOURCES if path.name != "__init__.py"]
    assert [name for name in names if f"`{name}`" not in page] == []
