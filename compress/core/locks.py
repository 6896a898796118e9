"""A folder held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HARMLESS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def hold_folder(folder: Path, name: str, *, make: bool = False) -> Iterator[None]:
    """Nobody else holds this folder while the block runs.

    The lock is a file that stays, and is never emptied: a link in its place is not followed, a pipe there does not block.
    Whoever holds the folder may remove it, lock and all; the next one makes both anew.

    Args:
        folder: what is held.
        name: of the lock file in it.
        make: the folder, where it is missing.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the lock cannot be made or is no ordinary file.
    """
    lock = _locked(folder, name, make)
    try:
        yield
    finally:
        os.close(lock)


def _locked(folder: Path, name: str, make: bool) -> int:
    while True:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / name, os.O_WRONLY | os.O_CREAT | _HARMLESS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise OSError(0, f"{name} is no ordinary file")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), (folder / name).lstat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # whoever held it before has removed it: it locks nothing any more
