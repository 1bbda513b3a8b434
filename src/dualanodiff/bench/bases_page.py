"""The tables of `bench bases`: Markdown to quote, HTML to look at."""

from collections.abc import Mapping, Sequence
from typing import Any

from dualanodiff.pages import Block, Figures, Table, Terms, Text, markdown, page

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("KID x1000", "kid", "distance from held-back real defects, lower is better; real shots show what can be reached"),
    (
        "spread",
        "spread",
        "mean distance of two pictures that lie nearest to the same shot (IC-LPIPS where the network is lpips-vgg), higher is more diverse",
    ),
    ("valid", "valid", "share of pairs whose picture shows a defect where its mask is"),
    ("realistic", "realistic", "share of pairs whose picture looks like the product outside its mask"),
    ("aligned", "aligned", "share of pairs whose mask follows the defect's edge"),
    ("on object", "on_object", "share of pairs whose defect lies on the product"),
    ("good", "good", "share of pairs that pass all of these and copy no shot"),
    ("copies", "copies", "share of pairs that copy a shot's defect"),
    ("empty", "empty", "share of pairs without a mask"),
    (
        "bond",
        "bond",
        "median share of the contrast that the part draws which the image shows in its place (with the next pair's part)",
    ),
    ("likeness", "likeness", "median likeness of both, whatever its strength (with the next pair's part)"),
    (
        "ground off",
        "ground_offset",
        "median distance of the ground's colour from the nearest good picture's, in Lab; 2.3 is just noticeable",
    ),
    (
        "ground spread",
        "ground_spread",
        "how much more the ground's pixels differ from one another than on good pictures",
    ),
    ("fit", "fit", "steps and seconds of the fit"),
    ("s/pair", "pair_seconds", "seconds a pair"),
)


def bases_table(facts: Mapping[str, Any]) -> str:
    """One Markdown table a task, a base a line, under a line that says what was asked of each."""
    lines = [_headline(facts), ""]
    for task, cells in _by_task(facts["cells"]).items():
        lines += [f"**{task}**", "", markdown(_table(task, cells)), ""]
    return "\n".join(lines)


def bases_page(facts: Mapping[str, Any]) -> str:
    """The same tables, with a sheet of each set's first pairs below them."""
    blocks: list[Block] = [Text(_headline(facts)), Terms(tuple((title, text) for title, _, text in _COLUMNS))]
    for task, cells in _by_task(facts["cells"]).items():
        sheets = tuple((cell["base"], cell["sheet"]) for cell in cells if cell.get("sheet"))
        blocks += [_table(task, cells), Figures(sheets)]
    return page("Bases beside each other", blocks)


def _table(task: str, cells: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("base", *(title for title, _, _ in _COLUMNS))
    return Table(task, columns, tuple((cell["base"], *_texts(cell)) for cell in cells))


def _headline(facts: Mapping[str, Any]) -> str:
    budget = facts["budget"]
    return (
        f"Each base: shots by {budget['shots']}, {budget['steps']} fit steps, {budget['count']} pairs, seed {budget['seed']}; "
        f"judged at {budget['side']} px. KID by {facts['networks']['kid']}, spread by {facts['networks']['spread']}. A dash: not measured."
    )


def _by_task(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        tasks.setdefault(cell["task"], []).append(cell)
    return tasks


def _texts(cell: Mapping[str, Any]) -> list[str]:
    """A cell's values as text, in the order of the columns."""
    bond = cell.get("bond") or {}
    special = {
        "kid": f"{_number(cell.get('kid'))} +- {_number(cell.get('kid_deviation'))}",
        "spread": f"{_number(cell.get('spread'), 3)}",
        "bond": f"{_number(bond.get('bond_share'))} ({_number(bond.get('swapped_share'))})" if bond else "-",
        "likeness": f"{_number(bond.get('bond_likeness'))} ({_number(bond.get('swapped_likeness'))})" if bond else "-",
        "fit": f"{cell['steps']} in {cell['fit_seconds']:.0f} s" if "steps" in cell else "-",
    }
    return [special[key] if key in special else _number(cell.get(key)) for _, key, _ in _COLUMNS]


def _number(value: object, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"
