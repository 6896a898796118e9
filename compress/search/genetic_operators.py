"""How masks of keep-bits recombine and mutate, as pymoo's operators.

Per-layer uniform crossover, bit flips, the block swap and the width step are ours; NSGA-II and its kin use them through pymoo,
whose classes they derive from. Imported where an evolution begins: pymoo's import is not free.
"""

from __future__ import annotations

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import ElementwiseDuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair

from compress.core import Bits
from compress.search.genes import Genes


class PerLayer(Crossover):  # type: ignore[misc]
    """Uniform crossover whose unit is the layer: a group's bits stay together."""

    def __init__(self, genes: Genes, prob: float) -> None:
        super().__init__(2, 2, prob=prob)
        self.genes = genes

    def _do(self, problem: Problem, X: Bits, *args: object, random_state: np.random.Generator, **kwargs: object) -> Bits:
        children = X.copy()
        for pair in range(X.shape[1]):
            for where in self.genes.slices:
                if random_state.random() < 0.5:
                    children[0, pair, where], children[1, pair, where] = X[1, pair, where], X[0, pair, where]
            for place in range(self.genes.channels, self.genes.length):  # every branch is a unit of its own
                if random_state.random() < 0.5:
                    children[0, pair, place], children[1, pair, place] = X[1, pair, place], X[0, pair, place]
        return children


class FlipAndSwap(Mutation):  # type: ignore[misc]
    """Bit flip with 1/L; in one layer a kept and a dropped bit change places (the cost stays); one width takes a step.

    The step is ours: where widths are aligned, a single flipped bit is repaired away, and only a whole step is felt. So are the
    branches' bits, of which one is flipped now and then.
    """

    def __init__(self, genes: Genes) -> None:
        super().__init__()
        self.genes = genes

    def _do(self, problem: Problem, X: Bits, *args: object, random_state: np.random.Generator, **kwargs: object) -> Bits:
        mutants = X.astype(bool)
        mutants ^= random_state.random(X.shape) < 1 / self.genes.length
        for row in mutants:
            where = self.genes.slices[int(random_state.integers(len(self.genes.slices)))]
            kept, dropped = np.flatnonzero(row[where]), np.flatnonzero(~row[where])
            if len(kept) and len(dropped):
                row[where.start + int(random_state.choice(kept))] = False
                row[where.start + int(random_state.choice(dropped))] = True
            if random_state.random() < 0.5:
                self.genes.step(row, random_state)
            if self.genes.branches and random_state.random() < 0.3:
                self.genes.toggle(row, random_state)
        return mutants


class Aligned(Repair):  # type: ignore[misc]
    """Widths become legal."""

    def __init__(self, genes: Genes) -> None:
        super().__init__()
        self.genes = genes

    def _do(self, problem: Problem, X: Bits, **kwargs: object) -> Bits:
        return np.array([self.genes.repair(row.astype(bool)) for row in X])


class SameBits(ElementwiseDuplicateElimination):  # type: ignore[misc]
    """Two masks are one if all their bits are."""

    def is_equal(self, a: Population, b: Population) -> bool:
        """Compares two individuals."""
        return bool((a.X == b.X).all())
