"""One ranking of all channels of all layers, one threshold: the layers' widths follow from the criterion alone.

Network slimming does this with batch-norm scales (Liu et al., ICCV 2017). Importances are compared across layers, so they
are divided by their group's mean first, and every group keeps some of its channels: an unbounded ranking likes to empty a
layer. Normalisation, protected share and alignment are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from compress.core import Floats, GroupId, Plan
from compress.search.base import Search, by_budget, scored
from compress.search.depth import looks
from compress.search.options import Fraction
from compress.search.space import Space
from compress.search.widths import Widths, allowed, at_width, fill, meet_widths, nearest, plan_of, ranked, shared_widths


@dataclass(frozen=True, slots=True)
class Ranked:
    """One threshold for all groups.

    Attributes:
        criterion: what channels are ranked by. Cost: none, but second moments of what the layers read for ``obs``.
        protected: share of each orbit's channels that no threshold takes, as long as the target can be met with it. Cost:
            none.
        points: for a target of accuracy, how many budgets between 0.1 and 0.95 are tried. Cost: all judged images for each.
        images: images for each point's score; 0 leaves it to the evaluator. Cost: image-forwards in proportion.
        depths: networks without some branches that are scored too, where branches may go (ours). Cost: all judged images for
            each.
    """

    criterion: str = "l1"
    protected: Fraction = 0.1
    points: PositiveInt = 18
    images: NonNegativeInt = 0
    depths: NonNegativeInt = 4

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return (self.criterion,)

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """One plan per budget, all scored at full fidelity."""
        plans = by_budget(self, space, self.points)
        if space.target.kind != "max_drop":
            affordable = max(0, space.budget // max(2 * self.images or space.full_images, 1) - len(plans))
            deep = looks(space, space.target.value, min(self.depths, affordable))
            plans = list(dict.fromkeys([*plans, *(self.plan(part, space.target.value) for part in deep)]))
        return (yield from scored(space, plans, self.images))

    def plan(self, space: Space, budget: float) -> Plan:
        """The largest network above one threshold within a budget, the last step of the staircase filled group by group."""
        ladders = {g: _ladder(space, g, self.criterion) for g in space.groups}
        whole = sum(len(scores) for orbits in ladders.values() for scores in orbits)

        def widths(kept: float, protected: float) -> Widths:
            return _above(space, ladders, round(kept * whole), protected)

        def share(widths: Widths) -> float:
            return space.share(plan_of(space, widths, self.criterion))

        protected = self.protected if share(widths(0.0, self.protected)) <= budget else 0.0
        chosen = widths(meet_widths(lambda kept: widths(kept, protected), share, budget), protected)
        # What the threshold took last comes back first.
        order = sorted(space.groups, key=lambda g: -_next(ladders[g], chosen[g]))
        return plan_of(space, fill(space, chosen, budget, order), self.criterion)


def _ladder(space: Space, group_id: GroupId, criterion: str) -> list[Floats]:
    """Importances per orbit, highest first, in units of the group's mean."""
    importance = np.asarray(space.statistics.importance[criterion][group_id], dtype=float)
    mean = float(importance.mean())
    scores = importance / mean if mean > 0 else importance
    return [scores[order] for order in ranked(space.topology.by_id[group_id], importance)]


def _above(space: Space, ladders: dict[GroupId, list[Floats]], kept: int, protected: float) -> Widths:
    """Widths when the ``kept`` highest-ranked channels of all stay, each orbit brought to an allowed width."""
    pool = np.sort(np.concatenate([scores for orbits in ladders.values() for scores in orbits]))[::-1]
    threshold = np.inf if kept == 0 else pool[kept - 1]

    def width(pieces: Sequence[Floats]) -> int:
        """The width of orbits that share it: what their channels above the threshold are on average."""
        size, above = len(pieces[0]), [int((scores >= threshold).sum()) for scores in pieces]
        least = next(w for w in allowed(size, space.round_to) if w >= protected * size)
        return max(least, nearest(sum(above) / len(above), size, space.round_to))

    found: dict[GroupId, tuple[int, ...]] = {}
    for group, scores in ladders.items():
        widths = tuple(map(len, scores))
        for shared in shared_widths(space.topology.by_id[group]):
            widths = at_width(widths, shared, width([scores[i] for i in shared]))
        found[group] = widths
    return found


def _next(orbits: list[Floats], kept: tuple[int, ...]) -> float:
    """The highest importance that a group has lost."""
    return max((float(s[n]) for s, n in zip(orbits, kept, strict=True) if n < len(s)), default=-np.inf)
