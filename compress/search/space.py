"""What a searcher searches in: the target, the stages, what a plan costs, and what is known of the channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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
from compress.search.front import Fidelity, Point, Recovery
from compress.search.reader_loss import ReaderLoss


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
