"""Bi-CNN-Pruning's lower level: the fewest inputs that one consumer can live with, searched by two populations.

min over v of the inputs kept, subject to err(u, v) <= err(u, all) + delta. Populations a and b use different operators and
exchange their best (CEMBA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compress.core import Bits
from compress.search.bicnn.problem import Consumer
from compress.search.reader_loss import Kind, Remaining
from compress.search.widths import allowed

Rank = tuple[float, float, float]
"""Smaller is better: constraint violation, objective, error."""


@dataclass(frozen=True, slots=True)
class Lower:
    """Parameters.

    Attributes:
        population: of a, and of b.
        generations: T_l.
        crossover: probability of two-point crossover.
        delta: what a consumer may add to the outputs' relative error.
        objective: ``constrained``, or ``scalarised``: error + weight * share of inputs read.
        weight: of the scalarised objective.
        migrants: how many change places; 0 for none.
        every: steps between migrations.
        patience: steps without a better solution after which the search ends.
    """

    population: int = 8
    generations: int = 6
    crossover: float = 0.9
    delta: float = 0.005
    objective: Literal["constrained", "scalarised"] = "constrained"
    weight: float = 0.1
    migrants: int = 2
    every: int = 3
    patience: int = 2

    def search(
        self, consumer: Consumer, kept: Bits, start: Bits | None, kind: Kind, round_to: int, rng: np.random.Generator
    ) -> tuple[Bits, int]:
        """The best v found for what u keeps of this consumer's inputs, and how many were evaluated.

        Args:
            consumer: the layer.
            kept: u at its entries.
            start: a solution of a similar u, to start from.
            kind: which error.
            round_to: numbers of inputs are multiples of this.
            rng: randomness.
        """
        problem = _Problem(self, consumer, kept, kind, round_to)
        populations = problem.start(start, rng)
        best, calm = min(problem.ranks.values()), 0
        for step in range(1, self.generations + 1):
            for number, population in enumerate(populations):
                children = [problem.child(population, number, rng) for _ in range(self.population)]
                populations[number] = problem.survivors([*population, *children])
            if self.migrants and step % self.every == 0:
                first, second = (p[: self.migrants] for p in populations)
                populations = [problem.survivors([*p, *q]) for p, q in zip(populations, (second, first), strict=True)]
            found = min(problem.ranks.values())
            calm = 0 if found < best else calm + 1
            best = found
            if calm >= self.patience:
                break
        winner = min(problem.ranks, key=lambda k: (problem.ranks[k], k))
        return np.frombuffer(winner, dtype=bool).copy(), len(problem.ranks)

    def feasible(self, consumer: Consumer, kept: Bits, read: Bits, kind: Kind) -> bool:
        """Whether a v from elsewhere keeps this u's constraint."""
        rest = consumer.reader_loss.given(~kept, kind)
        return rest.error(kept & ~read) <= rest.base + self.delta


class _Problem:
    """One consumer's lower problem; every v is evaluated once."""

    def __init__(self, options: Lower, consumer: Consumer, kept: Bits, kind: Kind, round_to: int) -> None:
        self.options, self.consumer, self.kept, self.round_to = options, consumer, kept, round_to
        self.rest: Remaining = consumer.reader_loss.given(~kept, kind)
        self.free = np.flatnonzero(kept & consumer.free)
        self.cheapest = self.free[np.argsort(self.rest.single[self.free], kind="stable")]
        self.ranks: dict[bytes, Rank] = {}

    def add(self, read: Bits) -> Bits:
        """Makes a v legal and evaluates it."""
        read = self.consumer.aligned(self.kept, read, self.round_to)
        if read.tobytes() not in self.ranks:
            error = self.rest.error(self.kept & ~read)
            if self.options.objective == "scalarised":
                rank = (0.0, error + self.options.weight * float(read.mean()), error)
            else:
                rank = (max(error - self.rest.base - self.options.delta, 0.0), float(read.sum()), error)
            self.ranks[read.tobytes()] = rank
        return read

    def start(self, given: Bits | None, rng: np.random.Generator) -> list[list[Bits]]:
        """a: everything, the given one, and prefixes of what is cheapest to ignore; b: everything, and random ones."""
        size = self.options.population
        first = [self.kept] if given is None else [self.kept, given & self.kept]
        widths = [w for w in allowed(len(self.kept), self.round_to) if w < int(self.kept.sum())][::-1]
        for want in widths[: size - len(first)]:
            read = self.kept.copy()
            read[self.cheapest[: int(self.kept.sum()) - want]] = False
            first.append(read)
        second = [self.kept]
        for _ in range(size - 1):
            read = self.kept.copy()
            read[self.free[rng.random(len(self.free)) < rng.uniform(0, 0.5)]] = False
            second.append(read)
        return [self.survivors([self.add(r) for r in part]) for part in (first, second)]

    def child(self, parents: list[Bits], number: int, rng: np.random.Generator) -> Bits:
        """Binary tournament (parents are sorted), two-point crossover, mutation: a flips 1/L, b flips 3/L and swaps."""
        one, two = (parents[int(rng.integers(len(parents), size=2).min())] for _ in range(2))
        read = one.copy()
        if rng.random() < self.options.crossover and len(self.free) > 1:
            low, high = sorted(rng.integers(len(self.free) + 1, size=2).tolist())
            read[self.free[low:high]] = two[self.free[low:high]]
        flips = (1 if number == 0 else 3) / max(len(self.free), 1)
        read[self.free[rng.random(len(self.free)) < flips]] ^= True
        on, off = self.free[read[self.free]], self.free[~read[self.free]]
        if number == 1 and len(on) and len(off):
            read[rng.choice(on)], read[rng.choice(off)] = False, True
        return self.add(read)

    def survivors(self, population: list[Bits]) -> list[Bits]:
        """The best distinct ones, best first."""
        distinct = {r.tobytes(): r for r in population}
        names = sorted(distinct, key=lambda k: (self.ranks[k], k))
        return [distinct[k] for k in names[: self.options.population]]
