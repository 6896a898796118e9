"""SMOEA: sub-network multi-objective evolutionary pruning (Li, Sun, Huang, Chen; arXiv 2211.01957).

The paper's: a multi-objective problem is posed on a *sub-network* of the full model; a multi-objective evolutionary
algorithm solves it; convolution layers are pruned progressively, group of layers by group of layers; a compromise solution
of the front is taken.

Ours, because the paper leaves it open, each an option: the stages (runs of channel groups on block borders), the error of
the sub-network as first objective (relative squared error of the pre-activations after the stage, against the unpruned
network, with the readers re-solved in closed form first), NSGA-II with seeded starts and two mutations, the controller that
hands every stage its share of the global budget, and the global front that combines the stages' fronts (additive error,
knapsack over the budget).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import ElementwiseDuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.problems.static import StaticProblem

from compress.plan import Cut, Plan
from compress.search.base import Array, Ask, Fidelity, Front, Point, Score, Search, Space, Stage, knee, non_dominated
from compress.search.obs import plan_for
from compress.search.widths import allowed, fill, meet, nearest, orbits, plan_of, ranked, reachable, scaled

Bits = NDArray[np.bool_]
"""Keep-bits of a stage, its groups' channels one after another: 1 = keep."""

_SEED_RATIOS = (0.15, 0.27, 0.39, 0.51, 0.63, 0.74, 0.84, 0.95)
_FINALIST_WINDOW = 0.06


@dataclass(frozen=True, slots=True)
class Smoea:
    """Parameters.

    Attributes:
        population: individuals of NSGA-II.
        generations: generations per stage; fewer where the budget of image-forwards buys fewer.
        crossover: probability that a pair is recombined, layer by layer.
        objective: ``compensated`` scores a candidate with its readers re-solved from second moments, as the recovery after
            the cut will do; ``plain`` takes them as they are. The first needs the recovery ``reconstruct``.
        seeds: criteria whose ranks give the starting masks, at eight ratios each.
        least_images: images a candidate sees at the least; generations are given up before images.
        most_images: images a candidate sees at the most.
        compromises: points near the controller's share that are re-ranked at full fidelity, per stage.
        finalists: points near the target that are scored at full fidelity.
        spread: points along the whole front that are scored too, so that others can be picked later.
        full_images: images of such a score; 0 leaves it to the evaluator.
    """

    population: int = 40
    generations: int = 60
    crossover: float = 0.9
    objective: Literal["compensated", "plain"] = "compensated"
    seeds: tuple[str, ...] = ("l1", "fpgm", "taylor", "obs")
    least_images: int = 8
    most_images: int = 48
    compromises: int = 3
    finalists: int = 10
    spread: int = 8
    full_images: int = 0

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """Front to back over the stages; then the stages' fronts become one."""
        plan = Plan()
        fronts: list[Front] = []
        inherited: list[float] = []
        for number in range(len(space.stages)):
            front, base = yield from self._stage(space, number, plan, rng)
            fronts.append(front)
            inherited.append(base)
            plan = yield from self._compromise(space, number, plan, front)
        combined = combine(space, fronts, inherited)
        best = yield from self._finals(space, [*combined, space.point(plan, _closing_error(fronts, inherited), Fidelity.STAGE)])
        return best

    def _stage(
        self, space: Space, number: int, before: Plan, rng: np.random.Generator
    ) -> Generator[Ask, Sequence[Score], tuple[Front, float]]:
        """NSGA-II on one stage's sub-network: error against cost, in the already pruned surroundings."""
        stage = space.stages[number]
        genes = Genes(space, stage)
        generations, images = self._effort(space, stage)
        algorithm = NSGA2(
            pop_size=self.population,
            sampling=genes.start(self.population, self.seeds, rng),
            crossover=_PerLayer(genes, self.crossover),
            mutation=_FlipAndSwap(genes),
            repair=_Aligned(genes),
            eliminate_duplicates=_SameBits(),
        )
        problem = Problem(n_var=genes.length, n_obj=2, vtype=bool, xl=0, xu=1)
        algorithm.setup(problem, seed=int(rng.integers(2**31)), verbose=False)
        seen: dict[bytes, Point] = {}
        whole = space.share(before)
        for generation in range(generations):
            asked = algorithm.ask()
            if asked is None or len(asked) == 0:  # no mask is left that was not seen
                break
            rows = asked.get("X").astype(bool)
            if generation == 0:
                rows = np.vstack([genes.whole(), rows])  # all ones: what the stage inherits
            plans = [genes.plan(row, before) for row in rows]
            scores = yield Ask(plans, Fidelity.STAGE, number, images, self.objective == "compensated")
            for row, plan, score in zip(rows, plans, scores, strict=True):
                seen.setdefault(row.tobytes(), space.point(plan, score.error, Fidelity.STAGE))
            if generation == 0:
                base, scores, plans = scores[0].error, scores[1:], plans[1:]
            objectives = np.array([[_finite(s.error), space.share(p) / whole] for s, p in zip(scores, plans, strict=True)])
            Evaluator().eval(StaticProblem(problem, F=objectives), asked)
            algorithm.tell(infills=asked)
        return non_dominated(list(seen.values()), space.target.kind), base

    def _effort(self, space: Space, stage: Stage) -> tuple[int, int]:
        """Generations and images per candidate that this stage's part of the budget buys."""
        few = self._compromises(space) * len(space.stages) + sum(self._finalists(space))
        share = (space.budget - few * space.full_images) / len(space.stages)
        per_image = (self.population + 1) * max(stage.fraction, 1e-6)
        images = int(share / (per_image * self.generations))
        most = min(self.most_images, space.stage_images)
        if images >= min(self.least_images, most):
            return self.generations, min(images, most)
        least = min(self.least_images, most)
        generations = max(2, int(share / (per_image * least)))
        return generations, max(2, min(least, int(share / (per_image * generations))))

    def _compromises(self, space: Space) -> int:
        """How many points per stage a sixth of the budget re-ranks; a single one needs no score."""
        affordable = int(space.budget / 6 / space.full_images) // len(space.stages)
        return min(self.compromises, affordable) if affordable > 1 else 0

    def _finalists(self, space: Space) -> tuple[int, int]:
        """How many full scores near the target, and along the front, a third of the budget leaves after the compromises."""
        affordable = max(2, int(space.budget / 3 / space.full_images) - self._compromises(space) * len(space.stages))
        affordable = max(2, affordable - 2)  # two more are always scored
        near = max(1, min(self.finalists, affordable * self.finalists // max(self.finalists + self.spread, 1)))
        return near, max(1, min(self.spread, affordable - near))

    def _compromise(self, space: Space, number: int, before: Plan, front: Front) -> Generator[Ask, Sequence[Score], Plan]:
        """The point the next stages build on: near the controller's share, the best of a few at full fidelity."""
        if space.target.kind == "max_drop":
            near = sorted(range(len(front)), key=lambda i: abs(i - knee(front, space.target.kind)))
        else:
            share = controller(space, number, before)
            near = sorted(range(len(front)), key=lambda i: abs(space.share(front[i].plan) - share))
        few = [front[i].plan for i in near[: max(1, self._compromises(space))]]
        if len(few) == 1:
            return few[0]
        scores = yield self._fully(few)
        return few[int(np.argmin([_finite(s.error) for s in scores]))]

    def _finals(self, space: Space, points: Sequence[Point]) -> Search:
        """Real scores for the points that matter: around the target, and along the whole front."""
        front = non_dominated(points, space.target.kind)
        near, along = self._finalists(space)
        if space.target.kind == "max_drop":
            near, along = 0, near + along
        chosen = [front[i] for i in sorted(set(np.linspace(0, len(front) - 1, along).round().astype(int).tolist()))]
        if near:
            value = space.target.value
            within = [p for p in points if space.share(p.plan) <= value]
            close = [p for p in within if space.share(p.plan) >= value - _FINALIST_WINDOW] or within or list(front[:1])
            chosen += sorted(close, key=lambda p: (p.error, p.plan.digest))[:near]
            # Close below the target for certain, and hard to beat: the same share of every group, and widths by marginal error.
            chosen += [
                space.point(p, float("nan"), Fidelity.STAGE) for p in (_evenly(space), plan_for(space, value, space.ranking))
            ]
        plans = list(dict.fromkeys(p.plan for p in chosen))
        scores = yield self._fully(plans)
        return non_dominated(
            [space.point(p, s.error, Fidelity.FULL) for p, s in zip(plans, scores, strict=True)], space.target.kind
        )

    def _fully(self, plans: Sequence[Plan]) -> Ask:
        """Real scores, of networks recovered as the search assumes."""
        return Ask(plans, Fidelity.FULL, images=self.full_images, compensate=self.objective == "compensated")


def _evenly(space: Space) -> Plan:
    """The largest network within the budget whose groups all keep the same share: close below the target for certain."""
    value = space.target.value
    ratio = meet(lambda r: space.share(plan_of(space, scaled(space, r))), value)
    return plan_of(space, fill(space, scaled(space, ratio), value, space.groups))


def _finite(error: float) -> float:
    return error if np.isfinite(error) else 1e9


def _closing_error(fronts: Sequence[Front], inherited: Sequence[float]) -> float:
    return float(sum(max(f[0].error - e, 0.0) for f, e in zip(fronts, inherited, strict=True)))


def controller(space: Space, number: int, before: Plan) -> float:
    """The share of the whole that should be left after this stage.

    One ratio for this and all later stages is found that meets the target after what was already cut; the stage gets the
    share that this ratio leaves it, so that greedy stages still arrive at the target.
    """
    later = [g for s in space.stages[number:] for g in s.groups]
    own = space.stages[number].groups

    def with_ratio(ratio: float, groups: Sequence[str]) -> float:
        plan = plan_of(space, scaled(space, ratio, [g for g in later if g in groups]))
        return space.share(Plan({**before.cuts, **plan.cuts}))

    ratio = meet(partial(with_ratio, groups=later), space.target.value)
    return with_ratio(ratio, own)


def combine(space: Space, fronts: Sequence[Front], inherited: Sequence[float], bins: int = 160) -> list[Point]:
    """The stages' fronts as one: a knapsack over the cost with additive errors.

    Each stage contributes one of its points; what a stage inherited from the stages before it is not counted twice.
    """
    goal = 1.0 - reachable(space)
    best: dict[int, tuple[float, Plan]] = {0: (0.0, Plan())}
    for stage, front, base in zip(space.stages, fronts, inherited, strict=True):
        options = []
        for point in front:
            own = Plan({g: c for g, c in point.plan.cuts.items() if g in stage.groups})
            options.append((max(point.error - base, 0.0), 1.0 - space.share(own), own))
        options.append((0.0, 0.0, Plan()))
        grown: dict[int, tuple[float, Plan]] = {}
        for spent, (error, plan) in best.items():
            for more, saved, own in options:
                place = spent + round(saved / max(goal, 1e-9) * bins)
                total = error + more
                if place not in grown or total < grown[place][0]:
                    grown[place] = (total, Plan({**plan.cuts, **own.cuts}))
        best = grown
    return [space.point(plan, error, Fidelity.STAGE) for error, plan in best.values()]


class Genes:
    """How a stage's keep-bits are laid out, and what a legal mask is."""

    def __init__(self, space: Space, stage: Stage) -> None:
        self.space = space
        self.groups = [space.topology.by_id[g] for g in stage.groups]
        ends = np.cumsum([g.size for g in self.groups]).tolist()
        self.slices = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.length = ends[-1]
        self.order = {g.id: ranked(g, space.importance[space.ranking][g.id]) for g in self.groups}

    def whole(self) -> Bits:
        """Everything kept."""
        return np.ones((1, self.length), dtype=bool)

    def plan(self, bits: Bits, before: Plan) -> Plan:
        """The mask as a plan, on top of what was cut before."""
        cuts = dict(before.cuts)
        for group, where in zip(self.groups, self.slices, strict=True):
            keep = np.flatnonzero(bits[where])
            if len(keep) < group.size:
                cuts[group.id] = Cut(tuple(keep.tolist()))
        return Plan(cuts)

    def repair(self, bits: Bits) -> Bits:
        """Every orbit at its nearest allowed width: the least important go first, the most important come back first."""
        result = bits.copy()
        for group, where in zip(self.groups, self.slices, strict=True):
            part = result[where]
            for orbit, order in zip(orbits(group), self.order[group.id], strict=True):
                have = int(part[list(orbit)].sum())
                want = nearest(have, len(orbit), self.space.round_to)
                if want < have:
                    part[[c for c in order[::-1] if part[c]][: have - want]] = False
                elif want > have:
                    part[[c for c in order if not part[c]][: want - have]] = True
            result[where] = part
        return result

    def step(self, bits: Bits, rng: np.random.Generator) -> None:
        """One orbit becomes an allowed width narrower or wider, by rank."""
        number = int(rng.integers(len(self.groups)))
        part = bits[self.slices[number]]
        choices = self.order[self.groups[number].id]
        order = choices[int(rng.integers(len(choices)))]
        widths = allowed(len(order), self.space.round_to)
        have = int(part[order].sum())
        wider = rng.random() < 0.5
        want = next((w for w in (widths if wider else widths[::-1]) if (w > have if wider else w < have)), have)
        if want < have:
            part[[c for c in order[::-1] if part[c]][: have - want]] = False
        else:
            part[[c for c in order if not part[c]][: want - have]] = True

    def start(self, count: int, seeds: Sequence[str], rng: np.random.Generator) -> Bits:
        """All ones, masks cut from the criteria's ranks at eight ratios, and Bernoulli(p) with p ~ U(0.15, 0.95)."""
        rows = [self.whole()[0]]
        for name in seeds:
            if name in self.space.importance:
                rows += [self._ranked_mask(name, ratio) for ratio in _SEED_RATIOS]
        while len(rows) < count:
            rows.append(rng.random(self.length) < rng.uniform(0.15, 0.95))
        repaired = np.array([self.repair(r) for r in rows[: max(count, 1)]])
        return repaired

    def _ranked_mask(self, criterion: str, ratio: float) -> Bits:
        bits = np.zeros(self.length, dtype=bool)
        for group, where in zip(self.groups, self.slices, strict=True):
            importance: Array = self.space.importance[criterion][group.id]
            for order in ranked(group, importance):
                bits[where.start + order[: max(1, round(ratio * len(order)))]] = True
        return bits


class _PerLayer(Crossover):  # type: ignore[misc]
    """Uniform crossover whose unit is the layer: a group's bits stay together."""

    def __init__(self, genes: Genes, prob: float) -> None:
        super().__init__(2, 2, prob=prob)
        self.genes = genes

    def _do(
        self, problem: Problem, X: NDArray[np.bool_], *args: object, random_state: np.random.Generator, **kwargs: object
    ) -> NDArray[np.bool_]:
        children = X.copy()
        for pair in range(X.shape[1]):
            for where in self.genes.slices:
                if random_state.random() < 0.5:
                    children[0, pair, where], children[1, pair, where] = X[1, pair, where], X[0, pair, where]
        return children


class _FlipAndSwap(Mutation):  # type: ignore[misc]
    """Bit flip with 1/L; in one layer a kept and a dropped bit change places (the cost stays); one width takes a step.

    The step is ours: where widths are aligned, a single flipped bit is repaired away, and only a whole step is felt.
    """

    def __init__(self, genes: Genes) -> None:
        super().__init__()
        self.genes = genes

    def _do(
        self, problem: Problem, X: NDArray[np.bool_], *args: object, random_state: np.random.Generator, **kwargs: object
    ) -> NDArray[np.bool_]:
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
        return mutants


class _Aligned(Repair):  # type: ignore[misc]
    """Widths become legal."""

    def __init__(self, genes: Genes) -> None:
        super().__init__()
        self.genes = genes

    def _do(self, problem: Problem, X: NDArray[np.bool_], **kwargs: object) -> NDArray[np.bool_]:
        return np.array([self.genes.repair(row.astype(bool)) for row in X])


class _SameBits(ElementwiseDuplicateElimination):  # type: ignore[misc]
    def is_equal(self, a: Population, b: Population) -> bool:
        return bool((a.X == b.X).all())
