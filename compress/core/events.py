"""What a run tells whoever listens; the command line turns these into bars and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase begins."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseDone:
    """A phase ended."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a phase is, in a unit of its own that stands for time.

    Attributes:
        done: of it.
        total: of it.
        note: what is under way.
    """

    done: float
    total: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures worth seeing before the work starts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a user should know now; it stands in the report too."""

    text: str


Listen = Callable[[Any], None]
"""Receives these events and those of search, training and latency."""


def ignore(event: Any) -> None:
    """Listens to nothing."""


@dataclass(slots=True)
class Clock:
    """Wall time per phase; tells a listener where the run is."""

    listen: Listen = ignore
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, detail: str = "") -> Iterator[None]:
        """Times a phase."""
        self.listen(Phase(name, detail))
        start = perf_counter()
        yield
        self.add(name, perf_counter() - start)
        self.listen(PhaseDone(name, perf_counter() - start))

    def add(self, name: str, seconds: float) -> None:
        """Adds to a phase what was not timed here, as of an earlier sitting."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
