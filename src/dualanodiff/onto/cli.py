"""Options of `dualanodiff generate` for defects on good pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dualanodiff.errors import SettingsError

_PANEL = "Onto good pictures"
OntoOption = Annotated[
    str | None,
    typer.Option(
        "--onto",
        metavar="FOLDER|good|nothing",
        help="Put the defects onto good pictures: a folder's, or the product's own (the default where the run's data has some); nothing: draw whole parts.",
        rich_help_panel=_PANEL,
    ),
]
WhereOption = Annotated[
    Literal["shots", "object", "anywhere"] | None,
    typer.Option(
        "--where", help="Like the shots' places (default), on the object, or anywhere.", rich_help_panel=_PANEL
    ),
]
RegionOption = Annotated[
    Path | None, typer.Option("--region", metavar="MASK", help="Only in what this mask marks.", rich_help_panel=_PANEL)
]
BoxOption = Annotated[
    str | None, typer.Option("--box", metavar="X,Y,W,H", help="Only in this box, in pixels.", rich_help_panel=_PANEL)
]
AreaOption = Annotated[
    str | None,
    typer.Option(
        "--area",
        metavar="A|A:B",
        help="Size in pixels of the good picture, or mm2 with --scale.",
        rich_help_panel=_PANEL,
    ),
]
ContrastOption = Annotated[
    str | None, typer.Option("--contrast", metavar="C|C:D", help="Mean change, in Lab units.", rich_help_panel=_PANEL)
]
ScaleOption = Annotated[float | None, typer.Option("--scale", help="Millimetres a pixel.", rich_help_panel=_PANEL)]
MixOption = Annotated[
    list[str] | None,
    typer.Option("--mix", metavar="RUN=SHARE", help="Another run for a share of the defects.", rich_help_panel=_PANEL),
]
DefectsOption = Annotated[
    int | None, typer.Option("--defects", min=1, help="Defects on one part.", rich_help_panel=_PANEL)
]


def given_wishes(onto: str | None, wishes: Mapping[str, Any], run: Path, out: Path) -> dict[str, Any] | None:
    """What `generate` was asked of defects on good pictures; None where whole parts are to be drawn.

    That is the case with `--onto nothing`, and without `--onto` where the run's product has no good pictures or `out`
    was begun with whole parts. SettingsError for a wish that only defects onto good pictures can have.
    """
    given = {name: value for name, value in wishes.items() if value is not None}
    if onto == "nothing" and given:
        msg = f"--{next(iter(given))}: is for defects on good pictures; leave it out, or give --onto FOLDER or --onto good"
        raise SettingsError(msg)
    from dualanodiff.onto.wishes import begun_from_nothing, has_goods
    from dualanodiff.runs import RunFolder

    folder = RunFolder(run)
    folder.settings()  # that it is a run is known before the slow imports of what draws
    if onto == "nothing":
        return None
    if onto is None and not given and (begun_from_nothing(out) or not has_goods(folder.lineage())):
        return None
    return {"goods": onto or "good", **given}
