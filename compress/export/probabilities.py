"""Which outputs of a file are probabilities: a runtime computes them to so many digits behind the point, however small."""

from __future__ import annotations

from pathlib import Path

_MAKES = ("Sigmoid", "Softmax")
_PASSES = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only lay numbers out anew."""


def probabilities(path: Path) -> frozenset[str]:
    """Names of the outputs that a sigmoid or a softmax makes; other numbers in [0, 1] are none."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    found = set()
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _PASSES:
            node = makers.get(node.input[0])
        if node is not None and node.op_type in _MAKES:
            found.add(output.name)
    return frozenset(found)
