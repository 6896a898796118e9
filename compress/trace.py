"""From a module to its topology: Torch-Pruning proposes the coupling, channel identities prove it.

This is the only importer of torch_pruning. Its dependency graph names the groups; ``compress.provenance`` follows every
channel through the network's own computation. Where the two disagree the identities win, and a trial cut through the guard
has the last word: a group that fails it is frozen, with the reason.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.errors import CompressError, GuardError, TraceError
from compress.guard import random_plan, verify
from compress.provenance import Provenance, follow, tensor_table
from compress.surgery import cut
from compress.topology import ChannelGroup, GroupId, LayerName, Member, Role, Slot, Topology

_PROBE_RATIOS = (0.3, 0.55)


def trace(model: nn.Module, example: Tensor, *, probe: bool = True) -> Topology:
    """Reads the coupled channel groups off a network, once.

    Args:
        model: any convolutional network; it, its mode and the random state are left alone.
        example: one input, (1, c, h, w).
        probe: cut every group at random on a copy and let the guard compare; groups that fail are frozen.

    Raises:
        TraceError: the network does not run on the example, or is a transformer.
    """
    with _undisturbed():
        network = copy.deepcopy(model)
        run = _run(network, example)
        keys = {id(t): k for k, t in network.state_dict(keep_vars=True).items()}
        topology = _topology(network, run, example)
        notes = _disagreements(network.eval(), example, run, keys)
        topology = replace(topology, notes=tuple(notes))
        return _probe(network, topology, example) if probe else topology


@contextmanager
def _undisturbed() -> Iterator[None]:
    state = torch.random.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.random.set_rng_state(state)


def _run(network: nn.Module, example: Tensor) -> Provenance:
    """Follows the channels in eval mode; auxiliary heads only run in training mode, so their layers are visited there."""
    named = network.state_dict(keep_vars=True)
    keys: dict[int, str] = {}
    for key, tensor in named.items():
        keys.setdefault(id(tensor), key)
    try:
        run = follow(network.eval(), example, keys)
    except CompressError:
        raise
    except Exception as error:  # whatever the user's forward raises
        raise TraceError(
            f"{type(network).__name__} does not run on an input of shape {tuple(example.shape)}: "
            f"{type(error).__name__}: {error}",
            hint="give the input size the network expects with --size",
        ) from error
    if run.attention:
        raise TraceError(
            f"{type(network).__name__} contains attention; this tool cuts convolutional networks only",
            hint="transformers need head and token pruning, which is another trade",
        )
    weights = {k for k, t in named.items() if isinstance(t, nn.Parameter) and t.dim() >= 2}
    if not run.layers:
        raise TraceError(f"{type(network).__name__} has no convolution or linear layer that runs on the example")
    if weights - {k for k, _ in run.labels}:
        try:
            trained = follow(network.train(), example.repeat(2, *[1] * (example.dim() - 1)), keys)
        except Exception:  # an auxiliary head that cannot run stays untouched: its layers are simply not in the topology
            return run
        finally:
            network.eval()
        trained.sites, trained.fixed_macs = run.sites, run.fixed_macs
        return trained
    return run


def _topology(network: nn.Module, run: Provenance, example: Tensor) -> Topology:
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
        group = _group(GroupId(producers[number][1]), classes, places, run)
        if group.size > 1 and any(m.role is Role.READS for m in group.members):
            groups.append(group)
        else:
            frozen[LayerName(group.id)] = "its channels are one" if group.size == 1 else "no layer reads it"
    norms = tuple(run.moment_norms)
    tensors = tensor_table(network.state_dict(keep_vars=True), parameters, run.sites, run)
    return Topology(tuple(groups), tensors, layers, frozen, (), tuple(example.shape[1:]), norms, run.fixed_macs)


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
    return ChannelGroup(name, len(classes), members)


def _disagreements(network: nn.Module, example: Tensor, run: Provenance, keys: Mapping[int, str]) -> list[str]:
    """What Torch-Pruning's graph would couple otherwise; the identities win."""
    try:
        proposals = list(_proposals(network, example, keys))
    except Exception as error:  # its graph fails on networks in many ways
        return [
            f"torch-pruning cannot follow this network ({type(error).__name__}: {error}); channel identities alone are used"
        ]
    notes = []
    for root, proposal in proposals:
        classes: dict[int, set[int]] = defaultdict(set)
        for slot, pairs in proposal.items():
            labels = run.labels.get(slot)
            if labels is None:
                continue
            for channel, index in pairs:
                value = int(labels[index]) if index < len(labels) else -1
                if value and value not in run.frozen:
                    classes[channel].add(value)
        wrong = sorted(c for c, found in classes.items() if len(found) > 1)
        if wrong:
            notes.append(f"torch-pruning couples channels of {root} wrongly ({len(wrong)} of {len(classes)}, e.g. {wrong[0]})")
    return notes


def _proposals(
    network: nn.Module, example: Tensor, keys: Mapping[int, str]
) -> Iterator[tuple[str, dict[Slot, list[tuple[int, int]]]]]:
    """Torch-Pruning's groups as root layer, and slot -> (root channel, index)."""
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=(example,))
    for group in graph.get_all_groups(ignored_layers=[], root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
        table: dict[Slot, list[tuple[int, int]]] = defaultdict(list)
        for item in group:
            module, roots = item.dep.target.module, item.root_idxs
            dim = 0 if graph.is_out_channel_pruning_fn(item.dep.handler) else 1
            if isinstance(module, nn.modules.conv._ConvTransposeNd):
                dim = 1 - dim
            if isinstance(module, nn.Parameter) or not isinstance(module, nn.modules.conv._ConvNd | nn.Linear | _NormBase):
                continue
            weight = getattr(module, "weight", None)
            if weight is None or id(weight) not in keys or roots is None or len(roots) != len(item.idxs):
                continue
            depthwise = getattr(module, "groups", 1) > 1 and weight.shape[1] == 1
            if isinstance(module, _NormBase) or depthwise:
                dim = 0
            elif getattr(module, "groups", 1) > 1 and dim == 1:
                continue  # its input indices are not local there
            table[keys[id(weight)], dim].extend(zip(roots, item.idxs, strict=True))
        name = next((n for n, m in network.named_modules() if m is group[0].dep.target.module), "?")
        yield name, table


def _probe(network: nn.Module, topology: Topology, example: Tensor) -> Topology:
    """Cuts at random, for real, and compares; whatever fails is frozen. Python constants show themselves here."""
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((3, *example.shape[1:]))).to(example.dtype)
    shaken = _shaken(network, inputs)
    suspects = [g.id for g in topology.groups]
    failed: dict[GroupId, str] = {}
    while more := _failing(shaken, topology, inputs, [g for g in suspects if g not in failed], rng):
        failed.update(more)
    if not failed:
        return topology
    frozen = dict(topology.frozen)
    frozen.update({LayerName(g): reason for g, reason in failed.items()})
    groups = tuple(g for g in topology.groups if g.id not in failed)
    return replace(topology, groups=groups, frozen=frozen)


def _failing(
    network: nn.Module, topology: Topology, inputs: Tensor, suspects: list[GroupId], rng: np.random.Generator
) -> dict[GroupId, str]:
    """The groups that cannot be cut, found by halving: a trial for every node of a binary tree that holds a failure."""
    if not suspects:
        return {}
    try:
        for ratio in _PROBE_RATIOS:
            plan = random_plan(topology, ratio, rng, suspects)
            verify(network, topology, plan, cut(network, topology, plan), inputs)
        return {}
    except CompressError as error:
        if len(suspects) == 1:
            return {suspects[0]: f"a trial cut failed: {error.message}"}
        if not isinstance(error, GuardError):
            raise
    half = len(suspects) // 2
    found = _failing(network, topology, inputs, suspects[:half], rng)
    found.update(_failing(network, topology, inputs, suspects[half:], rng))
    if not found:  # each half is fine alone, not both together
        return dict.fromkeys(suspects, "cut together with others, a trial cut failed")
    return found


def _shaken(network: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose per-channel parameters are random and whose batch norms hold the statistics of these inputs.

    An untrained or constant norm hides what it is fed, and then any cut would look right.
    """
    generator = torch.Generator().manual_seed(0)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in copied.parameters():
            if tensor.dim() and tensor.numel() == max(tensor.shape):
                spread = tensor.abs().mean().clamp(min=1e-2)
                tensor.add_((torch.rand(tensor.shape, generator=generator) - 0.3) * spread)
        norms = [m for m in copied.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        copied(inputs)
    return copied.eval()
