"""The contract between a searcher and the world: requests for scores out, scores in, a front at the end.

A searcher is a generator, so a paper's pseudo-code stays straight-line, while one driver owns evaluation, caching, budget
and progress (``compress.search.journal.drive``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np

from compress.core import Plan
from compress.search.front import Fidelity, Front, Recovery, non_dominated
from compress.search.space import Space


@dataclass(frozen=True, slots=True)
class Ask:
    """Scores wanted.

    Attributes:
        plans: candidates, in the coordinates of the traced network.
        fidelity: how to score them.
        stage: index of the stage for ``STAGE`` and ``TAIL``; the other stages' cuts are the already pruned surroundings.
        images: how many images each candidate sees; 0 leaves it to the evaluator.
        recovery: what is done to a candidate before it is judged; ``bn`` where the evaluator has nothing to solve with.
        steps: of the short training, for ``TRAINED``.
    """

    plans: Sequence[Plan]
    fidelity: Fidelity
    stage: int = -1
    images: int = 0
    recovery: Recovery = "bn"
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation says.

    Attributes:
        error: lower is better. Not-a-number means that the candidate cannot be scored.
        interval: where it lies at 95 % confidence, over the images; None where that is not known.
    """

    error: float
    interval: tuple[float, float] | None = None


class Origin(StrEnum):
    """What found a plan."""

    CLOSED_FORM = "a closed form"
    NEAR_CLOSED_FORM = "a closed form's neighbour"
    EVOLUTION = "the evolution"
    NEAR_EVOLUTION = "a neighbour of the evolution's"

    @property
    def neighbour(self) -> Origin:
        """What finds a plan one step away from a plan of this origin."""
        formed = self in (Origin.CLOSED_FORM, Origin.NEAR_CLOSED_FORM)
        return Origin.NEAR_CLOSED_FORM if formed else Origin.NEAR_EVOLUTION


@dataclass(frozen=True, slots=True)
class Told:
    """What a searcher says about its own work, for the report; it is sent nothing back.

    Attributes:
        figures: counts by name.
        notes: sentences.
        origins: plan -> what found it, of plans that are scored as whole networks.
        ended: why an evolution ended before its budget was spent.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origins: Mapping[Plan, Origin] = field(default_factory=dict)
    ended: str = ""


Search = Generator[Ask | Told, Sequence[Score], Front]


class Searcher(Protocol):
    """Extension point 1: a frozen dataclass whose fields are its parameters."""

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """Yields requests, returns the front."""
        ...


@runtime_checkable
class NamesCriteria(Protocol):
    """A searcher that says which criteria it looks at besides the run's ranking and l1; for others every one is computed."""

    @property
    def criteria(self) -> tuple[str, ...]:
        """Their names; ``obs`` where it looks at ``ChannelStatistics.curves``."""
        ...


@runtime_checkable
class Planner(Protocol):
    """A searcher that has a plan for every budget at once: a run of it serves them all."""

    def plan(self, space: Space, budget: float) -> Plan:
        """Its plan that keeps at most this share of the target's cost."""
        ...


def by_budget(planner: Planner, space: Space, points: int) -> list[Plan]:
    """The plans of the target's budget, or of so many budgets between 0.1 and 0.95 for a target of accuracy; none twice."""
    value = space.target.value
    budgets = np.linspace(0.1, 0.95, points).tolist() if space.target.kind == "max_drop" else [value]
    return list(dict.fromkeys(planner.plan(space, b) for b in budgets))


def scored(space: Space, plans: Sequence[Plan], images: int, recovery: Recovery = "bn") -> Search:
    """All plans at full fidelity, on so many images (0: all; an allowed drop is always asked of all), as a front."""
    seen = 0 if space.target.kind == "max_drop" else images
    scores = yield Ask(plans=plans, fidelity=Fidelity.FULL, images=seen, recovery=recovery)
    points = [space.point(p, s.error, Fidelity.FULL) for p, s in zip(plans, scores, strict=True)]
    return non_dominated(points, space.target.kind)
