"""Two networks on the same images, module by module: what enters a module of the one while the other computes the same.

Where the network has a graph and memory is enough, both are run node by node, and nothing is computed twice; else both are run
anew for every module, which asks nothing of the network's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, fx, nn

from compress.coupling import NotTraceable, symbolic_graph

if TYPE_CHECKING:
    from compress.recovery.reconstruction import RestoringWork


class Seen(NamedTuple):
    """One batch at one module: what enters and leaves it in the unpruned network, what enters it in the cut one."""

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
    work.once(Counter(str(n.target) for n in sites))
    norms = {n for n in sites if n.target in work.norms}
    work.before_norm = {str(n.target) for n in sites if n.users and set(n.users) <= norms}
    whole = _Stepping(work.whole, graph, batches)
    small = _Stepping(work.small, small_graph, batches)
    for node in small_graph.nodes:
        if node.op == "output":
            break
        if node in sites and str(node.target) in work.wanted | work.norms:
            entry = node.args[0]
            seen = zip(whole.at(str(node.target)), small.environments, strict=True)
            work.do(str(node.target), (Seen(entering, leaving, s[entry]) for (entering, leaving), s in seen))
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
    alive: list[Tensor] = []  # so that no id is given twice

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            order.append(name)
            if name in work.norms:
                work.before_norm |= {made_by[id(args[0])]} if id(args[0]) in made_by else set()
            made_by[id(output)] = name
            alive.append(output)

        return hook

    stops = work.wanted | work.norms
    hooks = [m.register_forward_hook(note(n)) for n, m in work.whole.named_modules() if n in stops]
    work.whole(batches[0].clone())
    alive.clear()
    for handle in hooks:
        handle.remove()
    work.once(Counter(order))
    for name in order:
        if name in work.wanted | work.norms:
            work.do(name, (Seen(*_at(work.whole, name, b), _at(work.small, name, b)[0]) for b in batches))


def _at(model: nn.Module, name: str, batch: Tensor) -> tuple[Tensor, Tensor]:
    """What enters and leaves a module."""
    found: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.extend((args[0], output))
        raise _Reached

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        model(batch.clone())
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0], found[1]
