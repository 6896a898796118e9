"""What is written where a module went with its branch: its input handed on, through activations at the most, or zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from compress.core import ACTIVATIONS, ZEROS
from compress.importing.graph import Constant
from compress.surgery import Skipped

NodePattern = tuple[str, tuple[str | float, ...], Mapping[str, Any]]
"""An operator; its inputs: ``x`` the step's input, ``@`` the operator's before it, or a number; its attributes."""
_AS_NODES: Mapping[str, tuple[NodePattern, ...]] = {
    "identity": (("Identity", ("x",), {}),),
    "relu": (("Relu", ("x",), {}),),
    "relu6": (("Clip", ("x", 0.0, 6.0), {}),),
    "silu": (("Sigmoid", ("x",), {}), ("Mul", ("x", "@"), {})),
    "gelu": (
        ("Mul", ("x", 0.5**0.5), {}),
        ("Erf", ("@",), {}),
        ("Add", ("@", 1.0), {}),
        ("Mul", ("x", "@"), {}),
        ("Mul", ("@", 0.5), {}),
    ),
    "hardswish": (("HardSigmoid", ("x",), {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ("x", "@"), {})),
    "leaky_relu": (("LeakyRelu", ("x",), {"alpha": 0.01}),),
    "sigmoid": (("Sigmoid", ("x",), {}),),
    "tanh": (("Tanh", ("x",), {}),),
    "mish": (("Softplus", ("x",), {}), ("Tanh", ("@",), {}), ("Mul", ("x", "@"), {})),
}
_ZEROS: tuple[NodePattern, ...] = (("Shape", ("x",), {}), ("ConstantOfShape", ("@",), {}))


def nodes_of(skipped: Skipped, node: NodeProto, constants: dict[str, Constant]) -> Iterator[NodeProto]:
    """Nodes that do what stands in a module's place, from the input of the module's node to its first output.

    Args:
        skipped: what stands there.
        node: the file's.
        constants: receives the numbers that they read.
    """
    last, number = node.input[0], 0
    steps = [_ZEROS if code == ZEROS else _AS_NODES[ACTIVATIONS[code]] for code in skipped.steps]
    whole = [(place, step) for place, one in enumerate(steps) for step in one]
    value = start = last
    for index, (place, (operator, inputs, attributes)) in enumerate(whole):
        if index and place != whole[index - 1][0]:
            start = value
        names = []
        for given in inputs:
            if isinstance(given, float):
                number += 1
                name = f"{node.name}.skipped.number.{number}"
                constants[name] = np.array(given, np.float32)
            else:
                name = start if given == "x" else value
            names.append(name)
        value = node.output[0] if index == len(whole) - 1 else f"{node.name}.skipped.{index}"
        yield helper.make_node(operator, names, [value], name=f"{node.name}.skipped.{index}", **attributes)
