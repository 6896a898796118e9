"""Keep-bits of a run of groups and its branches: how they are laid out, what a legal mask is, and where a search starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.core import Bits, ChannelGroup, Cut, Floats, Indices, Plan, canonical
from compress.search.depth import in_order
from compress.search.space import Space, Stage
from compress.search.widths import allowed, nearest, ranked, shared_widths

_SEED_RATIOS = (0.15, 0.27, 0.39, 0.51, 0.63, 0.74, 0.84, 0.95)


class Genes:
    """How a stage's keep-bits are laid out, its groups' channels one after another, then its branches; what a legal mask is."""

    def __init__(self, space: Space, stage: Stage) -> None:
        self.space = space
        self.groups = [space.topology.by_id[g] for g in stage.groups]
        ends = np.cumsum([g.size for g in self.groups]).tolist()
        self.slices = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.channels = ends[-1]
        self.branches = stage.branches
        self.length = self.channels + len(self.branches)
        self.order = {g.id: ranked(g, space.statistics.importance[space.ranking][g.id]) for g in self.groups}

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
        gone = tuple(b for b, stays in zip(self.branches, bits[self.channels :], strict=True) if not stays)
        return canonical(self.space.topology, Plan(cuts, branches=(*before.branches, *gone)))

    def toggle(self, bits: Bits, rng: np.random.Generator) -> None:
        """One branch goes, or comes back."""
        if self.branches:
            place = self.channels + int(rng.integers(len(self.branches)))
            bits[place] = not bits[place]

    def pieces(self, group: ChannelGroup) -> tuple[tuple[Indices, ...], ...]:
        """Per width that can be chosen: the ranked channels of each orbit that has it."""
        return tuple(tuple(self.order[group.id][i] for i in shared) for shared in shared_widths(group))

    def repair(self, bits: Bits) -> Bits:
        """Every orbit at its nearest allowed width: the least important go first, the most important come back first.

        Orbits that share a width meet at their mean.
        """
        result = bits.copy()
        for group, where in zip(self.groups, self.slices, strict=True):
            part = result[where]
            for orders in self.pieces(group):
                have = sum(int(part[order].sum()) for order in orders) / len(orders)
                want = nearest(have, len(orders[0]), self.space.round_to)
                for order in orders:
                    _to_width(part, order, want)
            result[where] = part
        return result

    def step(self, bits: Bits, rng: np.random.Generator, wider: bool | None = None) -> None:
        """One width becomes an allowed one narrower or wider, by rank."""
        number = int(rng.integers(len(self.groups)))
        choices = self.pieces(self.groups[number])
        direction = rng.random() < 0.5 if wider is None else wider
        self._step(bits[self.slices[number]], choices[int(rng.integers(len(choices)))], direction)

    def _step(self, part: Bits, orders: Sequence[Indices], wider: bool) -> None:
        widths = allowed(len(orders[0]), self.space.round_to)
        have = int(part[orders[0]].sum())
        want = next((w for w in (widths if wider else widths[::-1]) if (w > have if wider else w < have)), have)
        for order in orders:
            _to_width(part, order, want)

    def exchange(self, bits: Bits, budget: float, rng: np.random.Generator) -> Bits:
        """A neighbour within the budget: one width a step up, others down until it fits, and what is left filled again."""
        result = bits.copy()
        if self.branches and rng.random() < 0.5:
            self.toggle(result, rng)
        self.step(result, rng, wider=True)
        for _ in range(4 * len(self.groups)):
            if self._share(result) <= budget:
                break
            self.step(result, rng, wider=False)
        places = [(where, orders) for g, where in zip(self.groups, self.slices, strict=True) for orders in self.pieces(g)]
        for i in rng.permutation(len(places)):
            where, orders = places[i]
            wider = result.copy()
            self._step(wider[where], orders, True)
            if self._share(wider) <= budget:
                result = wider
        return result

    def _share(self, bits: Bits) -> float:
        return self.space.share(self.plan(bits, Plan()))

    def bits(self, plan: Plan) -> Bits:
        """A plan as a mask."""
        result: Bits = self.whole()[0]
        for group, where in zip(self.groups, self.slices, strict=True):
            if group.id in plan.cuts:
                result[where] = np.isin(np.arange(group.size), plan.cuts[group.id].keep)
        result[self.channels :] = [b not in plan.branches for b in self.branches]
        return result

    def start(self, count: int, seeds: Sequence[str], rng: np.random.Generator) -> Bits:
        """All ones, masks cut from the criteria's ranks at eight ratios, and Bernoulli(p) with p ~ U(0.15, 0.95).

        Where branches may go, also everything without some of them, the cheapest per share saved first.
        """
        rows = [self.whole()[0], *self._shallower()]
        for name in seeds:
            if name in self.space.statistics.importance:
                rows += [self._ranked_mask(name, ratio) for ratio in _SEED_RATIOS]
        while len(rows) < count:
            rows.append(rng.random(self.length) < rng.uniform(0.15, 0.95))
        repaired = np.array([self.repair(r) for r in rows[: max(count, 1)]])
        return repaired

    def _shallower(self) -> list[Bits]:
        """Masks of whole widths and ever fewer branches."""
        row = [b for b in in_order(self.space) if b in self.branches] if self.branches else []
        rows = []
        for count in sorted({-(-len(row) * part // 4) for part in (1, 2, 3, 4)} if row else ()):
            bits = self.whole()[0]
            bits[self.channels :] = [b not in row[:count] for b in self.branches]
            rows.append(bits)
        return rows

    def _ranked_mask(self, criterion: str, ratio: float) -> Bits:
        bits = np.zeros(self.length, dtype=bool)
        bits[self.channels :] = True
        for group, where in zip(self.groups, self.slices, strict=True):
            importance: Floats = self.space.statistics.importance[criterion][group.id]
            for order in ranked(group, importance):
                bits[where.start + order[: max(1, round(ratio * len(order)))]] = True
        return bits


def _to_width(part: Bits, order: Indices, want: int) -> None:
    """So many of these channels kept: the least important go first, the most important come back first."""
    have = int(part[order].sum())
    if want < have:
        part[[c for c in order[::-1] if part[c]][: have - want]] = False
    elif want > have:
        part[[c for c in order if not part[c]][: want - have]] = True
