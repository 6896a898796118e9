"""Cutting a network into stages: runs of groups that are searched together, and the share of the work each one re-runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from compress.core import BranchId, ChannelGroup, GroupId, LayerName, Role, Topology
from compress.search.space import Space, Stage


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


def skippable(topology: Topology, ignore: Sequence[str]) -> tuple[tuple[BranchId, ...], dict[BranchId, str]]:
    """The branches that may go, and why the others may not.

    Args:
        topology: the traced network.
        ignore: fnmatch patterns; a branch stays if its own name matches, or that of a layer in it.
    """
    chosen, left = [], dict(topology.kept_branches)
    for branch in topology.branches:
        names = [branch.name, *(x.name for x in topology.layers if branch.holds(x.weight))]
        hit = next((p for p in ignore for n in names if fnmatchcase(n, p)), None)
        if hit is None:
            chosen.append(branch.name)
        else:
            left[branch.name] = f"ignored by {hit!r}"
    return tuple(chosen), left


def _followers(topology: Topology, group: ChannelGroup) -> list[str]:
    keys = {m.key for m in group.members if m.role is Role.WRITES}
    return [x.name for x in topology.layers if x.depthwise and x.weight in keys]


def is_stream(topology: Topology, group: GroupId) -> bool:
    """Whether several layers write the group: a residual stream, which can span the network."""
    return len(topology.writers(group)) > 1


def whole_streams(space: Space) -> Space | None:
    """The space of the plans that cut no residual stream; None where it has none, or nothing else."""
    inner = tuple(s for s in space.stages if not all(is_stream(space.topology, g) for g in s.groups))
    return replace(space, stages=inner) if 0 < len(inner) < len(space.stages) else None


def make_stages(
    topology: Topology,
    groups: Sequence[GroupId],
    most: int = 6,
    streams: bool = True,
    branches: Sequence[BranchId] = (),
) -> tuple[Stage, ...]:
    """Internal groups in forward order, cut where the resolution changes; streams form one closing stage.

    Resolution borders are block borders: a VGG's poolings, a ResNet's residual stages, a DenseNet's transitions. Runs are
    joined, smallest first, until there are at most ``most``.

    Args:
        topology: the traced network.
        groups: what may be cut.
        most: stages of internal groups at the most.
        streams: whether the coupled streams are searched too.
        branches: what may go; each belongs to the first stage with a group inside it.
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
    stages = []
    for number, run in enumerate(runs, start=1):
        inside, tail = _fractions(topology, run, macs)
        stages.append(Stage(name=f"stage {number}: {run[0]}", groups=tuple(run), fraction=inside, tail=tail))
    if closing:
        stages.append(Stage(name="residual streams", groups=tuple(closing), fraction=1.0))
    return tuple(_with_branches(topology, stages, branches))


def _with_branches(topology: Topology, stages: Sequence[Stage], branches: Sequence[BranchId]) -> list[Stage]:
    keys, home = topology.branch_keys, dict[BranchId, int]()
    for name in branches:
        inside = {g.id for g in topology.groups if all(m.key in keys[name] for m in g.members)}
        place = next((i for i, stage in enumerate(stages) if inside & set(stage.groups)), None)
        if place is not None:
            home[name] = place
    return [replace(s, branches=tuple(b for b in branches if home.get(b) == i)) for i, s in enumerate(stages)]


def _layer_macs(topology: Topology) -> Mapping[LayerName, int]:
    return {x.name: topology.tensors[x.weight].sites * math.prod(topology.tensors[x.weight].shape) for x in topology.layers}


def _fractions(topology: Topology, run: Sequence[GroupId], macs: Mapping[LayerName, int]) -> tuple[float, float]:
    """Shares of the network's MACs from the run's first writer to its last reader, and to the network's end."""
    order = [x.name for x in topology.layers]
    touched = [order.index(x.name) for g in run for x in (*topology.writers(g), *topology.readers(g))]
    parts = (order[min(touched) : max(touched) + 1], order[min(touched) :])
    inside, tail = (min(1.0, max(sum(macs[n] for n in p) / max(sum(macs.values()), 1), 1e-3)) for p in parts)
    return inside, tail
