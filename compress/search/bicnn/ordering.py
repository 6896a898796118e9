"""Orders kept channels so that what a layer selects stands side by side: a Slice is cheaper than a Gather.

Channels change places inside their orbit only. Two readers of a group can always be served: first what only one reads, then
what both read, then what only the other reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from compress.core import ChannelGroup, Cut, LayerName, Plan, Topology, keep_all, kept_positions

_PAIRS = 12


def contiguous(topology: Topology, plan: Plan) -> Plan:
    """The same plan with as many contiguous selections as can be found; untouched where an order gains nothing."""
    best, score = plan, len(slices(topology, plan))
    for group in topology.groups:
        if score == len(plan.inputs):
            break
        for order in _orders(topology, group, plan):
            fold = best.cuts[group.id].fold if group.id in best.cuts else {}
            trial = Plan({**best.cuts, group.id: Cut(order, fold)}, plan.inputs, plan.branches)
            found = len(slices(topology, trial))
            if found > score:
                best, score = trial, found
    return best


def slices(topology: Topology, plan: Plan) -> tuple[LayerName, ...]:
    """The layers whose selected inputs stand side by side in what arrives."""
    arriving = kept_positions(topology, Plan(plan.cuts))
    found = []
    for name, reads in plan.inputs.items():
        layer = topology.by_layer[name]
        slot = (layer.weight, layer.read_dim)
        order = arriving.get(slot, np.arange(topology.tensors[layer.weight].shape[layer.read_dim]))
        places = np.flatnonzero(np.isin(order, reads))
        if len(places) and int(places[-1] - places[0]) == len(places) - 1:
            found.append(name)
    return tuple(found)


def _orders(topology: Topology, group: ChannelGroup, plan: Plan) -> Iterator[tuple[int, ...]]:
    """Kept channels of a group, sorted for one or two of its selecting readers."""
    read = {}
    for layer in topology.readers(group.id):
        if layer.name in plan.inputs:
            member = next(m for m in group.members if (m.key, m.dim) == (layer.weight, layer.read_dim))
            wanted = set(plan.inputs[layer.name])
            read[layer.name] = [bool(p) and set(p) <= wanted for p in member.positions]
    keep = sorted(plan.cuts[group.id].keep if group.id in plan.cuts else keep_all(group))
    pairs = list(permutations(read, 2))[:_PAIRS] if len(read) > 1 else [(name, name) for name in read]
    for first, second in pairs:
        order: dict[int, int] = {}
        for orbit in group.orbits():
            places = [c for c in keep if c in set(orbit)]
            # only the first, both, only the second, nobody
            ranked = sorted(places, key=lambda c: (not read[first][c], read[second][c] == read[first][c], c))
            order |= zip(places, ranked, strict=True)
        yield tuple(order[place] for place in keep)
