"""What stands in a gone branch's place is not exported: no layer, no zeros, no addition."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.nets import any_plan, inputs, traced
from support.shortcuts import WITH_BRANCHES

from compress.core import Plan
from compress.export.exporting import Exporter, export
from compress.export.left_out import drop_added_zeros
from compress.export.parity import ParityVerdict
from compress.export.verified_export import export_verified
from compress.surgery.cutting import cut

_OF_LAYERS = ("Conv", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization")


def nodes(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("exporter", ["dynamo", pytest.param("legacy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "two-in-one" else pytest.mark.slow) for n in WITH_BRANCHES])
def test_the_file_holds_nothing_of_the_branches(name: str, exporter: Exporter, tmp_path: Path) -> None:
    """Fewer nodes of every kind, no zeros, and the same answers."""
    model, topology = traced(name)
    small = cut(model, topology, Plan(branches=tuple(b.name for b in topology.branches)))
    images = inputs(name, 10).float()
    export(model, images, tmp_path / "base.onnx", exporter=exporter)
    _, parity = export_verified(small, images, tmp_path / "small.onnx", exporter=exporter)
    assert parity.verdict in (ParityVerdict.PASS, ParityVerdict.WARN), parity.message
    before, after = nodes(tmp_path / "base.onnx"), nodes(tmp_path / "small.onnx")
    assert before["Add"] - after["Add"] == len(topology.branches)
    assert not {"ConstantOfShape", "Expand"} & after.keys()
    assert after["Shape"] <= before["Shape"]
    weights = [t.name for t in onnx.load(tmp_path / "small.onnx").graph.initializer]
    gone = {key for b in topology.branches for key in topology.branch_keys[b.name]}
    assert not gone & set(weights)
    layers = len([m for m in small.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)])
    assert sum(after[kind] for kind in _OF_LAYERS[:3]) == layers


def graph_of(nodes: list[onnx.NodeProto], like: str, value: float = 0.0) -> onnx.ModelProto:
    constant = helper.make_tensor("zero", TensorProto.FLOAT, [], [value])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("x", "y")]
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, 3])
    shape = helper.make_node("Shape", [like], ["shape"])
    zeros = helper.make_node("Expand", ["zero", "shape"], ["zeros"])
    graph = helper.make_graph([shape, zeros, *nodes], "g", [ends[0], row], [ends[1]], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ran(model: onnx.ModelProto) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
    return ReferenceEvaluator(model).run(None, {"x": x, "row": x[:1]})[0]


@pytest.mark.parametrize(
    ("summands", "like", "value", "goes"),
    [
        (["zeros", "x"], "x", 0.0, True),
        (["x", "zeros"], "x", 0.0, True),
        (["x", "zeros"], "x", 1.0, False),  # no zeros
        (["row", "zeros"], "x", 0.0, False),  # the sum has more rows than the other summand
        (["x", "zeros"], "row", 0.0, False),  # their shapes are not proven to be one
    ],
)
def test_only_zeros_of_the_same_shape_go(summands: list[str], like: str, value: float, goes: bool) -> None:
    nodes = [helper.make_node("Add", summands, ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    model = graph_of(nodes, like, value)
    before = ran(model)
    drop_added_zeros(model.graph)
    assert np.array_equal(before, ran(model))
    assert (next(n for n in model.graph.node if n.op_type == "Relu").input[0] == "x") == goes


def test_the_answer_keeps_its_name() -> None:
    model = graph_of([helper.make_node("Add", ["x", "zeros"], ["y"])], "x")
    before = ran(model)
    drop_added_zeros(model.graph)
    assert model.graph.node[-1].op_type == "Identity"
    assert np.array_equal(before, ran(model))


@pytest.mark.parametrize(
    "name", ["resnet", pytest.param("mobilenet", marks=pytest.mark.slow), pytest.param("c2f", marks=pytest.mark.slow)]
)
def test_a_file_without_a_branch_is_what_an_export_without_it_is(name: str, tmp_path: Path) -> None:
    """Taken out of the unpruned network's file, with channels: the same answers, and no more nodes, than exported anew."""
    import onnxruntime as ort

    from compress.export.cutting_onnx import resizable, resized

    model, topology = traced(name)
    images = inputs(name, 3).float()
    export(model, images, tmp_path / "base.onnx")
    source = resizable(onnx.load(tmp_path / "base.onnx"), topology)
    for gone in (topology.branches[:1], topology.branches):
        plan = Plan(any_plan(topology, 4).cuts, branches=tuple(b.name for b in gone))
        small = cut(model, topology, plan)
        export(small, images, tmp_path / "small.onnx")
        taken = resized(source, plan)
        wanted, got = (
            ort.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"input": images.numpy()})[0]
            for m in ((tmp_path / "small.onnx").read_bytes(), taken.SerializeToString())
        )
        assert np.allclose(wanted, got, atol=1e-4)
        kinds = Counter(n.op_type for n in taken.graph.node if n.op_type != "Identity")
        assert kinds["Conv"] == nodes(tmp_path / "small.onnx")["Conv"] and kinds["Add"] == nodes(tmp_path / "small.onnx")["Add"]
