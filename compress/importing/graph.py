"""An ONNX graph in its plainest form: nodes in order, and constants as arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from compress.errors import ImportRefused

Constant = NDArray[Any]
LARGEST = 4_000_000_000
"""Numbers that the constants of a graph may have together."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that is never changed.

    Attributes:
        nodes: each after those that it reads; names are unique.
        constants: by name.
        inputs: of the graph, constants left out.
        outputs: of the graph.
        opset: of the standard operators.
        shell: the model without its graph: versions, producer and metadata.
        batch: what the file fixed its batch to; 0 where it left it open.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[ValueInfoProto, ...]
    opset: int
    shell: ModelProto
    batch: int = 0

    def __deepcopy__(self, memo: Any) -> Graph:
        return self

    @cached_property
    def uses(self) -> Mapping[str, int]:
        """How many nodes read each value; outputs count, too."""
        return Counter([*(name for node in self.nodes for name in node.input), *self.output_names])

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of what it takes."""
        return tuple(value.name for value in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of what it gives."""
        return tuple(value.name for value in self.outputs)


def dims_of(value: ValueInfoProto) -> tuple[int, ...]:
    """The dimensions of an input or output; -1 where they are open."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else -1 for dim in dims)


def array_of(tensor: TensorProto, *, emptied: bool = False) -> Constant:
    """The numbers of a tensor.

    Args:
        tensor: of a model whose weights are all inside.
        emptied: a tensor without data stands for zeros of its shape, which take no memory.

    Raises:
        ImportRefused: it has other numbers than its shape and type say, or absurdly many.
    """
    size = math.prod(tensor.dims)
    if any(n < 0 for n in tensor.dims) or size > LARGEST or len(tensor.dims) > 8:
        raise ImportRefused(f"the constant {tensor.name[:80]!r} has the shape {list(tensor.dims)}", hint="do not use this file")
    try:
        if emptied and size and not tensor.raw_data and not _has_data(tensor):
            zero = np.zeros((), helper.tensor_dtype_to_np_dtype(tensor.data_type))
            return np.broadcast_to(zero, tuple(tensor.dims))
        return numpy_helper.to_array(tensor)
    except ImportRefused:
        raise
    except Exception as error:  # onnx raises what NumPy and protobuf raise
        raise ImportRefused(
            f"the constant {tensor.name[:80]!r} is damaged: {type(error).__name__}", hint="copy the file again"
        ) from error


def _has_data(tensor: TensorProto) -> bool:
    return any((tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data))
