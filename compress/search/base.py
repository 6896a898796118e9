"""The contract between a searcher and the world: requests for scores out, scores in, a front at the end.

A searcher is a generator, so a paper's pseudo-code stays straight-line, while one driver owns evaluation, caching, budget
and progress (``compress.search.journal.drive``).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from compress.core import (
    BranchId,
    Cost,
    Floats,
    GroupId,
    LatencyTable,
    LayerName,
    Plan,
    Share,
    Topology,
    canonical,
    count,
    gone_keys,
)
from compress.errors import ConfigError
from compress.search.reader_loss import ReaderLoss

T = TypeVar("T")


class Fidelity(StrEnum):
    """How much of the network answers a request."""

    STAGE = "stage"
    """The stage's sub-network on cached inputs: relative error of its output."""
    TAIL = "tail"
    """All of the network from the stage on, on cached inputs: relative error of the network's outputs."""
    FULL = "full"
    """The whole cut network, batch norms re-estimated: 1 - top-1, or the outputs' relative error without labels."""
    TRAINED = "trained"
    """The same after a short training."""


Recovery = Literal["bn", "compensated", "reconstructed"]
"""Batch norms re-estimated only; the readers re-solved before, from moments taken once; re-solved one after another on images.
Each is truer and dearer than the one before."""


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


@dataclass(frozen=True, slots=True)
class Point:
    """One realisable network.

    Attributes:
        plan: what to cut.
        error: the search's estimate, in the fidelity named.
        cost: counted.
        fidelity: where the error comes from.
    """

    plan: Plan
    error: float
    cost: Cost
    fidelity: Fidelity


Front = tuple[Point, ...]
"""Non-dominated points, cheapest first."""


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


@dataclass(frozen=True, slots=True)
class Target:
    """What the user wants.

    Attributes:
        kind: ``macs``, ``params`` or ``latency`` (share of the original that is kept), or ``max_drop`` (what the task's
            figure may lose, a fraction or in its unit).
        value: in (0, 1]; of a drop above 0.
        slack: how far below a budget the result may stay before the reason must be said.
    """

    kind: str = "macs"
    value: float = 0.5
    slack: float = 0.02

    def __post_init__(self) -> None:
        if self.kind not in ("macs", "params", "latency", "max_drop"):
            raise ConfigError(f"target {self.kind!r} is not one of macs, params, latency, max_drop")
        beyond = self.kind != "max_drop" and self.value > 1
        if not 0 < self.value < math.inf or beyond:
            most = "" if self.kind == "max_drop" else " and at most 1"
            raise ConfigError(
                f"target {self.kind} is {self.value:g}, but must be above 0{most}",
                hint="--macs 0.5 keeps half of the multiply-accumulates; --max-drop 1.0 allows one point of accuracy",
            )

    def share(self, share: Share) -> float:
        """The share that the target speaks of; for ``max_drop`` the MACs.

        Raises:
            ConfigError: it is latency, and no table predicts it.
        """
        if self.kind != "latency":
            return share.params if self.kind == "params" else share.macs
        if share.latency is None:
            raise ConfigError(
                "a target of latency needs a latency table", hint="make one: compress table MODEL --out table.json"
            )
        return share.latency


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of groups that is searched together.

    Attributes:
        name: for people.
        groups: its groups, in forward order.
        fraction: share of the network's MACs that one stage evaluation runs.
        tail: the same from the stage on to the network's outputs.
        branches: those that may go and hold a group of the stage, in forward order.
    """

    name: str
    groups: tuple[GroupId, ...]
    fraction: float
    tail: float = 1.0
    branches: tuple[BranchId, ...] = ()

    def part(self, fidelity: Fidelity) -> float:
        """The share that a request of this fidelity runs, ``STAGE`` or ``TAIL``."""
        return self.tail if fidelity is Fidelity.TAIL else self.fraction

    def own(self, plan: Plan) -> Plan:
        """What a plan says of the stage."""
        cuts = {g: c for g, c in plan.cuts.items() if g in self.groups}
        return Plan(cuts, branches=tuple(b for b in plan.branches if b in self.branches))


@dataclass(frozen=True)
class CostModel:
    """What a plan costs one network, and how much of it a target speaks of.

    Attributes:
        topology: the traced network.
        target: decides which cost is meant.
        table: predicts latency; None where it is not asked for.
    """

    topology: Topology
    target: Target
    table: LatencyTable | None = None

    @cached_property
    def whole(self) -> Cost:
        """What the unpruned network costs."""
        return count(self.topology, table=self.table)

    def share(self, plan: Plan) -> float:
        """The share of the target's cost that a plan keeps."""
        table = self.table if self.target.kind == "latency" else None
        return self.target.share(count(self.topology, plan, table=table).share_of(self.whole))

    def point(self, plan: Plan, error: float, fidelity: Fidelity) -> Point:
        """A plan with its counted cost."""
        return Point(plan, error, count(self.topology, plan, table=self.table), fidelity)


@dataclass(frozen=True)
class ChannelStatistics:
    """What is known of single channels before a search, each part as far as the method asked for it.

    Attributes:
        importance: criterion -> group -> importance of each channel, shape (channels,); higher stays.
        kernels: group -> its filters, flattened and concatenated, shape (channels, features).
        curves: group -> what removing each channel adds to its readers' compensated relative error, in the order of the
            ``obs`` criterion, shape (channels,).
        reader_losses: layer -> what it loses when it stops reading channels, for searches in closed form.
        branch_errors: branch -> the outputs' relative squared error without it, batch norms re-estimated; of those that may go.
    """

    importance: Mapping[str, Mapping[GroupId, Floats]]
    kernels: Mapping[GroupId, Floats] = field(default_factory=dict)
    curves: Mapping[GroupId, Floats] = field(default_factory=dict)
    reader_losses: Mapping[LayerName, ReaderLoss] = field(default_factory=dict)
    branch_errors: Mapping[BranchId, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """What a searcher may know.

    Attributes:
        cost: the traced network, the target, and what plans cost.
        stages: disjoint; groups outside all of them stay whole.
        statistics: what is known of the channels.
        budget: image-forwards that the search may spend.
        round_to: widths are multiples of this.
        ranking: the criterion that decides which channels a width keeps.
        full_images: image-forwards that one score at full fidelity costs.
        stage_images: images that there are for a stage's score.
        solved_images: the same with the recovery ``reconstructed``; 0 where nothing can be solved.
        selecting: layer -> the largest share of what arrives that it may read where it selects its inputs at all: above that
            a selection saves nothing. 0 and layers that are not listed never select; None lets every layer that can.
        gone: branches that every plan of this space leaves out.
        metric: what a score at full fidelity is: ``accuracy``, ``score`` (of another task's figure), or without labels
            ``agreement`` or ``output``.
        stop_after: share of an evolution's generations without growth of its front's hypervolume after which it ends
            (``compress.search.stopping``); 0 never ends early.
    """

    cost: CostModel
    stages: tuple[Stage, ...]
    statistics: ChannelStatistics
    budget: int
    round_to: int = 8
    ranking: str = "l1"
    full_images: int = 64
    stage_images: int = 256
    solved_images: int = 0
    selecting: Mapping[LayerName, float] | None = None
    gone: tuple[BranchId, ...] = ()
    metric: str = "accuracy"
    stop_after: float = 0.0

    @property
    def topology(self) -> Topology:
        """The traced network."""
        return self.cost.topology

    @property
    def target(self) -> Target:
        """What to reach."""
        return self.cost.target

    @property
    def table(self) -> LatencyTable | None:
        """Predicts latency; None where it is not asked for."""
        return self.cost.table

    @property
    def recovery(self) -> Recovery:
        """What will be done to the result without training, as far as the evaluator can do it."""
        return "reconstructed" if self.solved_images else "bn"

    @property
    def judged_images(self) -> int:
        """Image-forwards of one score at full fidelity, recovered as the result will be."""
        return self.solved_images or self.full_images

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """Every group that may be cut, in no branch that is gone."""
        return tuple(g for s in self.stages for g in s.groups)

    @property
    def branches(self) -> tuple[BranchId, ...]:
        """Every branch that may go, in forward order."""
        return tuple(b.name for b in self.topology.branches if b.name in self.statistics.branch_errors)

    def without(self, branches: Sequence[BranchId]) -> Space:
        """The space of the plans that leave these branches out."""
        if not branches:
            return self
        keys = gone_keys(self.topology, branches)
        inside = {g.id for g in self.topology.groups if all(m.key in keys for m in g.members)}
        stages = [replace(s, groups=tuple(g for g in s.groups if g not in inside)) for s in self.stages]
        return replace(self, stages=tuple(s for s in stages if s.groups), gone=tuple(branches))

    def said(self, plan: Plan) -> Plan:
        """A plan with the branches of this space left out, said once."""
        return canonical(self.topology, replace(plan, branches=(*plan.branches, *self.gone))) if self.gone else plan

    def share(self, plan: Plan) -> float:
        """The share of the target's cost that a plan keeps."""
        return self.cost.share(plan)

    def point(self, plan: Plan, error: float, fidelity: Fidelity) -> Point:
        """A plan with its counted cost."""
        return self.cost.point(plan, error, fidelity)


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


def non_dominated(points: Sequence[Point], kind: str = "macs") -> Front:
    """The points that no other beats in both error and cost, cheapest first; NaN never survives, ties keep the first."""
    usable = [p for p in points if math.isfinite(p.error)]
    usable.sort(key=lambda p: (cost_of(p, kind), p.error, p.plan.digest))
    front: list[Point] = []
    for point in usable:
        if not front or point.error < front[-1].error:
            front.append(point)
    return tuple(front)


def thinned(row: Sequence[T], count: int) -> tuple[T, ...]:
    """At most so many of a row, spread evenly over it, both ends included."""
    return tuple(row[i] for i in sorted(set(np.linspace(0, len(row) - 1, count).round().astype(int).tolist())))


def cost_of(point: Point, kind: str) -> float:
    """The cost that a target speaks of; MACs for an accuracy.

    Raises:
        ConfigError: it is latency, and no table predicts it.
    """
    if kind == "latency":
        if point.cost.latency is None:
            raise ConfigError("the front's points have no predicted latency", hint="search with --latency, or give --table")
        return point.cost.latency
    return point.cost.params if kind == "params" else point.cost.macs


def knee(front: Front, kind: str = "macs") -> int:
    """Index of the point farthest below the line between the ends (axes scaled to [0, 1]); without one the most accurate."""
    cost = np.array([cost_of(p, kind) for p in front], dtype=float)
    error = np.array([p.error for p in front])
    x = (cost - cost[0]) / max(cost[-1] - cost[0], 1e-12)
    y = (error - error[-1]) / max(error[0] - error[-1], 1e-12)
    below = 1 - x - y
    return int(np.argmax(below)) if below.max() > 1e-9 else len(front) - 1


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
