"""Constant parts of a graph, computed once: by onnx's own reference, and only where the result is of a size that is bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper

from compress.errors import ImportRefused
from compress.importing.graph import Constant, array_of

_MADE = 256 * 2**20
"""Bytes that a file may make out of less."""
_ELEMENTWISE = frozenset(
    "Add Sub Mul Div Pow Min Max Equal Greater Less GreaterOrEqual LessOrEqual And Or Where Mod Expand".split()
)
_NO_LARGER = frozenset(
    "Cast Reshape Transpose Unsqueeze Squeeze Slice Shape Size Identity Split Flatten Neg Abs Sqrt Exp Log Floor Ceil "
    "Reciprocal Not Sign ReduceProd ReduceSum ReduceMax ReduceMin ReduceMean Concat Round Sin Cos Erf Tanh Sigmoid".split()
)


def folded(
    nodes: Sequence[NodeProto], constants: Mapping[str, Constant], opset: int
) -> tuple[list[NodeProto], dict[str, Constant]]:
    """The nodes that are not constant, and all constants.

    Raises:
        ImportRefused: the constants would need more memory than any file of a network does.
    """
    known, left, made = dict(constants), list[NodeProto](), 0
    for node in nodes:
        if node.op_type == "Constant":
            known[node.output[0]] = _constant(node)
        elif not all(not name or name in known for name in node.input) or not node.input:
            left.append(node)
        else:
            given = [known[name] if name else None for name in node.input]
            made += _size(node, given)
            if made > _MADE:
                raise ImportRefused(
                    f"the file makes more than {_MADE // 2**20} MiB of constants out of less (at {node.name[:60]!r}, "
                    f"{node.op_type})",
                    hint="do not use this file, or compute its constants first (onnxsim)",
                )
            for name, array in zip(node.output, _computed(node, given, opset), strict=False):
                known[name] = array
    return left, known


def _constant(node: NodeProto) -> Constant:
    for attribute in node.attribute:
        if attribute.name == "value":
            return array_of(attribute.t)
        if attribute.name in ("value_float", "value_int", "value_floats", "value_ints"):
            kind = np.float32 if "float" in attribute.name else np.int64
            return np.array(helper.get_attribute_value(attribute), dtype=kind)
    raise ImportRefused(f"the constant {node.output[0][:80]!r} holds no numbers", hint="export the network again")


def _size(node: NodeProto, given: Sequence[Constant | None]) -> int:
    """Bytes that a constant node makes.

    Raises:
        ImportRefused: it is of a kind whose result is not bounded here, or its inputs do not fit each other.
    """
    first, kind = given[0], node.op_type
    there = [x for x in given if x is not None]
    if first is None:
        raise ImportRefused(f"the node {node.name[:80]!r} ({kind}) has no input", hint="export the network again")
    try:
        if kind == "ConstantOfShape":
            item = next((array_of(a.t).itemsize for a in node.attribute if a.name == "value"), 4)
            return item * math.prod(int(n) for n in first.reshape(-1))
        if kind == "Expand":
            return first.itemsize * math.prod(np.broadcast_shapes(first.shape, tuple(int(n) for n in there[1])))
        if kind == "Tile":
            return first.nbytes * math.prod(int(n) for n in there[1].reshape(-1))
        if kind == "Range":
            start, limit, step = (float(x.reshape(())) for x in there)
            return 8 * max(0, math.ceil((limit - start) / step))
        if kind == "Gather":
            rest = first.size // max(1, first.shape[_axis(node) % first.ndim]) if first.ndim else 1
            return first.itemsize * there[1].size * rest
        if kind in _ELEMENTWISE:
            return 8 * math.prod(np.broadcast_shapes(*(x.shape for x in there)))
        if kind in _NO_LARGER:
            return sum(x.nbytes for x in there)
    except (ValueError, ZeroDivisionError, OverflowError, IndexError) as error:
        raise ImportRefused(f"the constant node {node.name[:80]!r} ({kind}) makes no sense: {error}") from error
    raise ImportRefused(f"the node {node.name[:80]!r} ({kind}) has constant inputs only", hint="compute it first (onnxsim)")


def _axis(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 0)


def _computed(node: NodeProto, given: Sequence[Constant | None], opset: int) -> list[Constant]:
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Identity":
        assert given[0] is not None
        return [given[0]]
    if node.op_type == "ConstantOfShape":
        value = next((array_of(a.t) for a in node.attribute if a.name == "value"), np.zeros(1, np.float32))
        assert given[0] is not None
        return [np.full(tuple(int(n) for n in given[0].reshape(-1)), value.reshape(()))]
    names = [name for name in dict.fromkeys(node.input) if name]
    feed = {name: np.asarray(x) for name, x in zip(node.input, given, strict=True) if name}
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(feed[n].dtype), feed[n].shape) for n in names]
    outputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.output if n]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        found = ReferenceEvaluator(model).run(None, feed)
        return [np.asarray(x) for x in found]
    except Exception as error:  # the reference raises what NumPy raises
        raise ImportRefused(
            f"the constant node {node.name[:80]!r} ({node.op_type}) cannot be computed: {type(error).__name__}",
            hint="compute it first (onnxsim), or export the network again",
        ) from error
