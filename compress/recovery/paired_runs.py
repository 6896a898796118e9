"""Two networks on the same images, module by module: what enters a module of the one while the other computes the same.

Where the network has a graph and memory is enough, both are run node by node, and nothing is computed twice; else both are run
anew for every module, which asks nothing of the network's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from compress.coupling import NotTraceable, symbolic_graph

if TYPE_CHECKING:
    from compress.recovery.reconstruction import RestoringWork


class Seen(NamedTuple):
    """One batch in one run of a module: what enters and leaves it in the unpruned network, what enters it in the cut one.

    The runs of one batch follow each other, in their order.
    """

    whole_input: Tensor
    whole_output: Tensor
    input: Tensor


def module_by_module(work: RestoringWork, batches: Sequence[Tensor]) -> None:
    """Has the work done at every module, front to back, on what the restored modules before it make of the images."""
    graph = _affordable_graph(work.whole, batches, work.settings.memory)
    small_graph = graph if not work.plan.branches else _graph_of(work.small)
    if graph is None or small_graph is None:
        _rerun(work, batches)
    else:
        _walk(work, graph, small_graph, batches)


def _affordable_graph(model: nn.Module, batches: Sequence[Tensor], memory: int) -> fx.Graph | None:
    """The network's graph, if it has one and both networks' live activations for all images fit."""
    try:
        graph = symbolic_graph(model)
        if len([n for n in graph.nodes if n.op == "placeholder"]) != 1:
            return None
        run, last = fx.Interpreter(model, graph=graph), _last_uses(graph)
        run.env = {}
        most = 0
        for node in graph.nodes:
            if node.op == "output":
                break
            run.env[node] = batches[0][:1].clone() if node.op == "placeholder" else run.run_node(node)
            values = [v for v in run.env.values() if isinstance(v, Tensor)]
            most = max(most, sum(v.untyped_storage().nbytes() for v in {v.data_ptr(): v for v in values}.values()))
            for used in last.get(node, ()):
                run.env.pop(used, None)
    except NotTraceable:
        return None
    return graph if 2 * most * sum(len(b) for b in batches) <= memory else None


def _graph_of(model: nn.Module) -> fx.Graph | None:
    try:
        return symbolic_graph(model)
    except NotTraceable:
        return None


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Node -> the values that nobody needs after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        last[node] = node
        for used in node.all_input_nodes:
            last[used] = node
    table: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        if node.op != "output":
            table.setdefault(node, []).append(used)
    return table


def _walk(work: RestoringWork, graph: fx.Graph, small_graph: fx.Graph, batches: Sequence[Tensor]) -> None:
    """Both networks node by node, all batches at once: nothing is computed twice.

    Args:
        work: what is to be done.
        graph: of the unpruned network.
        small_graph: of the cut one; the same, unless branches are gone.
        batches: images.
    """
    sites = [n for n in small_graph.nodes if n.op == "call_module" and n.args and isinstance(n.args[0], fx.Node)]
    work.ran(Counter(str(n.target) for n in sites), _apart(work.whole, batches))
    norms = {n for n in sites if n.target in work.norms}
    work.before_norm = {str(n.target) for n in sites if n.users and set(n.users) <= norms}
    work.before_norm -= {str(n.target) for n in sites if not set(n.users) <= norms}
    several = {name for name, runs in work.calls.items() if runs > 1}
    left = work.wanted | work.norms
    whole = _Stepping(work.whole, graph, batches)
    small = _Stepping(work.small, small_graph, batches)
    for node in small_graph.nodes:
        if node.op == "output":
            break
        name = str(node.target)
        if node in sites and name in left:
            left.discard(name)
            if name in several:
                work.do(name, _runs_of(work, name, batches))
            else:
                seen = zip(whole.at(name), small.environments, strict=True)
                work.do(name, (Seen(entering, leaving, s[node.args[0]]) for (entering, leaving), s in seen))
        small.step()


class _Stepping:
    """A network that is run node by node, for all batches at once; values that nobody needs any more are forgotten."""

    def __init__(self, model: nn.Module, graph: fx.Graph, batches: Sequence[Tensor]) -> None:
        self.run = fx.Interpreter(model, graph=graph)
        self.batches = batches
        self.environments: list[dict[fx.Node, Any]] = [{} for _ in batches]
        self.left = iter(graph.nodes)
        self.last = _last_uses(graph)

    def step(self, keep: bool = False) -> fx.Node:
        """Computes the next node; ``keep`` forgets nothing yet."""
        node: fx.Node = next(self.left)
        for environment, batch in zip(self.environments, self.batches, strict=True):
            self.run.env = environment
            environment[node] = batch.clone() if node.op == "placeholder" else self.run.run_node(node)
        if not keep:
            self._forget(node)
        return node

    def _forget(self, node: fx.Node) -> None:
        for used in self.last.get(node, ()):
            for environment in self.environments:
                environment.pop(used, None)

    def at(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Runs on to the call of a module: per batch what enters and what leaves it."""
        while True:
            node = self.step(keep=True)
            if node.op == "call_module" and node.target == name:
                break
            self._forget(node)
        (entry,) = node.all_input_nodes[:1]
        found = [(environment[entry], environment[node]) for environment in self.environments]
        self._forget(node)
        return found


class _Reached(BaseException):
    """The module that a run was for has run; no ``except Exception`` of the user's code may swallow it."""


def _rerun(work: RestoringWork, batches: Sequence[Tensor]) -> None:
    """Both networks from the start for every module: slow, but it asks nothing of the network's code."""
    order: list[str] = []
    made_by: dict[int, str] = {}
    normed: Counter[str] = Counter()
    alive: list[Tensor] = []  # so that no id is given twice

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            order.append(name)
            if name in work.norms and id(args[0]) in made_by:
                normed[made_by[id(args[0])]] += 1
            made_by[id(output)] = name
            alive.append(output)

        return hook

    stops = work.wanted | work.norms
    hooks = [m.register_forward_hook(note(n)) for n, m in work.whole.named_modules() if n in stops]
    work.whole(batches[0].clone())
    alive.clear()
    for handle in hooks:
        handle.remove()
    work.ran(Counter(order), _apart(work.whole, batches))
    work.before_norm = {name for name, times in normed.items() if times >= work.calls[name]}
    for name in dict.fromkeys(order):
        if name in work.wanted | work.norms:
            work.do(name, _runs_of(work, name, batches))


def _runs_of(work: RestoringWork, name: str, batches: Sequence[Tensor]) -> Iterator[Seen]:
    """Every run of a module on every batch, both networks run anew."""
    for batch in batches:
        whole, small = (_at(model, name, batch, work.calls[name]) for model in (work.whole, work.small))
        for (entering, leaving), (now, _) in zip(whole, small, strict=True):
            yield Seen(entering, leaving, now)


def _apart(model: nn.Module, batches: Sequence[Tensor]) -> Callable[[str], bool]:
    """Tells of a module whether its runs are independent: what enters them stays when what leaves them is another thing."""

    def told(name: str) -> bool:
        once, changed = (_entering(model, name, batches[0][:1], how) for how in (lambda y: y, torch.zeros_like))
        return all(map(torch.equal, once, changed))

    return told


def _entering(model: nn.Module, name: str, batch: Tensor, how: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What enters each run of a module while what leaves it is changed."""
    found: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found.append(args[0].clone())
        return how(output)

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        model(batch.clone())
    finally:
        handle.remove()
    return found


def _at(model: nn.Module, name: str, batch: Tensor, runs: int) -> list[tuple[Tensor, Tensor]]:
    """What enters and leaves a module in each of its first ``runs`` runs."""
    found: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((args[0], output) if runs == 1 else (args[0].clone(), output.clone()))  # later modules may work in place
        if len(found) == runs:
            raise _Reached

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        model(batch.clone())
    except _Reached:
        pass
    finally:
        handle.remove()
    return found
