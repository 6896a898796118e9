"""A pruning decision as plain data, and the one table of positions that gives it a meaning.

A plan is in the coordinates of the network that was traced. ``count``, ``simulate`` and ``cut`` all read
:func:`kept_positions`, so they cannot disagree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.branches import BranchId, SkippedModule, outermost, without_nested
from compress.core.notebooks import html_table
from compress.core.text import plural
from compress.core.topology import (
    ChannelGroup,
    GroupId,
    Layer,
    LayerName,
    Member,
    Role,
    Slot,
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


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """Which channels stay in each group, which inputs a layer still reads, and which branches go.

    Attributes:
        cuts: group -> cut; a group that is not named stays whole.
        inputs: layer -> indices of its (original) input dimension that it still reads; a layer that is not named reads
            everything that is left.
        branches: what goes altogether: the shortcut beside it is all that is left.
    """

    cuts: Mapping[GroupId, Cut] = field(default_factory=lambda: _NOTHING)
    inputs: Mapping[LayerName, tuple[int, ...]] = field(default_factory=lambda: _NOTHING)
    branches: tuple[BranchId, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cuts", MappingProxyType(dict(sorted(self.cuts.items()))))
        inputs = {k: tuple(int(i) for i in v) for k, v in sorted(self.inputs.items())}
        object.__setattr__(self, "inputs", MappingProxyType(inputs))
        object.__setattr__(self, "branches", tuple(sorted(set(self.branches))))

    def __hash__(self) -> int:
        return hash((tuple(self.cuts.items()), tuple(self.inputs.items()), self.branches))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Plan, (dict(self.cuts), dict(self.inputs), self.branches))

    def __repr__(self) -> str:
        left = plural(len(self.branches), "branch")
        cut, read = plural(len(self.cuts), "group"), plural(len(self.inputs), "layer")
        return f"<Plan: {cut} cut, {left} left out, {read} reading fewer inputs, digest {self.digest}>"

    def _repr_html_(self) -> str:
        rows: list[tuple[object, ...]] = [(group, len(cut.keep), len(cut.fold) or "") for group, cut in self.cuts.items()]
        rows += [(branch, 0, "left out") for branch in self.branches]
        rows += [(f"{layer}, inputs", len(kept), "") for layer, kept in self.inputs.items()]
        return html_table(repr(self)[1:-1], ("group", "channels kept", "folded"), rows)

    def __bool__(self) -> bool:
        return bool(self.cuts or self.inputs or self.branches)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON: sorted names, lists of integers; branches only where some go."""
        cuts: dict[str, Any] = {}
        for group, cut in self.cuts.items():
            cuts[group] = {"keep": list(cut.keep)}
            if cut.fold:
                cuts[group]["fold"] = [[a, b] for a, b in cut.fold.items()]
        found: dict[str, Any] = {"cuts": cuts, "inputs": {k: list(v) for k, v in self.inputs.items()}}
        return found | ({"branches": list(self.branches)} if self.branches else {})

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
            branches = tuple(BranchId(_text(name)) for name in data.get("branches", ()))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"not a pruning plan: {error!r}", hint="use a plan.json that compress wrote") from error
        return Plan(cuts, inputs, branches)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, shortened."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no channel index")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value


def keep_all(group: ChannelGroup) -> tuple[int, ...]:
    """Every channel of a group, in order."""
    return tuple(range(group.size))


def gone_keys(topology: Topology, branches: Iterable[BranchId]) -> frozenset[str]:
    """The state_dict entries that go with these branches."""
    return frozenset().union(*(topology.branch_keys[name] for name in branches))


def outlives(group: ChannelGroup, keys: frozenset[str]) -> bool:
    """Whether something makes and something reads its channels when these tensors are gone."""
    return {m.role for m in group.members if m.key not in keys} >= {Role.WRITES, Role.READS}


def canonical(topology: Topology, plan: Plan) -> Plan:
    """The same network said once: without cuts and branches inside branches that go as a whole.

    Plans that are canonical mean different networks where their digests differ.
    """
    if not plan.branches:
        return plan
    keys = gone_keys(topology, plan.branches)
    cuts = {g: c for g, c in plan.cuts.items() if outlives(topology.by_id[g], keys)}
    inputs = {name: reads for name, reads in plan.inputs.items() if topology.by_layer[name].weight not in keys}
    left = without_nested([topology.by_branch[name] for name in plan.branches])
    return Plan(cuts, inputs, tuple(b.name for b in left))


def check(topology: Topology, plan: Plan) -> None:
    """Refuses a plan that does not fit the network.

    Raises:
        PlanError: an unknown name, an index out of range or listed twice, nothing kept, a fold or a reordering across
            orbits, or a tensor that would lose everything.
    """
    for name in plan.branches:
        if name not in topology.by_branch:
            why = topology.kept_branches.get(name)
            raise PlanError(
                f"the plan leaves out branch {name!r}, which "
                + (f"has to stay: {why}" if why else "this network does not have"),
                hint="list the branches with `compress inspect`",
            )
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

    Only dimensions that change are listed, and none of a branch that goes. Input selections (``plan.inputs``) narrow the
    reading dimension further.
    """
    plan = canonical(topology, plan)
    gone = gone_keys(topology, plan.branches)
    table: dict[Slot, NDArray[np.int64]] = {}
    known: dict[Slot, NDArray[np.int64] | None] = {}
    for slot in {(m.key, m.dim) for g in plan.cuts for m in topology.by_id[g].members if m.key not in gone}:
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
    plan = canonical(topology, plan)
    for attribute in left_attributes(topology, plan):
        if any(part is not None and part[0] in plan.cuts for part in attribute.counts):
            now = []
            for before, part in zip(attribute.values, attribute.counts, strict=True):
                kept = None if part is None or part[0] not in plan.cuts else set(plan.cuts[part[0]].keep)
                now.append(before if part is None or kept is None else sum(c in kept for c in part[1]))
            found[attribute.key] = tuple(now)
    return found


def left_attributes(topology: Topology, plan: Plan) -> tuple[WidthAttribute, ...]:
    """Those in no branch that goes."""
    gone = [topology.by_branch[name] for name in plan.branches]
    return tuple(a for a in topology.attributes if not any(b.holds(a.module) for b in gone))


def folds(topology: Topology, plan: Plan) -> dict[Slot, list[tuple[int, int]]]:
    """Reading dimension -> (removed index, index that inherits its weights), for every fold of the plan."""
    table: dict[Slot, list[tuple[int, int]]] = {}
    gone = gone_keys(topology, plan.branches)
    for group_id, cut in plan.cuts.items():
        if not cut.fold:
            continue
        for member in topology.by_id[group_id].members:
            if member.role is not Role.READS or member.key in gone:
                continue
            pairs = table.setdefault((member.key, member.dim), [])
            for removed, heir in cut.fold.items():
                pairs.extend(zip(member.positions[removed], member.positions[heir], strict=True))
    return table


def gone_modules(topology: Topology, plan: Plan) -> tuple[SkippedModule, ...]:
    """What goes with the plan's branches, none inside another."""
    return outermost(m for name in plan.branches for m in topology.by_branch[name].modules)
