"""Which numbers of a file are probabilities: a runtime computes them to so many digits behind the point, however small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compress.runtime import Array

_MAKES = ("Sigmoid", "Softmax")
_PASSES = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only lay numbers out anew."""


def probabilities(path: Path) -> Mapping[str, Array]:
    """Of each output that holds some, where they stand: truth values, to be broadcast to the output's shape.

    What a sigmoid or a softmax makes is one; and, of what is put behind one another (a detector's boxes and scores), the
    parts that are. Other numbers in [0, 1] are none.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = _Graph(model)
    found = {output.name: graph.where(output.name) for output in model.graph.output}
    return {name: there for name, there in found.items() if there is not None}


class _Graph:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.makers = {name: node for node in model.graph.node for name in node.output}

    def where(self, name: str) -> Array | None:
        """Of one output."""
        if self._made(name):
            return np.ones((), dtype=bool)
        node = self._maker(name, ("Identity",))
        if node is None or node.op_type != "Concat" or not any(self._made(part) for part in node.input):
            return None
        shapes = [self.shapes.get(part, ()) for part in node.input]
        axis = next(int(a.i) for a in node.attribute if a.name == "axis")
        if not all(shape and shape[axis] for shape in shapes):
            return None  # a size that nobody tells
        parts = [np.full(shape[axis], self._made(part)) for part, shape in zip(node.input, shapes, strict=True)]
        along = [1] * len(shapes[0])
        along[axis] = -1
        return np.concatenate(parts).reshape(along)

    def _made(self, name: str) -> bool:
        node = self._maker(name, _PASSES)
        return node is not None and node.op_type in _MAKES

    def _maker(self, name: str, passes: Sequence[str]) -> Any:
        """The node that makes a tensor, looked for through these operators; None of an input or a weight."""
        node = self.makers.get(name)
        while node is not None and node.op_type in passes:
            node = self.makers.get(node.input[0])
        return node

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """What ONNX infers: 0 for a size that is open; nothing for a shape that is unknown."""
        import onnx

        known = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        told = (*known.value_info, *known.input, *known.output)
        return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in told}
