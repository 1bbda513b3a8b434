"""What the pages say is what the program does: commands, settings, links, messages and snippets."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import dualanodiff
from dualanodiff.cli import app
from dualanodiff.settings import Settings, parse_assignments, setting_names

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dualanodiff"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"(?<![\w./])(?:data|model|train|sample|onto|mask)\.[a-z_]+(?![\w(./*])")
FILES = {"png", "toml", "safetensors"}


def place(path):
    return path.relative_to(ROOT).as_posix()


def text_of(page):
    return page.read_text(encoding="utf-8")


def fences(page, language):
    return [body for kind, body in FENCE.findall(text_of(page)) if kind == language]


def spans(page):
    """Inline code outside of fences."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(page)))


def shell_lines(page):
    return [line.strip() for body in fences(page, "sh") for line in body.splitlines() if line.strip()]


def command_of(words):
    """The command that the words name, and what is left of them."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words[0]]
        words = words[1:]
    return command, words


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_command_of_a_shell_block_would_run(page):
    for line in shell_lines(page):
        before, found, after = line.partition("dualanodiff ")
        if not found:
            assert line.split()[0] in {"make", "export"}, line
            continue
        assert before in {"", "accelerate launch -m "}, line
        words = shlex.split(after.partition(" > ")[0])
        command, rest = command_of(words)
        if rest == ["--help"]:
            continue
        assert not hasattr(command, "commands"), f"{line}: {words[0]} is no command"
        context = command.make_context(command.name, list(rest))  # parses, and runs nothing
        Settings().updated(parse_assignments(context.params.get("settings") or []), line)


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_command_and_option_in_a_sentence_exists(page):
    options = [item for command in all_commands() for item in command.params]
    every = {"--help", *(name for item in options for name in item.opts + item.secondary_opts)}
    for span in spans(page):
        if span.startswith("dualanodiff "):
            command, rest = command_of(shlex.split(span)[1:])
            assert not hasattr(command, "commands") or rest == [] or rest[0].startswith("-"), span
            known = {name for item in command.params for name in item.opts + item.secondary_opts}
            assert {word for word in rest if word.startswith("--")} <= known, span
        elif span.startswith("--"):
            assert {word for word in span.split() if word.startswith("--")} <= every, span


def all_commands():
    groups = [typer.main.get_command(app)]
    while groups:
        for command in groups.pop().commands.values():
            if hasattr(command, "commands"):
                groups.append(command)
            else:
                yield command


def test_the_tutorial_shows_every_command():
    shown = {name for line in shell_lines(ROOT / "docs" / "tutorial.md") for name in line.split()}
    assert {command.name for command in all_commands()} <= shown | {"demo"}


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_setting_exists(page):
    outside_python = [*spans(page), *fences(page, "sh"), *fences(page, "text"), *fences(page, "toml")]
    named = {name for part in outside_python for name in SETTING.findall(part)}
    assert {name for name in named if name.split(".")[1] not in FILES} - set(setting_names()) == set()


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_assignment_is_possible(page):
    for span in spans(page):
        for name, value in re.findall(r"((?:data|model|train|sample|onto|mask)\.\w+|seed)=([\w.+#-]+)", span):
            Settings().updated({name: value}, span)


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_settings_snippet_loads(page):
    for body in fences(page, "toml"):
        Settings().updated(tomllib.loads(body), place(page))


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("paper", {"data.key_color": "black", "train.learning_rate": 5e-6, "sample.num_inference_steps": 50}),
        ("scripts", {"data.key_color": "grey", "train.learning_rate": 2e-5, "sample.num_inference_steps": 100}),
    ],
)
def test_the_method_page_gives_the_settings_of(heading, expected):
    body = next(text for text in fences(ROOT / "docs" / "method.md", "toml") if text.startswith(f"# {heading}.toml"))
    settings = Settings().updated(tomllib.loads(body), heading)
    assert settings.sample.start == "noise"
    assert settings.model.start == "fresh"
    assert settings.updated(expected, heading) == settings


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_python_snippet_compiles_and_names_what_exists(page):
    for body in fences(page, "python"):
        tree = ast.parse(body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dualanodiff":
                assert node.attr in dir(dualanodiff), node.attr


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_link_and_picture_is_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        assert goal.is_file(), f"{place(page)} points to {target}"
        assert not anchor or anchor in anchors(goal), f"{place(page)} points to {target}"


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"<!-- FIGURE: [^>]*-->", text_of(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = [*spans(page), *shell_lines(page)]
    for target in (found for word in words for found in re.findall(r"^make ([a-z]+)", word)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_source_file_named_exists(page):
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text_of(page)):
        assert (PACKAGE / name).is_file(), name


def messages():
    """Every text in the source, with a gap where a value is put in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_that_troubleshooting_quotes_is_one():
    known = list(messages())
    lines = [line for body in fences(ROOT / "docs" / "troubleshooting.md", "text") for line in body.splitlines()]
    assert len(lines) > 20
    for line in lines:
        pattern = re.compile(".*".join(re.escape(piece) for piece in line.split("...")), re.DOTALL)
        assert any(pattern.fullmatch(text) for text in known), line
