"""What all commands share: their options, one JSON object as the result, and errors as one line and an exit code."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from dualanodiff import progress
from dualanodiff.errors import DualAnoDiffError, SettingsError
from dualanodiff.settings import Settings, parse_assignments, read_settings

INTERRUPTED = "interrupted; all that was made so far is kept, the same command goes on from there (fit: with --resume)"
_JSON = "dualanodiff.json"


def _json_wanted(context: typer.Context, value: bool) -> bool:
    context.meta[_JSON] = value
    progress.silent.set(value)
    return value


def _version_wanted(value: bool) -> None:
    if value:
        from dualanodiff import __version__

        typer.echo(f"dualanodiff {__version__}")
        raise typer.Exit


JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one machine-readable object as the last line.", callback=_json_wanted),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated. See `dualanodiff settings`."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file of settings; --set goes over it.")
]
VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_version_wanted, is_eager=True)
]


class GuardedGroup(TyperGroup):
    """Commands whose foreseen errors end in one line on standard error and the contract's exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; faults of our own still end in a traceback, because nobody can act on less."""
        try:
            return super().invoke(ctx)
        except DualAnoDiffError as error:
            fail(ctx, str(error), 1)
        except KeyboardInterrupt:
            fail(ctx, INTERRUPTED, 130)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            fail(ctx, f"{place}{error.strerror or error}", 1)


def fail(context: typer.Context, text: str, code: int) -> NoReturn:
    """Say what was wrong in one line, as JSON too where that was asked for, and exit."""
    line = " ".join(text.split())
    typer.echo(line if code == 130 else f"error: {line}", err=True)
    if context.meta.get(_JSON):
        typer.echo(json.dumps({"error": line, "exit_code": code}))
    raise typer.Exit(code)


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result: `text` for a person, or the object for a machine."""
    typer.echo(json.dumps(result, default=str) if as_json else text)


def read_assignments(texts: list[str] | None, config: Path | None = None) -> dict[str, str]:
    """The `--set` texts as a dict, checked with the config file before anything slow begins."""
    assignments = parse_assignments(texts or [])
    over = read_settings(config) if config else Settings()
    over.updated(assignments, "--set")
    return assignments


def read_mask_wishes(texts: list[str] | None) -> dict[str, Any]:
    """The `--set mask.*` texts as keywords of `remake_masks`; SettingsError for a setting that masks do not depend on."""
    assignments = read_assignments(texts)
    for name in assignments:
        if not name.startswith("mask."):
            msg = f"--set {name}: the masks of a set depend on mask.method, .model, .threshold and .minimum_area only"
            raise SettingsError(msg)
    chosen = Settings().updated(assignments, "--set").mask
    return {key: getattr(chosen, key) for key in (name.removeprefix("mask.") for name in assignments)}


def command_line(*words: str | Path | int) -> str:
    """A command to type next, with its words quoted where a shell needs it.

    >>> command_line("generate", Path("my runs/a"), "--count", 16)
    "dualanodiff generate 'my runs/a' --count 16"
    """
    return shlex.join(["dualanodiff", *(str(word) for word in words)])
