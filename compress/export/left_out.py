"""Additions of zeros taken out of an ONNX graph: what stands in a branch's place gives zeros, and no runtime looks for them.

Only what is proven goes: zeros of the shape of the other summand. An activation of an activation that changes nothing goes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

_KEEP_ZEROS = frozenset(
    "Identity Transpose Reshape Flatten Squeeze Unsqueeze Relu Gelu HardSwish LeakyRelu Tanh Neg Cast Slice".split()
)
"""Zeros of zeros."""
_KEEP_SHAPE = frozenset("Identity Relu Gelu HardSwish LeakyRelu Tanh Neg Sigmoid Clip Mul Div Add Sub".split())
"""The shape of the result is that of the input, where this is the only one that is no constant."""
_TWICE = frozenset({"Relu"})
"""Done twice in a row is done once."""


def drop_added_zeros(graph: GraphProto) -> None:
    """Rewrites a graph in place; what nobody reads afterwards is left to be dropped."""
    constants = _constants(graph)
    makers = {name: node for node in graph.node for name in node.output}
    shapes = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    answers = {value.name for value in graph.output}
    same: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        passed = _passed(node, makers, constants, shapes)
        if passed and node.output[0] not in answers:
            same[node.output[0]] = passed
        elif passed:  # the network's answer keeps its name
            node.CopyFrom(NodeProto(op_type="Identity", input=[passed], output=node.output, name=node.name))


def _passed(
    node: NodeProto,
    makers: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    shapes: Mapping[str, ValueInfoProto],
) -> str:
    """The input that a node only hands on; empty where it does something."""
    if node.op_type == "Add":
        for other, zeros in (node.input, reversed(node.input)):
            if _zeros(zeros, makers, constants) and _alike(zeros, other, makers, constants, shapes):
                return str(other)
    if node.op_type in _TWICE and getattr(makers.get(node.input[0]), "op_type", "") == node.op_type:
        return str(node.input[0])
    return ""


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def _zeros(name: str, makers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> bool:
    """Whether a value is computed, and nothing but zeros whatever the input."""
    node = makers.get(name)
    if node is None or not node.input:
        return False
    if node.op_type == "ConstantOfShape":
        return all(not numpy_helper.to_array(a.t).any() for a in node.attribute if a.name == "value")
    if node.op_type == "Expand":
        constant = constants.get(node.input[0])
        if constant is not None:
            return not numpy_helper.to_array(constant).any()
    if node.op_type == "Mul":
        one, two = node.input
        return any(_zeros(z, makers, constants) and _finite(f, constants) for z, f in ((one, two), (two, one)))
    return node.op_type in {*_KEEP_ZEROS, "Expand"} and _zeros(node.input[0], makers, constants)


def _finite(name: str, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a factor is a constant that leaves zeros what they are."""
    return name in constants and bool(np.isfinite(numpy_helper.to_array(constants[name])).all())


def _alike(
    zeros: str,
    other: str,
    makers: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    shapes: Mapping[str, ValueInfoProto],
) -> bool:
    """Whether two values have one shape for every input."""
    one, two = (_dims(shapes.get(name)) for name in (zeros, other))
    if one and one == two:
        return True
    node = makers[zeros]
    source = makers.get(node.input[-1]) if node.op_type in {"Expand", "ConstantOfShape"} else None
    if source is None or source.op_type != "Shape" or source.attribute:
        return False
    return bool(set(_back(source.input[0], makers, constants)) & set(_back(other, makers, constants)))


def _dims(value: ValueInfoProto | None) -> tuple[object, ...]:
    """Its sizes and their names; empty where one is unknown."""
    if value is None:
        return ()
    dims = tuple(d.dim_param or (d.dim_value if d.HasField("dim_value") else None) for d in value.type.tensor_type.shape.dim)
    return () if None in dims else dims


def _back(name: str, makers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> Iterator[str]:
    """A value, and those before it that have its shape."""
    yield name
    node = makers.get(name)
    if node is None or node.op_type not in _KEEP_SHAPE:
        return
    open_inputs = [i for i in node.input if i and i not in constants]
    small = all(numpy_helper.to_array(constants[i]).size == 1 for i in node.input if i in constants)
    if len(open_inputs) == 1 and small:
        yield from _back(open_inputs[0], makers, constants)
