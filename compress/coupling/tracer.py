"""From a module to its topology: channel identities find the coupling, a trial cut proves it.

``coupling.provenance`` follows every channel through the network's own computation; channels that meet are one class, classes
that share a layer a group. A trial cut through the guard has the last word: a group that fails it is frozen, with the reason.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.core import ChannelGroup, GroupId, LayerName, Member, Role, Slot, TensorInfo, Topology
from compress.coupling import channel_chunks
from compress.coupling import trial_cut as probing
from compress.coupling.channel_labels import Provenance
from compress.coupling.provenance import follow
from compress.errors import CompressError, TraceError, one_line


def trace(model: nn.Module, example: Tensor | Sequence[Tensor], *, probe: bool = True) -> Topology:
    """Reads the coupled channel groups off a network, once.

    Args:
        model: any convolutional network; it, its mode and the random state are left alone.
        example: one image, (1, c, h, w); a sequence where the network takes several inputs.
        probe: cut every group at random on a copy and let the guard compare; groups that fail are frozen.

    Raises:
        TraceError: the network does not run on the example, or is a transformer.
    """
    with _undisturbed():
        examples = (example,) if isinstance(example, Tensor) else tuple(example)
        network = _copied(model)
        run = _run(network, examples)
        topology = _topology(network.eval(), run, examples[0])
        return probing.probe(network, topology, examples) if probe else topology


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # weights computed by hooks, locks, open files
        raise TraceError(
            f"{type(model).__name__} cannot be copied: {type(error).__name__}: {one_line(error)}",
            hint="weights that hooks compute are folded with compress.cuttable(model); other such attributes have to go",
        ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    state = torch.random.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.random.set_rng_state(state)


def _run(network: nn.Module, examples: Sequence[Tensor]) -> Provenance:
    """Follows the channels in eval mode; auxiliary heads only run in training mode, so their layers are visited there."""
    named = network.state_dict(keep_vars=True)
    keys: dict[int, str] = {}
    for key, tensor in named.items():
        keys.setdefault(id(tensor), key)
    try:
        run = follow(network.eval(), examples, keys)
    except CompressError:
        raise
    except Exception as error:  # whatever the user's forward raises
        shapes = " and ".join(str(tuple(x.shape)) for x in examples)
        raise TraceError(
            f"{type(network).__name__} does not run on an input of shape {shapes}: {type(error).__name__}: {error}",
            hint="give the input size the network expects with --size",
        ) from error
    if run.attention is not None:
        raise TraceError(
            f"{type(network).__name__} contains attention{f' ({run.attention})' if run.attention else ''}; "
            "this tool cuts convolutional networks only",
            hint="transformers need head and token pruning, which is another trade",
        )
    weights = {k for k, t in named.items() if isinstance(t, nn.Parameter) and t.dim() >= 2}
    if not run.layers:
        raise TraceError(f"{type(network).__name__} has no convolution or linear layer that runs on the example")
    if weights - {k for k, _ in run.labels}:
        try:
            trained = follow(network.train(), [x.repeat(2, *[1] * (x.dim() - 1)) for x in examples], keys)
        except Exception:  # an auxiliary head that cannot run stays untouched: its layers are simply not in the topology
            return run
        finally:
            network.eval()
        trained.sites, trained.fixed_macs = run.sites, run.fixed_macs
        return trained
    return run


def _topology(network: nn.Module, run: Provenance, example: Tensor) -> Topology:
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
    places = _places(run)
    groups = []
    for number, classes in sorted(components.items()):
        group, left = channel_chunks.coupled(_group(GroupId(producers[number][1]), classes, places, run), classes, run.chunks)
        if left is not None:  # counts alone cannot keep it: its pieces' channels go together
            return _topology(network, channel_chunks.paired(run, left), example)
        if group.size > 1 and any(m.role is Role.READS for m in group.members):
            groups.append(group)
        else:
            reason = "its channels are one" if group.size == 1 else "no layer reads it"
            frozen |= {name: reason for i, (_, name) in enumerate(producers) if find(i) == number and name not in frozen}
    norms = tuple(run.moment_norms)
    tensors = _tensor_table(network.state_dict(keep_vars=True), parameters, run.sites, run)
    return Topology(
        groups=tuple(groups),
        tensors=tensors,
        layers=layers,
        frozen=frozen,
        example=tuple(example.shape[1:]),
        moment_norms=norms,
        fixed_macs=run.fixed_macs,
    )


def _places(run: Provenance) -> dict[int, dict[Slot, list[int]]]:
    """Channel class -> slot -> indices."""
    places: dict[int, dict[Slot, list[int]]] = defaultdict(dict)
    for slot, values in run.labels.items():
        for index, value in enumerate(values.tolist()):
            if value:
                places[value].setdefault(slot, []).append(index)
    return places


def _group(
    name: GroupId, classes: Sequence[int], places: Mapping[int, Mapping[Slot, list[int]]], run: Provenance
) -> ChannelGroup:
    touched = {slot for value in classes for slot in places[value]}
    members = tuple(
        Member(
            slot[0],
            slot[1],
            Role.READS if slot in run.reads else Role.WRITES,
            tuple(tuple(places[value].get(slot, ())) for value in classes),
        )
        for slot in run.labels
        if slot in touched
    )
    return ChannelGroup(id=name, size=len(classes), members=members)


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
