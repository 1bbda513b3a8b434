"""Reports for people: tables in Markdown, and HTML pages of one look that open anywhere, without a network."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import jinja2
import numpy as np

from dualanodiff.images import to_pil

_NUMBER = re.compile(r"[-+]?\d[\d.,]*( ?%| px| s)?( (±|\+-|of|in) [\d.,]+( s)?)?( \([^()]*\))?|-|")
"""What a column of numbers holds, such as "12.3 ± 0.4", "15 of 16" or "-"."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its text."""

    text: str = ""
    role: Literal["", "best", "bad", "quiet"] = ""
    """How it stands out: the best of its column, something that failed, or an aside."""
    picture: str = ""
    """The source of a picture, above the text: a file beside the page, or what `inline` gives."""


@dataclass(frozen=True)
class Table:
    """A heading, the names of columns, rows, a lead above and notes below."""

    kind: ClassVar[str] = "table"

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    notes: tuple[str, ...] = ()
    lead: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every text as a cell."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers only, and stand to the right."""
        rows = self.cells
        return [
            any(row[i].text for row in rows)
            and all(not row[i].picture and _NUMBER.fullmatch(row[i].text) for row in rows)
            for i in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Text:
    """A paragraph: the sentence that counts, a warning, a command, an aside."""

    kind: ClassVar[str] = "text"

    text: str
    role: Literal["", "sentence", "warning", "quiet", "command"] = ""
    heading: str = ""

    @property
    def element(self) -> str:
        """The HTML element."""
        return "pre" if self.role == "command" else "p"


@dataclass(frozen=True)
class Terms:
    """Words and what they mean."""

    kind: ClassVar[str] = "terms"

    terms: tuple[tuple[str, str], ...]
    heading: str = ""


@dataclass(frozen=True)
class Figures:
    """Pictures beside each other, as (caption, source)."""

    kind: ClassVar[str] = "figures"

    figures: tuple[tuple[str, str], ...]
    heading: str = ""


Block = Table | Text | Terms | Figures


def page(title: str, blocks: Sequence[Block]) -> str:
    """A whole page of these blocks, in their order."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualanodiff"), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html").render(title=title, blocks=blocks)


def markdown(table: Table) -> str:
    """The table's lines; the best cells are bold.

    >>> markdown(Table("", ("method", "AP"), (("ours", Cell("7.0", "best")),))).splitlines()[-1]
    '| ours | **7.0** |'
    """
    lines = [[*table.columns], ["---"] * len(table.columns)]
    lines += [[f"**{cell.text}**" if cell.role == "best" else cell.text for cell in row] for row in table.cells]
    return "\n".join("| " + " | ".join(text.replace("|", "/") for text in line) + " |" for line in lines)


def inline(pixels: np.ndarray) -> str:
    """A picture uint8 (h, w, 3) or mask bool (h, w) as a source that lies inside the page."""
    file = io.BytesIO()
    if pixels.dtype == bool:
        to_pil(pixels).save(file, "PNG", optimize=True)
        return _source("png", file.getvalue())
    to_pil(pixels).save(file, "JPEG", optimize=True, quality=80)
    return _source("jpeg", file.getvalue())


def inline_png(path: Path) -> str:
    """A PNG file as a source that lies inside the page."""
    return _source("png", path.read_bytes())


def _source(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
