"""From widths to plans: which widths are allowed, which channels a width keeps, and how a budget is met.

Alignment is counted per orbit: the interchangeable channels of a group. In an option-A stream these are the parts that the
zero-padding adds, so every layer's width is aligned, not only the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from compress.core import BranchId, ChannelGroup, Cut, Floats, GroupId, Indices, Plan, Topology, canonical
from compress.errors import ConfigError
from compress.search.space import CostModel, Space

NARROW = 16
"""Groups of fewer channels are exempt from alignment."""

Widths = Mapping[GroupId, tuple[int, ...]]
"""Group -> kept channels per orbit."""


@cache
def allowed(size: int, round_to: int) -> tuple[int, ...]:
    """Widths that this many channels may be cut to, ascending; never 0."""
    if size < NARROW or round_to <= 1:
        return tuple(range(1, size + 1))
    multiples = list(range(round_to, size + 1, round_to)) or [size]
    return tuple(multiples if multiples[-1] == size else [*multiples, size])


def nearest(width: float, size: int, round_to: int) -> int:
    """The allowed width nearest to this one; of two equally near the larger."""
    choices = allowed(size, round_to)
    return min(choices, key=lambda w: (abs(w - width), -w))


@cache
def orbits(group: ChannelGroup) -> tuple[tuple[int, ...], ...]:
    """``group.orbits()``, remembered."""
    return group.orbits()


@cache
def shared_widths(group: ChannelGroup) -> tuple[tuple[int, ...], ...]:
    """``group.widths()``, remembered: the numbers of the orbits that keep equally many channels."""
    return group.widths()


def at_width(kept: Sequence[int], shared: Sequence[int], width: int) -> tuple[int, ...]:
    """Kept channels per orbit with another width for those that share it."""
    return tuple(width if i in shared else n for i, n in enumerate(kept))


def ranked(group: ChannelGroup, importance: Floats) -> tuple[Indices, ...]:
    """The channels of each orbit, most important first; ties by index."""
    return tuple(np.array(o)[np.lexsort((np.array(o), -importance[list(o)]))] for o in orbits(group))


def plan_of(space: Space, widths: Widths, ranking: str | None = None, branches: Sequence[BranchId] = ()) -> Plan:
    """The plan that keeps the most important channels at these widths; whole groups are left out, and so are ``branches``.

    Raises:
        ConfigError: nothing was scored by this ranking.
    """
    name = ranking or space.ranking
    if name not in space.statistics.importance:
        raise ConfigError(f"criterion {name!r} is not one of {', '.join(space.statistics.importance)}")
    importance = space.statistics.importance[name]
    cuts = {}
    for group_id, kept in widths.items():
        group = space.topology.by_id[group_id]
        if sum(kept) < group.size:
            order = ranked(group, importance[group_id])
            cuts[group_id] = Cut(tuple(sorted(int(c) for o, n in zip(order, kept, strict=True) for c in o[:n])))
    return space.said(Plan(cuts, branches=tuple(branches)))


def full_widths(space: Space, groups: Sequence[GroupId] | None = None) -> dict[GroupId, tuple[int, ...]]:
    """Everything kept."""
    chosen = space.groups if groups is None else groups
    return {g: tuple(len(o) for o in orbits(space.topology.by_id[g])) for g in chosen}


def scaled(space: Space, ratio: float, groups: Sequence[GroupId] | None = None) -> dict[GroupId, tuple[int, ...]]:
    """Every orbit at this share of its channels, aligned to the nearest allowed width."""
    return _scaled(space.topology, space.groups if groups is None else groups, ratio, space.round_to)


def _scaled(topology: Topology, groups: Sequence[GroupId], ratio: float, round_to: int) -> dict[GroupId, tuple[int, ...]]:
    return {g: tuple(nearest(ratio * len(o), len(o), round_to) for o in orbits(topology.by_id[g])) for g in groups}


def share_at(cost: CostModel, groups: Sequence[GroupId], ratio: float, round_to: int) -> float:
    """The share of the cost when every orbit keeps this share of its channels, aligned."""
    return cost.share(plan_at(cost.topology, groups, ratio, round_to))


def plan_at(topology: Topology, groups: Sequence[GroupId], ratio: float, round_to: int) -> Plan:
    """Every orbit at this share of its channels, aligned: the first ones, since to cost they are interchangeable."""
    cuts = {}
    for group_id, kept in _scaled(topology, groups, ratio, round_to).items():
        group = topology.by_id[group_id]
        if sum(kept) < group.size:
            cuts[group_id] = Cut(tuple(sorted(c for o, n in zip(orbits(group), kept, strict=True) for c in o[:n])))
    return Plan(cuts)


def widths_of(space: Space, plan: Plan) -> dict[GroupId, tuple[int, ...]]:
    """Kept channels per orbit of every group."""
    result = {}
    for group_id in space.groups:
        cut = plan.cuts.get(group_id)
        parts = orbits(space.topology.by_id[group_id])
        kept = None if cut is None else set(cut.keep)
        result[group_id] = tuple(len(o) if kept is None else sum(c in kept for c in o) for o in parts)
    return result


def meet(share_of: Callable[[float], float], budget: float, *, steps: int = 40) -> float:
    """The largest ratio in [0, 1] whose share is at most the budget, by bisection of a non-decreasing function.

    Latency decreases here and there: then it is *a* ratio whose share is within the budget.
    """
    low, high = 0.0, 1.0
    if share_of(1.0) <= budget:
        return 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if share_of(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def meet_widths(at: Callable[[float], Widths], share_of: Callable[[Widths], float], budget: float) -> float:
    """:func:`meet` on a staircase: most of the last ratios have widths whose share is known."""
    known: dict[tuple[tuple[int, ...], ...], float] = {}

    def share(ratio: float) -> float:
        widths = at(ratio)
        kept = tuple(widths.values())
        if kept not in known:
            known[kept] = share_of(widths)
        return known[kept]

    return meet(share, budget)


_LOOK = 4
"""Steps that are tried for latency: between two blocks the next width may cost what the one after it costs, or more."""


def fill(
    space: Space, widths: Widths, budget: float, order: Sequence[GroupId], branches: Sequence[BranchId] = ()
) -> dict[GroupId, tuple[int, ...]]:
    """Widens groups by one allowed step, in this order and again, as long as the budget holds: bisection stops at a stair.

    ``branches`` are those that are gone beside.
    """
    look = _LOOK if space.target.kind == "latency" else 1
    current = dict(widths)
    grown = True
    while grown:
        grown = False
        for group_id in order:
            group = space.topology.by_id[group_id]
            for shared in shared_widths(group):
                size, now = len(orbits(group)[shared[0]]), current[group_id][shared[0]]
                for width in [w for w in allowed(size, space.round_to) if w > now][:look]:
                    trial = dict(current)
                    trial[group_id] = at_width(current[group_id], shared, width)
                    if space.share(plan_of(space, trial, branches=branches)) <= budget:
                        current, grown = trial, True
                        break
    return current


def even_widths(space: Space, budget: float) -> dict[GroupId, tuple[int, ...]]:
    """The largest uniform widths within a budget, the last step of the staircase filled group by group, late ones first."""
    ratio = meet_widths(partial(scaled, space), lambda widths: space.share(plan_of(space, widths)), budget)
    return fill(space, scaled(space, ratio), budget, list(reversed(space.groups)))


def reachable(cost: CostModel, groups: Sequence[GroupId], round_to: int, branches: Sequence[BranchId] = ()) -> float:
    """The least share of the target's cost that the allowed widths of these groups can reach, ``branches`` left out or not."""
    # The narrowest network need not be the fastest.
    ratios = np.linspace(0.0, 1.0, 21).tolist() if cost.target.kind == "latency" else [0.0]
    plans = [plan_at(cost.topology, groups, ratio, round_to) for ratio in ratios]
    gone = {(), tuple(branches)}
    return min(cost.share(canonical(cost.topology, replace(plan, branches=b))) for plan in plans for b in gone)
