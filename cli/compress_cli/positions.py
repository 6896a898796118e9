"""How far the library says that it is: an event's place in its phase, and what goes beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from compress.core import plural
from compress.report import percent


@dataclass(frozen=True, slots=True)
class Position:
    """How far a phase is.

    Attributes:
        done: in the phase's own unit; None where that is not known yet.
        total: of the same unit; None where it is unknown.
        notes: what goes beside it, the most important first; where they do not fit the last ones are left out.
        worked: what of ``done`` was worked for in this sitting; None where all of it but the beginning was. What is only read
            again takes no time, and is no measure of the time left.
        at_most: the phase may end earlier.
        left: seconds that are left, where the event itself says so.
    """

    done: float | None
    total: float | None
    notes: tuple[str, ...] = ()
    worked: float | None = None
    at_most: bool = False
    left: float | None = None

    @property
    def share(self) -> float | None:
        """Of the whole, at most 1; None where it is unknown."""
        known = self.done is not None and self.total is not None and self.total > 0
        return min(1.0, self.done / self.total) if known else None  # type: ignore[operator]


@dataclass(slots=True)
class SearchPosition:
    """Where a search is: its stage, its candidates, and the best error of one kind.

    Errors of a stage, of whole networks on some images, and after different recoveries cannot be compared: only those of the
    truest kind that was met count, whole networks on all images, as they are recovered in the end. An error on some images says
    on how many, so that a larger one on all of them does not look like a step back.
    """

    _kind: tuple[int, int] = (-1, -1)
    _best: float = math.inf
    _some: int = 0

    def at(self, event: Any) -> Position:
        """After an answered request (:class:`compress.search.Asked`)."""
        if event.fidelity == "full" and math.isfinite(event.best):
            kind = (event.images == 0, ("bn", "compensated", "reconstructed").index(event.recovery))
            if kind > self._kind:
                self._kind, self._best = kind, math.inf
            if kind == self._kind and event.best < self._best:
                self._best, self._some = event.best, event.images
        where = f"stage {event.stage + 1} of {event.stages}" if event.stage >= 0 and event.stages else "whole networks"
        notes = [where, plural(event.candidates, "plan")]
        if math.isfinite(self._best):
            figure = event.counted
            best = f"best error {self._best:.4f}" if figure is None else f"best {figure.name} {figure.text(self._best)}"
            notes.append(f"{best} on {plural(self._some, 'image')}" if self._some else best)
        return Position(done=event.spent, total=event.budget, notes=tuple(notes), worked=event.worked, at_most=True)


def position(event: Any, search: SearchPosition | None = None) -> Position | None:
    """Where an event of the library says that its phase is; None for events that say nothing about it.

    Args:
        event: any.
        search: what is remembered of the search under way.
    """
    from compress.core import Progressed
    from compress.latency import MeasuringProgress
    from compress.pipeline import Measuring
    from compress.recovery import TrainingProgress
    from compress.search import Asked
    from compress.serving import Tried
    from compress.workers import ScoresArrived

    match event:
        case Progressed(done=done, total=total, note=note):
            return Position(done=done, total=total, notes=(note,) if note else ())
        case Tried(arm=arm, round=number, rounds=rounds, rate=rate, kept=kept):
            where = f"round {number} of {rounds}" if number else "confirming"
            said = f"{where}: {arm}, {rate:.4g}/s {'kept' if kept else 'lost'}"
            return Position(done=number - 1 if number else rounds, total=rounds, notes=(said,))
        case Measuring(done=done, total=total):
            return Position(done=done, total=total, notes=(f"{done} of {plural(total, 'network')}",))
        case Asked():
            return (search or SearchPosition()).at(event)
        case ScoresArrived(done=done, asked=asked, workers=workers, moved=moved):
            notes = f"{done} of {plural(asked, 'plan')}", plural(workers, "worker"), f"{moved / 1024:.0f} KiB moved"
            return Position(done=None, total=None, notes=notes)
        case TrainingProgress(epoch=epoch, epochs=epochs, step=step, steps=steps, loss=loss):
            told = f"epoch {epoch} of {epochs}", f"loss {loss:.3f}"
            return Position(done=(epoch - 1) * steps + step, total=epochs * steps, notes=told)
        case MeasuringProgress(elapsed=elapsed, budget=budget, half_width=width):
            seen = () if width is None else (f"± {percent(width, 1)}",)
            return Position(done=elapsed, total=budget, notes=seen, at_most=True, left=max(0.0, budget - elapsed))
    return None
