"""Files are whole or absent, whenever the process dies and whatever the disk does."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from dualanodiff.storage import append_jsonl, read_jsonl, sha256, write_atomic, write_behind, write_json, write_text

DIE_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from dualanodiff.storage import write_atomic

def write(path):
    path.write_bytes(b"new" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)

write_atomic(Path(sys.argv[1]), write)
"""


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_text(path, "a longer first text")
    write_text(path, "ü")
    assert path.read_text(encoding="utf-8") == "ü"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", DIE_BEFORE_RENAME, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_kill_before_the_first_rename_leaves_no_file_of_that_name(tmp_path):
    path = tmp_path / "state.bin"
    subprocess.run([sys.executable, "-c", DIE_BEFORE_RENAME, str(path)], check=False)
    assert not path.exists()


def test_a_failing_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")

    def full_disk(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*state\.bin'"):
        write_atomic(path, full_disk)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "number"), [("I/O error: No space left on device (os error 28)", errno.ENOSPC), ("torn", errno.EIO)]
)
def test_a_full_disk_is_the_same_error_from_the_safetensors_writer(tmp_path, text, number):
    def full_disk(temporary: Path) -> None:
        raise SafetensorError(text)

    with pytest.raises(OSError, match=text[:10]) as caught:
        write_atomic(tmp_path / "weights.safetensors", full_disk)
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "weights.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_keeps_the_suffix_that_writers_look_at(tmp_path):
    seen = []

    def write(temporary: Path) -> None:
        seen.append(temporary.suffix)
        temporary.write_bytes(b"")

    write_atomic(tmp_path / "picture.png", write)
    assert seen == [".png"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "value.json", {"a": [1, 2]})
    assert (tmp_path / "value.json").stat().st_mode & 0o777 == 0o644
    assert json.loads((tmp_path / "value.json").read_text()) == {"a": [1, 2]}


def test_an_absent_jsonl_file_has_no_rows(tmp_path):
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_appended_rows_come_back_in_order(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    for step in range(5):
        append_jsonl(path, {"step": step})
    assert [row["step"] for row in read_jsonl(path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_torn_anywhere_loses_only_itself(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"step": 1})
    append_jsonl(path, {"step": 2})
    os.truncate(path, path.stat().st_size - cut)
    append_jsonl(path, {"step": 3})
    steps = [row["step"] for row in read_jsonl(path)]
    # A cut of one takes only the line's end, so that row 2 is still whole.
    assert steps == ([1, 2, 3] if cut == 1 else [1, 3])


@pytest.mark.parametrize("line", [b'{"step": \xff\xfe}', b"[1, 2]", b"", b"null"])
def test_a_line_that_is_no_row_is_skipped(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line + b'\n{"step": 9}\n')
    assert list(read_jsonl(path)) == [{"step": 9}]


def test_the_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_calls_behind_are_made_in_their_order_and_waited_for() -> None:
    made: list[int] = []
    with write_behind(most=3) as submit:
        for number in range(20):
            submit(lambda number=number: (time.sleep(0.001), made.append(number)))
    assert made == list(range(20))


@pytest.mark.parametrize("calls", [1, 50])
def test_an_error_behind_comes_to_light(calls: int) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    def submit_all() -> None:
        with write_behind(most=3) as submit:
            for _ in range(calls):
                submit(fail)

    with pytest.raises(OSError, match="No space left"):
        submit_all()


def test_what_was_given_is_written_even_if_the_caller_is_interrupted() -> None:
    made: list[int] = []

    def be_interrupted() -> None:
        with write_behind() as submit:
            for number in range(5):
                submit(lambda number=number: (time.sleep(0.001), made.append(number)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert made == list(range(5))
