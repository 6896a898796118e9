from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import Tensor, nn

from compress.errors import ConfigError, ModelError
from compress.export.exporting import Exporter, export
from compress.latency.profiling import modules, profile


class Mixed(nn.Module):
    """Every way in which a kernel can hide its module: fused batch norms and sums, one that stays, a lost layout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.side = nn.Conv2d(width, width, 3, padding=1)  # as large as inner: only the graph can tell them apart
        self.late = nn.BatchNorm2d(2 * width)  # after a concatenation: cannot be folded
        self.depth = nn.Conv2d(2 * width, 2 * width, 3, groups=2 * width)
        self.gate = nn.Conv2d(2 * width, 2 * width, 1)
        self.fc = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.relu(self.inner(x) + self.side(x))
        z = torch.relu(self.late(torch.cat([x, y], 1)))
        z = torch.relu(self.depth(z))
        z = z * torch.sigmoid(self.gate(z.mean((2, 3), keepdim=True)))
        return self.fc(z.mean((2, 3)))


def mixed(width: int) -> nn.Module:
    torch.manual_seed(width)
    net = Mixed(width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    return net.eval()


WEIGHTED = {"stem.0", "inner", "side", "late", "depth", "gate", "fc"}


@pytest.mark.parametrize(
    ("exporter", "width"), [("legacy", 16), ("legacy", 13), pytest.param("dynamo", 16, marks=pytest.mark.slow), ("dynamo", 13)]
)
def test_every_weight_has_its_kernel(tmp_path: Path, exporter: Exporter, width: int) -> None:
    path = export(mixed(width), torch.randn(2, 3, 20, 20), tmp_path / "net.onnx", exporter=exporter).path
    found = profile(path, seconds=0.05)
    assert {k.module for k in found.kernels if k.module} == WEIGHTED
    # Shapes tell whether the right module was named: two of equal shape hang on the graph alone.
    padded = {k.module: k for k in found.kernels if k.macs}
    assert padded["depth"].output[2:] == (18, 18)
    assert padded["gate"].output[2:] == (1, 1)
    assert padded["fc"].macs == 2 * width * 4
    assert padded["inner"].inputs[1][2:] == (3, 3)
    assert len([k for k in found.kernels if k.module in {"inner", "side"}]) == 2
    assert sum(k.share for k in found.kernels) == pytest.approx(1)
    assert all(k.module for k in found.kernels if k.macs)
    assert found.runs >= 10


@pytest.mark.parametrize(("alone", "fused"), [("one", "two"), ("two", "one")])
def test_a_sum_belongs_to_the_one_that_does_not_run_alone(alone: str, fused: str) -> None:
    """Two convolutions of one shape and their sum: whichever has a kernel of its own, the other one is in the sum's."""
    node = onnx.helper.make_node
    weights = [onnx.helper.make_tensor(f"{n}.weight", 1, [4, 4, 1, 1], [0.0] * 16) for n in ("one", "two")]
    nodes = [node("Conv", ["x", f"{n}.weight"], [f"{n}_out"], name=f"node_{n}") for n in ("one", "two")]
    nodes += [node("Add", ["one_out", "two_out"], ["sum"], name="node_sum"), node("Relu", ["sum"], ["y"], name="node_y")]
    graph = onnx.helper.make_graph(nodes, "g", [], [], weights)
    assert modules(graph, [f"{alone}_out_nchwc", "y_nchwc", "ReorderOutput"]) == {
        f"{alone}_out_nchwc": alone,
        "y_nchwc": fused,
        "ReorderOutput": "",
    }


def test_layout_conversion_is_said(tmp_path: Path) -> None:
    path = export(mixed(13), torch.randn(2, 3, 20, 20), tmp_path / "net.onnx", exporter="legacy").path
    found = profile(path, seconds=0.02)
    assert any(k.layout and k.op.startswith("Reorder") for k in found.kernels)
    assert not any(k.layout and k.module for k in found.kernels)
    assert any(k.blocked for k in found.kernels)
    assert any(k.op in {"Conv", "FusedConv"} and not k.blocked for k in found.kernels)


def test_what_cannot_be_profiled(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a file"):
        profile(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09no such thing")
    with pytest.raises(ModelError):
        profile(broken)
    good = export(mixed(8), torch.randn(2, 3, 20, 20), tmp_path / "net.onnx", exporter="legacy").path
    with pytest.raises(ConfigError):
        profile(good, batch=0)
    fixed = onnx.load(good)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed, tmp_path / "fixed.onnx")
    with pytest.raises(ModelError, match="batch of 2"):
        profile(tmp_path / "fixed.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "densenet121"])
def test_torchvision_is_mapped(tmp_path: Path, name: str) -> None:
    """Every convolution, linear layer and batch norm that runs names a module of the network, of the right kind and shape."""
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)().eval()
    path = export(net, torch.randn(2, 3, 224, 224), tmp_path / "net.onnx", exporter="dynamo").path
    found = profile(path, seconds=0.1, least_runs=2)
    named = dict(net.named_modules())
    weighted = [k for k in found.kernels if k.op in {"Conv", "FusedConv", "Gemm", "MatMul", "BatchNormalization"}]
    for kernel in weighted:
        weight = named[kernel.module].weight
        assert isinstance(weight, Tensor)
        shown = kernel.inputs[1] if kernel.op in {"Conv", "FusedConv"} else (kernel.output[-1], kernel.inputs[0][-1])
        assert np.prod(shown) >= weight.numel(), kernel
    layers = {n for n, m in named.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert layers <= {k.module for k in weighted}
    assert len(weighted) == len({k.module for k in weighted}) or name == "densenet121"
    rest = {k.op for k in found.kernels if not k.module}
    assert rest <= {"MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Mul", "HardSigmoid"} | {
        k.op for k in found.kernels if k.layout
    }
