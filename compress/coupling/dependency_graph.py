"""Torch-Pruning's dependency graph: the coupled groups as it proposes them, in the tool's own coordinates.

This is the only importer of torch_pruning. What becomes of its proposals is ``coupling.agreement``'s to say: it has its own
idea of shortcuts that pad, of chunks and of slices, and fails on some networks; nothing is cut because it says so.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.core import Slot, plural
from compress.coupling.agreement import Proposal, Proposed
from compress.errors import one_line

_MOST_STEPS = 50_000
"""Its graph walks every concatenation once for every layer: DenseNet-201 has 20,000 such steps, which take a second."""


_MOST_ROUNDS = 10
"""So often may the walk of one group map indices for each arrow of the graph. Where index maps are wrong it never ends."""


class _WalkTooLong(Exception):
    """The graph's walk through one group does not end, or takes up more indices than any dimension has."""


def propose(network: nn.Module, examples: Sequence[Tensor], *, joins: int, layers: int) -> Proposed:
    """Asks the graph for its groups.

    Args:
        network: in eval mode; left as it was, its hooks and what requires gradients included.
        examples: its inputs.
        joins: how many concatenations it runs.
        layers: how many convolutions and linear layers: with the concatenations, what the graph's time grows with.
    """
    if joins * layers > _MOST_STEPS:
        return Proposed(
            why_not=f"torch-pruning was not asked: {joins} concatenations under "
            f"{plural(layers, 'layer')} take its graph too long"
        )
    try:
        with _borrowed(network), torch.enable_grad():
            return Proposed(tuple(_proposals(network, tuple(examples))))
    except _WalkTooLong as error:
        return Proposed(why_not=f"torch-pruning was not waited for: {error}")
    except Exception as error:  # its graph fails on networks in many ways
        return Proposed(why_not=f"torch-pruning cannot follow this network ({type(error).__name__}: {one_line(error)})")


@contextmanager
def _borrowed(network: nn.Module) -> Iterator[None]:
    """Parameters all require gradients, for the graph is read off these; its hooks, left behind where it fails, are gone."""
    hooks = [(m, tuple(m._forward_hooks)) for m in network.modules()]
    frozen = [p for p in network.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for module, before in hooks:
            for key in [k for k in module._forward_hooks if k not in before]:
                del module._forward_hooks[key]


def _torch_pruning() -> Any:
    """The library. It looks for timm only to count operations, which nothing here asks of it: two seconds saved."""
    if "torch_pruning" not in sys.modules and "timm" not in sys.modules:
        sys.modules["timm"] = None  # type: ignore[assignment]
        try:
            import torch_pruning
        finally:
            del sys.modules["timm"]
    else:
        import torch_pruning
    return torch_pruning


def _proposals(network: nn.Module, examples: tuple[Tensor, ...]) -> Iterator[Proposal]:
    tp = _torch_pruning()
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=examples, verbose=False)
    _settle(graph, tp.ops.OPTYPE)
    keys: dict[int, str] = {}
    for key, tensor in network.state_dict(keep_vars=True).items():
        keys.setdefault(id(tensor), key)
    walk = _bounded(graph, network)
    for group in graph.get_all_groups(ignored_layers=[], root_module_types=[_ConvNd, nn.Linear]):
        walk.left = walk.most
        roots: dict[Slot, list[Any]] = defaultdict(list)
        indices: dict[Slot, list[Any]] = defaultdict(list)
        for item in group:
            node = item.dep.target
            writes = graph.is_out_channel_pruning_fn(item.dep.handler)
            tensors = list(_cut_with(node, tp.ops.OPTYPE, writes=writes))
            if tensors:
                own, theirs = (np.array(x, dtype=np.int64) for x in (item.root_idxs, item.idxs))
            for tensor, dim, period in tensors:
                slot = (keys[id(tensor)], dim)
                roots[slot].append(own)
                indices[slot].append(theirs % period if period else theirs)
        weight, dim, _ = next(_cut_with(group[0].dep.target, tp.ops.OPTYPE, writes=True))
        pairs = {slot: (np.concatenate(roots[slot]), np.concatenate(indices[slot])) for slot in roots}
        yield Proposal((keys[id(weight)], dim), pairs)


def _settle(graph: Any, kinds: Any) -> None:
    """Keeps the index maps it was built with.

    It makes them again for every group, though nothing is cut in between: most of its time on a DenseNet. A node that counts
    as element-wise keeps the maps it has.
    """
    mapped = {kinds.CONCAT, kinds.SPLIT, kinds.RESHAPE, kinds.UNBIND, kinds.EXPAND, kinds.SLICE}
    for node in graph.module2node.values():
        if node.type in mapped:
            node.type = kinds.ELEMENTWISE


class _Walk:
    """What is left of the steps that the walk of one group may take."""

    def __init__(self, most: int, widest: int) -> None:
        self.left = self.most = most
        self.widest = widest

    def mapping(self, plain: Any) -> Any:
        """The same index map, counted."""

        def counted(indices: Any) -> Any:
            mapped = plain(indices)
            self.left -= 1
            if self.left < 0 or len(mapped) > self.widest:
                raise _WalkTooLong("its walk over this network does not end")
            return mapped

        return counted


def _bounded(graph: Any, network: nn.Module) -> _Walk:
    """Counts the index maps that the graph goes through: without one on its way, a walk round a circle ends by itself."""
    arrows = [dep for node in graph.module2node.values() for dep in node.dependencies]
    walk = _Walk(_MOST_ROUNDS * len(arrows), max(n for t in network.state_dict().values() for n in (*t.shape, 1)))
    for arrow in arrows:
        arrow.index_mapping = [m if m is None else walk.mapping(m) for m in arrow.index_mapping]
    return walk


def _cut_with(node: Any, kinds: Any, *, writes: bool) -> Iterator[tuple[Tensor, int, int]]:
    """Tensors that its pruner of a module cuts, the dimension, and the period of the indices (0: as they are)."""
    module = node.module
    if isinstance(module, nn.Parameter):
        yield module, node.pruning_dim, 0
    elif isinstance(module, _ConvNd) and node.type != kinds.DEPTHWISE_CONV:
        transposed = isinstance(module, _ConvTransposeNd)
        if writes:
            yield module.weight, 1 if transposed else 0, 0
        elif not transposed:  # the columns of a grouped convolution are those of one conv-group, for each of them
            yield module.weight, 1, module.weight.shape[1]
        elif module.groups == 1:  # else it takes the first rows, whatever was asked
            yield module.weight, 0, 0
    elif isinstance(module, nn.Linear):
        yield module.weight, 0 if writes else 1, 0
    elif getattr(module, "weight", None) is not None and module.weight.numel() > 1:  # norms, PReLU, depthwise convolutions
        yield module.weight, 0, 0
    if getattr(module, "bias", None) is not None and (writes or not isinstance(module, _ConvNd | nn.Linear)):
        yield module.bias, 0, 0
    if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
        yield module.running_mean, 0, 0  # those of an instance norm it leaves as they are
        yield module.running_var, 0, 0
