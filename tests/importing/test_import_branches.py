"""A file's network whose branches are left out is written as nodes that compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from compress.core import ACTIVATIONS, ZEROS, Plan
from compress.coupling.tracer import trace
from compress.export import export
from compress.importing.skipping import nodes_of
from compress.importing.writing import written
from compress.networks import load, network_from
from compress.runtime import OrtRuntime
from compress.surgery import Skipped, cut


class Residual(nn.Module):
    """Two branches beside identity shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.inner, self.outer = (nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = torch.relu(x + outer(torch.relu(inner(x))))
        made: Tensor = self.fc(x.mean((2, 3)))
        return made


@pytest.mark.parametrize("codes", [(ZEROS,), *((code,) for code in range(len(ACTIVATIONS))), (1, 2), (2, ZEROS)])
def test_what_stands_in_a_modules_place_is_written_as_it_computes(codes: tuple[int, ...]) -> None:
    skipped, constants = Skipped(torch.tensor(codes)), {}
    nodes = list(nodes_of(skipped, NodeProto(name="n", op_type="Conv", input=["x", "w"], output=["y"]), constants))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], held)
    x = np.random.default_rng(0).normal(0, 4, (5, 3)).astype(np.float32)
    (found,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])).run(None, {"x": x})
    assert found.shape == x.shape and np.allclose(found, skipped(torch.from_numpy(x)).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_without_its_branches_computes_what_the_cut_network_does(tmp_path: Path) -> None:
    """Nothing is left of the branches where the file is exported: neither zeros nor what adds them."""
    torch.manual_seed(0)
    path, small, least = (tmp_path / f"{name}.onnx" for name in ("net", "small", "least"))
    model, example = Residual().eval(), (torch.zeros(2, 3, 8, 8),)
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(model, example, path, dynamo=False, opset_version=17, **names)
    network = network_from(load(path))
    topology = trace(network.model, torch.zeros(1, *network.shape))
    assert topology.branches
    model = cut(network.model, topology, Plan(branches=tuple(branch.name for branch in topology.branches)))
    small.write_bytes(written(model).SerializeToString())  # type: ignore[arg-type]
    images = np.random.default_rng(0).standard_normal((2, *network.shape)).astype(np.float32)
    export(model, torch.from_numpy(images), least)
    for file in (small, least):
        with OrtRuntime().load(file) as session, torch.no_grad():
            assert np.allclose(session.run(images)[0], model(torch.from_numpy(images)).numpy(), atol=1e-4)
    assert least.stat().st_size < small.stat().st_size < path.stat().st_size
    kinds = {node.op_type for node in onnx.load(least).graph.node}
    assert {"Conv", "Relu"} <= kinds and not kinds & {"Add", "ConstantOfShape", "Shape"}
