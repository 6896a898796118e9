"""Widths between two closed forms: the same share of every group, and the least marginal error per cost.

Compensated elimination (``evaluation.criteria.obs_curve``) orders each group's channels and says what every further removal
adds to its readers' relative error, so a width's error is known without running anything. From the whole network, the step
with the least error per MAC saved is taken until the budget is met: the greedy answer to a knapsack. That answer believes
that the layers' errors add up, which they do not where a residual stream is cut; equal shares believe nothing. So a few plans
on the line between the two are recovered as the result will be, and scored. The combination is ours.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from compress.core import Floats, GroupId, Indices, Plan
from compress.search.base import Search, by_budget, scored
from compress.search.depth import looks
from compress.search.front import thinned
from compress.search.options import Fraction
from compress.search.space import Space
from compress.search.stages import whole_streams
from compress.search.uniform import Uniform
from compress.search.widths import (
    Widths,
    allowed,
    at_width,
    fill,
    full_widths,
    meet_widths,
    nearest,
    plan_of,
    ranked,
    reachable,
    scaled,
    shared_widths,
)

_TRIED = 8


@dataclass(frozen=True, slots=True)
class Allocated:
    """Widths by compensated elimination, without an evolution.

    Attributes:
        criterion: which channels a width keeps; where it was not computed, the run's own ranking. Cost: none.
        even: how far the widths go from the greedy ones (0) to the same share everywhere (1), where only one plan is made.
            Cost: none.
        line: the places on that line whose plans are recovered and scored, as far as the budget goes. Cost: a recovery and
            all judged images for each.
        points: for a target of accuracy, how many budgets between 0.1 and 0.95 are tried. Cost: the same for each; where the
            budget is short, plans are scored without a recovery.
        images: images for each plan's score; 0 leaves it to the evaluator. Cost: image-forwards in proportion.
        depths: networks without some branches that are scored too, where branches may go (ours). Cost: as for ``line``, each.
        whole_streams: whether a network with whole residual streams is scored too. Cost: as for ``line``, once.
    """

    criterion: str = "obs"
    even: Fraction = 0.75
    line: tuple[Fraction, ...] = (0.0, 0.5, 1.0)
    points: PositiveInt = 18
    images: NonNegativeInt = 0
    depths: NonNegativeInt = 6
    whole_streams: bool = True

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return (self.criterion, "obs")

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """Some plans of one budget, recovered as the result will be; or one plan of each of several budgets."""
        budgeted = space.target.kind != "max_drop"
        cheap = max(1, (self.images if budgeted else 0) or space.full_images)
        dear = max(cheap, space.judged_images)
        if budgeted:
            few = max(1, space.budget // dear)
            return (yield from scored(space, self.choice(space)[:few], self.images, "reconstructed"))
        plans = by_budget(self, space, self.points)
        affords = space.budget >= dear * len(plans)
        few = len(plans) if affords else max(1, min(len(plans), space.budget // cheap))
        plans = list(thinned(plans, few))
        return (yield from scored(space, plans, self.images, "reconstructed" if affords else "bn"))

    def choice(self, space: Space) -> list[Plan]:
        """All plans of the target's budget that are scored where it suffices, none twice; the first ones matter most."""
        value = space.target.value
        inner = whole_streams(space) if self.whole_streams else None
        fits = inner is not None and reachable(inner.cost, inner.groups, inner.round_to) <= value
        whole = [self.plan(inner, value)] if inner is not None and fits else []
        deep = [self.plan(part, value) for part in looks(space, value, self.depths)]
        line = [_between(space, value, self._ranking(space), even) for even in self.line]
        return list(dict.fromkeys([self.plan(space, value), *whole, *deep, *line]))

    def plan(self, space: Space, budget: float) -> Plan:
        """One plan of a budget, nothing scored."""
        return _between(space, budget, self._ranking(space), self.even)

    def _ranking(self, space: Space) -> str:
        return self.criterion if self.criterion in space.statistics.importance else space.ranking


def _between(space: Space, budget: float, criterion: str, even: float) -> Plan:
    """A plan within a budget whose widths lie on the line from the greedy ones (0) to the same share everywhere (1)."""
    if even == 0:
        return plan_for(space, budget, criterion)
    if even == 1:
        return Uniform(criterion).plan(space, budget)

    def share(widths: Widths) -> float:
        return space.share(plan_of(space, widths, criterion))

    greedy, whole = allocate(space, budget, criterion), full_widths(space)
    same = meet_widths(partial(scaled, space), share, budget)
    kept = {g: [(1 - even) * w + even * same * n for w, n in zip(greedy[g], whole[g], strict=True)] for g in whole}

    def at(scale: float) -> Widths:
        sizes = {g: zip(kept[g], whole[g], strict=True) for g in whole}
        return {g: tuple(nearest(min(scale * w, n), n, space.round_to) for w, n in pairs) for g, pairs in sizes.items()}

    most = max(n / w for g in whole for w, n in zip(kept[g], whole[g], strict=True))
    scale = most * meet_widths(lambda part: at(most * part), share, budget)
    return plan_of(space, fill(space, at(scale), budget, list(reversed(space.groups))), criterion)


def allocate(space: Space, budget: float, criterion: str) -> Widths:
    """Kept channels per orbit of every group, within the budget where that can be reached.

    A step narrows one orbit, or all that share a width, to any smaller allowed one; its price is the error it adds over the
    cost it saves. Savings only shrink while neighbours are narrowed, so a price that was computed earlier is a lower bound,
    and the cheapest step that is still cheapest when recomputed is the cheapest of all.
    """
    current: Widths = dict(full_widths(space))
    losses: dict[tuple[GroupId, tuple[int, ...]], Floats] = {}
    for g in space.groups:
        each = _losses(space, g, criterion)
        losses |= {(g, s): np.sum([each[i] for i in s], axis=0) for s in shared_widths(space.topology.by_id[g])}
    share = space.share(plan_of(space, current, criterion))

    def step(group: GroupId, orbits: tuple[int, ...]) -> tuple[float, int]:
        """The best price from here, and the width it leads to."""
        now, loss = current[group][orbits[0]], losses[group, orbits]
        narrower = np.array([w for w in allowed(len(loss) - 1, space.round_to) if w < now])
        if len(narrower) == 0:
            return np.inf, now
        if space.target.kind == "latency":
            narrower = _stairs(narrower, space.table.block if space.table is not None else 1)
            there = [space.share(plan_of(space, _at(current, group, orbits, int(w)), criterion)) for w in narrower]
            costs = (loss[narrower] - loss[now]) / np.maximum(share - np.array(there), 1e-12)
            best = int(np.argmin(costs))
            return float(costs[best]), int(narrower[best])
        # A channel count is a factor of a tensor's size at most twice: the cost is a quadratic of it, and three points tell.
        known = sorted({int(narrower[0]), int(narrower[len(narrower) // 2]), now})
        shares = [space.share(plan_of(space, _at(current, group, orbits, w), criterion)) for w in known]
        saved = share - np.polyval(np.polyfit(np.array(known) / now, shares, len(known) - 1), narrower / now)
        prices = (loss[narrower] - loss[now]) / np.maximum(saved, 1e-12)
        best = int(np.argmin(prices))
        return float(prices[best]), int(narrower[best])

    queue = [(step(g, i)[0], g, i) for g, i in losses]
    heapq.heapify(queue)
    while queue and share > budget:
        _, group, orbits = heapq.heappop(queue)
        price, width = step(group, orbits)
        if not np.isfinite(price):
            continue
        if queue and price > queue[0][0] * (1 + 1e-9):
            heapq.heappush(queue, (price, group, orbits))
            continue
        current = _at(current, group, orbits, width)
        share = space.share(plan_of(space, current, criterion))
        heapq.heappush(queue, (step(group, orbits)[0], group, orbits))
    return fill(space, current, budget, list(reversed(space.groups)))


def _stairs(narrower: Indices, block: int) -> Indices:
    """A few widths to try for latency, the nearest ones among them: those that fill their blocks, where there are any."""
    full = narrower[narrower % block == 0]
    chosen = full if len(full) else narrower
    few = np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), _TRIED)).round().astype(int))
    return np.unique(np.append(chosen[few], chosen[-2:]))


def _at(widths: Widths, group: GroupId, orbits: tuple[int, ...], width: int) -> Widths:
    return {**widths, group: at_width(widths[group], orbits, width)}


def _losses(space: Space, group_id: GroupId, criterion: str) -> list[Floats]:
    """Per orbit: the error at each width, index 0 to all.

    Without curves, importances count as errors that add up, each group's to 1.
    """
    group, importance = space.topology.by_id[group_id], space.statistics.importance[criterion][group_id]
    harm = np.asarray(space.statistics.curves.get(group_id, importance / max(float(importance.sum()), 1e-30)))
    return [np.append(np.cumsum(harm[o][::-1])[::-1], 0.0) for o in ranked(group, importance)]


def plan_for(space: Space, budget: float, criterion: str = "obs") -> Plan:
    """The allocated plan of one budget."""
    return plan_of(space, allocate(space, budget, criterion), criterion)
