"""Workers as processes of this machine, spawned, that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from compress.errors import ConfigError, WorkerError
from compress.workers.base import Answered, Lost, Recipe, RequestPart
from compress.workers.serving import Failed, Scored, serve

_UNGUARDED = 87
"""Exit status of a starting worker that ran the user's script down to the search."""
_PATIENCE = 5.0
"""Seconds that a worker may take to end when it is told to."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    loading: int = 0
    """Recipes that it was given and has not followed yet."""
    heard: list[Answered | Lost] = field(default_factory=list)
    lost: Lost | None = None


class WorkerProcesses:
    """So many processes, each with an evaluation of its own; a ``Transport``.

    They are spawned, not forked: torch's threads do not survive a fork. Their parent's end, however it comes, closes the pipe
    that they listen on and ends them, also in the middle of a score. Ctrl-C reaches their parent only.

    Args:
        width: how many.
    """

    def __init__(self, width: int) -> None:
        self._recipe: Recipe | None = None
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._moved = 0
        try:
            for _ in range(width):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def width(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    @property
    def moved(self) -> int:
        """Bytes of messages so far, of recipes too, which are small."""
        return self._moved

    @property
    def pids(self) -> tuple[int, ...]:
        """Their process ids."""
        return tuple(w.process.pid or 0 for w in self._workers)

    def load(self, recipe: Recipe) -> None:
        """Every worker follows this recipe; returns at once.

        A recipe that fails is told of by :meth:`wait`, or by :meth:`first_loaded`.
        """
        self._recipe = recipe
        for number, worker in enumerate(self._workers):
            if worker.lost is None:
                self._tell(worker, recipe)
            else:
                self.replace(number)

    def first_loaded(self) -> None:
        """Waits until one of the workers has followed its recipe.

        Raises:
            WorkerError: it cannot be followed, or the worker ended. Of a script that runs itself again it is a ConfigError.
        """
        while all(w.loading for w in self._workers):
            self._listen()
            for heard in (h for w in self._workers for h in w.heard):
                self.close()
                for worker in self._workers:
                    refuse_unguarded_start(worker.process)
                if isinstance(heard, Lost):
                    raise WorkerError(f"a worker {heard.reason} while it started")
                raise heard.error or WorkerError("a worker answered before it was asked")

    def ready(self, worker: int) -> bool:
        """Always: a part waits in the pipe of a worker that starts."""
        return True

    def give(self, worker: int, part: RequestPart) -> None:
        """Hands a worker a part."""
        asked = self._workers[worker]
        if asked.lost is not None:
            asked.heard.append(asked.lost)
        self._tell(asked, part)

    def wait(self) -> Answered | Lost:
        """The next answer or loss."""
        while True:
            for worker in self._workers:
                if worker.heard:
                    return worker.heard.pop(0)
            self._listen()

    def replace(self, worker: int) -> None:
        """A new process in the place of one that is lost."""
        self._end([self._workers[worker]])
        self._workers[worker] = self._start()
        if self._recipe is not None:
            self._tell(self._workers[worker], self._recipe)

    def close(self) -> None:
        """Ends all of them, and waits for it."""
        self._end(self._workers)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs,), daemon=True, name="compress worker")
        process.start()
        theirs.close()
        return _Worker(process=process, connection=ours)

    def _tell(self, worker: _Worker, message: Recipe | RequestPart) -> None:
        worker.loading += not isinstance(message, RequestPart)
        told = pickle.dumps(message)
        self._moved += len(told)
        with suppress(OSError):  # it is gone: heard of in time
            worker.connection.send_bytes(told)

    def _listen(self) -> None:
        """Waits until some worker says something or ends, and takes it down."""
        present = [(i, w) for i, w in enumerate(self._workers) if w.lost is None]
        if not present:
            raise WorkerError("no worker is left to wait for")
        ready = wait([w.connection for _, w in present])
        for number, worker in present:
            if worker.connection in ready:
                try:
                    self._hear(number, worker, worker.connection.recv_bytes())
                except (EOFError, OSError):
                    worker.lost = Lost(number, ending(worker.process))
                    worker.heard.append(worker.lost)

    def _hear(self, number: int, worker: _Worker, answer: bytes) -> None:
        self._moved += len(answer)
        said: Scored | Failed | None = pickle.loads(answer)
        if said is None:
            worker.loading -= 1
        elif isinstance(said, Scored):
            worker.heard.append(Answered(number, said.scores))
        else:
            worker.heard.append(Answered(number, (), said.error))

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_PATIENCE)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()


def ending(process: SpawnProcess) -> str:
    """How a process ended, for people."""
    process.join(_PATIENCE)
    code = process.exitcode
    if code is not None and code < 0:
        want = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code}{want}"
    return f"ended with status {code}"


def refuse_unguarded() -> None:
    """Ends a starting worker that has come as far as to start workers: its script runs without a guard.

    A spawned process imports the script that its parent was started with. Where that prunes at once, and not under
    ``if __name__ == "__main__":``, the worker would prune, too.

    Raises:
        SystemExit: this is such a process. Its parent tells why.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_UNGUARDED)


def refuse_unguarded_start(process: SpawnProcess) -> None:
    """Tells of a process that :func:`refuse_unguarded` ended.

    Raises:
        ConfigError: it is one.
    """
    if process.exitcode == _UNGUARDED:
        raise ConfigError(
            "a worker imports the script that started it, and while this script is imported it starts workers",
            hint='put what the script does under if __name__ == "__main__":, or leave workers out',
        )
