"""SMOEA: sub-network multi-objective evolutionary pruning (Li, Sun, Huang, Chen; arXiv 2211.01957).

The paper's: a multi-objective problem is posed on a *sub-network* of the full model; a multi-objective evolutionary
algorithm solves it; convolution layers are pruned progressively, group of layers by group of layers; a compromise solution
of the front is taken.

Ours, because the paper leaves it open, each an option: the stages (runs of channel groups on block borders), the error of
the sub-network as first objective (relative squared error of the pre-activations after the stage, against the unpruned
network, with the readers re-solved in closed form first), NSGA-II with seeded starts and two mutations, the controller that
hands every stage its share of the global budget, the stages' weights, and the global front that combines the stages' fronts
(additive weighted error, knapsack over the budget).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from compress.core import Plan
from compress.search.base import Ask, Origin, Score, Search, Told, scored
from compress.search.closed_forms import closed_forms, closed_forms_elsewhere
from compress.search.front import Fidelity, Front, Point, Recovery, knee, non_dominated, thinned
from compress.search.genes import Genes
from compress.search.options import AtLeastTwo, Fraction
from compress.search.space import Space, Stage
from compress.search.stage_combination import combine, controller
from compress.search.stopping import Stopping

_FINALIST_WINDOW = 0.06
_IDLE = 2
"""Rounds of neighbours without a better one after which a search that may end early does."""
_NOTHING_ADDED = "the evolution found nothing better than a closed form; --method obs looks at closed forms alone, for less"


@dataclass(frozen=True, slots=True)
class _Parts:
    """How a budget is divided: the largest part of it for each.

    Attributes:
        compromises: looks at each stage's points near its share.
        weighings: looks that weigh the stages against each other.
        finalists: looks near the target, and along the front.
        judged: plans at the target that are recovered and scored on all images.
        elsewhere: closed forms at other shares that are judged alike.
        kept: all of these, kept back from the evolution.
        closed: plans that need no search and get a look.
    """

    compromises: float = 1 / 6
    weighings: float = 0.1
    finalists: float = 0.2
    judged: float = 1 / 3
    elsewhere: float = 0.0
    kept: float = 0.7
    closed: int = 5


_WHOLE = _Parts()
"""Where all branches stay."""
_WITH_BRANCHES = _Parts(compromises=1 / 15, weighings=0.04, finalists=0.08, judged=1 / 2, elsewhere=1 / 6, kept=0.9, closed=0)
"""Closed forms were measured to decide there: they are judged, without a look before, and little is left for the rest."""


@dataclass(frozen=True, slots=True)
class Smoea:
    """Parameters.

    Attributes:
        population: individuals of NSGA-II. Cost: image-forwards in proportion; where the budget is short, images and then
            generations are fewer.
        generations: generations per stage, fewer where the budget is short. Cost: image-forwards in proportion.
        crossover: probability that a pair is recombined, layer by layer. Cost: none.
        objective: ``compensated`` scores a candidate with its readers re-solved from second moments, as the recovery after
            the cut will do; ``plain`` takes them as they are. ``outputs`` re-solves, runs all of the network from the stage
            on, and looks at its outputs. The first and the last need the recovery ``reconstruct``. Cost: a linear system per
            reader and candidate, with ``outputs`` the layers behind the stage as well.
        seeds: criteria whose ranks give the starting masks, at eight ratios each. Cost: a ranking each before the
            search, with gradients for ``taylor``.
        least_images: images a candidate sees at the least; generations are given up before images. Cost: none, the budget
            holds.
        most_images: images a candidate sees at the most. Cost: image-forwards in proportion.
        compromises: points near the controller's share that are re-ranked at full fidelity, per stage. Cost: a look on a
            quarter of the judged images each, a sixth of the budget at the most.
        finalists: points near the target that are scored at full fidelity. Cost: such a look each, with ``spread`` a fifth of
            the budget at the most.
        spread: points along the whole front that are scored too, so that others can be picked later; where branches may go
            these are closed forms, judged as below. Cost: see ``finalists``; there a recovery and all judged images each, a
            sixth of the budget at the most.
        judged: the best of these, the closed forms, and then neighbours of the best so far are recovered as the result will
            be, and scored on all images. Cost: a recovery and all judged images each, a third of the budget at the most, half
            of it where branches may go.
        evolved: the largest part of the budget that the evolution itself gets where branches may go: there it was measured to
            add nothing to closed forms (benchmarks/README.md, What SMOEA's evolution is worth). Cost: image-forwards.
    """

    population: AtLeastTwo = 40
    generations: PositiveInt = 60
    crossover: Fraction = 0.9
    objective: Literal["compensated", "plain", "outputs"] = "compensated"
    seeds: tuple[str, ...] = ("l1", "fpgm", "taylor", "obs")
    least_images: PositiveInt = 8
    most_images: PositiveInt = 48
    compromises: NonNegativeInt = 3
    finalists: PositiveInt = 10
    spread: NonNegativeInt = 8
    judged: PositiveInt = 30
    evolved: Fraction = 0.125

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return (*self.seeds, "obs")

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
        weights = yield from self._weights(space, fronts, inherited, plan)
        closing = sum(w * max(f[0].error - e, 0.0) for w, f, e in zip(weights, fronts, inherited, strict=True))
        combined = combine(space, fronts, inherited, weights)
        return (yield from self._finals(space, [*combined, space.point(plan, closing, Fidelity.STAGE)], rng))

    def _stage(
        self, space: Space, number: int, before: Plan, rng: np.random.Generator
    ) -> Generator[Ask | Told, Sequence[Score], tuple[Front, float]]:
        """NSGA-II on one stage's sub-network: error against cost, in the already pruned surroundings."""
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.problems.static import StaticProblem

        from compress.search.genetic_operators import Aligned, FlipAndSwap, PerLayer, SameBits

        stage = space.stages[number]
        genes = Genes(space, stage)
        generations, images = self._effort(space, stage)
        algorithm = NSGA2(
            pop_size=self.population,
            sampling=genes.start(self.population, self.seeds, rng),
            crossover=PerLayer(genes, self.crossover),
            mutation=FlipAndSwap(genes),
            repair=Aligned(genes),
            eliminate_duplicates=SameBits(),
        )
        problem = Problem(n_var=genes.length, n_obj=2, vtype=bool, xl=0, xu=1)
        algorithm.setup(problem, seed=int(rng.integers(2**31)), verbose=False)
        seen: dict[bytes, Point] = {}
        whole, stopping = space.share(before), Stopping(space.stop_after, generations)
        for generation in range(generations):
            asked = algorithm.ask()
            if asked is None or len(asked) == 0:  # no mask is left that was not seen
                break
            rows = asked.get("X").astype(bool)
            if generation == 0:
                rows = np.vstack([genes.whole(), rows])  # all ones: what the stage inherits
            plans = [genes.plan(row, before) for row in rows]
            scores = yield Ask(plans=plans, fidelity=self._fidelity, stage=number, images=images, recovery=self._recovery)
            for row, plan, score in zip(rows, plans, scores, strict=True):
                seen.setdefault(row.tobytes(), space.point(plan, score.error, Fidelity.STAGE))
            if generation == 0:
                base, scores, plans = scores[0].error, scores[1:], plans[1:]
            objectives = np.array([[_finite(s.error), space.share(p) / whole] for s, p in zip(scores, plans, strict=True)])
            Evaluator().eval(StaticProblem(problem, F=objectives), asked)
            algorithm.tell(infills=asked)
            if stopping.settled(np.where(objectives < _LOST, objectives, np.nan)):
                yield Told(ended=stopping.told(stage.name))
                break
        return non_dominated(list(seen.values()), space.target.kind), base

    def _effort(self, space: Space, stage: Stage) -> tuple[int, int]:
        """Generations and images per candidate that this stage's part of the budget buys."""
        most = self.evolved if space.branches else 1.0
        share = min(space.budget - self._reserve(space), most * space.budget) / len(space.stages)
        per_image = (self.population + 1) * max(stage.part(self._fidelity), 1e-6)
        images = int(share / (per_image * self.generations))
        most = min(self.most_images, space.stage_images)
        if images >= min(self.least_images, most):
            return self.generations, min(images, most)
        least = min(self.least_images, most)
        generations = max(2, int(share / (per_image * least)))
        return generations, max(2, min(least, int(share / (per_image * generations))))

    def _screened(self, space: Space) -> int:
        """Images of a first look at full fidelity: a quarter of what a final score sees."""
        return max(1, min(max(space.full_images // 4, 64), space.full_images // 2))

    def _reserve(self, space: Space) -> float:
        """Image-forwards that are kept back for scores at full fidelity; a screened one costs at most two per image."""
        near, along = self._finalists(space)
        every = self._compromises(space) * len(space.stages) + self._weighings(space) + near + along + _parts(space).closed
        judged = self._judged(space) + self._elsewhere(space)
        return min(_parts(space).kept * space.budget, every * 2 * self._screened(space) + judged * space.judged_images)

    def _affordable(self, space: Space, part: float) -> int:
        """First looks that a part of the budget buys."""
        return int(part * space.budget / (2 * self._screened(space)))

    def _compromises(self, space: Space) -> int:
        """How many points per stage are re-ranked; a single one needs no score."""
        affordable = self._affordable(space, _parts(space).compromises) // len(space.stages)
        return min(self.compromises, affordable) if affordable > 1 else 0

    def _weighings(self, space: Space) -> int:
        """How many looks there are for weighing the stages against each other: one each, or none."""
        wanted = len(space.stages) + 1
        return wanted if len(space.stages) > 1 and self._affordable(space, _parts(space).weighings) >= wanted else 0

    def _finalists(self, space: Space) -> tuple[int, int]:
        """How many looks there are near the target, and along the front; none along it where closed forms are judged there."""
        affordable = max(2, self._affordable(space, _parts(space).finalists) - _parts(space).closed)
        if self._elsewhere(space):
            return max(1, min(self.finalists, affordable)), 0
        near = max(1, min(self.finalists, affordable * self.finalists // max(self.finalists + self.spread, 1)))
        return near, max(1, min(self.spread, affordable - near))

    def _judged(self, space: Space) -> int:
        """How many are recovered and judged on all images."""
        return max(1, min(self.judged, int(_parts(space).judged * space.budget / space.judged_images + 1e-9)))

    def _elsewhere(self, space: Space) -> int:
        """How many closed forms at other shares than the target's are."""
        part = 0.0 if space.target.kind == "max_drop" else _parts(space).elsewhere
        return min(self.spread, int(part * space.budget / space.judged_images + 1e-9))

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
        scores = yield self._fully(few, self._screened(space))
        return few[int(np.argmin([_finite(s.error) for s in scores]))]

    def _weights(
        self, space: Space, fronts: Sequence[Front], inherited: Sequence[float], taken: Plan
    ) -> Generator[Ask, Sequence[Score], list[float]]:
        """What a unit of each stage's own error costs the whole network.

        The stages' errors are relative to their own outputs, and a late layer forgives what an early one does not. So each
        stage's compromise is cut alone and scored at full fidelity, and its weight is the quotient of the two errors.
        """
        if not self._weighings(space):
            return [1.0] * len(fronts)
        alone = [stage.own(taken) for stage in space.stages]
        own = [
            next(p.error for p in front if stage.own(p.plan) == one) - base
            for one, stage, front, base in zip(alone, space.stages, fronts, inherited, strict=True)
        ]
        scores = yield self._fully([Plan(), *alone], self._screened(space))
        least = 1.0 / self._screened(space)  # what so many images can tell
        harm = [max(_finite(s.error) - scores[0].error, least) for s in scores[1:]]
        known = [h / e for h, e, one in zip(harm, own, alone, strict=True) if one and e > 0]
        middle = float(np.median(known)) if known else 1.0
        return [h / e if one and e > 0 else middle for h, e, one in zip(harm, own, alone, strict=True)]

    def _finals(self, space: Space, points: Sequence[Point], rng: np.random.Generator) -> Search:
        """Real scores for the points that matter: around the target, and along the whole front; the best of them judged."""
        front = non_dominated(points, space.target.kind)
        near, along = self._finalists(space)
        value, budgeted = space.target.value, space.target.kind != "max_drop"
        if not budgeted:
            near, along = 0, near + along
        known = closed_forms(space) if budgeted else []
        chosen = [p.plan for p in thinned(front, along)]
        if budgeted:
            within = [p for p in points if space.share(p.plan) <= value]
            close = [p for p in within if space.share(p.plan) >= value - _FINALIST_WINDOW] or within or list(front[:1])
            chosen += [p.plan for p in sorted(close, key=lambda p: (p.error, p.plan.digest))[:near]]
            chosen += [] if space.branches else known  # there they are judged without a look before
        plans = list(dict.fromkeys(chosen))
        yield Told(origins=_origins(plans, known))
        scores = yield self._fully(plans, self._screened(space))
        looked = [space.point(p, s.error, Fidelity.FULL) for p, s in zip(plans, scores, strict=True)]
        if not budgeted:  # whether a drop is within what is allowed is asked of all images, never of some
            few = thinned(non_dominated(looked, space.target.kind), max(2, self._judged(space)))
            return (yield from scored(space, [p.plan for p in few], 0, space.recovery))
        rivals = sorted((p for p in looked if space.share(p.plan) <= value and np.isfinite(p.error)), key=lambda p: p.error)
        judged = yield from self._judge(space, [p.plan for p in rivals], known, rng)
        best, seen = min((_finite(p.error) for p in judged), default=np.inf), {p.plan for p in judged}
        elsewhere = [p for p in closed_forms_elsewhere(space, self._elsewhere(space)) if p not in seen]
        if elsewhere:
            yield Told(origins=_origins(elsewhere, elsewhere))
            scores = yield self._truly(space, elsewhere)
            looked = [p for p in looked if p.plan not in elsewhere]
            looked += [space.point(p, s.error, Fidelity.FULL) for p, s in zip(elsewhere, scores, strict=True)]
        others = [p for p in looked if p.plan not in seen and (space.share(p.plan) > value or p.error > best)]
        return non_dominated([*judged, *others], space.target.kind)  # luck on few images beats nothing that was judged

    def _judge(
        self, space: Space, rivals: Sequence[Plan], known: Sequence[Plan], rng: np.random.Generator
    ) -> Generator[Ask | Told, Sequence[Score], list[Point]]:
        """The best and the closed forms, recovered as the result will be; then the winner's neighbours, while they win."""
        count = self._judged(space)
        few = rivals[: max(1, count // 3)]
        order = [*known, *few] if space.branches else [*known[-1:], *few, *known]
        plans = list(dict.fromkeys([*few[:1], *order]))[:count]
        origins = _origins(plans, known)
        yield Told(origins=origins)
        scores = yield self._truly(space, plans)
        judged = [space.point(p, s.error, Fidelity.FULL) for p, s in zip(plans, scores, strict=True)]
        genes = Genes(space, Stage(name="all", groups=space.groups, fraction=1.0, branches=space.branches))
        left, idle = count - len(plans), 0
        while left > 0 and (usable := [p for p in judged if np.isfinite(p.error)]):
            best = min(usable, key=lambda p: p.error)
            if space.stop_after and idle >= _IDLE:
                yield Told(ended=f"ended among the neighbours of the best: {_IDLE} rounds found no better one")
                break
            near = [
                genes.plan(genes.exchange(genes.bits(best.plan), space.target.value, rng), Plan()) for _ in range(min(left, 4))
            ]
            left -= len(near)
            fresh = [p for p in dict.fromkeys(near) if all(p != q.plan for q in judged)]
            if fresh:
                origins |= dict.fromkeys(fresh, origins[best.plan].neighbour)
                yield Told(origins={p: origins[p] for p in fresh})
                scores = yield self._truly(space, fresh)
                judged += [space.point(p, s.error, Fidelity.FULL) for p, s in zip(fresh, scores, strict=True)]
            idle = 0 if any(p.error < best.error for p in judged) else idle + 1
        won = min((p for p in judged if np.isfinite(p.error)), key=lambda p: p.error, default=None)
        if space.branches and won is not None and origins[won.plan] is Origin.CLOSED_FORM:
            yield Told(notes=(_NOTHING_ADDED,))
        return judged

    def _truly(self, space: Space, plans: Sequence[Plan]) -> Ask:
        """Scores on all images, of networks recovered as the result will be, whatever the objective was."""
        return Ask(plans=plans, fidelity=Fidelity.FULL, recovery=space.recovery)

    def _fully(self, plans: Sequence[Plan], images: int) -> Ask:
        """Real scores, of networks recovered as the search assumes."""
        return Ask(plans=plans, fidelity=Fidelity.FULL, images=images, recovery=self._recovery)

    @property
    def _fidelity(self) -> Fidelity:
        return Fidelity.TAIL if self.objective == "outputs" else Fidelity.STAGE

    @property
    def _recovery(self) -> Recovery:
        return "bn" if self.objective == "plain" else "compensated"


def _origins(plans: Sequence[Plan], known: Sequence[Plan]) -> dict[Plan, Origin]:
    """What found each plan; what the evolution came to as well needed no search."""
    return {p: Origin.CLOSED_FORM if p in known else Origin.EVOLUTION for p in plans}


def _parts(space: Space) -> _Parts:
    return _WITH_BRANCHES if space.branches else _WHOLE


_LOST = 1e9
"""The error of what cannot be scored."""


def _finite(error: float) -> float:
    return error if np.isfinite(error) else _LOST
