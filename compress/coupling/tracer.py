"""From a module to its topology: channel identities find the coupling, a second witness confirms it, a trial cut proves it.

``coupling.provenance`` follows every channel through the network's own computation; channels that meet are one class, classes
that share a layer a group. Torch-Pruning's dependency graph proposes groups of its own, read off the gradients of another run;
``coupling.agreement`` compares them index by index. What both have is tried once, all of it together; what only the channel
identities have is tried as long as it takes. A trial cut through the guard has the last word: a group that fails it is frozen,
with the reason.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.core import (
    ChannelGroup,
    GroupId,
    Layer,
    LayerName,
    Listen,
    Member,
    Progressed,
    Role,
    Slot,
    TensorInfo,
    Topology,
    ignore,
)
from compress.coupling import channel_chunks, dependency_graph
from compress.coupling.agreement import CouplingAgreement, Proposed, compare
from compress.coupling.branch_trial import with_branches
from compress.coupling.channel_labels import Provenance
from compress.coupling.forms import Followed, follow_all
from compress.coupling.trial_cut import TrialNetworks, TrialOutcome
from compress.coupling.trial_cut import probe as tried
from compress.errors import TraceError, one_line
from compress.surgery import deep_copy, unsteady

_STEPS = 4
_CONVOLVED = 0.5
"""A network with attention whose convolutions do less of the work than this is a transformer."""


def trace(model: nn.Module, example: Tensor | Sequence[Tensor], *, probe: bool = True) -> Topology:
    """Reads the coupled channel groups off a network, once.

    Args:
        model: any convolutional network; it, its mode and the random state are left alone.
        example: one image, (1, c, h, w); a sequence where the network takes several inputs.
        probe: cut groups at random on a copy and let the guard compare; groups that fail are frozen.

    Raises:
        TraceError: the network does not run on the example, or is a transformer.
    """
    if probe:
        return trace_with_agreement(model, example)[0]
    with _undisturbed():
        examples = (example,) if isinstance(example, Tensor) else tuple(example)
        network = _copied(model)
        return _topology(network, follow_all(network, examples).run, examples[0])


def trace_with_agreement(
    model: nn.Module, example: Tensor | Sequence[Tensor], *, graph: bool = True, listen: Listen = ignore
) -> tuple[Topology, CouplingAgreement]:
    """The topology, and how far Torch-Pruning's dependency graph has the same.

    The topology does not depend on what the graph says; how much is tried before it is believed does.

    Args:
        model: as in :func:`trace`.
        example: as in :func:`trace`.
        graph: ask the dependency graph.
        listen: is told of each step (:class:`~compress.core.Progressed`).

    Raises:
        TraceError: the network does not run on the example, or is a transformer.
    """
    with _undisturbed():
        examples = (example,) if isinstance(example, Tensor) else tuple(example)
        network = _copied(model)
        _step(listen, 0, "following the channels")
        seen = follow_all(network, examples)
        run, small = seen.run, seen.small
        topology = _topology(network, run, examples[0])
        _refuse_transformers(network, run, topology)
        if unsteady(network, small or examples) and (reason := unsteady(network, examples)):  # no fault could be told
            writers = {layer.name: reason for g in topology.groups for layer in topology.writers(g.id)}
            left_whole = replace(topology, groups=(), frozen={**topology.frozen, **writers})
            return left_whole, CouplingAgreement(why_not=reason, value_branches=tuple(run.asked), unfollowed=seen.unfollowed)
        _step(listen, 1, "another graph")
        if graph:
            joins, layers = run.operations.count("cat"), len(topology.layers)
            proposed = dependency_graph.propose(network, small or examples, joins=joins, layers=layers)
        else:
            proposed = Proposed(why_not="torch-pruning was not asked")
        wrong = compare(topology, proposed.groups) if not proposed.why_not else {}
        numbered = _by_number(topology, run)
        confirmed = [g for g, why in wrong.items() if not why and g not in numbered]
        _step(listen, 2, "trial cuts")
        trials = TrialNetworks(network)
        done = tried(trials, topology, examples, confirmed=confirmed, small=small, training=seen.trains_otherwise)
        done = _with_attributes(trials, seen, topology, examples, done)
        _step(listen, 3, "branches")
        whole = with_branches(trials, done.topology, small or examples)
    _step(listen, _STEPS, "")
    left = done.topology.by_id
    return whole, CouplingAgreement(
        confirmed=tuple(g for g in confirmed if g in left),
        tried={g: why for g, why in numbered.items() if g in left and wrong.get(g) == ""},
        corrected={g: why for g, why in wrong.items() if g in left and why},
        trials=done.trials,
        why_not=proposed.why_not,
        value_branches=tuple(run.asked),
        unfollowed=seen.unfollowed,
    )


def _step(listen: Listen, done: int, next_one: str) -> None:
    listen(Progressed(done, _STEPS, next_one))


def _with_attributes(
    trials: TrialNetworks, seen: Followed, topology: Topology, examples: Sequence[Tensor], done: TrialOutcome
) -> TrialOutcome:
    """The outcome, or a better one: groups that failed may be divided by a number that a module holds, and that can follow."""
    most = max((len(chunk.options) + chunk.counted for chunk in seen.run.chunks), default=0)
    for variant in range(1, most):
        if len(done.topology.groups) == len(topology.groups):
            break
        other = _topology(trials.network, seen.run, examples[0], variant)
        again = tried(trials, other, examples, training=seen.trains_otherwise)
        better = again.topology if len(again.topology.groups) > len(done.topology.groups) else done.topology
        done = TrialOutcome(better, done.trials + again.trials)
    left = done.topology.by_id
    following = tuple(a for a in done.topology.attributes if all(part is None or part[0] in left for part in a.counts))
    return replace(done, topology=replace(done.topology, attributes=following))


def _refuse_transformers(network: nn.Module, run: Provenance, topology: Topology) -> None:
    """Attention inside a convolutional network stays whole and the rest is cut; a transformer is another trade.

    Raises:
        TraceError: there is attention, and most of the work is not that of convolutions, or none of them can be cut.
    """
    if run.attention is None:
        return
    work = {layer.name: _macs(topology, layer) for layer in topology.layers}
    convolved = sum(work[layer.name] for layer in topology.layers if layer.kind != "linear")
    cuts = any(layer.kind != "linear" for group in topology.groups for layer in topology.writers(group.id))
    if not cuts or convolved < _CONVOLVED * (sum(work.values()) + topology.fixed_macs):
        raise TraceError(
            f"{type(network).__name__} contains attention{f' ({run.attention})' if run.attention else ''}; "
            "this tool cuts convolutional networks only",
            hint="transformers need head and token pruning, which is another trade",
        )


def _macs(topology: Topology, layer: Layer) -> int:
    weight = topology.tensors[layer.weight]
    return weight.sites * math.prod(weight.shape)


def _by_number(topology: Topology, run: Provenance) -> dict[GroupId, str]:
    """Groups of which an operation picks channels by number: the cut itself changes who stands there."""
    found: dict[GroupId, str] = {}
    for group in topology.groups:
        slot = next((m.key, m.dim) for m in group.members)
        classes = run.labels[slot][topology.flat[group.id, slot][0]]
        what = next((run.by_number[v] for v in classes.tolist() if v in run.by_number), None)
        if what is not None:
            found[group.id] = f"{what} picks its channels by number"
    return found


def _copied(model: nn.Module) -> nn.Module:
    try:
        return deep_copy(model)
    except Exception as error:  # weights computed by hooks, locks, open files
        raise TraceError(
            f"{type(model).__name__} cannot be copied: {type(error).__name__}: {one_line(error)}",
            hint="weights that hooks compute are folded with compress.cuttable(model); other such attributes have to go",
        ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The random state stays, nobody is warned, and what was in memory before is not searched for garbage again and again.

    A trace makes a hundred thousand small tuples, none of them garbage: they set off one full collection after another.
    """
    state, aside = torch.random.get_rng_state(), gc.get_freeze_count() == 0
    if aside:
        gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if aside:
            gc.unfreeze()
        torch.random.set_rng_state(state)


def _topology(network: nn.Module, run: Provenance, example: Tensor, variant: int = 0) -> Topology:
    run = channel_chunks.settled(run)
    parameters = {k for k, t in network.state_dict(keep_vars=True).items() if isinstance(t, nn.Parameter)}
    layers = tuple(run.layers.values())
    frozen: dict[LayerName, str] = {}
    home: dict[int, int] = {}  # channel class -> its component
    merged: list[int] = []

    def find(i: int) -> int:
        while merged[i] != i:
            i = merged[i]
        return i

    producers: list[tuple[Slot, LayerName]] = [((x.weight, x.write_dim), x.name) for x in layers if not x.depthwise]
    made: dict[int, tuple[int, int, int]] = {}  # class -> its place in the widest layer that makes it: the order of channels
    for number, (slot, name) in enumerate(producers):
        values = run.labels[slot]
        merged.append(number)
        reasons = {run.frozen[int(v)] for v in values if int(v) in run.frozen}
        if reasons:
            frozen[name] = sorted(reasons)[0]
        free = [(index, value) for index, value in enumerate(values.tolist()) if value and value not in run.frozen]
        for index, value in free:
            place = (-len(free), number, index)
            made[value] = min(made.get(value, place), place)
            if value in home:
                low, high = sorted((find(home[value]), find(number)))
                merged[high] = low
            home[value] = number
    components: dict[int, list[int]] = defaultdict(list)
    for value in sorted(made, key=lambda v: made[v]):
        components[find(home[value])].append(value)
    members = _members(run, components)
    groups = []
    classed: list[tuple[ChannelGroup, Sequence[int]]] = []
    for number, classes in sorted(components.items()):
        group = ChannelGroup(id=GroupId(producers[number][1]), size=len(classes), members=tuple(members[number]))
        group, left = channel_chunks.coupled(group, classes, run.chunks)
        if left is not None:  # counts alone cannot keep it: its pieces' channels go together
            return _topology(network, channel_chunks.paired(run, left), example, variant)
        if group.size > 1 and any(m.role is Role.READS for m in group.members):
            groups.append(group)
            classed.append((group, classes))
        else:
            reason = "its channels are one" if len(classes) == 1 else "no layer reads it"
            frozen |= {name: reason for i, (_, name) in enumerate(producers) if find(i) == number and name not in frozen}
    tensors = _tensor_table(network.state_dict(keep_vars=True), parameters, run.sites, run)
    return Topology(
        groups=tuple(groups),
        tensors=tensors,
        layers=layers,
        frozen=frozen,
        example=tuple(example.shape[1:]),
        moments=tuple(group.id for group, classes in classed if not run.moments.isdisjoint(classes)),
        fixed_macs=run.fixed_macs,
        attributes=channel_chunks.attributes(classed, run.chunks, variant),
    )


def _members(run: Provenance, components: Mapping[int, Sequence[int]]) -> dict[int, list[Member]]:
    """Component -> every dimension it runs through, in the order of the run."""
    place = np.full((2, 1 + max((int(v.max(initial=0)) for v in run.labels.values()), default=0)), -1, dtype=np.int64)
    for number, classes in components.items():
        place[0, classes], place[1, classes] = number, np.arange(len(classes))
    members: dict[int, list[Member]] = {number: [] for number in components}
    known: dict[tuple[int, bytes], tuple[tuple[int, ...], ...]] = {}  # norms have the indices of the layer before them
    for slot, values in run.labels.items():
        component, channel = place[:, values]
        role = Role.READS if slot in run.reads else Role.WRITES
        for number in np.unique(component[component >= 0]).tolist():
            indices = np.flatnonzero(component == number)
            key = (number, np.stack([indices, channel[indices]]).tobytes())
            if key not in known:
                known[key] = _positions(indices, channel[indices], len(components[number]))
            members[number].append(Member(slot[0], slot[1], role, known[key]))
    return members


def _positions(indices: NDArray[np.int64], channels: NDArray[np.int64], size: int) -> tuple[tuple[int, ...], ...]:
    """Channel -> its indices, ascending."""
    ordered = indices[np.argsort(channels, kind="stable")].tolist()
    counts = np.bincount(channels, minlength=size)
    if (counts == 1).all():
        return tuple(zip(ordered, strict=True))
    ends = np.cumsum(counts).tolist()
    return tuple(tuple(ordered[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True))


def _tensor_table(
    state: Mapping[str, Tensor], parameters: set[str], sites: Mapping[str, int], run: Provenance
) -> dict[str, TensorInfo]:
    """Shapes of every state_dict entry (``keep_vars``, to see ties); a channel map is virtually an (out, in) matrix."""
    table: dict[str, TensorInfo] = {}
    first: dict[int, str] = {}
    for key, tensor in state.items():
        shape = tuple(tensor.shape)
        if (key, 1) in run.labels and len(shape) == 1:
            shape = (shape[0], len(run.labels[key, 1]))
        same_as = first.setdefault(id(tensor), key)
        own = same_as == key
        table[key] = TensorInfo(shape, own and key in parameters, sites.get(key, 0), "" if own else same_as)
    return table
