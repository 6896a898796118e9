"""ONNX models of strangers: they ask for absurdly much, for themselves, or for nothing that makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np


def _model(nodes: list[Any], constants: list[Any] = [], inputs: list[Any] | None = None, opset: int = 17) -> bytes:  # noqa: B006
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 4] if inputs is None else inputs)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()
    return made


@cache
def onnx_models() -> Mapping[str, bytes]:
    """ONNX models by name: they ask for absurdly much, for themselves, or for nothing that makes sense."""
    from onnx import helper, numpy_helper

    def node(kind: str, *inputs: str, to: str = "y", **attributes: Any) -> Any:
        return helper.make_node(kind, list(inputs), [to], **attributes)

    def numbers(name: str, *values: int) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    huge = numbers("n", 2**31, 2**31)
    chain = [node("Add", f"v{i}", f"v{i}", to=f"v{i + 1}") for i in range(500)]
    doubling = [node("Concat", f"v{i}", f"v{i}", to=f"v{i + 1}", axis=1) for i in range(60)]
    good = _model([node("Conv", "x", "w")], [weight])
    return {
        "needs itself": _model([node("Add", "a", "x", to="b"), node("Add", "b", "x", to="a"), node("Relu", "a")]),
        "reads nothing that is made": _model([node("Relu", "nowhere")]),
        "made twice": _model([node("Relu", "x"), node("Tanh", "x")]),
        "fills the memory": _model([node("ConstantOfShape", "n", to="z"), node("Add", "x", "z")], [huge]),
        "expands": _model([node("Expand", "x", "n")], [numbers("n", 2**20, 3, 2**12, 4)]),
        "tiles": _model([node("Tile", "x", "n")], [numbers("n", 1, 2**40, 1, 1)]),
        "pads": _model([node("Pad", "x", "n")], [numbers("n", 0, 0, 2**40, 0, 0, 0, 2**40, 0)]),
        "pads of a convolution": _model([node("Conv", "x", "w", pads=[2**30] * 4)], [weight]),
        "doubles sixty times": _model([node("Identity", "x", to="v0"), *doubling, node("Relu", "v60")]),
        "resizes": _model(
            [node("Resize", "x", "", "s")], [numpy_helper.from_array(np.array([1, 1, 1e9, 1e9], np.float32), "s")]
        ),
        "counts": _model(
            [node("Range", "a", "b", "c", to="r"), node("Add", "x", "r")],
            [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("a", 0), ("b", 2**50), ("c", 1))],
        ),
        "five hundred nodes": _model([node("Identity", "x", to="v0"), *chain, node("Relu", "v500")]),
        "strides of nothing": _model([node("Conv", "x", "w", strides=[0, 0])], [weight]),
        "a group of none": _model([node("Conv", "x", "w", group=0)], [weight]),
        "a negative kernel": _model([node("MaxPool", "x", kernel_shape=[-1, -1])]),
        "no kernel": _model([node("MaxPool", "x")]),
        "text for a number": _model([node("Softmax", "x", axis="one")]),
        "an axis that is not there": _model([node("Softmax", "x", axis=9)]),
        "a weight of another shape": _model([node("Conv", "x", "w")], [weight], ["batch", 7, 4, 4]),
        "more dimensions than there are": _model([node("Relu", "x")], inputs=["batch", *[1] * 60]),
        "a huge input": _model([node("Relu", "x")], inputs=["batch", 2**20, 2**20, 4]),
        "no dimensions": _model([node("Relu", "x")], inputs=[]),
        "an old operator set": _model([node("Relu", "x")], opset=1),
        "no operator set": _model([node("Relu", "x")], opset=0),
        "constant": _model([node("Relu", "w")], [weight]),
        "ends early": good[: len(good) // 2],
        "shifted": good[3:] + good[:3],
        "sound": good,
    }
