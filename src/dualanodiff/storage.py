"""Files that are either whole or absent: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it over `path`.

    A kill at any moment leaves the old file or the new one, never a half. Raises what `write` raises (on a full
    disk an OSError naming `path`, from safetensors' writer too) and leaves no temporary file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except SafetensorError as error:
        # Its writer hides what the system said in the text of an error of its own.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_behind(most: int = 32) -> Iterator[Callable[..., None]]:
    """A function that lets a thread make calls, one after another in the order given, while the caller goes on.

    At most `most` calls wait; leaving waits for all of them. An error of one is raised at a later call, or on leaving.
    """
    waiting: deque[Future[object]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:

        def submit(work: Callable[..., object], *arguments: object) -> None:
            while waiting and (waiting[0].done() or len(waiting) >= most):
                waiting.popleft().result()
            waiting.append(thread.submit(work, *arguments))

        yield submit
        for call in waiting:
            call.result()


def unfinished(path: Path) -> bool:
    """Whether this is a temporary file of `write_atomic`, or of safetensors, which writes beside what it is given.

    >>> [unfinished(Path("run") / name) for name in (".config-3ka_x0b1.toml", ".tmp3jE8xM", ".gitignore")]
    [True, True, False]
    """
    return re.fullmatch(r"\..+-[a-z0-9_]{8}(\.\w+)?|\.tmp[A-Za-z0-9]{6}", path.name) is not None


def drop_unfinished(folder: Path) -> None:
    """Remove what kills left of half-written files below a folder that nobody else is writing to."""
    for path in folder.rglob(".*"):
        if unfinished(path):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one line; a torn last line left by a kill is ended first, so that it cannot swallow this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row) + "\n"
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a jsonl file; torn lines are skipped, an absent file has none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def trim_jsonl(path: Path, step: int) -> list[dict[str, Any]]:
    """Forget the rows of a log after `step`, which belong to steps that a kill undid; the rows that stay."""
    rows = [row for row in read_jsonl(path) if row.get("step", 0) <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
