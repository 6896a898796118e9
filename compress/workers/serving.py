"""The worker's side: follows a recipe, scores parts, and ends when its parent does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from compress.core import leave_launcher
from compress.errors import CompressError, WorkerError, one_line
from compress.search import Score
from compress.workers.base import RequestPart, ScorePart

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True, slots=True)
class Scored:
    """Reply: the scores of a part."""

    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Reply: what a part, or a recipe, raised."""

    error: Exception


def serve(connection: Connection) -> None:
    """A worker's life: every message is a recipe, answered with None, or a part; it ends when nobody can ask any more."""
    leave_launcher()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    warnings.simplefilter("ignore")  # the parent has made the same network, and told of it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    evaluate: ScorePart | None = None
    reply: Scored | Failed | None
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        except Exception as error:  # the recipe's class is not there
            connection.send(Failed(_portable(error)))
            continue
        try:
            if isinstance(message, RequestPart):
                assert evaluate is not None
                reply = Scored(tuple(evaluate(message.ask, message.lead)))
            else:
                evaluate = None  # frees the last one's memory first
                evaluate, reply = message(), None
        except Exception as error:
            reply = Failed(_portable(error))
        try:
            connection.send(reply)
        except OSError:
            return


def _end_with_parent() -> None:
    """In a thread of its own: a long score does not notice that nobody waits for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """An error that the parent can read: itself, or what it says."""
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
