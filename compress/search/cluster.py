"""Clustering on multidimensional channel information with an enhanced differential evolution.

Sun, Chen, Wu, Li, Ma: Neural Processing Letters 2024.

The paper's: a channel is quantified by three features of its kernel, expectation, variance and cosine distance to the unit
vector; K-means++ clusters each layer's channels; an enhanced differential evolution optimises the number of cluster centres of
all layers; inside a cluster the crowding distance of the samples decides which channels survive; SGD fine-tuning.

Ours, each an option: the features are taken on the group's concatenated kernels and standardised per group; the evolution is
SHADE's current-to-pbest/1 with an archive (Tanabe and Fukunaga, CEC 2013; Zhang and Sanderson's JADE, 2009); the cost is met by
repair, not by penalty; where branches may go, one more variable is the threshold of a row of them; the kept channels for every
number of clusters are tabulated before the evolution starts; a candidate's readers are re-solved in closed form before it is
scored.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from compress.core import Cut, Floats, GroupId, Indices, Plan
from compress.search.base import Ask, Origin, Score, Search, Told
from compress.search.depth import depths
from compress.search.front import Fidelity, Front, Point, non_dominated
from compress.search.options import AtLeastTwo, Fraction
from compress.search.space import Space
from compress.search.stopping import Stopping
from compress.search.widths import Widths, allowed, fill, full_widths, meet_widths, nearest, orbits

_DROP_BUDGETS = (0.25, 0.4, 0.55, 0.7, 0.85)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Parameters.

    Attributes:
        population: NP of the evolution. Cost: image-forwards in proportion; where the budget is short, images and then
            generations are fewer.
        generations: G, the steps of the evolution, fewer where the budget is short. Cost: image-forwards in proportion.
        keep: ``crowding``: the largest finite crowding distance inside a cluster survives (the paper's); ``obs``: the channel
            that the readers could least make up for (ours); ``random`` and ``l1`` are ablations. Cost: none.
        rule: ``one_per_cluster``: as many clusters as kept channels; ``ratio_per_cluster``: ``clusters`` clusters per group,
            each keeps the same share. Cost: none.
        clusters: clusters of a group for ``ratio_per_cluster``. Cost: none to speak of.
        cosine: the direction of the third feature: ``ones`` (then it is mu / sqrt(mu^2 + sigma^2)) or ``mean-filter``. Cost:
            none.
        folded: the filters are given with their batch norms folded into them. Cost: none.
        least: r_min, the smallest share of clusters per group. Cost: none.
        grid: numbers of clusters per group that are tabulated at the most. Cost: a clustering per group and entry before the
            search.
        restarts: starts of K-means, of which the best clustering is taken. Cost: the clusterings' time in proportion.
        adapt: F and CR follow what succeeded (SHADE); without, F falls from 0.9 to 0.4 and CR is 0.9. Cost: none.
        fitness: what is done to a candidate before it is scored: ``bn``: batch norms re-estimated; ``compensated``: its
            readers re-solved in closed form as well, as the recovery after the cut will do. The second needs the recovery
            ``reconstruct``. Cost: a linear system per reader and candidate for the second.
        least_images: images of a candidate's score at the least. Cost: fewer generations where the budget is short.
        finalists: best candidates that are recovered as the result will be, and scored again on all images. Cost: a recovery
            and all judged images each, a quarter of the budget at the most (but two).
    """

    population: AtLeastTwo = 20
    generations: PositiveInt = 30
    keep: Literal["crowding", "obs", "random", "l1"] = "crowding"
    rule: Literal["one_per_cluster", "ratio_per_cluster"] = "one_per_cluster"
    clusters: PositiveInt = 8
    cosine: Literal["ones", "mean-filter"] = "ones"
    folded: bool = False
    least: Fraction = 0.1
    grid: AtLeastTwo = 16
    restarts: PositiveInt = 5
    adapt: bool = True
    fitness: Literal["bn", "compensated"] = "compensated"
    least_images: PositiveInt = 16
    finalists: PositiveInt = 5

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return ("obs",) if self.keep == "obs" else ()

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """One evolution per budget; every evolution's best candidates are scored again on all images."""
        table = self.tabulate(space, rng)
        budgets = self._budgets(space) if space.target.kind == "max_drop" else [space.target.value]
        points: list[Point] = []
        for budget in budgets:
            points += yield from self._evolve(space, table, budget, 1 / len(budgets), rng)
        front: Front = non_dominated(points, space.target.kind)
        return front

    def _budgets(self, space: Space) -> list[float]:
        """For a target of accuracy: as many budgets as the whole one pays an evolution of two generations and finalists for."""
        least = 2 * space.judged_images + 2 * 3 * self.population * self.least_images
        count = max(1, min(len(_DROP_BUDGETS), int(space.budget / least)))
        places = np.linspace(0, len(_DROP_BUDGETS) - 1, count + 2)[1:-1] if count < 3 else np.linspace(0, 4, count)
        return [_DROP_BUDGETS[i] for i in places.round().astype(int)]

    # ---- which channels a number of clusters keeps -----------------------------------------------------------------------

    def tabulate(self, space: Space, rng: np.random.Generator) -> Mapping[tuple[GroupId, int], Mapping[int, Indices]]:
        """(group, orbit) -> width -> kept channels."""
        table: dict[tuple[GroupId, int], dict[int, Indices]] = {}
        for group_id in space.groups:
            for number, orbit in enumerate(orbits(space.topology.by_id[group_id])):
                members = np.array(orbit)
                kernels = space.statistics.kernels[group_id][members]
                worth = self._worth(space, group_id, kernels, members)
                widths = self.widths(len(orbit), space.round_to)
                table[group_id, number] = {w: members[self._kept(kernels, worth, w, rng)] for w in widths}
        return table

    def widths(self, size: int, round_to: int) -> tuple[int, ...]:
        """The tabulated widths: allowed ones, thinned evenly to the grid."""
        every = allowed(size, round_to)
        chosen = np.linspace(0, len(every) - 1, min(self.grid, len(every))).round().astype(int)
        return tuple(every[i] for i in sorted(set(chosen.tolist())))

    def _worth(self, space: Space, group: GroupId, kernels: Floats, members: Indices) -> Floats:
        """What decides inside a cluster where the crowding distance does not; higher stays."""
        if self.keep == "obs" and "obs" in space.statistics.importance:
            worth: Floats = np.asarray(space.statistics.importance["obs"][group])[members]
            return worth
        norms: Floats = np.abs(kernels).sum(1)
        return norms

    def _kept(self, kernels: Floats, worth: Floats, width: int, rng: np.random.Generator) -> Indices:
        if width >= len(kernels):
            return np.arange(len(kernels))
        points = features(kernels, self.cosine)
        count = width if self.rule == "one_per_cluster" else min(self.clusters, width)
        labels = clustered(points, count, self.restarts)
        kept: list[int] = []
        for label, quota in _quotas(labels, width).items():
            inside = np.flatnonzero(labels == label)
            kept += self._survivors(points[inside], worth[inside], inside, quota, rng)
        return np.sort(np.array(kept))

    def _survivors(self, points: Floats, worth: Floats, inside: Indices, quota: int, rng: np.random.Generator) -> list[int]:
        if self.keep == "random":
            return [int(c) for c in rng.permutation(inside)[:quota]]
        crowding = crowding_distance(points) if self.keep == "crowding" else np.zeros(len(inside))
        finite = np.isfinite(crowding)
        order = np.lexsort((inside, -worth, -np.where(finite, crowding, -1.0)))  # those without a finite distance come last
        return [int(c) for c in inside[order][:quota]]

    # ---- how many clusters: the evolution --------------------------------------------------------------------------------

    def _evolve(
        self,
        space: Space,
        table: Mapping[tuple[GroupId, int], Mapping[int, Indices]],
        budget: float,
        part: float,
        rng: np.random.Generator,
    ) -> Generator[Ask | Told, Sequence[Score], list[Point]]:
        """SHADE over x in [r_min, 1]^groups, k = round(x C)."""
        generations, images = self._effort(space, part)
        rows = ((), *depths(space, budget)) if space.branches else ((),)
        decode = _Deep([_Decoder(self, space.without(row), table, budget) for row in rows], space, self.least)
        x = rng.uniform(self.least, 1.0, (self.population, decode.length))
        x[0] = 1.0  # the repair makes it uniform
        plans = [decode(row) for row in x]
        even = plans[0]
        scores = yield Ask(plans=plans, fidelity=Fidelity.FULL, images=images, recovery=self.fitness)
        fitness = np.array([_finite(s.error) for s in scores])
        seen = dict(zip(plans, fitness.tolist(), strict=True))
        memory_f, memory_cr, place = np.full(5, 0.5), np.full(5, 0.9), 0
        archive: list[Floats] = []
        stopping = Stopping(space.stop_after, generations + 1)
        stopping.settled(_seen_errors(fitness))
        for number in range(generations):
            if not self.adapt:
                memory_f, memory_cr = np.full(5, 0.9 - 0.5 * number / max(generations - 1, 1)), np.full(5, 0.9)
            trials, f, cr = self._trials(x, fitness, archive, memory_f, memory_cr, rng)
            plans = [decode(row) for row in trials]
            scores = yield Ask(plans=plans, fidelity=Fidelity.FULL, images=images, recovery=self.fitness)
            errors = np.array([_finite(s.error) for s in scores])
            seen.update(zip(plans, errors.tolist(), strict=True))
            better = errors <= fitness
            gain = np.maximum(fitness - errors, 0.0)[better]
            archive += list(x[better])
            archive = [archive[i] for i in rng.permutation(len(archive))[: self.population]]
            x[better], fitness[better] = trials[better], errors[better]
            if gain.sum() > 0:
                weight = gain / gain.sum()
                memory_f[place] = (weight * f[better] ** 2).sum() / (weight * f[better]).sum()  # Lehmer mean
                memory_cr[place] = (weight * cr[better]).sum()
                place = (place + 1) % len(memory_f)
            if stopping.settled(_seen_errors(errors)):
                yield Told(ended=stopping.told(f"the evolution at {budget:.2f}"))
                break
        best = sorted(seen, key=lambda p: (seen[p], p.digest))[: self._finalists(space, part) - 1]
        best = list(dict.fromkeys([*best, even]))  # few images mislead: the result is not behind equal shares of every group
        yield Told(origins={p: Origin.CLOSED_FORM if p == even else Origin.EVOLUTION for p in best})
        scores = yield Ask(plans=best, fidelity=Fidelity.FULL, recovery=space.recovery)
        return [space.point(p, s.error, Fidelity.FULL) for p, s in zip(best, scores, strict=True)]

    def _finalists(self, space: Space, part: float) -> int:
        return max(2, min(self.finalists, int(part * space.budget / 4 / space.judged_images)))

    def _effort(self, space: Space, part: float) -> tuple[int, int]:
        """Generations and images per candidate that the budget buys; statistics take as many images again."""
        share = part * space.budget - self._finalists(space, part) * space.judged_images
        images = int(share / (2 * self.population * (self.generations + 1)))
        if images >= self.least_images:
            return self.generations, min(images, space.full_images)
        return max(1, int(share / (2 * self.population * self.least_images)) - 1), self.least_images

    def _trials(
        self,
        x: Floats,
        fitness: Floats,
        archive: Sequence[Floats],
        memory_f: Floats,
        memory_cr: Floats,
        rng: np.random.Generator,
    ) -> tuple[Floats, Floats, Floats]:
        """v = x + F (x_pbest - x) + F (x_r1 - x_r2), binomial crossover; what leaves the box is put half-way back."""
        count, length = x.shape
        slot = rng.integers(len(memory_f), size=count)
        f, cr = memory_f[slot], memory_cr[slot]
        if self.adapt:
            f = np.clip(f + 0.1 * rng.standard_cauchy(count), 0.05, 1.0)
            cr = np.clip(rng.normal(cr, 0.1), 0.0, 1.0)
        ranked = np.argsort(fitness, kind="stable")
        pbest = ranked[rng.integers(max(2, count // 10), size=count)]
        pool = np.vstack([x, *archive]) if archive else x
        first, second = rng.integers(count, size=count), rng.integers(len(pool), size=count)
        v = x + f[:, None] * (x[pbest] - x) + f[:, None] * (x[first] - pool[second])
        v = np.where(v < self.least, (x + self.least) / 2, np.where(v > 1.0, (x + 1.0) / 2, v))
        cross = rng.random((count, length)) < cr[:, None]
        cross[np.arange(count), rng.integers(length, size=count)] = True
        return np.where(cross, v, x), f, cr


class _Deep:
    """The last number of x says how many branches go, by a row of depths; without branches x has no such number."""

    def __init__(self, decoders: Sequence[_Decoder], space: Space, least: float) -> None:
        self.decoders, self.least = decoders, least
        self.place = {group: i for i, group in enumerate(space.groups)}
        self.length = len(self.place) + (len(decoders) > 1)

    def __call__(self, x: Floats) -> Plan:
        number = 0
        if len(self.decoders) > 1:
            number = int((1.0 - x[-1]) / max(1.0 - self.least, 1e-9) * len(self.decoders))
        decoder = self.decoders[min(max(number, 0), len(self.decoders) - 1)]
        return decoder(x[[self.place[g] for g in decoder.space.groups]])


class _Decoder:
    """From x to a plan within the budget: x is scaled onto it, and what the stairs leave is filled up."""

    def __init__(
        self,
        method: Cluster,
        space: Space,
        table: Mapping[tuple[GroupId, int], Mapping[int, Indices]],
        budget: float,
    ) -> None:
        self.method, self.space, self.table, self.budget = method, space, table, budget
        self.whole = full_widths(space)

    def __call__(self, x: Floats) -> Plan:
        scale = meet_widths(lambda s: self.widths(x * s), lambda widths: self.space.share(self.plan(widths)), self.budget)
        order = [
            self.space.groups[i] for i in np.lexsort((-np.arange(len(x)), -x))
        ]  # of equal ones the last: late layers are cheap
        filled = fill(self.space, self.widths(x * scale), self.budget, order)
        plan = self.plan(filled)
        return plan if self.space.share(plan) <= self.budget else self.plan(self.widths(x * scale))

    def widths(self, x: Floats) -> Widths:
        return {
            g: tuple(nearest(float(share) * n, n, self.space.round_to) for n in self.whole[g])
            for g, share in zip(self.space.groups, x, strict=True)
        }

    def plan(self, widths: Widths) -> Plan:
        cuts = {}
        for group, kept in widths.items():
            if kept != self.whole[group]:
                channels = [self._channels(group, i, n) for i, n in enumerate(kept)]
                keep = tuple(sorted(int(c) for part in channels for c in part))
                if len(keep) < self.space.topology.by_id[group].size:
                    cuts[group] = Cut(keep)
        return self.space.said(Plan(cuts))

    def _channels(self, group: GroupId, orbit: int, width: int) -> Indices:
        """The tabulated width nearest below, or the narrowest."""
        rows = self.table[group, orbit]
        fitting = [w for w in rows if w <= width]
        return rows[max(fitting) if fitting else min(rows)]


def features(kernels: Floats, cosine: str = "ones") -> Floats:
    """Expectation, variance and cosine of every channel's kernel, standardised, shape (channels, 3)."""
    mean, variance = kernels.mean(1), kernels.var(1)
    direction = np.ones(kernels.shape[1]) if cosine == "ones" else kernels.mean(0)
    norms = np.linalg.norm(kernels, axis=1) * np.linalg.norm(direction)
    angle = kernels @ direction / np.maximum(norms, 1e-12)
    table = np.stack([mean, variance, angle], axis=1)
    standard: Floats = (table - table.mean(0)) / np.maximum(table.std(0), 1e-12)
    return standard


def clustered(points: Floats, count: int, restarts: int) -> Indices:
    """K-means++ labels; where points coincide there may be fewer clusters than asked for."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(np.unique(points, axis=0))
    with threadpool_limits(1):  # partial sums of several threads are added in the order in which they end
        fitted = KMeans(min(count, distinct), init="k-means++", n_init=restarts, random_state=0).fit(points)
    labels: Indices = fitted.labels_.astype(np.int64)
    return labels


def crowding_distance(points: Floats) -> Floats:
    """NSGA-II's crowding distance (Deb et al. 2002): the normalised gap to both neighbours, summed; infinite at the ends."""
    count = len(points)
    distance = np.zeros(count)
    for column in points.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0 and count > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def _quotas(labels: Indices, width: int) -> dict[int, int]:
    """How many channels each cluster keeps: its share of the width, at least one, summing to the width."""
    names, sizes = np.unique(labels, return_counts=True)
    quota = np.minimum(sizes, np.maximum(1, np.floor(width * sizes / sizes.sum()).astype(int)))
    while quota.sum() != width:
        if quota.sum() < width:
            room = np.where(quota < sizes, width * sizes / sizes.sum() - quota, -np.inf)
            quota[int(np.argmax(room))] += 1
        else:
            excess = np.where(quota > 1, quota - width * sizes / sizes.sum(), -np.inf)
            quota[int(np.argmax(excess))] -= 1
    return dict(zip(names.tolist(), quota.tolist(), strict=True))


_LOST = 1e9
"""The error of what cannot be scored."""


def _finite(error: float) -> float:
    return error if np.isfinite(error) else _LOST


def _seen_errors(fitness: Floats) -> Floats:
    """Objectives for :class:`Stopping`: every candidate meets the budget, so that only the error is left."""
    return np.where(fitness < _LOST, fitness, np.nan)[:, None]
