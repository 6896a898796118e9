from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.errors import ExportError
from compress.export.canonical import canonicalise
from compress.export.exporting import export
from compress.runtime.ort import OrtRuntime


class Net(nn.Module):
    """Convolution, batch norm, both ways to pool over height and width, a linear head."""

    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)
        self.keepdim = keepdim
        with torch.no_grad():
            for tensor in (self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias):
                tensor.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = x.mean(dim=(-1, -2), keepdim=True).flatten(1) if self.keepdim else x.mean(dim=(2, 3))
        return self.fc(x)


class Branches(nn.Module):
    """Data-dependent control flow: torch.export refuses it, tracing does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean(dim=(2, 3))
        return x * 2 if bool(x.abs().sum() > 0) else x


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1).sum(1, keepdim=True)


@pytest.mark.parametrize(("exporter", "keepdim"), [("dynamo", False), ("legacy", False), ("legacy", True)])
def test_file_is_canonical_and_tells_nothing_of_this_machine(exporter: str, keepdim: bool, tmp_path: Path) -> None:
    net = Net(keepdim).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    written = export(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", metadata={"plan": "abc"}, exporter=exporter)
    assert (written.exporter, written.opset, written.path) == (exporter, 20, tmp_path / "net.onnx")
    assert written.bytes == written.path.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]  # one file: no external data, no leftovers
    raw = written.path.read_bytes()
    for secret in (str(Path.cwd()), str(Path(torch.__file__).parent), str(tmp_path), "site-packages", "stack_trace", __file__):
        assert secret.encode() not in raw
    proto = onnx.load_model_from_string(raw)
    kinds = [node.op_type for node in proto.graph.node]
    assert "GlobalAveragePool" in kinds and "ReduceMean" not in kinds
    assert not proto.graph.value_info and not proto.functions
    assert (proto.producer_name, proto.graph.name) == ("compress", "Net")
    read = {name for node in proto.graph.node for name in node.input}
    assert {tensor.name for tensor in proto.graph.initializer} <= read
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    assert not {"auto_pad", "group"} & {attribute.name for attribute in conv.attribute}
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    assert [prop.key for prop in gemm.metadata_props] == (["pkg.torch.onnx.name_scopes"] if exporter == "dynamo" else [])
    assert "fc" in gemm.name + "".join(prop.value for prop in gemm.metadata_props)
    onnx.checker.check_model(proto, full_check=True)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with OrtRuntime().load(written.path) as session:
        assert session.metadata == {"plan": "abc"}
        assert session.input_shape == (None, 3, 8, 8)
        assert session.output_names == ("output",)


@pytest.mark.parametrize("inside", [False, True])
def test_training_mode_is_refused(inside: bool, tmp_path: Path) -> None:
    net = Net().eval()
    (net.bn if inside else net).train()
    with pytest.raises(ExportError, match="bn is in training mode" if inside else "training mode"):
        export(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_the_older_exporter_takes_over_and_it_is_recorded(tmp_path: Path) -> None:
    written = export(Branches().eval(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    assert written.exporter == "legacy"
    assert written.warnings[0].startswith("the dynamo exporter failed: ")
    with pytest.raises(ExportError, match="dynamo exporter failed"):
        export(Branches().eval(), torch.randn(2, 3, 8, 8), tmp_path / "other.onnx", exporter="dynamo")


@pytest.mark.parametrize("exporter", ["auto", "legacy"])
def test_a_batch_size_baked_in_leaves_no_file(exporter: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exporter failed"):
        export(FixedBatch().eval(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx", exporter=exporter)
    assert not list(tmp_path.iterdir())


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    net = Net().eval()
    with torch.no_grad():
        net.fc.weight[1, 2] = float("nan")
    with pytest.raises(ExportError, match=r"'fc\.weight' holds NaN"):
        export(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", exporter="legacy")
    assert not list(tmp_path.iterdir())


def test_opset_is_asserted(tmp_path: Path) -> None:
    written = export(Net().eval(), torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", exporter="legacy", opset=18)
    assert {entry.version for entry in onnx.load(written.path).opset_import} == {18}
    with pytest.raises(ExportError, match=r"wanted only ai\.onnx 13"):  # torch silently writes 18
        export(Net().eval(), torch.randn(1, 3, 8, 8), tmp_path / "low.onnx", exporter="dynamo", opset=13)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write"):
        export(Net().eval(), torch.randn(1, 3, 8, 8), tmp_path / "file" / "net.onnx", exporter="legacy")


def test_a_killed_export_leaves_no_final_file(tmp_path: Path) -> None:
    script = f"""
        import os, signal, torch
        from pathlib import Path
        from compress.export import exporting as module
        def die(path, example):
            print(path.stat().st_size, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        module._run = die
        net, path = torch.nn.Conv2d(3, 4, 3).eval(), Path({str(tmp_path / "net.onnx")!r})
        module.export(net, torch.randn(2, 3, 8, 8), path, exporter="legacy")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and int(done.stdout) > 0, done.stderr
    assert not (tmp_path / "net.onnx").exists()


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], out: list[int | str]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
    made = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(value, name) for name, value in weights.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("axes", "pools"), [([2, 3], True), ([-1, -2], True), ([1, 2], False), ([3], False)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_only_means_over_height_and_width_become_pools(axes: list[int], pools: bool, keepdims: int) -> None:
    shape: list[int | str] = ["batch", 4, 6, 6]
    reduced = {axis % 4 for axis in axes}
    out = [1 if i in reduced else size for i, size in enumerate(shape) if keepdims or i not in reduced]
    model = graph([helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=keepdims)], {"a": np.array(axes)}, out)
    before = onnx.reference.ReferenceEvaluator(model)
    canonicalise(model, name="n", metadata={})
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 6)).astype(np.float32)
    after = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(after, before.run(None, {"x": x})[0], atol=1e-6)
    assert ("GlobalAveragePool" in [node.op_type for node in model.graph.node]) is pools
    assert len(model.graph.initializer) == (0 if pools else 1)


def test_a_wrongly_cut_weight_is_caught_while_value_info_is_there() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["inside"]), helper.make_node("Relu", ["inside"], ["y"])]
    model = graph(nodes, {"w": np.ones((7, 4, 1, 1), np.float32)}, ["batch", "c", 6, 6])
    onnx.checker.check_model(model, full_check=True)  # nothing contradicts the weight yet
    model.graph.value_info.append(helper.make_tensor_value_info("inside", TensorProto.FLOAT, ["batch", 8, 6, 6]))
    with pytest.raises(ExportError, match="not valid ONNX"):
        canonicalise(model, name="n", metadata={})
