"""What Torch-Pruning's dependency graph thinks of a network: a second opinion, never the decision.

This is the only importer of torch_pruning. Where its groups disagree with the channel identities, the identities win, and
``compress inspect`` says so.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.core import GroupId, Slot, Topology

if TYPE_CHECKING:
    import torch_pruning as tp

_MOST_STEPS = 4000
"""Its graph walks every concatenation once for every layer: DenseNet-201 has 20,000 such steps, a minute and a half."""


def disagreements(model: nn.Module, topology: Topology, example: Tensor) -> tuple[str, ...]:
    """What Torch-Pruning's graph would couple otherwise, one sentence each.

    Args:
        model: the traced network; copied.
        topology: its topology.
        example: one input, (1, c, h, w).
    """
    network = copy.deepcopy(model).eval()
    random = torch.random.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(_compared(network, topology, example))
    except Exception as error:  # its graph fails on networks in many ways
        return (
            f"torch-pruning cannot follow this network ({type(error).__name__}: {error}); channel identities alone are used",
        )
    finally:
        torch.random.set_rng_state(random)


def _compared(network: nn.Module, topology: Topology, example: Tensor) -> Iterator[str]:
    import torch_pruning as tp

    channels: dict[Slot, dict[int, tuple[GroupId, int]]] = defaultdict(dict)
    for (group, slot), (indices, owners) in topology.flat.items():
        channels[slot].update((int(i), (group, int(c))) for i, c in zip(indices, owners, strict=True))
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=(example,))
    joins = sum(isinstance(m, tp.ops._ConcatOp) for m in graph.module2node)
    if joins * len(topology.layers) > _MOST_STEPS:
        yield f"torch-pruning was not asked: {joins} concatenations under {len(topology.layers)} layers take its graph too long"
        return
    for root, proposal in _proposals(graph, network):
        classes: dict[int, set[tuple[GroupId, int]]] = defaultdict(set)
        for slot, pairs in proposal.items():
            for channel, index in pairs:
                if index in channels[slot]:
                    classes[channel].add(channels[slot][index])
        wrong = sorted(c for c, found in classes.items() if len(found) > 1)
        if wrong:
            yield f"torch-pruning couples channels of {root} wrongly ({len(wrong)} of {len(classes)}, e.g. {wrong[0]})"


def _proposals(graph: tp.DependencyGraph, network: nn.Module) -> Iterator[tuple[str, Mapping[Slot, list[tuple[int, int]]]]]:
    """Torch-Pruning's groups as root layer, and slot -> (root channel, index)."""
    keys = {id(t): k for k, t in network.state_dict(keep_vars=True).items()}
    names = {id(m): n for n, m in network.named_modules()}
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
        yield names.get(id(group[0].dep.target.module), "?"), table
