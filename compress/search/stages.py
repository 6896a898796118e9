"""Cutting a network into stages: runs of groups that are searched together, and the share of the work each one re-runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from compress.core import ChannelGroup, GroupId, LayerName, Role, Topology
from compress.search.base import Stage


def prunable(
    topology: Topology, ignore: Sequence[str], realise: str = "cut"
) -> tuple[tuple[GroupId, ...], dict[LayerName, str]]:
    """The groups that may be cut, and why the others may not.

    Args:
        topology: the traced network.
        ignore: fnmatch patterns on module names; a group is left alone if any layer that makes its channels matches.
        realise: of the job: ``csgd`` leaves groups alone whose channels cannot become one.
    """
    chosen, left = [], dict(topology.frozen)
    for group in topology.groups:
        names = [*(x.name for x in topology.writers(group.id)), *_followers(topology, group)]
        hit = next((p for p in ignore for n in names if fnmatchcase(n, p)), None)
        if hit is not None:
            left[LayerName(group.id)] = f"ignored by {hit!r}"
        elif not group.even:
            left[LayerName(group.id)] = "its code chunks it, and a layer reads only some channels of a piece"
        elif realise == "csgd" and not topology.foldable(group.id):
            left[LayerName(group.id)] = "a layer or group norm takes moments over its channels: they cannot become one (C-SGD)"
        else:
            chosen.append(group.id)
    return tuple(chosen), left


def _followers(topology: Topology, group: ChannelGroup) -> list[str]:
    keys = {m.key for m in group.members if m.role is Role.WRITES}
    return [x.name for x in topology.layers if x.depthwise and x.weight in keys]


def is_stream(topology: Topology, group: GroupId) -> bool:
    """Whether several layers write the group: a residual stream, which can span the network."""
    return len(topology.writers(group)) > 1


def make_stages(topology: Topology, groups: Sequence[GroupId], most: int = 6, streams: bool = True) -> tuple[Stage, ...]:
    """Internal groups in forward order, cut where the resolution changes; streams form one closing stage.

    Resolution borders are block borders: a VGG's poolings, a ResNet's residual stages, a DenseNet's transitions. Runs are
    joined, smallest first, until there are at most ``most``.

    Args:
        topology: the traced network.
        groups: what may be cut.
        most: stages of internal groups at the most.
        streams: whether the coupled streams are searched too.
    """
    inner = [g for g in groups if not is_stream(topology, g)]
    closing = [g for g in groups if is_stream(topology, g)] if streams else []
    runs: list[list[GroupId]] = []
    sites: list[int] = []
    for group in inner:
        here = topology.tensors[topology.writers(group)[0].weight].sites
        if runs and sites[-1] == here:
            runs[-1].append(group)
        else:
            runs.append([group])
            sites.append(here)
    while len(runs) > most:
        small = min(range(len(runs) - 1), key=lambda i: len(runs[i]) + len(runs[i + 1]))
        runs[small : small + 2] = [runs[small] + runs[small + 1]]
    macs = _layer_macs(topology)
    stages = [Stage(f"stage {i + 1}: {r[0]}", tuple(r), *_fractions(topology, r, macs)) for i, r in enumerate(runs)]
    if closing:
        stages.append(Stage("residual streams", tuple(closing), 1.0))
    return tuple(stages)


def _layer_macs(topology: Topology) -> Mapping[LayerName, int]:
    return {x.name: topology.tensors[x.weight].sites * math.prod(topology.tensors[x.weight].shape) for x in topology.layers}


def _fractions(topology: Topology, run: Sequence[GroupId], macs: Mapping[LayerName, int]) -> tuple[float, float]:
    """Shares of the network's MACs from the run's first writer to its last reader, and to the network's end."""
    order = [x.name for x in topology.layers]
    touched = [order.index(x.name) for g in run for x in (*topology.writers(g), *topology.readers(g))]
    parts = (order[min(touched) : max(touched) + 1], order[min(touched) :])
    inside, tail = (min(1.0, max(sum(macs[n] for n in p) / max(sum(macs.values()), 1), 1e-3)) for p in parts)
    return inside, tail
