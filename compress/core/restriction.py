"""What is left of a topology after a plan, and two plans in a row as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.branches import SKIPPED
from compress.core.plan import (
    Cut,
    Plan,
    attribute_counts,
    canonical,
    gone_keys,
    gone_modules,
    keep_all,
    kept_positions,
    left_attributes,
    outlives,
)
from compress.core.topology import (
    ChannelGroup,
    Layer,
    LayerName,
    Member,
    Role,
    TensorInfo,
    Topology,
    WidthAttribute,
)


def restrict(topology: Topology, plan: Plan) -> Topology:
    """The topology of the network after the cut: the same groups, channels renumbered in their new order.

    Groups, layers and branches inside a branch that goes are gone with it. Nothing is traced again.
    ``cut(cut(m, T, p), restrict(T, p), q)`` equals ``cut(m, T, compose(T, p, q))``.
    """
    topology, plan = _without_branches(topology, canonical(topology, plan))
    table, arriving = kept_positions(topology, plan), kept_positions(topology, Plan(plan.cuts))
    selecting = {(x.weight, x.read_dim): x.selection for x in topology.layers if x.name in plan.inputs}
    selecting = {slot: key for slot, key in selecting.items() if key not in topology.tensors}
    groups = []
    for group in topology.groups:
        keep = plan.cuts[group.id].keep if group.id in plan.cuts else keep_all(group)
        members = []
        for member in group.members:
            slot = (member.key, member.dim)
            members.append(replace(member, positions=_renumbered(member, keep, table.get(slot))))
            if slot in selecting:  # the new table of selected inputs: rows are what is read, columns what arrives
                rows, columns = members[-1].positions, _renumbered(member, keep, arriving.get(slot))
                members.append(Member(selecting[slot], 0, Role.WRITES, rows))
                members.append(Member(selecting[slot], 1, Role.WRITES, columns))
        new = {c: i for i, c in enumerate(keep)}
        pieces = tuple(tuple(tuple(sorted(new[c] for c in p if c in new)) for p in chunk) for chunk in group.coupled_counts)
        groups.append(
            ChannelGroup(
                id=group.id,
                size=len(keep),
                members=tuple(members),
                kinds=_kinds(topology, plan, group, keep),
                coupled_counts=pieces,
            )
        )
    tensors: dict[str, TensorInfo] = {}
    for key, info in topology.tensors.items():
        shape = tuple(len(table[key, d]) if (key, d) in table else n for d, n in enumerate(info.shape))
        tensors[key] = replace(info, shape=tensors[info.same_as].shape if info.same_as else shape)
    for (key, dim), selection in selecting.items():
        width = topology.tensors[key].shape[dim]
        tensors[selection] = TensorInfo((len(table[key, dim]), len(arriving.get((key, dim), range(width)))), False)
    for key, values in attribute_counts(topology, plan).items():
        tensors[key] = TensorInfo((len(values),), False)
    layers = []
    for layer in topology.layers:
        before, after = topology.tensors[layer.weight].shape, tensors[layer.weight].shape
        ratio = (after[layer.write_dim], before[layer.write_dim]) if layer.depthwise else (1, 1)
        if layer.depthwise and layer.kind == "conv_transpose":
            ratio = (after[0], before[0])
        layers.append(replace(layer, cardinality=layer.cardinality * ratio[0] // ratio[1]))
    attributes = tuple(_counting(a, attribute_counts(topology, plan), plan) for a in topology.attributes)
    return replace(topology, groups=tuple(groups), tensors=tensors, layers=tuple(layers), attributes=attributes)


def _without_branches(topology: Topology, plan: Plan) -> tuple[Topology, Plan]:
    """The topology once the plan's branches are gone, and what is left of a canonical plan to be done there."""
    if not plan.branches:
        return topology, plan
    keys = gone_keys(topology, plan.branches)
    tensors = {key: info for key, info in topology.tensors.items() if key not in keys}
    for module in gone_modules(topology, plan):
        tensors[f"{module.name}.{SKIPPED}"] = TensorInfo((len(module.codes),), False)
    groups = []
    for group in topology.groups:
        if outlives(group, keys):
            groups.append(replace(group, members=tuple(m for m in group.members if m.key not in keys)))
    names = {name for name, own in topology.branch_keys.items() if own <= keys}
    return replace(
        topology,
        groups=tuple(groups),
        tensors=tensors,
        layers=tuple(x for x in topology.layers if x.weight not in keys),
        moments=tuple(g for g in topology.moments if outlives(topology.by_id[g], keys)),
        attributes=left_attributes(topology, plan),
        branches=tuple(b for b in topology.branches if b.name not in names),
    ), Plan(plan.cuts, plan.inputs)


def _counting(attribute: WidthAttribute, now: Mapping[str, tuple[int, ...]], plan: Plan) -> WidthAttribute:
    """The attribute in the numbers of the channels that are left."""
    counts = []
    for part in attribute.counts:
        if part is None or part[0] not in plan.cuts:
            counts.append(part)
        else:
            new = {c: i for i, c in enumerate(plan.cuts[part[0]].keep)}
            counts.append((part[0], tuple(sorted(new[c] for c in part[1] if c in new))))
    return replace(attribute, values=now.get(attribute.key, attribute.values), counts=tuple(counts))


def _kinds(topology: Topology, plan: Plan, group: ChannelGroup, keep: Sequence[int]) -> tuple[int, ...]:
    """Channels of which a layer reads other positions now (some pixels after a flatten) change places no more."""
    reads = {(x.weight, x.read_dim): set(plan.inputs[x.name]) for x in topology.layers if x.name in plan.inputs}
    members = [(m, reads[m.key, m.dim]) for m in group.members if (m.key, m.dim) in reads]
    if not members:
        return tuple(group.kinds[c] for c in keep) if group.kinds else ()
    seen: dict[Any, int] = {}
    patterns = [(group.kinds[c : c + 1], [[i in read for i in m.positions[c]] for m, read in members]) for c in keep]
    return tuple(seen.setdefault(str(pattern), len(seen)) for pattern in patterns)


def _renumbered(member: Member, keep: Sequence[int], kept: NDArray[np.int64] | None) -> tuple[tuple[int, ...], ...]:
    """The positions of the kept channels in a dimension of which only these indices are left."""
    if kept is None:
        return tuple(member.positions[c] for c in keep)
    new = {int(old): i for i, old in enumerate(kept)}
    return tuple(tuple(sorted(new[i] for i in member.positions[c] if i in new)) for c in keep)


def compose(topology: Topology, first: Plan, second: Plan) -> Plan:
    """Both plans as one, in the first one's coordinates.

    Args:
        topology: the network that ``first`` speaks of.
        first: what was done.
        second: what is done then, in the coordinates of ``restrict(topology, first)``.
    """
    cuts = dict(first.cuts)
    for group_id, after in second.cuts.items():
        before = cuts.get(group_id, Cut(keep_all(topology.by_id[group_id])))
        keep = tuple(before.keep[c] for c in after.keep)
        fold = {before.keep[a]: before.keep[b] for a, b in after.fold.items()}
        kept = set(keep)
        for removed, heir in before.fold.items():
            heir = fold.get(heir, heir)
            if heir in kept:
                fold[removed] = heir
        cuts[group_id] = Cut(keep, fold)
    inputs = dict(first.inputs)
    if second.inputs:
        table = kept_positions(topology, first)
        for name, reads in second.inputs.items():
            layer = topology.by_layer[name]
            kept_here = table.get((layer.weight, layer.read_dim))
            inputs[name] = reads if kept_here is None else tuple(sorted(int(kept_here[i]) for i in reads))
    return canonical(topology, Plan(cuts, inputs, (*first.branches, *second.branches)))


def widths(topology: Topology, plan: Plan) -> dict[LayerName, tuple[int, int]]:
    """Layer -> output channels before and after; 0 after where it goes with its branch."""
    after = restrict(topology, plan)
    left = after.by_layer
    return {x.name: (_width(topology, x), _width(after, left[x.name]) if x.name in left else 0) for x in topology.layers}


def _width(topology: Topology, layer: Layer) -> int:
    made = topology.tensors[layer.weight].shape[layer.write_dim]
    return made * layer.cardinality if layer.kind == "conv_transpose" else made
