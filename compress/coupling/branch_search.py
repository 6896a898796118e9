"""Which branches can be left out: where an identity shortcut is added to what a branch writes, read off the network's run.

One forward pass is recorded as a graph of operations between values, with the module that ran each. A branch is found at every
addition of two equally shaped values of which one is computed from the other, and from nothing on the way that is used
elsewhere. What becomes of its modules:

- a module that holds branch and addition, and whose output is proven to be its input plus the branch, through activations at
  the most, becomes just its input, through these activations;
- otherwise the modules inside the branch hand their input on, and those that end it give zeros.

A trial has the last word (``coupling.branch_trial``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from compress.core import ACTIVATIONS, ZEROS, Branch, BranchId, SkippedModule, Topology, is_within
from compress.coupling.aten_ops import UNCHANGED
from compress.coupling.run_graph import ModuleCall, Operation, RunGraph, recorded

_ADDITIONS = frozenset({"add", "add_"})
_CHAINED = frozenset(
    "permute transpose view _unsafe_view reshape expand squeeze unsqueeze neg relu relu_ gelu silu silu_ hardswish hardswish_ "
    "leaky_relu leaky_relu_ tanh hardtanh hardtanh_ dropout native_dropout".split()
)
"""What makes zeros of zeros."""
_FACTORS = frozenset({"mul", "mul_", "div", "div_"})
_MULTIPLIES = frozenset({"convolution", "addmm", "mm"})
_CODES = {"relu": 1, "relu_": 1, "silu": 3, "silu_": 3, "gelu": 4, "hardswish": 5, "hardswish_": 5}
_CODES |= {"leaky_relu": 6, "leaky_relu_": 6, "sigmoid": 7, "tanh": 8, "mish": 9}


@dataclass(frozen=True)
class FoundBranches:
    """What a run shows.

    Attributes:
        branches: in forward order.
        kept: branch -> why it has to stay.
    """

    branches: tuple[Branch, ...] = ()
    kept: Mapping[BranchId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    """An addition with a shortcut.

    Attributes:
        addition: the operation.
        shortcut: the value that goes on.
        branch: the value that is added to it.
        path: operations between both, by number.
    """

    addition: Operation
    shortcut: int
    branch: int
    path: frozenset[int]


def find_branches(model: nn.Module, examples: Sequence[Tensor], topology: Topology) -> FoundBranches:
    """The branches of a network.

    Args:
        model: in evaluation mode.
        examples: its inputs, one image each.
        topology: traced from it, without branches.
    """
    graph = recorded(model, examples)
    found = [(c, _enclosing(graph, c)) for c in _candidates(graph)]
    several = [call.name for _, call in found if call is not None]
    branches: list[Branch] = []
    kept: dict[BranchId, str] = {}
    for candidate, around in found:
        inside = _inside(graph, candidate)
        ends = _ends(graph, candidate, candidate.branch, inside)
        last = max(inside, key=lambda call: call.end).name if inside else ""
        shared = around is None or not around.name or several.count(around.name) > 1
        whole = "" if around is None else around.name
        name = BranchId((last or whole) if shared else whole)
        made = _branch(graph, topology, candidate, around, name, inside, ends)
        if isinstance(made, Branch):
            branches.append(made)
        elif name:
            kept[name] = made
    taken = {b.name for b in branches}
    return FoundBranches(tuple(branches), {name: why for name, why in kept.items() if name not in taken})


def _branch(
    graph: RunGraph,
    topology: Topology,
    candidate: _Candidate,
    around: ModuleCall | None,
    name: BranchId,
    inside: Sequence[ModuleCall],
    ends: frozenset[str] | None,
) -> Branch | str:
    """The branch, or why it stays."""
    outside = next((v for i in candidate.path for v in graph.operations[i].outputs if _leaks(graph, candidate, v)), None)
    if outside is not None:
        return f"what {graph.operations[graph.makers[outside]].module or 'its code'} computes is used elsewhere too"
    if ends is None:
        return "what it adds is not the output of a module that runs once"
    codes = None if around is None else _becomes(graph, candidate, around)
    modules: tuple[SkippedModule, ...]
    if around is not None and codes is not None:
        modules = (SkippedModule(around.name, codes),)
    else:
        modules = tuple(SkippedModule(c.name, (ZEROS,) if c.name in ends else (0,)) for c in inside)
    made = Branch(name, modules, tuple(sorted(ends)))
    return _unfit(graph, topology, candidate, made) or made


def _unfit(graph: RunGraph, topology: Topology, candidate: _Candidate, branch: Branch) -> str:
    """Why it cannot be counted or cut; empty where it can."""
    gone = {key for key in topology.tensors if branch.holds(key)}
    weights = {layer.weight for layer in topology.layers}
    if not gone & weights:
        return "no layer is in it"
    for key, info in topology.tensors.items():
        if info.same_as and (info.same_as in gone) != (key in gone):
            return f"{key} and {info.same_as} are one tensor, of which only one is in it"
    for number in candidate.path:
        operation = graph.operations[number]
        if operation.name not in _MULTIPLIES:
            continue
        key = next((graph.keys[v] for v in operation.inputs if graph.keys.get(v) in weights), "")
        counted = key or next((x.weight for x in topology.layers if x.name == operation.module), "")
        if not counted:
            return f"a weight is computed in it (in {operation.module or 'the code of the network'})"
        if counted not in gone:
            return f"{operation.module or 'the code of the network'} calls a layer that is no module of its own"
    return ""


def _candidates(graph: RunGraph) -> list[_Candidate]:
    """Every addition of which one value is computed from the other, in forward order."""
    found = []
    for operation in graph.operations:
        if operation.name not in _ADDITIONS or len(operation.inputs) != 2 or operation.plain:
            continue
        one, two = operation.inputs
        if one == two or graph.shapes[one] != graph.shapes[two]:
            continue
        for shortcut, branch in ((one, two), (two, one)):
            source = _source(graph, shortcut)
            if source in graph.given or branch not in graph.makers:
                continue
            path = graph.between(source, branch)
            if any(graph.operations[number].name in _MULTIPLIES for number in path):
                found.append(_Candidate(operation, source, branch, path))
                break
    return found


def _source(graph: RunGraph, value: int) -> int:
    """What a value is a copy of; an operation may give back the very value that it was given."""
    seen: set[int] = set()
    while value not in seen and value in graph.makers and graph.operations[graph.makers[value]].name in UNCHANGED:
        seen.add(value)
        value = graph.operations[graph.makers[value]].inputs[0]
    return value


def _leaks(graph: RunGraph, candidate: _Candidate, value: int) -> bool:
    """Whether a value of the branch is used by anything but the branch and its addition."""
    users = graph.users.get(value, ())
    return value in graph.answers or any(u not in candidate.path and u != candidate.addition.number for u in users)


def _enclosing(graph: RunGraph, candidate: _Candidate) -> ModuleCall | None:
    """The innermost call that runs the branch and the addition."""
    numbers = (*candidate.path, candidate.addition.number)
    around = [c for c in graph.calls if c.start <= min(numbers) and c.end > max(numbers)]
    return min(around, key=lambda c: (c.end - c.start, -c.depth)) if around else None


def _inside(graph: RunGraph, candidate: _Candidate) -> tuple[ModuleCall, ...]:
    """The largest modules of which nothing but the branch uses the results, in forward order."""
    called: dict[str, list[ModuleCall]] = {}
    for call in graph.calls:
        called.setdefault(call.name, []).append(call)
    able = {
        name: calls[0]
        for name, calls in called.items()
        if name and all(call.start < call.end and _belongs(graph, candidate, call) for call in calls)
    }
    largest = [c for c in able.values() if not any(o is not c and is_within(c.name, o.name) for o in able.values())]
    return tuple(sorted(largest, key=lambda c: c.start))


def _belongs(graph: RunGraph, candidate: _Candidate, call: ModuleCall) -> bool:
    """Whether what leaves a call is of the branch."""
    if not any(call.start <= number < call.end for number in candidate.path):
        return False
    for number in range(call.start, call.end):
        for value in graph.operations[number].outputs:
            out = value in graph.answers or any(not call.start <= u < call.end for u in graph.users.get(value, ()))
            if out and number not in candidate.path:
                return False
    return True


def _ends(graph: RunGraph, candidate: _Candidate, value: int, inside: Sequence[ModuleCall]) -> frozenset[str] | None:
    """Modules that have to give zeros so that a value is zeros; None where there are none."""
    for call in inside:
        if call.outputs == (value,):
            return frozenset({call.name})
    maker = graph.makers.get(value)
    if maker is None or maker not in candidate.path:
        return None
    operation = graph.operations[maker]
    parts = [_ends(graph, candidate, v, inside) for v in operation.inputs]
    if operation.name in UNCHANGED | _CHAINED and len(operation.outputs) == 1:
        return parts[0]
    if operation.name in _FACTORS:
        return next((part for part in parts[: 1 if "div" in operation.name else 2] if part is not None), None)
    if operation.name in ("cat", *_ADDITIONS):
        known = [part for part in parts if part is not None]
        return frozenset().union(*known) if known and len(known) == len(parts) else None
    return None


def _becomes(graph: RunGraph, candidate: _Candidate, call: ModuleCall) -> tuple[int, ...] | None:
    """The activations through which a module's input becomes its output without the branch; None where more is done to it."""
    if not call.name or len(call.outputs) != 1 or sum(c.name == call.name for c in graph.calls) != 1:
        return None
    leaving = {v for n in range(call.start, call.end) for v in graph.operations[n].outputs if _leaves(graph, call, v)}
    if leaving != set(call.outputs):
        return None
    after = _activations(graph, call.outputs[0], candidate.addition.outputs[0])
    before = None if call.first is None else _activations(graph, candidate.shortcut, _source(graph, call.first))
    if after is None or before is None:
        return None
    return (0, *before, *after) if len(before) + len(after) < 4 else None


def _leaves(graph: RunGraph, call: ModuleCall, value: int) -> bool:
    return value in graph.answers or any(not call.start <= user < call.end for user in graph.users.get(value, ()))


def _activations(graph: RunGraph, value: int, start: int) -> tuple[int, ...] | None:
    """The activations that make a value of another one, in order."""
    codes: list[int] = []
    seen: set[int] = set()
    while value != start:
        if value not in graph.makers or value in seen:
            return None
        seen.add(value)
        operation = graph.operations[graph.makers[value]]
        if operation.name not in UNCHANGED:
            code = _code(operation)
            if code is None:
                return None
            codes.insert(0, code)
        value = operation.inputs[0]
    return tuple(codes)


def _code(operation: Operation) -> int | None:
    """The number of an activation at torch's own settings."""
    if operation.name in ("hardtanh", "hardtanh_"):
        return ACTIVATIONS.index("relu6") if operation.plain == (0.0, 6.0) else None
    usual = operation.plain in ((), (0.01,)) if operation.name.startswith("leaky_relu") else not operation.plain
    return _CODES.get(operation.name) if usual else None
