"""Where the dependency graph and the channel identities tell the same of a group, index by index, and where they do not.

Nothing here decides what a group is: that the channel identities do. What the graph proposes decides how much of a group is
tried before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compress.core import GroupId, Slot, Topology, plural

_NAMED = 3
"""So many groups are named in a sentence, with their reasons."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the dependency graph would cut with one layer.

    Attributes:
        root: the dimension whose indices name the channels: rows of the layer's weight.
        pairs: every dimension it would cut -> indices of the root, and the indices there that go with them.
    """

    root: Slot
    pairs: Mapping[Slot, tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Proposed:
    """The dependency graph's answer.

    Attributes:
        groups: its groups.
        why_not: why there are none: it failed, or was not asked.
    """

    groups: tuple[Proposal, ...] = ()
    why_not: str = ""


@dataclass(frozen=True)
class CouplingAgreement:
    """How far two independent witnesses of the coupling agree, and what was tried on top.

    Attributes:
        confirmed: groups that both know, with equal index maps, and of which no operation picks channels by number.
        tried: groups that both know with equal index maps, and that were tried all the same -> why.
        corrected: groups that the graph has otherwise, tried as the channel identities have them -> what it has.
        trials: networks that were cut and compared to make sure.
        why_not: why the graph was not heard; empty where it was.
        value_branches: lines of the network's code that ask for a value of its input.
        unfollowed: what could not be followed besides the example, and why.
    """

    confirmed: tuple[GroupId, ...] = ()
    tried: Mapping[GroupId, str] = field(default_factory=dict)
    corrected: Mapping[GroupId, str] = field(default_factory=dict)
    trials: int = 0
    why_not: str = ""
    value_branches: tuple[str, ...] = ()
    unfollowed: tuple[str, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """What a person must know of it: red flags."""
        return (asks_for_values(self.value_branches),) if self.value_branches else ()

    def sentences(self) -> tuple[str, ...]:
        """What a person should know of it."""
        cuts = f"{self.trials} trial cut{'' if self.trials == 1 else 's'}"
        if self.why_not:
            return (f"coupling: {self.why_not}; channel identities alone are used, {cuts}", *self.unfollowed)
        equal = len(self.confirmed) + len(self.tried)
        told = [
            f"coupling: {equal} of {plural(equal + len(self.corrected), 'group')} confirmed by Torch-Pruning's graph, {cuts}"
        ]
        told += _named("corrected", self.corrected)
        told += _named("equal, yet tried", self.tried)
        return ("; ".join(told), *self.unfollowed)


def asks_for_values(lines: Sequence[str]) -> str:
    """What it means that a network's code asks for values at these lines."""
    where = ", ".join(lines[:_NAMED]) + (f" and {plural(len(lines) - _NAMED, 'more line')}" if len(lines) > _NAMED else "")
    return (
        f"the network's code asks for a value at {where} and may branch on it: what it does on other values was neither "
        "followed nor exported"
    )


def _named(what: str, reasons: Mapping[GroupId, str]) -> Iterator[str]:
    yield from (f"{group} {what}: {why}" for group, why in list(reasons.items())[:_NAMED])
    if len(reasons) > _NAMED:
        yield f"{len(reasons) - _NAMED} more {what}"


def compare(topology: Topology, proposals: Sequence[Proposal]) -> dict[GroupId, str]:
    """What the graph has otherwise, for each group; empty where it has the group exactly.

    A group is equal where, over all layers that make its channels, the graph would cut the very indices of the very tensors
    that the channel identities list, for every channel: no more and no less.
    """
    where = _Places(topology, proposals)
    tied = {info.same_as for info in topology.tensors.values()}
    wrong: dict[int, str] = {}
    for number, group in enumerate(topology.groups):
        shared = next((m.key for m in group.members if m.key in tied), None)
        if shared is not None:  # it would cut each layer's own copy, and copies that were one tensor are so no more
            wrong[number] = f"it does not know that {shared} belongs to several layers"
    theirs = [np.zeros(0, dtype=np.int64)]
    for proposal in proposals:
        for slot, (roots, indices) in proposal.pairs.items():
            sources, targets = where.numbered(proposal.root, roots), where.numbered(slot, indices)
            differ = where.group[sources] != where.group[targets]
            if differ.any():
                for number in {*where.group[sources[differ]].tolist(), *where.group[targets[differ]].tolist()} - {-1}:
                    wrong.setdefault(number, f"it couples {slot[0]} with {proposal.root[0]}")
            theirs.append(where.channel[sources] * where.total + targets)
    told = _distinct(np.concatenate(theirs))
    missing = np.setdiff1d(where.own, told, assume_unique=True) % where.total
    for number in np.unique(where.group[missing]).tolist():
        wrong.setdefault(number, where.lacking(number, missing))
    for number in np.unique(where.group[np.setdiff1d(told, where.own, assume_unique=True) % where.total]).tolist():
        if number >= 0:
            wrong.setdefault(number, "it has other channels at its indices")
    return {g.id: wrong.get(i, "") for i, g in enumerate(topology.groups)}


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending; numpy's own finds the distinct ones by hashing, which takes longer."""
    ordered = np.sort(codes)
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


class _Places:
    """Every index of every dimension under one number, with the group and the channel it belongs to.

    Attributes:
        total: how many there are; the last one stands for indices that do not exist.
        group: number of the group; -1: none.
        channel: the channel of it; -1: none.
        own: channel * total + place, for every place of every group, ascending.
    """

    def __init__(self, topology: Topology, proposals: Sequence[Proposal]) -> None:
        self.topology = topology
        self.first: dict[Slot, int] = {}
        self.size: dict[Slot, int] = {}
        self.total = 0
        for slot in [*topology.slots, *(s for p in proposals for s in (p.root, *p.pairs))]:
            if slot not in self.first:
                shape = topology.tensors[slot[0]].shape if slot[0] in topology.tensors else ()
                self.first[slot], self.size[slot] = self.total, shape[slot[1]] if slot[1] < len(shape) else 0
                self.total += self.size[slot]
        self.total += 1
        self.group, self.channel = (np.full(self.total, -1, dtype=np.int64) for _ in range(2))
        own = [np.zeros(0, dtype=np.int64)]
        for number, group in enumerate(topology.groups):
            for member in group.members:
                indices, channels = topology.flat[group.id, (member.key, member.dim)]
                places = indices + self.first[member.key, member.dim]
                self.group[places], self.channel[places] = number, channels
                own.append(channels * self.total + places)
        self.own = _distinct(np.concatenate(own))

    def numbered(self, slot: Slot, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of these indices."""
        inside = (indices >= 0) & (indices < self.size[slot])
        return np.where(inside, indices + self.first[slot], self.total - 1)

    def lacking(self, number: int, missing: NDArray[np.int64]) -> str:
        """What the graph does not have of a group, in words."""
        lost = set(missing[self.group[missing] == number].tolist())
        group = self.topology.groups[number]
        slots = [(m.key, m.dim) for m in group.members]
        here = {s: (self.topology.flat[group.id, s][0] + self.first[s]).tolist() for s in slots}
        gone = [s[0] for s in slots if lost.issuperset(here[s])]
        if len(gone) == len(slots):
            return "the graph has no such group"
        if gone:
            return f"the graph leaves out {gone[0]}" + (f" and {len(gone) - 1} more" if len(gone) > 1 else "")
        return f"the graph has other indices in {next(s[0] for s in slots if not lost.isdisjoint(here[s]))}"
