"""What a worker is asked and answers, and what carries it there: processes on this machine, or anything else.

A transport knows nothing of searches, and :class:`~compress.workers.SpreadEvaluation` nothing of processes: it decides which
plans go where, puts the answers in the order of the request, and repeats what a lost worker had. So scores, keys and order are
those of one worker whatever carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from compress.core import Plan
from compress.search import Ask, Score


@dataclass(frozen=True, slots=True)
class RequestPart:
    """Some plans of a request.

    Attributes:
        ask: the request, with these plans only.
        lead: the first plan of the whole request: what it cuts outside the asked stage surrounds all of them, so that a
            score does not depend on who else is in the part.
    """

    ask: Ask
    lead: Plan


ScorePart = Callable[[Ask, Plan], Sequence[Score]]
"""What a worker holds: scores the plans of a request, given also the request's first plan."""

Recipe = Callable[[], ScorePart]
"""Makes it, in the worker; picklable and small: what is large stands in a file that it names."""


@runtime_checkable
class FileRecipe(Protocol):
    """A recipe that reads a file; a transport to other machines brings the file along, and says where it lies there."""

    @property
    def path(self) -> str:
        """The file, where the recipe was written."""
        ...

    def at(self, path: str) -> Recipe:
        """The same recipe where the file lies elsewhere."""
        ...

    def __call__(self) -> ScorePart:
        """Follows it."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """A worker's answer to the part that it was given last.

    Attributes:
        worker: its number.
        scores: in the part's order; empty where it failed.
        error: what the evaluation raised, or what kept the recipe from being followed.
    """

    worker: int
    scores: tuple[Score, ...]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, and with it the part that it had.

    Attributes:
        worker: its number.
        reason: for people, as "was killed by signal 9".
    """

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker that was not ready takes parts from now on.

    Attributes:
        worker: its number.
    """

    worker: int


class Transport(Protocol):
    """A fixed number of workers that hold one evaluation each, and keep it from request to request.

    Workers are numbered from 0. Each has one part at a time; nothing is asked of it while it has one.
    """

    @property
    def width(self) -> int:
        """How many workers there are."""
        ...

    @property
    def moved(self) -> int:
        """Bytes of parts and answers so far."""
        ...

    def load(self, recipe: Recipe) -> None:
        """Every worker forgets what it held and follows this recipe, as one that is replaced later does; returns at once."""
        ...

    def first_loaded(self) -> None:
        """Waits until one of the workers has followed its recipe.

        Raises:
            WorkerError: it cannot be followed, or the worker ended.
        """
        ...

    def ready(self, worker: int) -> bool:
        """Whether it takes a part; not so a worker that still looks for a place, until :class:`Arrived` tells of it."""
        ...

    def give(self, worker: int, part: RequestPart) -> None:
        """Hands a worker a part; never fails: a worker that is gone is told of by :meth:`wait`."""
        ...

    def wait(self) -> Answered | Lost | Arrived:
        """The next answer, loss or arrival of any worker, as it comes.

        Raises:
            WorkerError: nobody is there, and nobody comes.
        """
        ...

    def replace(self, worker: int) -> None:
        """Starts a worker anew in the place of one that is lost, by the last recipe."""
        ...

    def close(self) -> None:
        """Ends all workers, whatever they do; may be called twice."""
        ...
