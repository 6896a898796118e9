"""Judges what becomes of a hostile input, in a child of its own: refused or not, how long, how much memory, what it touched."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECONDS = 20.0
MEBIBYTES = 2048
_TELLTALE = (
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "ctypes.dlopen",
    "pty.",
)
_WRITES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.symlink"})
"""Audit events that no reading of a file has any business with; writes are watched apart."""


@dataclass(frozen=True)
class Verdict:
    """What became of one input.

    Attributes:
        outcome: ``read``, ``refused`` (a CompressError that says what to do), or what must never be: ``traceback``,
            ``no cure``, ``crash``, ``hang``, ``ran``.
        text: the message, or what went wrong.
        seconds: wall time.
        mebibytes: how far the child's memory grew; unknown, 0, where it was killed.
    """

    outcome: str
    text: str
    seconds: float
    mebibytes: float

    @property
    def lawful(self) -> bool:
        """Read or refused, in bounded time and memory."""
        return self.outcome in ("read", "refused")


def judged(
    action: Callable[[], Any], *, seconds: float = SECONDS, mebibytes: int = MEBIBYTES, may_write: bool = False
) -> Verdict:
    """Runs an action in a forked child with limits on time and address space.

    Args:
        action: reads something hostile.
        seconds: after which it hangs.
        mebibytes: of address space beyond what the parent has.
        may_write: the action has a place to write to.
    """
    read, write = os.pipe()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(action, write, mebibytes, may_write)
    os.close(write)
    ready, _, _ = select.select([read], [], [], seconds)
    data = b""
    if ready:
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
    else:
        os.close(read)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    took = time.perf_counter() - began
    if not ready:
        return Verdict("hang", f"still at work after {seconds:.0f} s", took, 0.0)
    if not data:
        return Verdict("crash", f"status {status}, signal {status & 127}", took, 0.0)
    outcome, text, grown = pickle.loads(data)  # what our own child wrote
    return Verdict(outcome, text, took, grown)


def _resident() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def _child(action: Callable[[], Any], pipe: int, mebibytes: int, may_write: bool) -> None:
    import torch

    from compress.errors import CompressError

    torch.set_num_threads(1)  # the parent's threads are not here
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 2)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seen: list[str] = []
    before = _resident()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        writes = event in _WRITES or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"))
        if event.startswith(_TELLTALE) or (writes and not may_write):
            seen.append(f"{event} {args!r:.100}")

    sys.addaudithook(watch)
    result = ("traceback", "")
    try:
        action()
        result = ("read", "")
    except CompressError as error:
        result = ("refused" if error.hint and error.message else "no cure", str(error))
    except BaseException as error:  # whatever it is, it is the verdict
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames[-4:]))
        result = ("traceback", f"{type(error).__name__}: {error!s:.200} at {where}")
    if seen:
        result = ("ran", "; ".join(seen[:3]))
    with contextlib.suppress(OSError), os.fdopen(pipe, "wb") as file:
        grown = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, 0.0)
        file.write(pickle.dumps((*result, grown)))
    os._exit(0)
