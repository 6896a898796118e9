"""Random small ONNX models, one family of operators each, for the laws of importing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Sketch:
    """A model in the making: a chain of nodes from ``x`` on."""

    def __init__(self, shape: Sequence[int | str], opset: int, seed: int) -> None:
        self.shape, self.opset = list(shape), opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "x"

    def weight(self, *shape: int, low: float | None = None) -> str:
        made = self.random.standard_normal(shape) if low is None else self.random.uniform(low, low + 1, shape)
        return self.constant(made.astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(self.nodes)}", **attributes))
        self.last = names[0]
        return self.last

    def model(self, *outputs: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        last = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs or (self.last,)]
        graph = helper.make_graph(self.nodes, "law", [x], last, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        for value in made.graph.output:  # an output without a shape is what nobody exports
            value.type.tensor_type.elem_type = self.kinds.get(value.name, TensorProto.FLOAT)
        return made

    kinds: Mapping[str, int] = {}


def convolutions(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    sides, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    made = Sketch(["batch", 4, *[9, 8, 7][:sides]], opset, seed)
    kernel = [draw(st.integers(1, 3)) for _ in range(sides)]
    options: dict[str, Any] = {"strides": [draw(st.integers(1, 2)) for _ in range(sides)], "group": groups}
    if draw(st.booleans()):
        options["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        options["pads"] = [draw(st.integers(0, 1)) for _ in range(2 * sides)]
        options["dilations"] = [draw(st.integers(1, 2)) for _ in range(sides)]
    bias = [made.weight(8)] if draw(st.booleans()) else []
    made.add("Conv", "x", made.weight(8, 4 // groups, *kernel), *bias, **options)
    stride, pads = draw(st.integers(1, 2)), draw(st.integers(0, 1))
    made.add(
        "ConvTranspose",
        made.last,
        made.weight(8, 3, *[3] * sides),
        strides=[stride] * sides,
        pads=[pads] * (2 * sides),
        output_padding=[draw(st.integers(0, stride - 1))] * sides,
    )
    return made.model()


def products(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 6], opset, seed)
    flipped = draw(st.booleans())
    weight = made.weight(5, 6) if flipped else made.weight(6, 5)
    bias = [made.weight(*draw(st.sampled_from([(5,), (1, 5), (1,)])))] if draw(st.booleans()) else []
    scales = {"alpha": 0.5, "beta": 2.0} if draw(st.booleans()) else {}
    made.add("Gemm", "x", weight, *bias, transB=int(flipped), **scales)
    made.add("MatMul", made.last, made.weight(5, 4))
    made.add("Add", made.last, made.weight(4))
    wide = made.add("Unsqueeze", made.last, *([made.numbers(1)] if opset >= 13 else []), **_axes(opset < 13, [1]))
    tall = made.add("Transpose", wide, perm=[0, 2, 1])
    made.add("MatMul", tall, wide)
    return made.model()


def norms(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 4, 5, 6], opset, seed)
    made.add("BatchNormalization", "x", *[made.weight(4) for _ in range(3)], made.weight(4, low=0.1), epsilon=1e-3)
    made.add("InstanceNormalization", made.last, made.weight(4), made.weight(4))
    if opset >= 17:
        axis = draw(st.sampled_from([-1, 3, 2, 1]))
        shape = [4, 5, 6][axis - 1 :] if axis > 0 else [6]
        made.add("LayerNormalization", made.last, made.weight(*shape), made.weight(*shape), axis=axis)
    made.add("LRN", made.last, size=draw(st.sampled_from([1, 3])), alpha=0.1, bias=1.5)
    made.add("LpNormalization", made.last, axis=draw(st.integers(-1, 3)), p=draw(st.sampled_from([1, 2])))
    return made.model()


_ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 0.7}, "Selu": {},
    "HardSigmoid": {"alpha": 0.3}, "Softplus": {}, "Softsign": {}, "Erf": {}, "ThresholdedRelu": {"alpha": 0.5},
    "Celu": {"alpha": 1.5}, "Abs": {}, "Neg": {}, "Exp": {}, "Floor": {}, "Ceil": {}, "Sign": {}, "Sin": {}, "Cos": {},
}  # fmt: skip


def activations(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 3, 4, 5], opset, seed)
    smooth = sorted(set(_ACTIVATIONS) - {"Floor", "Ceil", "Sign", "ThresholdedRelu"})
    known = [*smooth, *(["HardSwish"] if opset >= 14 else []), *(["Mish"] if opset >= 18 else [])]
    first = draw(st.sampled_from([*known, "Floor", "Ceil", "Sign", "ThresholdedRelu"]))  # a step behind others amplifies noise
    for kind in [first, *draw(st.lists(st.sampled_from(known), max_size=3))]:
        made.add(kind, made.last, **_ACTIVATIONS.get(kind, {}))
    made.add("PRelu", made.last, made.weight(*draw(st.sampled_from([(3, 1, 1), (1,), (3, 4, 5), (1, 3, 1, 1), (5,)]))))
    bounds = draw(st.sampled_from([(0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 2.0)]))
    made.add("Clip", made.last, *("" if b is None else made.constant(np.array(b, np.float32)) for b in bounds))
    made.add(draw(st.sampled_from(["Softmax", "LogSoftmax"])), made.last, axis=draw(st.integers(1, 3)))
    return made.model()


def arithmetic(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 3, 4], opset, seed)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Equal", "Greater"]))
        other = draw(st.sampled_from(["x", "last", "number", "channels", "all"]))
        if kind in ("Sum", "Mean") and other in ("number", "channels", "all"):
            other = "x"
        shapes = {"number": (), "channels": (3, 1), "all": (3, 4)}
        value = {"x": "x", "last": made.last}.get(other) or made.weight(*shapes[other], low=0.5)
        if kind == "Div":
            value = made.weight(*shapes.get(other, ()), low=0.5)
        pair = (made.last, value) if draw(st.booleans()) or kind == "Div" else (value, made.last)
        if kind in ("Equal", "Greater"):
            made.add(kind, *pair)
            made.add("Where", made.last, "x", made.weight(3, 4))
        else:
            made.add(kind, *pair)
    return made.model()


def shapes(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 4, 6, 6], opset, seed)
    inputs = opset >= 13
    kind = draw(st.sampled_from(["shuffle", "computed", "slices", "split", "expand", "pad", "blocks", "constant batch"]))
    if kind == "shuffle":
        made.add("Reshape", "x", made.numbers(draw(st.sampled_from([0, -1])), 2, 2, 6, 6))
        made.add("Transpose", made.last, perm=[0, 2, 1, 3, 4])
        made.add("Reshape", made.last, made.numbers(-1, 4, 6, 6), **({"allowzero": 1} if opset >= 14 else {}))
    elif kind == "computed":
        whole = made.add("Shape", "x")
        first = made.add("Gather", whole, made.constant(np.array(0, np.int64)), axis=0)
        row = made.add("Unsqueeze", first, *([made.numbers(0)] if inputs else []), **_axes(not inputs, [0]))
        joined = made.add("Concat", row, made.numbers(4), made.numbers(36), axis=0)
        made.add("Reshape", "x", joined)
    elif kind == "slices":
        made.add("Slice", "x", made.numbers(1, 0), made.numbers(2**62, -1), made.numbers(2, 3), made.numbers(2, 1))
        made.add("Slice", made.last, made.numbers(-1), made.numbers(-(2**62)), made.numbers(1), made.numbers(-1))
        made.add("Gather", made.last, made.numbers(2, 0, -1), axis=draw(st.sampled_from([1, -1])))
    elif kind == "split":
        sizes = draw(st.sampled_from([(2, 2), (1, 3), (1, 1, 2)]))
        options = {} if inputs else {"split": list(sizes)}
        made.add("Split", "x", *([made.numbers(*sizes)] if inputs else []), outputs=len(sizes), axis=1, **options)
        made.add("Concat", *reversed(made.nodes[-1].output), axis=draw(st.sampled_from([1, -3])))
    elif kind == "expand":
        made.add("ReduceMean", "x", *([made.numbers(2)] if opset >= 18 else []), keepdims=1, **_axes(opset < 18, [2]))
        made.add("Expand", made.last, made.numbers(1, 4, 3, 1))
        made.add("Tile", made.last, made.numbers(1, 1, 2, 1))
    elif kind == "pad":
        mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
        filler = [made.constant(np.array(0.5, np.float32))] if mode == "constant" else []
        made.add("Pad", "x", made.numbers(0, 0, 1, 2, 0, 0, 2, 1), *filler, mode=mode)
    elif kind == "blocks":
        made.add("DepthToSpace", "x", blocksize=2, mode=draw(st.sampled_from(["DCR", "CRD"])))
        made.add("SpaceToDepth", made.last, blocksize=draw(st.sampled_from([2, 3])))
    else:
        made.shape[0] = 1
        made.add("Reshape", "x", made.numbers(1, 4, 36))
        made.add("Reshape", made.last, made.numbers(1, 144))
    return made.model()


def pools(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    sides = draw(st.integers(1, 3))
    made = Sketch(["batch", 3, *[9, 8, 7][:sides]], opset, seed)
    kernel, ceil = draw(st.integers(2, 3)), draw(st.integers(0, 1))
    options: dict[str, Any] = {"kernel_shape": [kernel] * sides, "strides": [draw(st.integers(1, 2))] * sides}
    pads = {"pads": [draw(st.integers(0, kernel // 2))] * (2 * sides), "ceil_mode": ceil}
    if draw(st.booleans()):
        pads = {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))}
    elif draw(st.booleans()):
        pads = {"pads": [draw(st.integers(0, kernel - 1)) for _ in range(2 * sides)]}
    made.add("MaxPool", "x", **options, **pads)
    inside = {"count_include_pad": draw(st.integers(0, 1))}
    made.add("AveragePool", made.last, kernel_shape=[2] * sides, pads=[draw(st.integers(0, 1))] * (2 * sides), **inside)
    made.add(draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"])), made.last)
    return made.model()


def reductions(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 3, 4, 5], opset, seed)
    kind = draw(st.sampled_from(["Mean", "Sum", "Max", "Min", "L1", "L2", "SumSquare", "Prod", "LogSumExp"]))
    axes = draw(st.sampled_from([[1], [2, 3], [-1], [1, -1]]))
    as_input = opset >= (13 if kind == "Sum" else 18)
    extra = [made.numbers(*axes)] if as_input else []
    made.add(f"Reduce{kind}", "x", *extra, keepdims=draw(st.integers(0, 1)), **_axes(not as_input, axes))
    return made.model()


def resizes(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 2, 5, 6], opset, seed)
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    if mode == "nearest":
        where, how = draw(st.sampled_from([("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]))
        options: dict[str, Any] = {"coordinate_transformation_mode": where, "nearest_mode": how}
    else:
        options = {"coordinate_transformation_mode": draw(st.sampled_from(["half_pixel", "align_corners"]))}
        options |= {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
    region = made.constant(np.zeros(0, np.float32)) if opset < 13 else ""
    if draw(st.booleans()) or mode == "nearest":
        factor = draw(st.sampled_from([2.0, 3.0]))
        sized = [region, made.constant(np.array([1, 1, factor, factor], np.float32))]
    else:
        nothing = made.constant(np.zeros(0, np.float32)) if opset < 13 else ""
        made.shape[0], sized = 1, [region, nothing, made.numbers(1, 2, draw(st.integers(3, 12)), draw(st.integers(3, 12)))]
    made.add("Resize", "x", *sized, mode=mode, **options)
    return made.model()


def recurrences(draw: Draw, opset: int, seed: int) -> onnx.ModelProto:
    made = Sketch(["batch", 5, 3], opset, seed)
    kind, both = draw(st.sampled_from(["LSTM", "GRU"])), draw(st.booleans())
    gates, directions = (4 if kind == "LSTM" else 3), 1 + both
    turned = made.add("Transpose", "x", perm=[1, 0, 2])
    weights = [made.weight(directions, gates * 4, 3), made.weight(directions, gates * 4, 4), made.weight(directions, 8 * gates)]
    options: dict[str, Any] = {"hidden_size": 4, "direction": "bidirectional" if both else "forward"}
    options |= {"linear_before_reset": 1} if kind == "GRU" else {}
    made.add(kind, turned, *weights, outputs=2, **options)
    made.add("Transpose", made.last, perm=[2, 0, 1, 3])
    return made.model()


def _axes(wanted: bool, axes: Sequence[int]) -> dict[str, Any]:
    return {"axes": list(axes)} if wanted else {}


FAMILIES: Mapping[str, Callable[[Draw, int, int], onnx.ModelProto]] = {
    f.__name__: f
    for f in (
        convolutions, products, norms, activations, arithmetic, shapes, pools, reductions, resizes, recurrences,
    )
}  # fmt: skip
OPSETS = (12, 13, 17, 18, 20)


def cancelling(rows: int = 512) -> onnx.ModelProto:
    """Whole numbers, normalised by the mean of their squares minus the square of their mean: small ones leave little of it.

    Files out of TensorFlow's exporters have their layer norms so.
    """
    made = Sketch(["batch", rows, 4], 17, 0)

    def number(value: float) -> str:
        return made.constant(np.array(value, np.float32))

    axes = made.constant(np.array([1], np.int64))
    cast = made.add("Cast", "x", to=TensorProto.FLOAT)
    values = made.add("Add", made.add("Mul", cast, number(1e-3)), number(0.7))
    mean = made.add("Mul", made.add("ReduceSum", values, axes, keepdims=1), number(1 / rows))
    squares = made.add("Mul", made.add("ReduceSum", made.add("Mul", values, values), axes, keepdims=1), number(1 / rows))
    variance = made.add("Sub", squares, made.add("Mul", mean, mean))
    deviation = made.add("Sqrt", made.add("Add", made.add("Max", variance, number(0.0)), number(1e-6)))
    made.add("MatMul", made.add("Div", made.add("Sub", values, mean), deviation), made.weight(4, 3))
    model = made.model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    return model


def padded_by_size(mode: str) -> onnx.ModelProto:
    """A third of the height on every side, as torch's exporter writes it: pairs from the last dimension on, and zeros."""
    made = Sketch(["batch", 4, 6, 6], 17, 0)
    side = made.add("Div", made.add("Gather", made.add("Shape", "x"), made.numbers(2), axis=0), made.numbers(3))
    pairs = made.add("Concat", side, side, side, side, axis=0)
    lacking = made.add("Sub", made.numbers(8), made.add("Shape", pairs))
    whole = made.add("Concat", pairs, made.add("ConstantOfShape", lacking, value=_zero()), axis=0)
    rows = made.add("Reshape", whole, made.numbers(-1, 2))
    back = made.add("Slice", rows, made.numbers(-1), made.numbers(-(2**62)), made.numbers(0), made.numbers(-1))
    pads = made.add("Reshape", made.add("Transpose", back, perm=[1, 0]), made.numbers(-1))
    made.add("Pad", "x", made.add("Cast", pads, to=TensorProto.INT64), mode=mode)
    return made.model()


def _zero() -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(1, np.int64))
