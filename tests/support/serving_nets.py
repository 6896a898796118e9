"""Tiny ONNX files for serving tests: quick to load, and different inputs give clearly different outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (3, 8, 8)
CLASSES = 5


def net(path: Path, seed: int = 0, *, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES, name: str = "input") -> Path:
    """Convolution, ReLU, pooling, linear layer, with random weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((8, shape[0], 3, 3)),
        "v": rng.standard_normal((classes, 8)),
        "b": rng.standard_normal(classes),
    }
    nodes = [
        helper.make_node("Conv", [name, "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["output"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def images(count: int = 6, *, shape: tuple[int, int, int] = SHAPE, seed: int = 7) -> np.ndarray:
    """Noise, each image at a level of its own."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, *shape)) + np.arange(count).reshape(-1, 1, 1, 1)).astype(np.float32)
