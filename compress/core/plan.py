"""A pruning decision as plain data, and the one table of positions that gives it a meaning.

A plan is in the coordinates of the network that was traced. ``count``, ``simulate`` and ``cut`` all read
:func:`kept_positions`, so they cannot disagree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.topology import (
    ChannelGroup,
    GroupId,
    Layer,
    LayerName,
    Member,
    Role,
    Slot,
    TensorInfo,
    Topology,
    WidthAttribute,
)
from compress.errors import PlanError

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Cut:
    """What happens to one group.

    Attributes:
        keep: channels that stay, non-empty; ascending unless a reordering pays.
        fold: removed channel -> the kept one that inherits its readers' weights (same orbit only).
    """

    keep: tuple[int, ...]
    fold: Mapping[int, int] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", tuple(int(c) for c in self.keep))
        object.__setattr__(self, "fold", MappingProxyType({int(a): int(b) for a, b in sorted(self.fold.items())}))

    def __hash__(self) -> int:
        return hash((self.keep, tuple(self.fold.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Cut, (self.keep, dict(self.fold)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Which channels stay in each group, and which inputs a layer still reads.

    Attributes:
        cuts: group -> cut; a group that is not named stays whole.
        inputs: layer -> indices of its (original) input dimension that it still reads; a layer that is not named reads
            everything that is left.
    """

    cuts: Mapping[GroupId, Cut] = field(default_factory=lambda: _NOTHING)
    inputs: Mapping[LayerName, tuple[int, ...]] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cuts", MappingProxyType(dict(sorted(self.cuts.items()))))
        inputs = {k: tuple(int(i) for i in v) for k, v in sorted(self.inputs.items())}
        object.__setattr__(self, "inputs", MappingProxyType(inputs))

    def __hash__(self) -> int:
        return hash((tuple(self.cuts.items()), tuple(self.inputs.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Plan, (dict(self.cuts), dict(self.inputs)))

    def __bool__(self) -> bool:
        return bool(self.cuts or self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON: sorted names, lists of integers."""
        cuts: dict[str, Any] = {}
        for group, cut in self.cuts.items():
            cuts[group] = {"keep": list(cut.keep)}
            if cut.fold:
                cuts[group]["fold"] = [[a, b] for a, b in cut.fold.items()]
        return {"cuts": cuts, "inputs": {k: list(v) for k, v in self.inputs.items()}}

    @staticmethod
    def from_json(data: Any) -> Plan:
        """Reads what :meth:`to_json` wrote.

        Raises:
            PlanError: the data is no plan.
        """
        try:
            cuts = {
                GroupId(str(g)): Cut(tuple(_index(i) for i in c["keep"]), {_index(a): _index(b) for a, b in c.get("fold", [])})
                for g, c in data["cuts"].items()
            }
            inputs = {LayerName(str(k)): tuple(_index(i) for i in v) for k, v in data.get("inputs", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"not a pruning plan: {error!r}", hint="use a plan.json that compress wrote") from error
        return Plan(cuts, inputs)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, shortened."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no channel index")
    return value


def keep_all(group: ChannelGroup) -> tuple[int, ...]:
    """Every channel of a group, in order."""
    return tuple(range(group.size))


def check(topology: Topology, plan: Plan) -> None:
    """Refuses a plan that does not fit the network.

    Raises:
        PlanError: an unknown name, an index out of range or listed twice, nothing kept, a fold or a reordering across
            orbits, or a tensor that would lose everything.
    """
    for group_id, cut in plan.cuts.items():
        if group_id not in topology.by_id:
            raise PlanError(
                f"the plan cuts group {group_id!r}, which this network does not have",
                hint="the plan was made for another network; list the groups with `compress inspect`",
            )
        _check_cut(topology.by_id[group_id], cut)
    for layer, reads in plan.inputs.items():
        found = topology.by_layer.get(layer)
        if found is None:
            raise PlanError(f"the plan selects inputs of {layer!r}, which is no convolution or linear layer here")
        if not selectable(topology, found):
            raise PlanError(
                f"{layer}: a grouped convolution, a bare parameter, a tied or a standardised weight cannot select inputs"
            )
        width = topology.tensors[found.weight].shape[found.read_dim]
        if not reads or len(set(reads)) != len(reads) or min(reads) < 0 or max(reads) >= width or sorted(reads) != list(reads):
            raise PlanError(f"{layer}: selected inputs must be ascending, unique and below {width}, and at least one")
    for (key, dim), kept in kept_positions(topology, plan).items():
        if len(kept) == 0:
            raise PlanError(
                f"{key}: dimension {dim} would lose all {topology.tensors[key].shape[dim]} entries",
                hint="keep at least one channel of it",
            )


def selectable(topology: Topology, layer: Layer) -> bool:
    """Whether a layer may read selected inputs: a module of its own, not grouped, its weight used as it is."""
    tied = any(t.same_as == layer.weight for t in topology.tensors.values())
    return layer.cardinality == 1 and layer.name != layer.weight and not tied and not layer.standardised


def _check_cut(group: ChannelGroup, cut: Cut) -> None:
    keep = cut.keep
    if not keep:
        raise PlanError(f"group {group.id}: no channel is kept, at least 1 of {group.size} must be")
    if min(keep) < 0 or max(keep) >= group.size or len(set(keep)) != len(keep):
        raise PlanError(f"group {group.id}: kept channels must be distinct and in [0, {group.size})")
    kept = set(keep)
    for pieces in group.coupled_counts:
        left = [sum(c in kept for c in piece) for piece in pieces]
        if len(set(left)) > 1:
            raise PlanError(
                f"group {group.id}: {' and '.join(map(str, left))} channels are kept of the {len(pieces)} pieces of a chunk",
                hint="keep equally many of each",
            )
    ascending = sorted(keep)
    if not cut.fold and list(keep) == ascending:
        return
    places = group.places()
    moved = [places[c] for c in keep] != [places[c] for c in ascending]
    if moved or any(_counts(m, keep) != _counts(m, ascending) for m in group.members):
        raise PlanError(f"group {group.id}: channels can only change places with channels that take as many")
    orbit_of = {c: i for i, orbit in enumerate(group.orbits()) for c in orbit}
    for removed, heir in cut.fold.items():
        if not 0 <= removed < group.size or removed in kept or heir not in kept:
            raise PlanError(f"group {group.id}: fold {removed} -> {heir} must hand a removed channel to a kept one")
        if orbit_of[removed] != orbit_of[heir]:
            raise PlanError(f"group {group.id}: channels {removed} and {heir} belong to different layers, no fold possible")


def _counts(member: Member, channels: Sequence[int]) -> list[int]:
    return [len(member.positions[c]) for c in channels if member.positions[c]]


def _ordered(member: Member, keep: Sequence[int]) -> dict[int, int]:
    """Position that stays in ascending order -> position that stands there after the reordering.

    Channels that a tensor lacks (a zero-padded shortcut adds them later) take no place in it.
    """
    slow, fast = ([p for c in order for p in member.positions[c]] for order in (sorted(keep), keep))
    return dict(zip(slow, fast, strict=True))


def kept_positions(topology: Topology, plan: Plan) -> dict[Slot, NDArray[np.int64]]:
    """The table of positions: touched dimension -> original indices that stay, in their new order.

    Only dimensions that change are listed. Input selections (``plan.inputs``) narrow the reading dimension further.
    """
    table: dict[Slot, NDArray[np.int64]] = {}
    known: dict[Slot, NDArray[np.int64] | None] = {}
    for slot in {(m.key, m.dim) for g in plan.cuts for m in topology.by_id[g].members}:
        first = topology.alike[slot]
        if first not in known:
            known[first] = _kept(topology, plan, first)
        found = known[first]
        if found is not None:
            table[slot] = found
    for name, reads in plan.inputs.items():
        layer = topology.by_layer[name]
        for slot in ((layer.weight, layer.read_dim), (layer.selection, 0)):
            if slot[0] in topology.tensors:
                whole = table.get(slot, np.arange(topology.tensors[slot[0]].shape[slot[1]]))
                table[slot] = whole[np.isin(whole, reads)]
    return table


def _kept(topology: Topology, plan: Plan, slot: Slot) -> NDArray[np.int64] | None:
    """The indices that stay in one touched dimension, in their new order; None where nothing changes."""
    size = topology.tensors[slot[0]].shape[slot[1]]
    order = np.arange(size)
    stays = np.ones(size, dtype=bool)
    for group_id, member in topology.slots[slot]:
        cut = plan.cuts.get(group_id)
        if cut is None:
            continue
        indices, owners = topology.flat[group_id, slot]
        gone = np.ones(len(member.positions), dtype=bool)
        gone[list(cut.keep)] = False
        stays[indices[gone[owners]]] = False
        if list(cut.keep) != sorted(cut.keep):
            for place, source in _ordered(member, cut.keep).items():
                order[place] = source
    return None if stays.all() and (order == np.arange(size)).all() else order[stays]


def attribute_counts(topology: Topology, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Buffer of a module -> what its attribute counts after the cut, for those that a plan changes."""
    found = {}
    for attribute in topology.attributes:
        if any(part is not None and part[0] in plan.cuts for part in attribute.counts):
            now = []
            for before, part in zip(attribute.values, attribute.counts, strict=True):
                kept = None if part is None or part[0] not in plan.cuts else set(plan.cuts[part[0]].keep)
                now.append(before if part is None or kept is None else sum(c in kept for c in part[1]))
            found[attribute.key] = tuple(now)
    return found


def folds(topology: Topology, plan: Plan) -> dict[Slot, list[tuple[int, int]]]:
    """Reading dimension -> (removed index, index that inherits its weights), for every fold of the plan."""
    table: dict[Slot, list[tuple[int, int]]] = {}
    for group_id, cut in plan.cuts.items():
        if not cut.fold:
            continue
        for member in topology.by_id[group_id].members:
            if member.role is not Role.READS:
                continue
            pairs = table.setdefault((member.key, member.dim), [])
            for removed, heir in cut.fold.items():
                pairs.extend(zip(member.positions[removed], member.positions[heir], strict=True))
    return table


def restrict(topology: Topology, plan: Plan) -> Topology:
    """The topology of the network after the cut: the same groups, channels renumbered in their new order.

    Nothing is traced again. ``cut(cut(m, T, p), restrict(T, p), q)`` equals ``cut(m, T, compose(T, p, q))``.
    """
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
    return Plan(cuts, inputs)


def widths(topology: Topology, plan: Plan) -> dict[LayerName, tuple[int, int]]:
    """Layer -> output channels before and after."""
    after = restrict(topology, plan)
    return {a.name: (_width(topology, a), _width(after, b)) for a, b in zip(topology.layers, after.layers, strict=True)}


def _width(topology: Topology, layer: Layer) -> int:
    made = topology.tensors[layer.weight].shape[layer.write_dim]
    return made * layer.cardinality if layer.kind == "conv_transpose" else made
