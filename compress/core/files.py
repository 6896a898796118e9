"""Files read and written so that nothing can hang, be half there or land elsewhere.

Reading: ordinary files only (a pipe may never end), of bounded size. Writing: aside, synced, renamed; a link that lies where
the temporary file goes is not followed.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compress.errors import CompressError, ConfigError

LARGEST_TEXT = 64 * 2**20
_YOUNG = 60.0
"""Seconds in which a temporary file may be one that is being written, whatever its lock says."""
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
SPACE = "free space or choose another folder with --out; the same command goes on where this one stopped"


def read_bytes(path: Path, *, most: int = LARGEST_TEXT) -> bytes:
    """What an ordinary file holds.

    Raises:
        OSError: it cannot be read, is something else, or is larger than ``most`` bytes.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no ordinary file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path} has more than {most} bytes")
    return data


def read_text(path: Path, *, most: int = LARGEST_TEXT) -> str:
    """The same as text.

    Raises:
        OSError: as for :func:`read_bytes`.
        ValueError: it is no UTF-8.
    """
    return read_bytes(path, most=most).decode("utf-8")


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        ConfigError: there is none; with the given hint.
    """
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ConfigError(f"{path} cannot be read as JSON: {said}", hint=hint) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}, an object was wanted", hint=hint)
    return found


def user_cache() -> Path:
    """Where runs keep what other runs can use: ``$COMPRESS_CACHE``, or ``smaller-convnets`` among the user's caches."""
    named = os.environ.get("COMPRESS_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smaller-convnets"


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary file beside a final name; at the end it has that name, whole and synced, or is gone.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a rename would do away with a device
        raise OSError(0, f"{path.name} is no ordinary file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    _sweep(path)
    held = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)
    try:
        with suppress(OSError):  # some file systems have no locks: nothing is swept there
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mode = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # as this process makes files, whoever wrote into it
        temporary.replace(path)
        _sync(path.parent)
    finally:
        os.close(held)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Temporary files for this name whose processes were killed: nobody holds them, and for a while."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        with suppress(OSError):
            if not number.isdecimal() or time.time() - left.lstat().st_mtime < _YOUNG:
                continue
            found = os.open(left, os.O_RDONLY | _NO_LINKS | getattr(os, "O_NONBLOCK", 0))
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(found)


def _sync(folder: Path) -> None:
    """Makes a rename itself survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path, data: bytes | str) -> None:
    """Writes aside, syncs, renames: under the final name there is the whole file or none.

    Raises:
        CompressError: the file cannot be written.
    """
    try:
        with aside(path) as temporary:
            temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise CompressError(f"{path} cannot be written: {error.strerror or error}", hint=SPACE) from error


def write_json(path: Path, data: Any) -> None:
    """JSON with sorted keys, so that equal data are equal bytes."""
    write(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=True) + "\n")


def make_folder(path: Path, *, hint: str) -> Path:
    """A folder at this very place, made if needed: a link in its place is not followed, for it may lead anywhere.

    Raises:
        ConfigError: something else is there; with the given hint.
        CompressError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{path} is no folder", hint=hint) from error
    except OSError as error:
        raise CompressError(f"{path} cannot be made: {error.strerror or error}", hint=SPACE) from error
    if path.is_symlink():
        raise ConfigError(f"{path} is a link to {path.readlink()}, a folder was wanted: nothing is written there", hint=hint)
    return path


def remove(path: Path) -> None:
    """Whatever has this name is gone afterwards: a file, a folder with all that is in it, a link but not what it leads to.

    Raises:
        CompressError: it cannot be removed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CompressError(f"{path} cannot be removed: {error.strerror or error}", hint="remove it by hand") from error


def append(path: Path, lines: str) -> None:
    """Adds lines to a file and syncs them; a link there is not followed.

    Raises:
        CompressError: they cannot be written; some of them may be.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINKS, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CompressError(f"{path} cannot be written: {error.strerror or error}", hint=SPACE) from error
