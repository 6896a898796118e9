"""The two-level problem of Bi-CNN-Pruning on coupled groups: which channels stay, and which of them each layer still reads.

Upper variable ``u``: keep-bits of all groups, one vector. Lower variable ``v``: per consumer, which of its kept inputs it
reads. A group with one consumer has no lower variable of its own: not reading a channel and removing it are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from compress.core import Bits, BranchId, Floats, GroupId, Indices, LayerName, Plan, canonical, selectable
from compress.search.depth import in_order
from compress.search.genes import Genes
from compress.search.reader_loss import Kind, ReaderLoss, additive
from compress.search.space import Space, Stage
from compress.search.widths import allowed

Reads = tuple[Bits, ...]
"""Per consumer: what it reads, (entries,)."""


@dataclass(frozen=True)
class Consumer:
    """One layer that reads searched channels.

    Attributes:
        reader_loss: what it loses.
        index: entry -> bit of ``u``.
        free: entries that it may stop reading although another layer goes on.
        taken: input indices of every entry.
        most: the largest share of its kept entries that it may read, unless it reads them all.
    """

    reader_loss: ReaderLoss
    index: Indices
    free: Bits
    taken: tuple[tuple[int, ...], ...]
    most: float = 1.0

    @cached_property
    def harm(self) -> Floats:
        """What each entry's removal alone loses."""
        return np.asarray(self.reader_loss.compensated.diagonal())

    def aligned(self, kept: Bits, read: Bits, round_to: int) -> Bits:
        """Reads so many inputs that their number is an allowed width: the most harmful omissions come back.

        All of them do where the selection would not pay.
        """
        have, most = int(read.sum()), int(kept.sum())
        want = min((w for w in allowed(len(kept), round_to) if w >= max(have, 1)), default=most)
        if most <= want or not self.pays(want, most):
            return kept.copy()
        if want == have:
            return read
        result = read.copy()
        back = np.flatnonzero(kept & ~read)
        result[back[np.argsort(-self.harm[back], kind="stable")[: want - have]]] = True
        return result

    def pays(self, read: int, kept: int) -> bool:
        """Whether reading so many of the kept entries is worth a selection."""
        return read >= kept or read <= self.most * kept


@dataclass(frozen=True, eq=False)
class BilevelSolution:
    """A point of the two-level search.

    Attributes:
        u: keep-bits.
        reads: per consumer.
        share: of the target's cost that is kept.
        error: sum over the consumers of what each adds to the outputs' relative error.
    """

    u: Bits
    reads: Reads
    share: float
    error: float

    @property
    def key(self) -> bytes:
        """Names the network that it stands for."""
        return self.u.tobytes() + b"".join(r.tobytes() for r in self.reads)


class Bilevel:
    """The problem, and how often it was asked.

    Args:
        space: what may be cut.
        kind: which error.
        criterion: which channels come and go when widths are adjusted.
    """

    def __init__(self, space: Space, kind: Kind, criterion: str) -> None:
        self.space, self.kind = replace(space, ranking=criterion), kind
        self.genes = Genes(self.space, Stage(name="all", groups=space.groups, fraction=1.0, branches=space.branches))
        self.consumers = self._consumers()
        self.two_level = tuple(i for i, c in enumerate(self.consumers) if c.free.any())
        self.sizes = _Sizes(self)
        self.errors: dict[tuple[int, bytes], float] = {}
        self.upper_evaluations = self.lower_evaluations = 0
        self.asked: set[bytes] = set()  # every u that was evaluated

    def _consumers(self) -> tuple[Consumer, ...]:
        topology = self.space.topology
        places = {g.id: where.start for g, where in zip(self.genes.groups, self.genes.slices, strict=True)}
        reader_losses = dict(self.space.statistics.reader_losses)
        covered = {g for r in reader_losses.values() for g, _ in r.sources}
        for group in self.genes.groups:
            if group.id not in covered:  # no moments: its channels' importances stand for what they lose
                importance = self.space.statistics.importance[self.space.ranking][group.id]
                name = LayerName(f"{group.id} (by importance)")
                reader_losses[name] = additive(name, group.id, importance)
        many = {g for g in places if len(topology.readers(g)) > 1}
        consumers = []
        for name, reader_loss in reader_losses.items():
            layer = topology.by_layer.get(name)
            most = 1.0 if self.space.selecting is None else self.space.selecting.get(name, 0.0)
            may = layer is not None and selectable(topology, layer) and most > 0
            index = np.array([places[g] + c for g, c in reader_loss.sources])
            free = np.array([may and g in many for g, _ in reader_loss.sources])
            taken: dict[tuple[GroupId, int], tuple[int, ...]] = {}
            if layer is not None:
                for source, member in topology.slots[layer.weight, layer.read_dim]:
                    taken |= {(source, c): p for c, p in enumerate(member.positions)}
            consumers.append(
                Consumer(
                    reader_loss=reader_loss,
                    index=index,
                    free=free,
                    taken=tuple(taken.get(s, ()) for s in reader_loss.sources),
                    most=most,
                )
            )
        return tuple(consumers)

    # ---- the two levels' functions -----------------------------------------------------------------------------------

    def error(self, reads: Reads) -> float:
        """err(u, v): sum over the consumers; a consumer's inputs are asked for once."""
        self.upper_evaluations += 1
        total = 0.0
        for number, (consumer, read) in enumerate(zip(self.consumers, reads, strict=True)):
            key = (number, read.tobytes())
            if key not in self.errors:
                self.errors[key] = consumer.reader_loss.error(~read, self.kind)
            total += self.errors[key]
        return total

    def share(self, u: Bits, reads: Reads) -> float:
        """The share of the target's cost that is kept."""
        if self.space.target.kind == "latency" or not u[self.genes.channels :].all():
            return self.space.share(self.plan(u, reads))
        return self.sizes.share(u, reads)

    def solution(self, u: Bits, reads: Reads) -> BilevelSolution:
        """Both objectives, without the channels that nobody reads."""
        u, reads = self.tidy(u, reads)
        self.asked.add(u.tobytes())
        return BilevelSolution(u, reads, self.share(u, reads), self.error(reads) + self.left_out(u))

    def left_out(self, u: Bits) -> float:
        """What the branches that ``u`` leaves out add to the outputs' error, as if each were the only one."""
        gone = zip(self.genes.branches, u[self.genes.channels :], strict=True)
        return float(sum(self.space.statistics.branch_errors[b] for b, stays in gone if not stays))

    # ---- from one level to the other ---------------------------------------------------------------------------------

    def everything(self, u: Bits) -> Reads:
        """v that reads all that u keeps."""
        return tuple(u[c.index] for c in self.consumers)

    def without(self, u: Bits, skipped: Reads) -> Reads:
        """v that reads what u keeps except for these entries, aligned."""
        return tuple(
            c.aligned(u[c.index], u[c.index] & ~s, self.space.round_to) if s.any() else u[c.index]
            for c, s in zip(self.consumers, skipped, strict=True)
        )

    def skipped(self, u: Bits, reads: Reads) -> Reads:
        """What u keeps and v does not read."""
        return tuple(u[c.index] & ~r for c, r in zip(self.consumers, reads, strict=True))

    def tidy(self, u: Bits, reads: Reads) -> tuple[Bits, Reads]:
        """Channels that nobody reads go, as far as the widths allow: true filter pruning."""
        read = np.zeros(len(u), dtype=bool)
        for consumer, bits in zip(self.consumers, reads, strict=True):
            read[consumer.index[bits]] = True
        result = u.copy()
        for group, where in zip(self.genes.groups, self.genes.slices, strict=True):
            if not all(x.name in self._named for x in self.space.topology.readers(group.id)):
                continue  # somebody reads it whose loss is not known
            for orders in self.genes.pieces(group):
                places = [where.start + order for order in orders]
                alive = [int((u & read)[here].sum()) for here in places]
                if max(alive) < int(u[places[0]].sum()):
                    want = next(w for w in allowed(len(orders[0]), self.space.round_to) if w >= max(*alive, 1))
                    for here, left in zip(places, alive, strict=True):
                        dead = here[u[here] & ~read[here]]
                        result[dead[max(0, want - left) :]] = False
        return result, tuple(self._worth(c, result[c.index], r) for c, r in zip(self.consumers, reads, strict=True))

    @staticmethod
    def _worth(consumer: Consumer, kept: Bits, read: Bits) -> Bits:
        """What is still read of what is kept; all of it where too much of a selection's gain went with the channels."""
        left = read & kept
        return left if not consumer.free.any() or consumer.pays(int(left.sum()), int(kept.sum())) else kept.copy()

    @cached_property
    def _row(self) -> tuple[BranchId, ...]:
        """The branches that may go, the one that costs least per share saved first."""
        return in_order(self.space) if self.genes.branches else ()

    @cached_property
    def _named(self) -> set[LayerName]:
        return {c.reader_loss.layer for c in self.consumers}

    def onto(self, u: Bits, skipped: Reads, goal: float, rng: np.random.Generator) -> tuple[Bits, Reads]:
        """Repair: widths are scaled until the cost is within the goal, then filled up in random order.

        Kept channels stay kept and come first; among each other the most important ones do. Where the least widths are not
        within the goal, branches go as well, those that cost least per share saved first.
        """
        orders = []  # per width: the channels of each orbit that has it
        for group, where in zip(self.genes.groups, self.genes.slices, strict=True):
            for pieces in self.genes.pieces(group):
                places = [where.start + order for order in pieces]
                orders.append([np.concatenate([here[u[here]], here[~u[here]]]) for here in places])
        have = np.array([max(1, int(u[o[0]].sum())) for o in orders])
        full = np.array([len(o[0]) for o in orders])
        steps = [np.array(allowed(len(o[0]), self.space.round_to)) for o in orders]

        stays = u[self.genes.channels :].copy()

        def at(widths: Sequence[int]) -> tuple[Bits, Reads]:
            bits = np.zeros(len(u), dtype=bool)
            bits[self.genes.channels :] = stays
            for pieces, width in zip(orders, widths, strict=True):
                for order in pieces:
                    bits[order[:width]] = True
            return bits, self.without(bits, skipped)

        def scaled(ratio: float) -> list[int]:
            wanted = np.minimum(have * ratio, full)
            return [int(s[len(s) - 1 - np.argmin(np.abs(s - w)[::-1])]) for s, w in zip(steps, wanted, strict=True)]

        for branch in self._row:
            if self.share(*at([int(s[0]) for s in steps])) <= goal:
                break
            stays[self.genes.branches.index(branch)] = False
        low, high = 0.0, float((full / have).max())
        if self.share(*at(scaled(high))) <= goal:
            low = high
        for _ in range(14 if low < high else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if self.share(*at(scaled(middle))) <= goal else (low, middle)
        widths = scaled(low)
        for i in rng.permutation(len(orders)):
            wider = steps[i][steps[i] > widths[i]]
            if len(wider):
                trial = [*widths[:i], int(wider[0]), *widths[i + 1 :]]
                if self.share(*at(trial)) <= goal:
                    widths = trial
        return at(widths)

    # ---- what it means for the network -------------------------------------------------------------------------------

    def plan(self, u: Bits, reads: Reads) -> Plan:
        """Cuts for ``u``; an input selection wherever a consumer reads less than what is kept."""
        chosen = self.genes.plan(u, Plan())
        inputs = {}
        for consumer, read in zip(self.consumers, reads, strict=True):
            if bool((u[consumer.index] & ~read).any()):
                layer = self.space.topology.by_layer[consumer.reader_loss.layer]
                width = self.space.topology.tensors[layer.weight].shape[layer.read_dim]
                unread = {p for places, r in zip(consumer.taken, read, strict=True) if not r for p in places}
                inputs[layer.name] = tuple(p for p in range(width) if p not in unread)
        return canonical(self.space.topology, Plan(chosen.cuts, inputs, chosen.branches))

    def folded(self) -> tuple[GroupId, ...]:
        """Groups whose lower variable is the upper one."""
        several = {g for c in self.consumers for (g, _), free in zip(c.reader_loss.sources, c.free, strict=True) if free}
        return tuple(g for g in self.space.groups if g not in several)


class _Sizes:
    """The counted cost as a function of bits: the same integers as ``cost.count``, without a plan."""

    def __init__(self, problem: Bilevel) -> None:
        from scipy.sparse import csr_matrix

        topology, genes = problem.space.topology, problem.genes
        self.kind = problem.space.target.kind
        rows: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for group, where in zip(genes.groups, genes.slices, strict=True):
            for key, dim, taken in topology.occupancy[group.id]:
                rows.setdefault((key, dim), []).extend((where.start + c, int(n)) for c, n in enumerate(taken) if n)
        self.slots = {slot: i for i, slot in enumerate(sorted(rows))}
        entries = [(i, column, n) for slot, i in self.slots.items() for column, n in rows[slot]]
        data = np.array(entries, dtype=np.int64).reshape(-1, 3)
        self.taken = csr_matrix((data[:, 2], (data[:, 0], data[:, 1])), shape=(len(self.slots), genes.length))
        self.full = np.array([topology.tensors[k].shape[d] for k, d in self.slots], dtype=np.int64)
        keys = list(dict.fromkeys(k for k, _ in self.slots))
        self.starts = np.array([next(i for (k, _), i in self.slots.items() if k == key) for key in keys])
        touched: Mapping[str, int] = {
            key: math.prod(int(self.full[i]) for (k, _), i in self.slots.items() if k == key) for key in keys
        }
        infos = [topology.tensors[k] for k in keys]
        self.rest = np.array([math.prod(t.shape) // touched[k] for k, t in zip(keys, infos, strict=True)])
        self.factor = np.array([int(t.parameter) if self.kind == "params" else t.sites for t in infos]) * self.rest
        self.whole = topology.whole[1 if self.kind == "params" else 0]
        self.fixed = self.whole - int((self.factor * np.multiply.reduceat(self.full, self.starts)).sum())
        self.reading = []
        for number, consumer in enumerate(problem.consumers):
            layer = topology.by_layer.get(consumer.reader_loss.layer)
            if layer is not None and number in problem.two_level:
                row = self.slots[layer.weight, layer.read_dim]
                self.reading.append((number, row, np.array([len(t) for t in consumer.taken])))

    def share(self, u: Bits, reads: Reads) -> float:
        """Kept over whole."""
        sizes = self.full - self.taken @ (~u).astype(np.int64)
        for number, row, taken in self.reading:
            sizes[row] = self.full[row] - int(taken[~reads[number]].sum())
        now = int((self.factor * np.multiply.reduceat(sizes, self.starts)).sum())
        return (self.fixed + now) / max(self.whole, 1)
