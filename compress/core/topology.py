"""What a network is to a pruner: coupled channel groups and parameter shapes, as plain data.

A :class:`Topology` is read off a model once (``compress.coupling.tracer``) and speaks of state_dict keys and dimensions only.
Whatever a module looks like inside, a channel is the set of places in the parameters that must go together.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from compress.core.branches import Branch, BranchId
from compress.core.notebooks import html_table
from compress.core.text import plural

GroupId = NewType("GroupId", str)
"""The first layer, in forward order, that makes the channels of a group."""

LayerName = NewType("LayerName", str)
"""A module's name as in ``model.named_modules()``; for a bare parameter, the parameter's own name."""

READS = "reads"
"""Buffer of a convolution or linear layer that reads selected inputs only: their indices in the incoming activation."""

WIDTH_OF = "width_of_"
"""Start of the name of a buffer that holds what an attribute of its module counts since it was cut."""

Slot = tuple[str, int]
"""One dimension of one tensor: ``(state_dict key, dim)``."""


class Role(StrEnum):
    """What a slice of a tensor is to a channel."""

    WRITES = "writes"
    """The slice makes the channel or belongs to it: kernel rows, bias, batch norm, layer scale."""
    READS = "reads"
    """The slice consumes the channel: kernel columns."""


@dataclass(frozen=True, slots=True)
class Member:
    """One dimension of one tensor that a group runs through.

    Attributes:
        key: state_dict key, e.g. ``"layer1.0.conv1.weight"``.
        dim: the dimension.
        role: whether the slices make the channels or consume them.
        positions: channel -> its indices in that dimension. H*W of them after a flatten, one per conv-group in a
            grouped convolution, none where the channel does not exist (a zero-padded shortcut adds it later).
    """

    key: str
    dim: int
    role: Role
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels whose keep-or-go is decided together with the layers that share them.

    Attributes:
        id: its first layer.
        size: how many channels.
        members: every dimension it runs through.
        kinds: per channel, what else sets channels apart: which of its positions a layer with selected inputs still
            reads. Empty where nothing does.
        coupled_counts: sets of channels of which equally many must stay: the pieces that the network's code chunks its
            activation into. Each entry is one such chunk, piece by piece; pieces are disjoint and equally large.
    """

    id: GroupId
    size: int
    members: tuple[Member, ...]
    kinds: tuple[int, ...] = ()
    coupled_counts: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def places(self) -> tuple[tuple[int, ...], ...]:
        """Per channel, what sets it apart beside the tensors it occurs in: its kind, and its piece of every chunk."""
        found = [[*self.kinds[c : c + 1]] for c in range(self.size)]
        for pieces in self.coupled_counts:
            piece = {c: number for number, channels in enumerate(pieces) for c in channels}
            for channel, place in enumerate(found):
                place.append(piece.get(channel, -1))
        return tuple(tuple(place) for place in found)

    def orbits(self) -> tuple[tuple[int, ...], ...]:
        """Channels that occur in exactly the same tensors, the same number of times: they are interchangeable.

        A plain group has one orbit. An option-A residual stream has one for each width that the zero-padding adds, a layer
        whose output is chunked one for each piece.
        """
        seen: dict[Any, list[int]] = {}
        different = {id(m.positions): m.positions for m in self.members}.values()  # norms share those of their layer
        for channel, signature in enumerate(zip(self.places(), *(map(len, p) for p in different), strict=True)):
            seen.setdefault(signature, []).append(channel)
        return tuple(tuple(orbit) for orbit in seen.values())

    @property
    def even(self) -> bool:
        """Whether every piece of every chunk is one orbit, so that a width for each keeps the counts coupled.

        Not so once a layer reads only some channels of a piece: then no further cut of the group is proposed.
        """
        if not self.coupled_counts:
            return True
        return {piece for pieces in self.coupled_counts for piece in pieces} <= set(self.orbits())

    def widths(self) -> tuple[tuple[int, ...], ...]:
        """The widths that can be chosen: for each the numbers of the orbits that share it, which are pieces of one chunk.

        None where the group is not :attr:`even`.
        """
        if not self.even:
            return ()
        number = {orbit: i for i, orbit in enumerate(self.orbits())}
        shared = {i: i for i in number.values()}
        for pieces in self.coupled_counts:
            first, *others = (shared[number[piece]] for piece in pieces)
            shared = {i: first if leader in others else leader for i, leader in shared.items()}
        return tuple(tuple(i for i in shared if shared[i] == leader) for leader in dict.fromkeys(shared.values()))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry of the state_dict.

    Attributes:
        shape: its sizes.
        parameter: learned, hence counted; buffers are not.
        sites: at how many positions of one image a convolution or linear layer applies this weight, summed over its
            calls; 0 for every other tensor. MACs = sites * number of elements.
        same_as: key of the entry whose tensor this one is (tied weights): cut with it, counted there.
    """

    shape: tuple[int, ...]
    parameter: bool
    sites: int = 0
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer: what is cut, counted and reported.

    Attributes:
        name: module name.
        kind: ``conv``, ``conv_transpose`` or ``linear``.
        weight: state_dict key of the weight.
        cardinality: number of conv-groups.
        depthwise: its conv-groups follow the channels (each goes with its channel).
        standardised: each row of its weight is normalised over all it reads, so nothing it reads may go.
    """

    name: LayerName
    kind: str
    weight: str
    cardinality: int = 1
    depthwise: bool = False
    standardised: bool = False

    @property
    def write_dim(self) -> int:
        """The dimension of the weight that makes channels."""
        return 1 if self.kind == "conv_transpose" else 0

    @property
    def read_dim(self) -> int:
        """The dimension of the weight that consumes channels."""
        return 0 if self.kind == "conv_transpose" else 1

    @property
    def selection(self) -> str:
        """State_dict key of the table of inputs that the layer reads, once it reads selected ones only."""
        return f"{self.weight.rpartition('.')[0]}.{READS}"


@dataclass(frozen=True, slots=True)
class WidthAttribute:
    """A number, or a tuple or list of them, in a module, that counts channels: its code divides what arrives by it.

    A cut writes the new counts into the module, and beside its tensors, so that a file that is loaded has them too.

    Attributes:
        module: its name.
        name: the attribute's.
        values: its numbers as they are.
        counts: per number, the group and those of its channels that it counts; None for one that stays.
    """

    module: LayerName
    name: str
    values: tuple[int, ...]
    counts: tuple[tuple[GroupId, tuple[int, ...]] | None, ...]

    @property
    def key(self) -> str:
        """State_dict key of the buffer that holds the counts after a cut."""
        return f"{self.module}.{WIDTH_OF}{self.name}" if self.module else f"{WIDTH_OF}{self.name}"


@dataclass(frozen=True)
class LayerFacts:
    """What no plan changes about the layers, one entry each, in forward order.

    Attributes:
        sites: positions of one image at which the weight is applied.
        kernel: elements of a 2-D kernel.
        groups: conv-groups whose number stays.
        depthwise: conv-groups follow the channels.
        linear: no convolution.
    """

    sites: NDArray[np.float64]
    kernel: NDArray[np.float64]
    groups: NDArray[np.int64]
    depthwise: NDArray[np.bool_]
    linear: NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class Topology:
    """A network as coupled channel groups.

    Attributes:
        groups: in forward order.
        tensors: every state_dict entry, in state_dict order.
        layers: convolutions and linear layers, in forward order of their first call.
        frozen: layer -> why the channels it makes cannot be cut.
        example: shape of the example input, of the first one where there are several, without the batch dimension.
        moments: groups over whose channels the network takes moments: means, variances, norms, maxima.
        fixed_macs: of convolutions and linear layers whose weight is computed; nothing they touch can be cut.
        attributes: numbers in modules that follow the widths.
        branches: what may be left out beside an identity shortcut, in forward order.
        kept_branches: branch -> why it has to stay.
    """

    groups: tuple[ChannelGroup, ...]
    tensors: Mapping[str, TensorInfo]
    layers: tuple[Layer, ...]
    frozen: Mapping[LayerName, str] = field(default_factory=dict)
    example: tuple[int, ...] = ()
    moments: tuple[GroupId, ...] = ()
    fixed_macs: int = 0
    attributes: tuple[WidthAttribute, ...] = ()
    branches: tuple[Branch, ...] = ()
    kept_branches: Mapping[BranchId, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        channels = sum(g.size for g in self.groups)
        found = f"{plural(len(self.groups), 'group')} of {plural(channels, 'channel')} in all"
        return f"<Topology: {plural(len(self.layers), 'layer')}, {found}, {plural(len(self.branches), 'branch')}>"

    def _repr_html_(self) -> str:
        writers = {g.id: ", ".join(layer.name for layer in self.writers(g.id)) for g in self.groups}
        rows: list[tuple[object, ...]] = [(g.id, g.size, writers[g.id]) for g in self.groups]
        rows += [(name, "", f"stays: {why}") for name, why in self.frozen.items()]
        rows += [(b.name, "", "branch beside a shortcut") for b in self.branches]
        return html_table(repr(self)[1:-1], ("group", "channels", "layers that make them"), rows)

    @cached_property
    def by_id(self) -> Mapping[GroupId, ChannelGroup]:
        """Group id -> group."""
        return {g.id: g for g in self.groups}

    @cached_property
    def by_layer(self) -> Mapping[LayerName, Layer]:
        """Layer name -> layer."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def by_branch(self) -> Mapping[BranchId, Branch]:
        """Branch id -> branch."""
        return {branch.name: branch for branch in self.branches}

    @cached_property
    def branch_keys(self) -> Mapping[BranchId, frozenset[str]]:
        """Branch -> the state_dict entries that go with it."""
        return {b.name: frozenset(key for key in self.tensors if b.holds(key)) for b in self.branches}

    @cached_property
    def slots(self) -> Mapping[Slot, tuple[tuple[GroupId, Member], ...]]:
        """Each touched dimension of each tensor -> the groups that run through it."""
        table: dict[Slot, list[tuple[GroupId, Member]]] = {}
        for group in self.groups:
            for member in group.members:
                table.setdefault((member.key, member.dim), []).append((group.id, member))
        return {slot: tuple(found) for slot, found in table.items()}

    @cached_property
    def occupancy(self) -> Mapping[GroupId, tuple[tuple[str, int, NDArray[np.int64]], ...]]:
        """Group -> (key, dim, how many indices each channel has there); what counting needs and no more."""
        return {g.id: tuple((m.key, m.dim, np.array([len(p) for p in m.positions])) for m in g.members) for g in self.groups}

    @cached_property
    def each(self) -> Mapping[GroupId, tuple[int, ...]]:
        """Group -> per member, the number of indices that every channel has there; -1 where channels differ."""
        return {
            g: tuple(int(taken[0]) if (taken == taken[0]).all() else -1 for _, _, taken in members)
            for g, members in self.occupancy.items()
        }

    @cached_property
    def flat(self) -> Mapping[tuple[GroupId, Slot], tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(group, slot) -> every index the group has there, and the channel each belongs to."""
        table = {}
        for group in self.groups:
            known: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}  # norms share positions with their layer
            for m in group.members:
                if id(m.positions) not in known:
                    indices = np.array([i for p in m.positions for i in p], dtype=np.int64)
                    known[id(m.positions)] = indices, np.repeat(np.arange(group.size), [len(p) for p in m.positions])
                table[group.id, (m.key, m.dim)] = known[id(m.positions)]
        return table

    @cached_property
    def alike(self) -> Mapping[Slot, Slot]:
        """Slot -> the first one that the same channels run through at the same indices: what one keeps, the other keeps."""
        first: dict[Any, Slot] = {}
        return {
            slot: first.setdefault((self.tensors[slot[0]].shape[slot[1]], tuple((g, m.positions) for g, m in found)), slot)
            for slot, found in self.slots.items()
        }

    @cached_property
    def whole(self) -> tuple[int, int]:
        """MACs and parameters of the network as it was traced."""
        sizes = {key: math.prod(t.shape) for key, t in self.tensors.items()}
        macs = self.fixed_macs + sum(t.sites * sizes[key] for key, t in self.tensors.items())
        return macs, sum(sizes[key] for key, t in self.tensors.items() if t.parameter)

    @cached_property
    def facts(self) -> LayerFacts:
        """The layers' fixed numbers, for what counts many plans."""
        infos = [self.tensors[layer.weight] for layer in self.layers]
        return LayerFacts(
            sites=np.array([max(i.sites, 1) for i in infos], dtype=np.float64),
            kernel=np.array([math.prod(i.shape[2:]) for i in infos], dtype=np.float64),
            groups=np.array([1 if x.depthwise else x.cardinality for x in self.layers], dtype=np.int64),
            depthwise=np.array([x.depthwise for x in self.layers], dtype=bool),
            linear=np.array([x.kind == "linear" for x in self.layers], dtype=bool),
        )

    @cached_property
    def digest(self) -> str:
        """Identifies the structure; plans carry it so that they are never applied to another network."""
        groups = [asdict(g) for g in self.groups]
        for group in groups:
            if not group["coupled_counts"]:  # groups without any keep the digest they always had
                del group["coupled_counts"]
        payload = groups + [[k, list(t.shape)] for k, t in self.tensors.items()] + [asdict(a) for a in self.attributes]
        return hashlib.sha256(json.dumps(payload, default=list).encode()).hexdigest()[:16]

    def writers(self, group: GroupId) -> tuple[Layer, ...]:
        """The dense layers that make the group's channels, in forward order."""
        keys = {(m.key, m.dim) for m in self.by_id[group].members if m.role is Role.WRITES}
        return tuple(layer for layer in self.layers if not layer.depthwise and (layer.weight, layer.write_dim) in keys)

    def readers(self, group: GroupId) -> tuple[Layer, ...]:
        """The dense layers that consume the group's channels, in forward order."""
        keys = {(m.key, m.dim) for m in self.by_id[group].members if m.role is Role.READS}
        return tuple(layer for layer in self.layers if (layer.weight, layer.read_dim) in keys)

    def foldable(self, group: GroupId) -> bool:
        """Whether equal channels of a group can become one exactly: not where moments are taken over them."""
        return group not in self.moments

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form for ``compress inspect --json``."""
        return {
            "digest": self.digest,
            "groups": [
                {"id": g.id, "size": g.size, "members": [[m.key, m.dim, m.role.value] for m in g.members]} for g in self.groups
            ],
            "frozen": dict(self.frozen),
            "branches": [{"name": b.name, "modules": [m.name for m in b.modules]} for b in self.branches],
            "kept_branches": dict(self.kept_branches),
        }
