from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.onnx_files import external_data_gone, net, two_inputs, unknown_operator
from torch import Tensor

from compress.errors import ModelError, RuntimeUnavailable
from compress.export.exporting import export
from compress.runtime import EagerSession, TorchRuntime
from compress.runtime.base import Runtime, Session, inputs_of
from compress.runtime.ort import OrtRuntime, gpus
from compress.signature import tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("runtime") / "net.onnx"
    return export(net(), torch.randn(2, 3, 8, 8), to, exporter="legacy").path


def image(batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, 8, 8)).astype(np.float32)


def test_both_runtimes_are_sessions_and_agree(path: Path) -> None:
    assert isinstance(OrtRuntime(), Runtime) and OrtRuntime().available() and OrtRuntime().name == "ort-cpu"
    slow = EagerSession(net())
    with OrtRuntime().load(path) as fast:
        assert isinstance(fast, Session) and isinstance(slow, Session)
        np.testing.assert_allclose(fast.run(image())[0], slow.run(image())[0], atol=1e-6)
        for session in (fast, slow):
            session.prepare(image())()
            assert session.input_dtype == np.float32 and session.fallback == "" and session.options["threads"]
        assert fast.providers == ("CPUExecutionProvider",) and slow.providers == ("torch-cpu",)
        assert fast.placement == {"CPUExecutionProvider": len(onnx.load(path).graph.node)}
        assert fast.input_shape == (None, 3, 8, 8)


def test_threads_and_spinning_reach_the_library(path: Path) -> None:
    with OrtRuntime(threads=2, spinning=True).load(path) as session:
        inside = session.session.get_session_options()
        assert inside.intra_op_num_threads == 2
        assert inside.get_session_config_entry("session.intra_op.allow_spinning") == "1"
        assert session.options == {"provider": "cpu", "threads": "2", "spinning": "on"}
    with OrtRuntime(threads=2).load(path) as session:
        assert session.session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_torch_threads_are_restored() -> None:
    before = torch.get_num_threads()
    runtime = TorchRuntime(lambda path: (net(), (3, 8, 8)), threads=before + 1)
    with pytest.raises(RuntimeError, match="inside"), runtime.load(Path()):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
    with pytest.raises(ModelError, match="training mode"):
        EagerSession(net().train())


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_asking_for_a_gpu_without_one_is_said(provider: str, path: Path) -> None:
    runtime = OrtRuntime(provider)
    assert not runtime.available()
    with runtime.load(path) as session:
        assert session.providers[0] == "CPUExecutionProvider"
        assert f"{provider} was asked for, but" in session.fallback and "the CPU runs net.onnx" in session.fallback
        assert session.options["provider"] == "cpu"
        session.prepare(image(), "device")()
    with pytest.raises(RuntimeUnavailable, match="a GPU is required"), OrtRuntime(provider, require_gpu=True).load(path):
        pass


def test_requiring_a_gpu_of_the_cpu_is_refused(path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="the cpu provider runs on the CPU"), OrtRuntime(require_gpu=True).load(path):
        pass


def test_a_provider_that_the_wheel_lacks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with OrtRuntime("openvino").load(path) as session:
        assert "built without OpenVINOExecutionProvider" in session.fallback


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda path: None, "is not a file", "path"),
        (lambda path: path.write_bytes(b"no model"), "cannot load", "export it again"),
        (lambda path: path.write_bytes(b""), "cannot load", ""),
        (unknown_operator, "cannot load", ""),
        (external_data_gone, "cannot load", "external data"),
    ],
)
def test_files_that_cannot_run(make: object, message: str, hint: str, tmp_path: Path) -> None:
    make(tmp_path / "bad.onnx")  # type: ignore[operator]
    with pytest.raises(ModelError, match=message) as caught, OrtRuntime().load(tmp_path / "bad.onnx"):
        pass
    assert hint in caught.value.hint


def test_a_file_of_two_inputs_takes_both_and_no_fewer(tmp_path: Path) -> None:
    two_inputs(tmp_path / "two.onnx")
    one, two = np.array([1], np.float32), np.array([2], np.float32)
    with OrtRuntime().load(tmp_path / "two.onnx") as session:
        assert [i.name for i in inputs_of(session)] == ["x", "y"]
        assert session.run([one, two])[0] == 3 and session.prepare([one, two])()[0] == 3  # type: ignore[index]
        with pytest.raises(ModelError, match="1 arrays for 2 inputs"):
            session.run(one)


def test_an_array_that_does_not_fit(path: Path) -> None:
    with (
        OrtRuntime().load(path) as session,
        pytest.raises(ModelError, match=r"does not run on float32 \[1, 3, 9, 9\]") as caught,
    ):
        session.run(np.zeros((1, 3, 9, 9), np.float32))
    assert "float32 ['any', 3, 8, 8]" in caught.value.hint


def test_nested_outputs_have_names_in_order() -> None:
    a, b, c = (torch.zeros(1) for _ in range(3))
    named: dict[str, Tensor] = tensors({"z": a, "y": (b, c)})
    assert list(named) == ["z", "y_0", "y_1"]
    with pytest.raises(ModelError, match="returns str"):
        tensors("text")


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
def test_cuda_agrees_with_the_cpu(graph: bool, path: Path) -> None:
    with OrtRuntime("cuda", require_gpu=True, cuda_graph=graph).load(path) as session, OrtRuntime().load(path) as cpu:
        assert session.providers[0] == "CUDAExecutionProvider"
        np.testing.assert_allclose(session.run(image())[0], cpu.run(image())[0], atol=1e-3)
        session.prepare(image(), "device")()
