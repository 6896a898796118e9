"""Folders in which something is put together before it gets its name; what killed processes left of them is swept."""

from __future__ import annotations

import glob
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.core.files import remove
from compress.core.locks import hold_folder
from compress.errors import CompressError

_LOCK = ".lock"
_YOUNG = 60.0
"""Seconds within which a process may still be about to lock the folder that it made."""


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A hidden folder next to a final name, gone afterwards: what is finished in it can be renamed in one step.

    It is locked as long as its process lives. Those of processes that were killed, for the same name, are removed first.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_beside(path)
    prefix = f".{path.name}-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent, ignore_cleanup_errors=True) as made,
        hold_folder(Path(made), _LOCK),
    ):
        yield Path(made)


def sweep_beside(path: Path) -> None:
    """Removes the hidden folders of :func:`folder_beside` for a name that no living process holds, and nothing else."""
    for left in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        if left.is_symlink() or not left.is_dir():
            continue
        with suppress(OSError, CompressError):
            if (left / _LOCK).is_file():
                with hold_folder(left, _LOCK):
                    remove(left)
            elif time.time() - left.stat().st_mtime > _YOUNG:
                left.rmdir()  # killed before it was locked: there is nothing in it, or it is none of ours
