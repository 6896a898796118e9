"""From a graph to a network: each node gets its module, and is run on shapes alone before the next one is made.

The run has no numbers in it: it shows what shape arrives at the next node, at two batch sizes, and stops at whatever would need
absurdly much memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from onnx import ValueInfoProto
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from compress.errors import CompressError, ImportRefused, one_line
from compress.importing.graph import Graph, dims_of
from compress.importing.naming import added, path_of
from compress.importing.network import Axes, ImportedNetwork, ImportedOfOne, NodeStep
from compress.importing.node import Made, Node
from compress.importing.operators.table import MAKERS
from compress.importing.random_inputs import DTYPES
from compress.importing.sizes import is_sizes

_BATCHES = (2, 3)
_LARGEST = 2**28
"""Numbers that a value may have."""
_SIDE = 224
"""Of a dimension that the file leaves open."""

InputShapes = Mapping[str, tuple[int, ...]]


def built(graph: Graph, sizes: InputShapes | None = None) -> ImportedNetwork:
    """The network of a graph.

    Args:
        graph: with its weights.
        sizes: shape of each input, the batch among it, where the file leaves dimensions open; 224 otherwise.

    Raises:
        ImportRefused: a node cannot be made a module, or would need more memory than any network does.
    """
    network = (ImportedOfOne if len(graph.inputs) == 1 else ImportedNetwork)(graph)
    batched = {value.name: _batched(value, graph) for value in graph.inputs}
    if not any(batched.values()):
        raise ImportRefused(
            "no input has a first dimension that counts examples: "
            + ", ".join(f"{v.name[:40]!r} {list(dims_of(v))}" for v in graph.inputs),
            hint="export the network with a batch as its first dimension",
        )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    shapes = {v.name: _shape(v, sizes, batched[v.name]) for v in graph.inputs}
    values: dict[str, tuple[Any, Any]] = {}
    for value in graph.inputs:
        kind = DTYPES[value.type.tensor_type.elem_type]
        first, rest = shapes[value.name][:1], shapes[value.name][1:]
        with mode:
            both = [torch.empty((n, *rest) if batched[value.name] else (*first, *rest), dtype=kind) for n in _BATCHES]
        values[value.name] = (both[0], both[1])
    with torch.no_grad():
        steps = _steps(network, values, mode)
    held = {graph.nodes[step.node].input[h] for step in steps for h in _held(step.made)}
    emptied = {n: np.broadcast_to(np.zeros((), c.dtype), c.shape) if n in held else c for n, c in graph.constants.items()}
    network.graph = replace(graph, constants=emptied)
    network.steps = _with_ends(steps, graph)
    network.axes = Axes(
        inputs={name: 0 if batched[name] else None for name in shapes},
        outputs={name: _axis(values.get(name), name) for name in graph.output_names},
        sizes={name: (1, *shape[1:]) if batched[name] else shape for name, shape in shapes.items()},
    )
    return network.eval()


def _held(made: Made) -> set[int]:
    return {held.place for held in made.held} | set(made.stored)


def _batched(value: ValueInfoProto, graph: Graph) -> bool:
    """Whether an input's first dimension counts examples: an open one does, and one that all inputs are fixed to at 1."""
    dims = dims_of(value)
    return bool(dims) and (dims[0] == -1 or (len(dims) > 1 and graph.batch == 1))


def _shape(value: ValueInfoProto, sizes: InputShapes | None, batched: bool) -> tuple[int, ...]:
    dims = dims_of(value)
    given = (sizes or {}).get(value.name)
    if given is not None and (
        len(given) != len(dims) or any(d not in (-1, g) for d, g in zip(dims[batched:], given[batched:], strict=True))
    ):
        raise ImportRefused(
            f"the input {value.name[:80]!r} takes {_told(dims)}, {_told(given)} is asked for",
            hint="give the size that the file takes, or leave it out",
        )
    chosen = tuple(given or (d if d > 0 else _SIDE for d in dims))
    if math.prod(chosen[1:]) > _LARGEST // 4 or any(n < 1 for n in chosen[batched:]):
        raise ImportRefused(f"the input {value.name[:80]!r} takes {_told(dims)}", hint="do not use this file")
    return chosen


def _told(dims: Sequence[int]) -> str:
    return "x".join("?" if n < 0 else str(n) for n in dims) or "a number"


def _steps(network: ImportedNetwork, values: dict[str, tuple[Any, Any]], mode: FakeTensorMode) -> list[NodeStep]:
    graph, known, steps = network.graph, dict[tuple[Any, ...], NodeStep](), list[NodeStep]()
    makers: dict[str, str] = {}
    for number, proto in enumerate(graph.nodes):
        node = Node(
            proto=proto,
            opset=graph.opset,
            constants=tuple(graph.constants.get(name) if name else None for name in proto.input),
            values=tuple(values.get(name) for name in proto.input),
            batch=graph.batch,
            joined={n: network.get_submodule(makers[n]) for n in proto.input if n in makers and graph.uses[n] == 1},
        )
        weights = tuple(name for name in proto.input if name in graph.constants)
        key = (proto.op_type, weights, tuple(a.SerializeToString(deterministic=True) for a in proto.attribute))
        earlier = known.get(key) if weights and graph.constants[weights[0]].ndim > 1 else None
        made = earlier.made if earlier is not None else _made(node)
        name = earlier.name if earlier is not None else _placed(network, node, made)
        step = NodeStep(
            node=number,
            name=name,
            inputs=tuple(proto.input[place] for place in made.takes),
            outputs=tuple(proto.output),
            done=(),
            made=made,
        )
        known.setdefault(key, step)
        passed = proto.op_type == "Cast" and proto.input[0] in makers and graph.uses[proto.input[0]] == 1
        makers |= dict.fromkeys(proto.output, makers[proto.input[0]] if passed else name)
        with mode:
            found = _ran(node, made, [values[n] for n in step.inputs])
        for output, both in zip(proto.output, found, strict=False):
            if output:
                values[output] = both
        steps.append(step)
    return steps


def _made(node: Node) -> Made:
    try:
        return MAKERS[node.kind](node)
    except CompressError:
        raise
    except Exception as error:  # attributes of other types than the operator has
        raise node.refused(f"makes no sense: {type(error).__name__}: {one_line(error, 150)}") from error


def _placed(network: ImportedNetwork, node: Node, made: Made) -> str:
    names = [node.proto.input[place] for place in sorted(_held(made))]
    return added(network, path_of(node.proto, names), made.module.eval())


def _ran(node: Node, made: Made, given: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """What the module returns at both batch sizes.

    Raises:
        ImportRefused: it does not take what arrives, or returns something absurdly large.
    """
    both: list[list[Any]] = []
    for which in range(2):
        try:
            found = made.module(*[one[which] for one in given])
        except CompressError:
            raise
        except Exception as error:  # whatever torch says of shapes
            shapes = ", ".join(str(list(one[which].shape)) for one in given)
            told = node.refused(f"does not take {shapes}: {one_line(error, 200)}")
            raise ImportRefused(told.message, hint="give the size that the network was made for: --size 48,320") from error
        outputs = list(found) if isinstance(found, tuple | list) else [found]
        for value in outputs:
            count = math.prod(int(n) for n in value.shape)
            if count > (_LARGEST if isinstance(value, Tensor) else 2**16):
                raise node.refused(f"makes a value of {list(value.shape)}, which is absurdly large")
        both.append(outputs)
    return list(zip(*both, strict=True))


def _with_ends(steps: Sequence[NodeStep], graph: Graph) -> tuple[NodeStep, ...]:
    """With the values that nothing reads after each."""
    wanted, found = set(graph.output_names), list[NodeStep]()
    for step in reversed(steps):
        used = {*step.inputs, *(name for name in step.outputs if name)}
        done = used - wanted
        wanted |= used
        outputs = tuple(name or f"{step.name} {i}" for i, name in enumerate(step.outputs))
        done |= {name for name, told in zip(outputs, step.outputs, strict=True) if not told}
        found.append(replace(step, outputs=outputs, done=tuple(sorted(done))))
    return tuple(found[::-1])


def _axis(both: tuple[Any, Any] | None, name: str) -> int | None:
    """The dimension in which a value differs with the batch.

    Raises:
        ImportRefused: it is no value that is computed.
    """
    if both is None:
        raise ImportRefused(f"the output {name[:80]!r} is constant", hint="leave it out of the file")
    if is_sizes(both[0]):
        return None
    return next((i for i, (a, b) in enumerate(zip(both[0].shape, both[1].shape, strict=True)) if a != b), None)
