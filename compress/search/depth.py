"""How deep a network stays: the order in which branches go, and the depths that are worth a look for a budget.

Ours: branches are ordered by what leaving each one out alone does to the network's outputs, over the share of the target's cost
that it saves; a depth leaves out the first so many of them. Searches without another variable for branches look along this row.
"""

from __future__ import annotations

from collections.abc import Sequence

from compress.core import BranchId, Plan
from compress.search.front import thinned
from compress.search.space import Space

_LEAST = 1e-9


def last_of_each(branches: Sequence[BranchId], count: int) -> tuple[BranchId, ...]:
    """So many of the last branches of each stage: of those that stand in one module."""
    stages: dict[str, list[BranchId]] = {}
    for branch in branches:
        stages.setdefault(branch.rpartition(".")[0], []).append(branch)
    return tuple(b for names in stages.values() for b in names[max(0, len(names) - count) :])


def in_order(space: Space) -> tuple[BranchId, ...]:
    """The branches that may go, the one that costs least per share saved first; those that save nothing are left out."""
    whole = space.share(Plan())
    saved = {b: whole - space.share(Plan(branches=(b,))) for b in space.branches}
    errors = space.statistics.branch_errors
    worth = [b for b in space.branches if saved[b] > _LEAST]
    return tuple(sorted(worth, key=lambda b: (errors[b] / saved[b], space.branches.index(b))))


def depths(space: Space, budget: float) -> tuple[tuple[BranchId, ...], ...]:
    """The starts of that row, from one branch to as many as meet the budget with all widths whole."""
    row = in_order(space)
    found: list[tuple[BranchId, ...]] = []
    for count in range(1, len(row) + 1):
        found.append(row[:count])
        if space.share(Plan(branches=row[:count])) <= budget:
            break
    return tuple(found)


def looks(space: Space, budget: float, most: int) -> tuple[Space, ...]:
    """The space at so many depths at the most, spread from a few branches to all that the budget asks for."""
    rows = depths(space, budget)
    return tuple(space.without(row) for row in thinned(rows, min(most, len(rows)))) if rows and most > 0 else ()
