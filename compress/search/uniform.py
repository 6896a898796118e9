"""Uniform pruning: every group keeps the same share of its most important channels. The honest baseline.

Ours, an option: so many of the last blocks of each stage go first, as people take them out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from compress.core import Plan
from compress.search.base import Search, by_budget, scored
from compress.search.space import Space
from compress.search.widths import even_widths, plan_of


@dataclass(frozen=True, slots=True)
class Uniform:
    """One ratio for all groups.

    Attributes:
        criterion: which channels stay at a given width. Cost: none.
        points: for a target of accuracy, how many budgets between 0.1 and 0.95 are tried. Cost: all judged images for each.
        images: images for each point's score; 0 leaves it to the evaluator. Cost: image-forwards in proportion.
        blocks: so many of each stage's last blocks beside an identity shortcut go as well. Cost: none.
    """

    criterion: str = "l1"
    points: PositiveInt = 18
    images: NonNegativeInt = 0
    blocks: NonNegativeInt = 0

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return (self.criterion,)

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """One plan per budget, all scored at full fidelity."""
        plans = by_budget(self, space, self.points)
        return (yield from scored(space, plans, self.images))

    def plan(self, space: Space, budget: float) -> Plan:
        """The largest uniform network within a budget."""
        space = space.without(space.branches) if self.blocks else space
        return plan_of(space, even_widths(space, budget), self.criterion)
