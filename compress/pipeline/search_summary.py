"""What a report says of the search behind a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from compress.core import Plan, PredictionError
from compress.report import Finalists
from compress.search import Origin


@dataclass(frozen=True, slots=True)
class RequestCount:
    """Requests of one fidelity.

    Attributes:
        requests: how many.
        plans: in them.
        evaluated: different ones.
    """

    requests: int = 0
    plans: int = 0
    evaluated: int = 0

    def __add__(self, more: RequestCount) -> RequestCount:
        return RequestCount(self.requests + more.requests, self.plans + more.plans, self.evaluated + more.evaluated)


@dataclass(frozen=True, slots=True)
class SearchEffort:
    """What a search spent, on what it looked, and what its searcher says about itself.

    Attributes:
        budget: image-forwards that were allowed.
        image_forwards: that were spent, by every sitting.
        requests: by fidelity.
        metric: what a full score is: ``accuracy``, ``agreement`` or ``output``.
        judged_images: images of a full score.
        figures: the searcher's own, by name.
        notes: its sentences, and what else was found out before the choice.
        ended: why evolutions ended before their budget was spent, one sentence each.
    """

    budget: int
    image_forwards: float
    requests: Mapping[str, RequestCount]
    metric: str
    judged_images: int
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()

    def noting(self, *notes: str) -> SearchEffort:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """Flat, the searcher's own figures among the others."""
        return {
            "budget": self.budget,
            "image_forwards": self.image_forwards,
            "requests": {fidelity: asdict(row) for fidelity, row in self.requests.items()},
            "metric": self.metric,
            "judged_images": self.judged_images,
            **self.figures,
            "notes": list(self.notes),
            **({"ended": list(self.ended)} if self.ended else {}),
        }


def added(efforts: Sequence[SearchEffort]) -> SearchEffort:
    """Searches one after another as one; metric, images and the searcher's own figures are the last one's.

    Args:
        efforts: one at least.
    """
    requests: dict[str, RequestCount] = {}
    for effort in efforts:
        for fidelity, row in effort.requests.items():
            requests[fidelity] = requests.get(fidelity, RequestCount()) + row
    return replace(
        efforts[-1],
        budget=sum(e.budget for e in efforts),
        image_forwards=sum(e.image_forwards for e in efforts),
        requests=requests,
        notes=tuple(note for e in efforts for note in e.notes),
        ended=tuple(why for e in efforts for why in e.ended),
    )


@dataclass(frozen=True, slots=True)
class Found:
    """Where a plan comes from.

    Attributes:
        by: what found it.
        after: image-forwards that the search had spent when it was first scored as a whole network.
    """

    by: Origin
    after: float

    def told(self, effort: SearchEffort) -> str:
        """As a sentence."""
        return f"the plan was found by {self.by}, after {self.after:,.0f} of {effort.budget:,} image-forwards"


@dataclass(frozen=True, slots=True)
class LatencyTrial:
    """One plan that was clocked before anything is recovered.

    Attributes:
        plan: what was cut.
        asked: latency that the table was asked for.
        predicted: what the table says of the plan.
        measured: over the unpruned network's, by the clock that decides.
    """

    plan: Plan
    asked: float
    predicted: float
    measured: float

    def to_json(self) -> dict[str, float]:
        """The figures; the plan that was taken has a file of its own."""
        return {"asked": self.asked, "predicted": self.predicted, "measured": self.measured}


@dataclass(frozen=True, slots=True)
class LatencyTrials:
    """How a target of latency was met.

    Attributes:
        trials: in the order of their distance from the target, nearest last.
        table_error: of the table that predicted.
    """

    trials: tuple[LatencyTrial, ...]
    table_error: PredictionError

    @property
    def best(self) -> LatencyTrial:
        """The one that was taken."""
        return self.trials[-1]

    def to_json(self) -> dict[str, Any]:
        """``shots`` and ``table_error``."""
        return {"shots": [t.to_json() for t in self.trials], "table_error": asdict(self.table_error)}


@dataclass(frozen=True, slots=True)
class SearchSummary:
    """Where a plan comes from, as ``search`` in ``report.json`` has it.

    Attributes:
        points: of the front.
        chosen: why this one was taken.
        fallback: why whole networks were evaluated instead of stages; empty where stages were.
        effort: of the search; None where a plan was taken without one.
        latency: for a target of latency: what was clocked.
        found: where the plan comes from; None where no search scored it.
        finalists: the last choice by short trainings; a part of the report of its own.
    """

    points: int
    chosen: str
    fallback: str
    effort: SearchEffort | None = None
    latency: LatencyTrials | None = None
    found: Found | None = None
    finalists: Finalists | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the search, for the report: its own, who found the plan, and why it ended where it did."""
        if self.effort is None:
            return ()
        by = (self.found.told(self.effort),) if self.found is not None else ()
        return (*self.effort.notes, *by, *(f"the search {why}" for why in self.effort.ended))

    def to_json(self) -> dict[str, Any]:
        """Flat; what there was not has no name in it."""
        return {
            **(self.effort.to_json() if self.effort is not None else {}),
            "points": self.points,
            "chosen": self.chosen,
            "fallback": self.fallback,
            **({"found_by": str(self.found.by), "found_after": self.found.after} if self.found is not None else {}),
            **(self.latency.to_json() if self.latency is not None else {}),
        }
