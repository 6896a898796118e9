"""The worker's side: follows a recipe, scores parts, and ends when its parent does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from compress.core import leave_launcher
from compress.errors import CompressError, WorkerError, one_line
from compress.search import Score
from compress.workers.base import FileRecipe, Recipe, RequestPart, ScorePart

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True, slots=True)
class Scored:
    """Reply: the scores of a part."""

    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Reply: what a part, or a recipe, raised."""

    error: Exception


class HeldEvaluation:
    """What a worker holds between its messages: the evaluation that the last recipe made."""

    def __init__(self) -> None:
        leave_launcher()
        warnings.simplefilter("ignore")  # who asks has made the same network, and told of it
        self._evaluate: ScorePart | None = None

    def answer(self, message: bytes, path: str = "") -> bytes:
        """Does what a message says.

        Args:
            message: a pickled recipe or :class:`RequestPart`.
            path: where the recipe's file lies here; empty where it lies where the recipe says.

        Returns:
            Pickled: None of a recipe that was followed, :class:`Scored` of a part; :class:`Failed` of what raised.
        """
        reply: Scored | Failed | None = None
        try:
            asked: RequestPart | Recipe = pickle.loads(message)
            if isinstance(asked, RequestPart):
                assert self._evaluate is not None
                reply = Scored(tuple(self._evaluate(asked.ask, asked.lead)))
            else:
                self._evaluate = None  # frees the last one's memory first
                self._evaluate = (asked.at(path) if path and isinstance(asked, FileRecipe) else asked)()
        except Exception as error:  # also of a recipe whose class is not there
            reply = Failed(portable(error))
        return pickle.dumps(reply)


def serve(connection: Connection) -> None:
    """The life of a worker that is a process; it ends when nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    threading.Thread(target=end_with_parent, daemon=True).start()
    held = HeldEvaluation()
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(held.answer(connection.recv_bytes()))


def end_with_parent() -> None:
    """In a thread of its own: a long score does not notice that nobody waits for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def portable(error: Exception) -> Exception:
    """An error that another process can read: itself, or what it says."""
    said = one_line(error)
    if isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY):
        return WorkerError(f"a worker has not enough memory: {said}")
    try:
        if not isinstance(error, CompressError):
            error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"a worker failed: {type(error).__name__}: {said}", hint="run again with one worker to see where")
    return error
