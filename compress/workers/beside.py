"""Whole pieces of work side by side, each in a process of its own; and how one of them has the machine to itself for a while.

Where workers share one search's plans, these share nothing: every process follows the recipe once, then does one item after
another. What is clocked would be disturbed by the others, so a process asks for silence (:func:`alone`), and they are stopped
by a signal until it has what it wants.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from compress.core import Listen, Warned, ignore, leave_launcher
from compress.errors import ConfigError, WorkerError, one_line
from compress.workers.processes import ending, refuse_unguarded, refuse_unguarded_start
from compress.workers.serving import end_with_parent, portable
from compress.workers.spreading import ATTEMPTS

WorkRecipe = Callable[[], Callable[[Any, Listen], None]]
"""Picklable; makes, in the process, what does an item, told where to warn. What is made is kept from item to item."""
_PATIENCE = 5.0
"""Seconds that a process may take to end when it is told to."""
_PICKLABLE = "classes and functions of your own have to stand at the top of a module, no lambda; or leave workers out"
_QUIET, _OVER = b"quiet", b"over"


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """An item was done, or could not be.

    Attributes:
        item: its position.
        error: what it raised; None of one that was done.
    """

    item: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A process has followed its recipe."""


# ---- in the process that does the work -------------------------------------------------------------------------------


class _ToParent:
    """How this process asks for silence; nobody where it was not started to work beside others."""

    connection: Connection | None = None


@contextmanager
def alone() -> Iterator[None]:
    """Nothing that was started beside this process computes while the block runs; alone by itself it runs at once."""
    to, _ToParent.connection = _ToParent.connection, None  # inside the block it is quiet already
    if to is None:
        yield
        return
    try:
        to.send_bytes(_QUIET)
        to.recv_bytes()
        try:
            yield
        finally:
            to.send_bytes(_OVER)
    finally:
        _ToParent.connection = to


def _serve(connection: Connection) -> None:
    """The life of a process: a recipe, then items, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    os.setpgid(0, 0)  # so that what this process starts is stopped with it, and goes on when nobody is left to say so
    threading.Thread(target=end_with_parent, daemon=True).start()
    leave_launcher()
    warnings.simplefilter("ignore")  # who asks has made the same, and told of it
    _ToParent.connection = connection

    def listen(event: Any) -> None:
        if isinstance(event, Warned):
            connection.send_bytes(pickle.dumps(event))

    with suppress(EOFError, OSError):
        work: Callable[[Any, Listen], None] | None = None
        while True:
            message = connection.recv_bytes()
            error: Exception | None = None
            number = -1
            try:
                if work is None:
                    work = pickle.loads(message)()
                else:
                    number, item = pickle.loads(message)
                    work(item, listen)
            except Exception as raised:
                error = portable(raised)
            connection.send_bytes(pickle.dumps(_Ready() if number < 0 and error is None else WorkEnded(number, error)))


# ---- in the process that started it ----------------------------------------------------------------------------------


@dataclass
class _Beside:
    process: SpawnProcess
    connection: Connection
    loaded: bool = False
    has: int | None = None
    """The item that it does."""

    def signal(self, number: int) -> None:
        """To it and to all that it started."""
        pid = self.process.pid
        with suppress(ProcessLookupError, PermissionError):
            if pid is not None and self.process.is_alive():
                (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, number)


@dataclass
class _Silence:
    """Who has the machine to itself, and who waits for that; the others are stopped meanwhile."""

    holder: _Beside | None = None
    waiting: deque[_Beside] = field(default_factory=deque)

    def wanted(self, by: _Beside, all_of_them: Sequence[_Beside]) -> None:
        """By one of them."""
        self.waiting.append(by)
        if self.holder is None:
            for other in all_of_them:
                if other is not by:
                    other.signal(signal.SIGSTOP)
            self._grant()

    def over(self, by: _Beside, all_of_them: Sequence[_Beside]) -> None:
        """The one that had it needs it no more, or is gone."""
        self.waiting = deque(w for w in self.waiting if w is not by)
        if self.holder is not by:
            return
        self.holder = None
        if self.waiting:
            by.signal(signal.SIGSTOP)
            self._grant()
            return
        for other in all_of_them:
            other.signal(signal.SIGCONT)

    def _grant(self) -> None:
        self.holder = self.waiting.popleft()
        self.holder.signal(signal.SIGCONT)
        with suppress(OSError):  # it is gone: heard of in time
            self.holder.connection.send_bytes(_QUIET)


def side_by_side(
    recipe: WorkRecipe, items: Sequence[Any], processes: int, listen: Listen = ignore
) -> Generator[WorkEnded | Sequence[int]]:
    """Does all items, as many at a time as there are processes.

    Args:
        recipe: followed once by each process.
        items: picklable.
        processes: at the most.
        listen: receives warnings.

    Yields:
        The positions of the items under way whenever others are begun; :class:`WorkEnded` of each as it ends. An item whose
        process is lost is done again by another, some times.

    Raises:
        ConfigError: the recipe or an item cannot be sent, or the script that started this starts workers while it is imported.
        WorkerError: the recipe cannot be followed.
    """
    refuse_unguarded()
    try:
        sent, *parts = [pickle.dumps(what) for what in (recipe, *enumerate(items))]
    except Exception as error:  # whatever a foreign class raises while it is pickled
        raise ConfigError(f"a run cannot be sent to another process: {one_line(error)}", hint=_PICKLABLE) from error
    work = _Work(sent, parts, listen)
    try:
        for _ in range(min(processes, len(items))):
            work.start()
        yield from work.go_on()
    finally:
        work.close()


class _Work:
    def __init__(self, recipe: bytes, items: Sequence[bytes], listen: Listen) -> None:
        self.recipe, self.items, self.listen = recipe, items, listen
        self.open = deque(range(len(items)))
        self.losses = [0] * len(items)
        self.unstarted = 0
        self.there: list[_Beside] = []
        self.silence = _Silence()
        self.context = multiprocessing.get_context("spawn")

    def start(self) -> None:
        ours, theirs = self.context.Pipe()
        # Not daemonic: it may start workers. Its end is its parent's all the same.
        process = self.context.Process(target=_serve, args=(theirs,), daemon=False, name="compress run")
        process.start()
        theirs.close()
        self.there.append(_Beside(process, ours))
        if self.silence.holder is not None:
            self.there[-1].signal(signal.SIGSTOP)
        with suppress(OSError):  # it is gone: heard of in time
            ours.send_bytes(self.recipe)

    def go_on(self) -> Generator[WorkEnded | Sequence[int]]:
        ended = 0
        while ended < len(self.items):
            if self._hand_out():
                yield [one.has for one in self.there if one.has is not None]
            ready = wait([one.connection for one in self.there])
            for one in [o for o in self.there if o.connection in ready]:
                try:
                    found = self._hear(one, one.connection.recv_bytes())
                except (EOFError, OSError):
                    found = self._lost(one)
                if found is not None:
                    ended += 1
                    yield found

    def close(self) -> None:
        """Ends all of them, whatever they do."""
        for one in self.there:
            one.signal(signal.SIGCONT)
            one.process.terminate()
            one.connection.close()
        for one in self.there:
            one.process.join(_PATIENCE)
            if one.process.exitcode is None:
                one.process.kill()
                one.process.join()

    def _hand_out(self) -> bool:
        free = [one for one in self.there if one.loaded and one.has is None]
        for one in free[: len(self.open)]:
            one.has = self.open.popleft()
            with suppress(OSError):  # it is gone: heard of in time
                one.connection.send_bytes(self.items[one.has])
        return bool(free)

    def _hear(self, one: _Beside, message: bytes) -> WorkEnded | None:
        if message == _QUIET:
            self.silence.wanted(one, self.there)
        elif message == _OVER:
            self.silence.over(one, self.there)
        else:
            said = pickle.loads(message)
            if isinstance(said, _Ready):
                one.loaded = True
            elif isinstance(said, Warned):
                self.listen(said)
            elif said.item < 0:
                raise said.error
            else:
                one.has = None
                return WorkEnded(said.item, said.error)
        return None

    def _lost(self, one: _Beside) -> WorkEnded | None:
        """A process is gone: its item goes to another.

        Raises:
            WorkerError: it did not even start.
        """
        self.there.remove(one)
        self.silence.over(one, self.there)
        reason = ending(one.process)
        if not one.loaded:
            self._not_started(one, reason)
        self.start()
        if one.has is None:
            return None
        self.losses[one.has] += 1
        if self.losses[one.has] >= ATTEMPTS:
            return WorkEnded(one.has, WorkerError(f"{ATTEMPTS} processes in a row were lost over it: the last {reason}"))
        self.listen(Warned(f"a process {reason}; what it did goes on in another"))
        self.open.appendleft(one.has)
        return None

    def _not_started(self, one: _Beside, reason: str) -> None:
        """A process ended before it followed the recipe; where another did follow it, chance is to blame, some times.

        Raises:
            ConfigError: its script starts workers while it is imported.
            WorkerError: it is not chance.
        """
        refuse_unguarded_start(one.process)
        self.unstarted += 1
        if self.unstarted >= ATTEMPTS or not any(other.loaded for other in self.there):
            raise WorkerError(f"a process {reason} while it started")
        self.listen(Warned(f"a process {reason} while it started; another one is started"))
