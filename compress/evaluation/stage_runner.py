"""Running only a stage: its sub-graph on cached inputs, candidates as physically sliced weights.

S_k is the smallest sub-graph from the stage's input to the pre-activation of the first layers after the stage. Its inputs
X_k come from the already pruned prefix, its wanted outputs Y_k from the original network, both cached for the same images;
batch norms inside S_k use the batch's own statistics, since stale ones would mostly measure a shift of the mean.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map

from compress.core import BranchId, GroupId, Layer, LayerName, Plan, Topology, is_within, kept_positions, restrict
from compress.coupling import NotTraceable
from compress.evaluation.output_error import balanced
from compress.surgery import cut, cut_state, refresh_attributes


@dataclass(frozen=True)
class Cutout:
    """A stage's part of the graph.

    Attributes:
        groups: the stage's groups.
        inputs: names of the nodes whose values it starts from.
        nodes: names of the nodes it runs, in order.
        outputs: names of the observed nodes.
        observed: the layers that make them; None where the network's own output is observed.
    """

    groups: tuple[GroupId, ...]
    inputs: tuple[str, ...]
    nodes: tuple[str, ...]
    outputs: tuple[str, ...]
    observed: tuple[Layer | None, ...]


def cutout(graph: fx.Graph, topology: Topology, groups: Sequence[GroupId], to_end: bool = False) -> Cutout:
    """Finds the stage's sub-graph, or all of the network from the stage on.

    Observed are the readers of the stage's groups that belong to no group of the stage themselves. Where such a reader
    adds into a residual stream, its error also passes by on the shortcut: then the next layers that read the stream after
    the stage are observed instead.

    Raises:
        NotTraceable: the stage's layers are not modules of the graph.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    owner = _layer_nodes(graph, topology)
    makers = {x.name for g in groups for x in topology.writers(g)}
    users = {x.name for g in groups for x in topology.readers(g)}
    marked = [n for n in graph.nodes if n in owner and owner[n].name in makers | users]
    if not marked or not all(any(owner[n].name == name for n in marked) for name in makers | users):
        raise NotTraceable("a layer of the stage is not a module of the graph")
    affected = _downstream([n for n in marked if owner[n].name in makers] or marked)
    if to_end:
        ends = {n for n in next(iter(reversed(graph.nodes))).all_input_nodes if n in affected}
        return _between(ends, affected, {}, graph, groups)
    last = max(order[n] for n in marked)
    written = {layer.name: len(topology.writers(g.id)) for g in topology.groups for layer in topology.writers(g.id)}
    ends = set[fx.Node]()
    for node in marked:
        if owner[node].name in makers:
            continue
        if written.get(owner[node].name, 1) > 1:
            ends |= {n for n in _next_layers(node, owner, set(marked)) if order[n] > last}
        else:
            ends.add(node)
    if not ends:
        ends = {max(marked, key=lambda n: order[n])}
    return _between(ends, affected, owner, graph, groups)


def _between(
    ends: set[fx.Node], affected: set[fx.Node], owner: Mapping[fx.Node, Layer], graph: fx.Graph, groups: Sequence[GroupId]
) -> Cutout:
    """What of the affected nodes the ends need."""
    needed = _upstream(ends) & affected
    inputs = {i for n in needed for i in n.all_input_nodes if i not in needed}
    return Cutout(
        groups=tuple(groups),
        inputs=tuple(n.name for n in graph.nodes if n in inputs),
        nodes=tuple(n.name for n in graph.nodes if n in needed),
        outputs=tuple(n.name for n in graph.nodes if n in ends),
        observed=tuple(owner.get(n) for n in graph.nodes if n in ends),
    )


def _layer_nodes(graph: fx.Graph, topology: Topology) -> dict[fx.Node, Layer]:
    return {n: topology.by_layer[n.target] for n in graph.nodes if n.op == "call_module" and n.target in topology.by_layer}


def _next_layers(start: fx.Node, owner: dict[fx.Node, Layer], marked: set[fx.Node]) -> set[fx.Node]:
    """The first dense layers that the node's value reaches; those that another of them feeds come later and are left."""
    found, queue, seen = set(), list(start.users), set()
    while queue:
        node = queue.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in owner and not owner[node].depthwise:
            if node not in marked:
                found.add(node)
        else:
            queue.extend(node.users)
    return {n for n in found if not any(n in _downstream(list(other.users)) for other in found if other is not n)}


def _downstream(starts: Sequence[fx.Node]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    queue = list(starts)
    while queue:
        node = queue.pop()
        if node not in seen and node.op != "output":
            seen.add(node)
            queue.extend(node.users)
    return seen


def _upstream(ends: set[fx.Node]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    queue = list(ends)
    while queue:
        node = queue.pop()
        if node not in seen:
            seen.add(node)
            queue.extend(node.all_input_nodes)
    return seen


def silent_nodes(graph: fx.Graph, topology: Topology, branches: Sequence[BranchId]) -> frozenset[str]:
    """The nodes that have to give zeros so that these branches contribute nothing: the last of each module that ends one."""
    ends = [name for b in branches for name in topology.by_branch[b].silenced]
    last: dict[str, str] = {}
    for node in graph.nodes:
        running = [str(n) for n, _ in node.meta.get("nn_module_stack", {}).values()]
        inside = [*running, str(node.target)] if node.op == "call_module" else running
        last |= {end: node.name for end in ends if any(is_within(name, end) for name in inside)}
    missing = [end for end in ends if end not in last]
    if missing:
        raise NotTraceable(f"{missing[0]} is not in the graph")
    return frozenset(last.values())


def values_at(
    model: nn.Module, graph: fx.Graph, images: Tensor, names: Sequence[str], silent: Collection[str] = ()
) -> list[Tensor]:
    """What the named nodes compute for these images; the run stops after the last of them. Silent ones give zeros."""
    wanted = set(names)
    found: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    environment: dict[fx.Node, Any] = {}
    uses = {node: len(node.users) for node in graph.nodes}
    arrived = iter([images])
    with torch.no_grad():
        for node in graph.nodes:
            if node.op == "output" or len(found) == len(wanted):
                break
            value = next(arrived) if node.op == "placeholder" else _compute(node, environment, modules, model)
            value = torch.zeros_like(value) if node.name in silent else value
            environment[node] = value
            if node.name in wanted:
                found[node.name] = value
            for used in node.all_input_nodes:
                uses[used] -= 1
                if uses[used] == 0:
                    del environment[used]
    return [found[name] for name in names]


def _compute(node: fx.Node, environment: dict[fx.Node, Any], modules: dict[str, nn.Module], root: nn.Module) -> Any:
    args = tree_map(lambda a: environment[a] if isinstance(a, fx.Node) else a, node.args)
    kwargs = tree_map(lambda a: environment[a] if isinstance(a, fx.Node) else a, node.kwargs)
    if node.op == "call_module":
        return modules[str(node.target)](*args, **kwargs)
    if node.op == "get_attr":
        value: Any = root
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


class Compensate(Protocol):
    """Re-solves readers (``compress.recovery.compensation``)."""

    def __call__(self, plan: Plan, keys: Collection[str], /) -> Mapping[str, Tensor]:
        """The tensors among these keys that change, at their full size."""
        ...


class StageRunner:
    """Scores candidates of one stage in one already pruned surrounding.

    Args:
        model: the original network, eval mode.
        graph: its graph.
        topology: its topology.
        part: the stage's part of the graph, from :func:`cutout`.
        before: what the other stages already cut.
        images: (n, c, h, w).
        surrounded: the network after ``before``; by default simply cut.
        compensation: re-solves the readers that a plan takes inputs from; None leaves them as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        topology: Topology,
        part: Cutout,
        before: Plan,
        images: Tensor,
        surrounded: nn.Module | None = None,
        compensation: Compensate | None = None,
    ) -> None:
        self.part, self.compensation = part, compensation
        self.silent = silent_nodes(graph, topology, before.branches)
        self.graph, self.whole_topology = graph, topology
        before = self.before = Plan(before.cuts, before.inputs)  # the branches that are gone run here, and are not heard
        self.nodes = {n.name: n for n in graph.nodes}
        self.last_used = _last_used([self.nodes[n] for n in part.nodes], part.outputs)
        if surrounded is None:
            surrounded = cut(model, topology, before).eval() if before else model
        self.topology = restrict(topology, before)
        self.inputs = values_at(surrounded, graph, images, self.part.inputs, self.silent)
        targets = values_at(model, graph, images, self.part.outputs)
        table = self.table = kept_positions(topology, before)
        self.kept_outputs = [None if x is None else table.get((x.weight, x.write_dim)) for x in self.part.observed]
        self.targets = [
            t if k is None else t.index_select(_channel_dim(x, t), torch.from_numpy(k))
            for x, t, k in zip(self.part.observed, targets, self.kept_outputs, strict=True)
        ]
        self.spread = [_spread(x, t) for x, t in zip(self.part.observed, self.targets, strict=True)]
        self.modules, self.originals = self._own_modules(surrounded)
        self.root = surrounded
        self.state = {f"{n}.{k}": t for n, m in self.originals.items() for k, t in m.state_dict().items()}
        self.bare = {n: str(self.nodes[n].target) for n in self.part.inputs if self.nodes[n].op == "get_attr"}
        own = surrounded.state_dict()  # parameters that stand in no layer, a layer scale say, are sliced like weights
        self.state |= {key: own[key] for key in self.bare.values() if key in own}
        self.sliced = self.state
        self.view = self._view(set(part.groups))

    def _own_modules(self, model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """Copies of the stage's modules that sliced tensors are put into; batch norms forget their statistics."""
        names = {str(self.nodes[n].target) for n in self.part.nodes if self.nodes[n].op == "call_module"}
        originals = {}
        for name in sorted(names):
            module = copy.deepcopy(model.get_submodule(name)).eval().requires_grad_(False)
            for norm in module.modules():
                if isinstance(norm, _NormBase) and norm.track_running_stats:
                    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
            originals[name] = module
        return {n: copy.deepcopy(m) for n, m in originals.items()}, originals

    def _view(self, groups: set[GroupId]) -> Topology:
        """The topology as far as this sub-network goes: its tensors, and the stage's groups only."""
        own = []
        for group in self.topology.groups:
            if group.id in groups:
                own.append(replace(group, members=tuple(m for m in group.members if m.key in self.state)))
        tensors = {k: t for k, t in self.topology.tensors.items() if k in self.state}
        layers = tuple(x for x in self.topology.layers if x.weight in self.state)
        return replace(self.topology, groups=tuple(own), tensors=tensors, layers=layers)

    def bytes(self) -> int:
        """Memory of the caches."""
        return sum(t.numel() * t.element_size() for t in (*self.inputs, *self.targets))

    def error(self, plan: Plan, images: int) -> float:
        """f1 = ||Y_k - S_k(X_k; plan)||^2 / ||Y_k - mean||^2 over the observed layers, averaged; NaN where it breaks."""
        images = min(images, len(self.targets[0]))
        own = Plan({g: c for g, c in plan.cuts.items() if g in self.view.by_id})
        self._install(own)
        silent = silent_nodes(self.graph, self.whole_topology, plan.branches) if plan.branches else frozenset[str]()
        outputs = self._run(images, self.silent | silent)
        total = 0.0
        for got, wanted, spread, layer in zip(outputs, self.targets, self.spread, self.part.observed, strict=True):
            wanted = wanted[:images]
            if got.shape != wanted.shape:
                return float("nan")
            if layer is None and wanted.dim() > 2:
                total += balanced(wanted, got)
                continue
            total += float((got - wanted).pow(2).sum()) / max(spread * images / len(self.targets[0]), 1e-12)
        return total / len(outputs)

    def _install(self, plan: Plan) -> None:
        state = self.sliced = cut_state(self._adapted(plan), self.view, plan) if plan else self.state
        for name, module in self.modules.items():
            for path, inner in module.named_modules():
                stem = f"{name}.{path}" if path else name
                for key in list(inner._parameters):
                    if inner._parameters[key] is not None:
                        inner._parameters[key] = state[f"{stem}.{key}"]
                for key in list(inner._buffers):
                    if f"{stem}.{key}" in state:
                        setattr(inner, key, state[f"{stem}.{key}"])
                original = self.originals[name].get_submodule(path) if path else self.originals[name]
                layer = self.view.by_layer.get(LayerName(stem))
                refresh_attributes(inner, original, stem, depthwise=None if layer is None else layer.depthwise)

    def _adapted(self, plan: Plan) -> Mapping[str, Tensor]:
        """The stage's tensors, those of the readers re-solved for what the plan and the surroundings take from them."""
        if self.compensation is None:
            return self.state
        everything = Plan({**self.before.cuts, **plan.cuts})
        return {**self.state, **{k: self._surrounded(k, t) for k, t in self.compensation(everything, self.state).items()}}

    def _surrounded(self, key: str, tensor: Tensor) -> Tensor:
        for dim in range(tensor.dim()):
            if (key, dim) in self.table:
                tensor = tensor.index_select(dim, torch.from_numpy(self.table[key, dim]))
        return tensor

    def _run(self, images: int, silent: Collection[str] = ()) -> list[Tensor]:
        environment: dict[fx.Node, Any] = {}
        for name, value in zip(self.part.inputs, self.inputs, strict=True):
            if name in self.bare:
                environment[self.nodes[name]] = self.sliced.get(self.bare[name], value)
            else:
                environment[self.nodes[name]] = value[:images] if isinstance(value, Tensor) else value
        with torch.no_grad():
            for name in self.part.nodes:
                node = self.nodes[name]
                value = _compute(node, environment, self.modules, self.root)
                environment[node] = torch.zeros_like(value) if name in silent else value
                for used in self.last_used.get(name, ()):
                    environment.pop(used, None)
        return [environment[self.nodes[n]] for n in self.part.outputs]


def _last_used(nodes: Sequence[fx.Node], kept: Collection[str]) -> dict[str, list[fx.Node]]:
    """Node -> those whose values nobody needs after it: the values of a stage, all at once, would be most of the memory."""
    last = {used: node.name for node in nodes for used in node.all_input_nodes if used.name not in kept}
    found: dict[str, list[fx.Node]] = {}
    for used, name in last.items():
        found.setdefault(name, []).append(used)
    return found


def _channel_dim(layer: Layer | None, output: Tensor) -> int:
    return output.dim() - 1 if layer is not None and layer.kind == "linear" else 1


def _spread(layer: Layer | None, output: Tensor) -> float:
    """||Y - mean||^2, the mean taken per channel; per number where it is the network's output."""
    if layer is None:
        return float((output - output.mean(dim=0, keepdim=True)).pow(2).sum())
    others = tuple(d for d in range(output.dim()) if d != _channel_dim(layer, output))
    return float((output - output.mean(dim=others, keepdim=True)).pow(2).sum())
