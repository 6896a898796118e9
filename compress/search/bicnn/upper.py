"""Bi-CNN-Pruning: bi-level evolution of filters and input channels on CEMBA.

Louati, Louati, Bechikh, Kariri: Memetic Computing 2024; CEMBA: Operational Research 2020/21.

The paper's: the upper level chooses the *filters* to prune and minimises those kept; the lower level chooses the *input
channels* to prune per kept filter and minimises those kept; only lower-level optima are feasible above. The engine has two
populations at each level, with migration between them, to spend fewer evaluations.

Ours, each an option: keep-bits of coupled groups are the upper variable, one input set per layer the lower one; a group with
a single consumer has no lower variable of its own (the two levels are folded); errors come in closed form from second moments
(``compress.search.reader_loss``), so the search runs no image until its finalists; population A works at the target and B along
the whole front; aligned widths, and repair onto the budget; and every figure of the pseudo-code below::

    A, B <- populations of u;  archive <- {}
    repeat T_u times, for P in (A, B):
        offspring <- binary tournament, two-point crossover per layer, bit flips, repair
        v(u) <- that of the nearest archived u (Hamming)                      # surrogate
        the best rho of the offspring: v(u) <- argmin L(u), started from there  # lower.py: populations a, b, migration
        archive <- archive + (u, v(u), score);  P <- best of P and offspring
        every few steps: the best r of A and B migrate
    score finalists at full fidelity; return the archive's non-dominated set
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from compress.core import Bits, Floats, Plan, plural
from compress.search.base import Origin, Search, Told, scored
from compress.search.bicnn.lower import Lower
from compress.search.bicnn.ordering import contiguous
from compress.search.bicnn.problem import Bilevel, BilevelSolution, Reads
from compress.search.front import thinned
from compress.search.obs import plan_for
from compress.search.options import AtLeastTwo, Fraction, NotNegative
from compress.search.space import Space
from compress.search.stopping import Stopping
from compress.search.widths import reachable

_WINDOW = 0.06


@dataclass(frozen=True, slots=True)
class Operators:
    """What makes one population's offspring.

    Attributes:
        flips: expected bit flips of an offspring.
        swaps: layers in which a kept and a dropped channel change places.
        steps: widths that may take an allowed step.
    """

    flips: float
    swaps: int
    steps: int


_EXPLOIT = Operators(flips=1, swaps=1, steps=1)
_EXPLORE = Operators(flips=4, swaps=3, steps=3)


@dataclass(frozen=True, slots=True)
class BiCnn:
    """Parameters.

    Attributes:
        population: individuals of A, and of B. Cost: closed forms in proportion, no image.
        generations: T_u, the upper steps; they run no image. Cost: closed forms in proportion.
        lower_population: individuals of a, and of b, in every lower search. Cost: closed forms of every lower search in
            proportion.
        lower_generations: T_l, the steps of a lower search. Cost: the same, at the most.
        crossover: probability of two-point crossover, per layer. Cost: none.
        rho: fraction of the offspring that gets a lower search of its own; 1 is plain nesting. Cost: lower searches in
            proportion.
        warm_start: whether a lower search starts from the nearest archived u's answer. Cost: none, without it lower searches
            are several times dearer.
        migrate: whether populations exchange their best. Cost: none.
        migrants: how many of them change places. Cost: none.
        upper_every: upper steps between migrations. Cost: none.
        lower_every: lower steps between migrations. Cost: none.
        patience: lower steps without progress after which a lower search ends. Cost: longer lower searches.
        delta: what a layer that reads less may add to the outputs' relative error. Cost: none in time.
        lower: ``constrained``, or ``scalarised`` with ``weight`` on the share of inputs read. Cost: none.
        weight: of the share of inputs read, for ``scalarised``. Cost: none.
        error: ``compensated`` (weights re-solved, a bound) or ``plain``. Cost: a linear system per candidate and reader for
            the first.
        widest: channels of a reader beyond which the network's errors are plain. Cost: a system as large is solved per
            candidate.
        criterion: ranks that start the populations and that repair goes by; the run's own where it was not computed. Cost:
            none.
        seeds: criteria whose ranks start the populations. Cost: a ranking each before the search,
            with gradients for ``taylor``.
        greedy: start one of A at the widths by marginal error (method ``obs``). Cost: none to speak of.
        arrange: order kept channels so that input selections are contiguous where possible. Cost: none.
        finalists: points near the target that are scored at full fidelity, recovered as the result will be. Cost: a recovery
            and all judged images each, within the budget (but two).
        spread: points along the front that are scored too. Cost: the same.
    """

    population: AtLeastTwo = 10
    generations: PositiveInt = 60
    lower_population: AtLeastTwo = 8
    lower_generations: PositiveInt = 6
    crossover: Fraction = 0.9
    rho: Fraction = 0.5
    warm_start: bool = True
    migrate: bool = True
    migrants: NonNegativeInt = 2
    upper_every: PositiveInt = 5
    lower_every: PositiveInt = 3
    patience: PositiveInt = 2
    delta: NotNegative = 0.005
    lower: Literal["constrained", "scalarised"] = "constrained"
    weight: NotNegative = 0.1
    error: Literal["compensated", "plain"] = "compensated"
    widest: PositiveInt = 1024
    criterion: str = "obs"
    seeds: tuple[str, ...] = ("obs", "l1", "fpgm", "taylor")
    greedy: bool = True
    arrange: bool = True
    finalists: PositiveInt = 8
    spread: NonNegativeInt = 6

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return (self.criterion, *self.seeds, "obs")

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """CEMBA in closed form, then real scores for the points that matter."""
        wide = any(len(r.sources) > self.widest for r in space.statistics.reader_losses.values())
        criterion = self.criterion if self.criterion in space.statistics.importance else space.ranking
        problem = Bilevel(space, "plain" if wide else self.error, criterion)
        run = _Cemba(self, problem, rng)
        run.evolve()
        yield run.told(wide)
        plans = [self._plan(problem, s) for s in self._chosen(space, run)]
        plans = list(dict.fromkeys(plans))
        yield Told(origins=dict.fromkeys(plans, Origin.EVOLUTION))
        return (yield from scored(space, plans, 0, space.recovery))

    def _plan(self, problem: Bilevel, found: BilevelSolution) -> Plan:
        plan = problem.plan(found.u, found.reads)
        return contiguous(problem.space.topology, plan) if self.arrange else plan

    def _chosen(self, space: Space, run: _Cemba) -> list[BilevelSolution]:
        """The archive's best near the target, and along its front, as many as the budget can score."""
        front = _front(list(run.archive.values()))
        affordable = max(2, space.budget // max(space.judged_images, 1))
        near = 0 if space.target.kind == "max_drop" else min(self.finalists, affordable - 1)
        along = max(1, min(self.spread + self.finalists - near, affordable - near))
        chosen = list(thinned(front, along))
        if near:
            value = space.target.value
            within = [s for s in run.archive.values() if s.share <= value + 1e-9]
            close = [s for s in within if s.share >= value - _WINDOW] or within
            chosen = sorted(close, key=lambda s: (s.error, s.key))[:near] + chosen
        return chosen[:affordable]


class _Cemba:
    """Two populations of u, their lower levels' answers, and what was spent."""

    def __init__(self, options: BiCnn, problem: Bilevel, rng: np.random.Generator) -> None:
        self.options, self.problem, self.rng = options, problem, rng
        self.lower = Lower(
            population=options.lower_population,
            generations=options.lower_generations,
            crossover=options.crossover,
            delta=options.delta,
            objective=options.lower,
            weight=options.weight,
            migrants=options.migrants if options.migrate else 0,
            every=options.lower_every,
            patience=options.patience,
        )
        self.archive: dict[bytes, BilevelSolution] = {}
        self.solved: list[dict[bytes, tuple[Bits, Bits]]] = [{} for _ in problem.consumers]
        self.searches: list[int] = []  # what each lower search spent
        space = problem.space
        self.value = None if space.target.kind == "max_drop" else space.target.value
        self.ended = ""
        self.least = min(reachable(space.cost, space.groups, space.round_to), self.value or 1.0, 0.95)

    def evolve(self) -> None:
        """T_u steps of both populations."""
        populations = [self._first(0), self._first(1)]
        stopping = [Stopping(self.problem.space.stop_after, self.options.generations + 1) for _ in populations]
        for step in range(1, self.options.generations + 1):
            settled = [
                watch.settled(self._objectives(p, i)) for i, (watch, p) in enumerate(zip(stopping, populations, strict=True))
            ]
            if all(settled):
                self.ended = stopping[1].told()
                break
            for number, population in enumerate(populations):
                populations[number] = self._survivors([*population, *self._offspring(population, number)], number)
            if self.options.migrate and step % self.options.upper_every == 0:
                best = [p[: self.options.migrants] for p in populations]
                if self.value is not None:  # what B found elsewhere is brought onto A's budget
                    best[1] = [self._moved(s, 0) for s in best[1]]
                populations = [
                    self._survivors([*p, *arrived], i)
                    for i, (p, arrived) in enumerate(zip(populations, reversed(best), strict=True))
                ]

    def _objectives(self, population: Sequence[BilevelSolution], number: int) -> Floats:
        """What a population is watched by: A's errors within the budget, B's front."""
        if number == 0 and self.value is not None:
            return np.array([[s.error if s.share <= self.value + 1e-9 else np.nan] for s in population])
        return np.array([[s.share, s.error] for s in population])

    # ---- the lower level -------------------------------------------------------------------------------------------------

    def _inherited(self, u: Bits) -> Reads:
        """v by the nearest archived u, consumer by consumer; everything where there is none or it breaks the constraint."""
        result = list(self.problem.everything(u))
        for i in self.problem.two_level if self.options.warm_start else ():
            consumer, kept = self.problem.consumers[i], result[i]
            near = self._nearest(i, kept)
            if near is None:
                continue
            read = consumer.aligned(kept, kept & (near[1] | ~near[0]), self.problem.space.round_to)
            self.problem.lower_evaluations += 1
            if self.lower.feasible(consumer, kept, read, self.problem.kind):
                result[i] = read
        return tuple(result)

    def _nearest(self, consumer: int, kept: Bits) -> tuple[Bits, Bits] | None:
        known = self.solved[consumer]
        if not known or kept.tobytes() in known:
            return known.get(kept.tobytes())
        entries = list(known.values())
        return entries[int((np.array([k for k, _ in entries]) != kept).sum(1).argmin())]

    def _optimal(self, u: Bits, start: Reads) -> BilevelSolution:
        """u with v* = argmin L(u); channels that nobody reads any more are gone."""
        problem, reads = self.problem, list(start)
        for i in problem.two_level:
            consumer = problem.consumers[i]
            kept = u[consumer.index]
            if self.options.warm_start and kept.tobytes() in self.solved[i]:  # the nearest is the same
                reads[i] = self.solved[i][kept.tobytes()][1]
                continue
            given = reads[i] if self.options.warm_start else None
            reads[i], spent = self.lower.search(consumer, kept, given, problem.kind, problem.space.round_to, self.rng)
            self.solved[i][kept.tobytes()] = (kept.copy(), reads[i])
            problem.lower_evaluations += spent
            self.searches.append(spent)
        return self._kept((u, tuple(reads)))

    def _kept(self, network: tuple[Bits, Reads]) -> BilevelSolution:
        """Evaluated and archived."""
        found = self.problem.solution(*network)
        return self.archive.setdefault(found.key, found)

    # ---- the upper level -------------------------------------------------------------------------------------------------

    def _goal(self, number: int) -> float:
        """A works at the target; B, and both where an accuracy is the target, along the whole front."""
        if number == 0 and self.value is not None:
            return self.value
        return float(self.rng.uniform(self.least, 1.0))

    def _onto(self, u: Bits, skipped: Reads, number: int) -> tuple[Bits, Reads]:
        return self.problem.onto(u, skipped, self._goal(number), self.rng)

    def _first(self, number: int) -> list[BilevelSolution]:
        """Ranks of the criteria at uniform and at random ratios, repaired onto goals; one greedy start in A."""
        problem, genes = self.problem, self.problem.genes
        rows = []
        if number == 0 and self.options.greedy:
            budget = self._goal(0) if self.value is not None else 0.5
            rows.append(genes.bits(plan_for(problem.space, budget, problem.space.ranking)))
        seeds = [s for s in self.options.seeds if s in problem.space.statistics.importance] or [problem.space.ranking]
        while len(rows) < self.options.population:
            importance = problem.space.statistics.importance[seeds[len(rows) % len(seeds)]]
            spread = 0.0 if len(rows) <= len(seeds) else 0.4
            u = np.zeros(genes.length, dtype=bool)
            u[genes.channels :] = True
            for _ in range(len(rows) % 3 if genes.branches else 0):
                genes.toggle(u, self.rng)
            for group, where in zip(genes.groups, genes.slices, strict=True):
                for orbit in genes.order[group.id]:
                    order = orbit[np.argsort(-importance[group.id][orbit], kind="stable")]
                    ratio = 0.5 + spread * self.rng.uniform(-1, 1)
                    u[where.start + order[: max(1, round(ratio * len(order)))]] = True
            rows.append(u)
        found = []
        for u in rows:
            u, _ = self._onto(u, self._nothing(), number)
            found.append(self._optimal(u, self._inherited(u)))
        return self._survivors(found, number)

    def _nothing(self) -> Reads:
        return tuple(np.zeros(len(c.index), dtype=bool) for c in self.problem.consumers)

    def _offspring(self, parents: Sequence[BilevelSolution], number: int) -> list[BilevelSolution]:
        """As many as there are individuals; the best rho by the inherited v get a lower search, all are archived."""
        problem = self.problem
        candidates = []
        for _ in range(self.options.population):
            u = problem.genes.repair(self._child(parents, _EXPLOIT if number == 0 else _EXPLORE))
            u, _ = self._onto(u, problem.skipped(u, self._inherited(u)), number)
            candidates.append(problem.solution(u, self._inherited(u)))
        if not problem.two_level:
            return [self.archive.setdefault(c.key, c) for c in candidates]
        order = self._order(candidates, number)
        searched = max(1, round(self.options.rho * len(candidates)))
        result = []
        for place, i in enumerate(order):
            found = candidates[i]
            if place < searched:
                found = self._filled(self._optimal(found.u, found.reads), number)
            result.append(self.archive.setdefault(found.key, found))
        return result

    def _filled(self, found: BilevelSolution, number: int) -> BilevelSolution:
        """What the lower level freed of A's budget goes back to the upper one."""
        if number or self.value is None or found.share > self.value - 0.01:
            return found
        wider = self._moved(found, number)
        return wider if wider.error < found.error else found

    def _moved(self, found: BilevelSolution, number: int) -> BilevelSolution:
        """Brought onto a population's goal; only what keeps the lower level's constraint there is archived."""
        u, reads = self.problem.tidy(*self._onto(found.u, self.problem.skipped(found.u, found.reads), number))
        return self._kept((u, reads)) if self._feasible(u, reads) else found

    def _feasible(self, u: Bits, reads: Reads) -> bool:
        """err(u, v) <= err(u, all) + delta, consumer by consumer; where everything is read it holds."""
        if self.options.lower == "scalarised":
            return True
        for i in self.problem.two_level:
            consumer, read = self.problem.consumers[i], reads[i]
            kept = u[consumer.index]
            if (read != kept).any():
                self.problem.lower_evaluations += 1
                if not self.lower.feasible(consumer, kept, read, self.problem.kind):
                    return False
        return True

    def _child(self, parents: Sequence[BilevelSolution], operators: Operators) -> Bits:
        """Binary tournament (parents are sorted), two-point crossover per layer, flips, swaps and steps of a width."""
        rng, genes = self.rng, self.problem.genes
        one, two = (parents[int(rng.integers(len(parents), size=2).min())].u for _ in range(2))
        u = one.copy()
        for where in genes.slices:
            if rng.random() < self.options.crossover:
                low, high = sorted(rng.integers(where.start, where.stop + 1, size=2).tolist())
                u[low:high] = two[low:high]
        for place in range(genes.channels, genes.length):
            u[place] = (one if rng.random() < 0.5 else two)[place]
        if genes.branches and rng.random() < 0.3:
            genes.toggle(u, rng)
        u ^= rng.random(len(u)) < operators.flips / len(u)
        for _ in range(operators.swaps):
            where = genes.slices[int(rng.integers(len(genes.slices)))]
            kept, dropped = np.flatnonzero(u[where]), np.flatnonzero(~u[where])
            if len(kept) and len(dropped):
                u[where.start + int(rng.choice(kept))] = False
                u[where.start + int(rng.choice(dropped))] = True
        for _ in range(operators.steps):
            if rng.random() < 0.5:
                genes.step(u, rng)
        return u

    def _order(self, population: Sequence[BilevelSolution], number: int) -> list[int]:
        """Best first. A: within the budget, then by error; B: by non-dominated front, then by crowding."""
        from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

        if number == 0 and self.value is not None:
            over = [max(s.share - self.value, 0.0) if s.share > self.value + 1e-9 else 0.0 for s in population]
            return sorted(range(len(population)), key=lambda i: (over[i], population[i].error, population[i].key))
        objectives = np.array([[s.share, s.error] for s in population])
        order: list[int] = []
        for front in NonDominatedSorting().do(objectives):
            distance: Floats = calc_crowding_distance(objectives[front])
            order += [int(front[i]) for i in np.argsort(-distance, kind="stable")]
        return order

    def _survivors(self, population: Sequence[BilevelSolution], number: int) -> list[BilevelSolution]:
        distinct = list({s.key: s for s in population}.values())
        return [distinct[i] for i in self._order(distinct, number)][: self.options.population]

    # ---- what is told ----------------------------------------------------------------------------------------------------

    def told(self, wide: bool) -> Told:
        """Evaluations, and what a plain nested search would cost: a lower search as long as these for every u and consumer."""
        problem, options = self.problem, self.options
        pairs = len(problem.two_level)
        nested = round(len(problem.asked) * sum(self.searches) / max(len(self.searches), 1) * pairs)
        folded = problem.folded()
        notes = []
        if folded:
            notes.append(
                f"{len(folded)} of {plural(len(problem.space.groups), 'group')} without an input selection of their own: "
                "one consumer, or none that may select; there the lower level is the upper one"
            )
        if wide and options.error == "compensated":
            notes.append(
                f"a layer reads more than {plural(options.widest, 'channel')}: errors of the search are plain, not compensated"
            )
        figures = {
            "upper_evaluations": problem.upper_evaluations,
            "lower_evaluations": problem.lower_evaluations,
            "lower_searches": len(self.searches),
            "nested_lower_evaluations": nested,
            "consumers_with_selection": pairs,
            "folded_groups": len(folded),
            "archived": len(self.archive),
        }
        return Told(figures, tuple(notes), ended=self.ended)


def _front(solutions: Sequence[BilevelSolution]) -> list[BilevelSolution]:
    """Non-dominated, cheapest first."""
    front: list[BilevelSolution] = []
    for found in sorted(solutions, key=lambda s: (s.share, s.error, s.key)):
        if not front or found.error < front[-1].error:
            front.append(found)
    return front
