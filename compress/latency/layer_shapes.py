"""Channels of a file's layers as the file holds them, before a kernel pads them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from compress.latency.profiling import modules


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer as the file holds it, before a kernel pads it.

    Attributes:
        outputs, inputs: channels.
        cardinality: groups of a convolution.
        weights: elements of its weight.
        itemsize: bytes of one.
    """

    outputs: int
    inputs: int
    cardinality: int
    weights: int
    itemsize: int

    @property
    def depthwise(self) -> bool:
        """One filter for each channel."""
        return self.cardinality > 1 and self.cardinality == self.inputs


def widths(graph: onnx.GraphProto) -> dict[str, LayerShape]:
    """Module -> its channels as the file holds them."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    owner = modules(graph, [node.name for node in graph.node if node.name])
    found: dict[str, LayerShape] = {}
    for node in graph.node:
        module = owner.get(node.name, "")
        if not module or node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"} or len(node.input) < 2:
            continue
        name, turned = node.input[1], node.op_type == "MatMul"
        while name not in tensors and name in made and made[name].op_type in {"Transpose", "Identity", "Cast"}:
            turned ^= made[name].op_type == "Transpose"
            name = made[name].input[0]
        if name not in tensors:
            continue
        tensor, given = tensors[name], {attribute.name: attribute.i for attribute in node.attribute}
        groups = int(given.get("group", 1))
        first, second = int(tensor.dims[0]), int(tensor.dims[1])
        if node.op_type == "Gemm":
            turned = not given.get("transB", 0)
        if node.op_type == "ConvTranspose" or turned:
            first, second = second * groups, first
        else:
            second *= groups
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        found[module] = LayerShape(
            outputs=first,
            inputs=second,
            cardinality=groups,
            weights=math.prod(int(size) for size in tensor.dims),
            itemsize=size,
        )
    return found
