"""A network that came from an ONNX file is measured by its own nodes, and kernels lead back to its modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.core.plan import Cut, Plan
from compress.coupling.tracer import trace
from compress.errors import ModelError
from compress.latency.imported_networks import ImportedNetworks
from compress.networks import load, network_from
from compress.pipeline.job import Job
from compress.pipeline.pruning import prune
from compress.runtime import OrtRuntime
from compress.surgery.cutting import cut

SHAPE = (3, 16, 16)


class Twins(nn.Module):
    """Two layers with equal weights, which a file may hold once, then one more and a linear one."""

    def __init__(self, wide: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, wide, 3, padding=1)
        self.one, self.other, self.last = (nn.Conv2d(wide, wide, 3, padding=1) for _ in range(3))
        self.other.load_state_dict(self.one.state_dict())
        self.fc = nn.Linear(wide, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.last(torch.relu(self.other(torch.relu(self.one(x))))))
        made: Tensor = self.fc(x.mean((2, 3)))
        return made


def imported(folder: Path, wide: int = 24) -> Any:
    """Through a file in which the equal weights are one, and all have names that no module has."""
    torch.manual_seed(0)
    path = folder / "net.onnx"
    how = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n"}}}
    torch.onnx.export(Twins(wide).eval(), (torch.zeros(2, *SHAPE),), path, dynamo=False, opset_version=17, **how)
    proto = onnx.load(str(path))
    weights = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    for node in proto.graph.node:
        if node.op_type == "Conv" and node.input[1] == weights[2]:
            node.input[1] = weights[1]
    names = {tensor.name: f"conv2d_{130 + place}.w_0" for place, tensor in enumerate(proto.graph.initializer)}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(proto, path)
    return network_from(load(path, size=SHAPE[1:]))


@pytest.mark.filterwarnings("ignore")
def test_files_of_any_width_compute_what_is_cut_and_every_layer_has_its_time(tmp_path: Path) -> None:
    network = imported(tmp_path)
    topology = trace(network.model, torch.zeros(1, *network.shape))
    made = ImportedNetworks(model=network.model, topology=topology, runtime=OrtRuntime())
    plan = Plan({group.id: Cut(tuple(range(16))) for group in topology.groups})
    images = np.random.default_rng(0).standard_normal((2, *network.shape)).astype(np.float32)
    assert len(plan.cuts) == 4
    for name, chosen in (("base", Plan()), ("small", plan)):
        path = tmp_path / f"{name}{made.suffix}"
        made.write(chosen, path)
        model = cut(network.model, topology, chosen) if chosen else network.model
        with made.runtime.load(path) as session, torch.no_grad():
            assert np.allclose(session.run(images)[0], model(torch.from_numpy(images)).numpy(), atol=1e-5)
        times = made.layers(path, 0.05)
        assert len(times) == len(topology.layers) == 5 and min(times) > 0
        made.forget(path)
        assert not path.exists()
    with pytest.raises(ModelError, match="did not come from an ONNX file"):
        ImportedNetworks(model=Twins(), topology=topology, runtime=OrtRuntime()).write(Plan(), tmp_path / "x.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_latency_asked_of_a_file_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    how: dict[str, Any] = {"method": "uniform", "recover": "none", "latency_seconds": 4.0}
    done = prune(imported(tmp_path, 64), None, Job(target="latency", value=0.7, **how), tmp_path / "run")
    (clocked,) = done.report.latency
    assert clocked.runtime == "ort-cpu" and 1 / clocked.speedup == pytest.approx(0.7, abs=0.12)
