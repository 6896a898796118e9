"""A folder has one holder, and what lies in the place of its lock is neither followed nor waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core.locks import hold_folder

HOLD = """
import sys
from pathlib import Path
from compress.core import hold_folder
with hold_folder(Path(sys.argv[1]), "lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def taken(folder: Path) -> bool:
    try:
        with hold_folder(folder, "lock"):
            return False
    except BlockingIOError:
        return True


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "lock"):
        assert taken(tmp_path)
        with hold_folder(tmp_path, "another"):
            pass
    assert not taken(tmp_path)
    with pytest.raises(ValueError, match="inside"), hold_folder(tmp_path, "lock"):
        raise ValueError("inside")
    assert not taken(tmp_path)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_process_holds_it_as_long_as_it_lives(end: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdin and other.stdout.readline() == "held\n"
        assert taken(tmp_path)
        other.stdin.close() if end == "close" else other.kill()
        other.wait(timeout=30)
    assert not taken(tmp_path)


def test_a_holder_may_remove_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with hold_folder(folder, "lock", make=True):
        shutil.rmtree(folder)
        with hold_folder(folder, "lock", make=True):  # a new folder is a new lock
            assert taken(folder)
    with pytest.raises(FileNotFoundError):
        taken(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_lock_is_refused_and_untouched(kind: str, tmp_path: Path) -> None:
    precious, lock = tmp_path / "precious", tmp_path / "lock"
    if kind == "link":
        precious.write_text("kept")
    if kind in ("link", "dangling"):
        lock.symlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(OSError) as refused, hold_folder(tmp_path, "lock"):
        pass
    assert not isinstance(refused.value, BlockingIOError) and refused.value.strerror
    assert precious.read_text() == "kept" if kind == "link" else not precious.exists()


def test_a_pipe_that_is_read_is_no_lock_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    reader = os.open(tmp_path / "lock", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="no ordinary file"), hold_folder(tmp_path, "lock"):
            pass
    finally:
        os.close(reader)


def test_nothing_in_a_lock_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("somebody's")
    with hold_folder(tmp_path, "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "somebody's"
