from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.timed_arms import QUICK, chain

from compress.core.events import Phase
from compress.errors import ConfigError, ModelError, RuntimeUnavailable
from compress.export.exporting import export
from compress.latency.matrix import Condition, cells, measure_all
from compress.latency.onnx_files import describe, describe_all, file_arms, precision
from compress.latency.result import Settings
from compress.latency.torch_files import torch_runtimes
from compress.runtime.ort import OrtRuntime, OrtSession
from compress.runtime.torch_module import TorchRuntime


def ways(*providers: str, batches: tuple[int, ...] = (1,)) -> list[str]:
    return [cell.name for cell in cells(providers, batches, Settings())]


def test_every_combination_once() -> None:
    assert ways("cpu", "cpu", batches=(1, 8, 8)) == ["ort-cpu, batch 1", "ort-cpu, batch 8"]
    assert ways("cuda") == ["ort-cuda, batch 1, e2e", "ort-cuda, batch 1, device", "ort-cuda-graph, batch 1, device"]
    assert ways("tensorrt", "tensorrt-fp16", batches=(4,)) == [
        "ort-tensorrt, batch 4, e2e",
        "ort-tensorrt, batch 4, device",
        "ort-tensorrt-fp16, batch 4, e2e",
        "ort-tensorrt-fp16, batch 4, device",
    ]
    assert [cell.optional for cell in cells(["cuda"], [1], Settings())] == [False, False, True]
    for wrong in ("gpu", "cpu-fp16", "cuda-fp16", ""):
        with pytest.raises(ConfigError, match="no runtime is called"):
            ways(wrong)


def test_torchs_runtimes_stand_alone_and_want_something_that_opens_networks() -> None:
    def opens(path: Path) -> tuple[torch.nn.Module, tuple[int, ...]]:
        return chain(1), (3, 24, 24)

    made = torch_runtimes(opens, 1)
    found = list(cells(["torch-cpu"], [1, 4], Settings(), of_torch=made))
    assert [cell.name for cell in found] == ["torch-cpu, batch 1", "torch-cpu, batch 4"]
    card = Condition(TorchRuntime(opens, device="cuda", precision="fp16", cuda_graph=True), Settings(transfer="device"))
    assert card.name == "torch-cuda-fp16-graph, batch 1, device"
    with pytest.raises(ConfigError, match="cannot have both"):
        list(cells(["torch-cpu", "cpu"], [1], Settings(), of_torch=made))
    with pytest.raises(ConfigError, match="loads networks and their weights, here are only ONNX files"):  # as in a bench kit
        list(cells(["torch-cpu"], [1], Settings()))
    with pytest.raises(ConfigError, match="no runtime is called"):
        list(cells(["torch-gpu"], [1], Settings(), of_torch=made))


def test_threads_are_the_processors_and_engines_tensorrts(tmp_path: Path) -> None:
    cpu, *_ = cells(["cpu"], [1], Settings(), threads=2, engines=tmp_path)
    cuda, *_ = cells(["cuda"], [1], Settings(), threads=2, engines=tmp_path)
    tensorrt, *_ = cells(["tensorrt-fp16"], [1], Settings(), threads=2, engines=tmp_path)
    assert (cpu.runtime.threads, cuda.runtime.threads, cuda.runtime.engines) == (2, None, None)
    assert tensorrt.runtime.fp16 and tensorrt.runtime.engines == tmp_path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("matrix") / "net.onnx"
    return export(chain(1), torch.randn(2, 3, 24, 24), to, exporter="legacy").path


class Unable(OrtRuntime):
    """Loads nothing, as a network that cannot be captured."""

    def load(self, path: Path):  # type: ignore[no-untyped-def]
        raise ModelError("it cannot be captured", hint="leave it out")


def test_what_fails_while_it_is_measured_is_an_error_and_no_gap(file: Path) -> None:
    """The files loaded when they were tried out; then the memory was gone."""
    loads: list[Path] = []

    class Later(OrtRuntime):
        def load(self, path: Path):  # type: ignore[no-untyped-def]
            loads.append(path)
            if len(loads) > 1:
                raise ModelError("no memory is left", hint="free some")
            return OrtRuntime().load(path)

    with pytest.raises(ModelError, match="no memory"):
        measure_all(file, {}, [Condition(Later(), QUICK)], files=describe_all({"base": file}))
    assert len(loads) == 2


def test_what_is_optional_is_skipped_with_the_reason(file: Path) -> None:
    heard: list[object] = []
    wanted = [Condition(OrtRuntime(), QUICK), Condition(Unable(), replace(QUICK, batch=2), optional=True)]
    facts = describe_all({"base": file})
    found = measure_all(file, {}, wanted, files=facts, kit="k", listen=heard.append)
    assert len(found.results) == 1 and found.skipped == ("ort-cpu, batch 2: it cannot be captured",) and found.kit == "k"
    assert [event.detail for event in heard if isinstance(event, Phase)] == ["ort-cpu, batch 1", "ort-cpu, batch 2"]
    with pytest.raises(RuntimeUnavailable, match=r"nothing could be measured: .* captured"):
        measure_all(file, {}, wanted[1:], files=facts)
    with pytest.raises(ModelError, match="captured"):
        measure_all(file, {}, [*wanted[:1], Condition(Unable(), QUICK)], files=facts)


def test_names_of_arms_tell_files_apart_and_hold_no_more_path_than_that() -> None:
    files = [Path(name) for name in ("/a/base.onnx", "/a/one.onnx", "/a/x/two.onnx", "/b/y/two.onnx", "/b/y/two.onnx")]
    assert file_arms(files) == dict(zip(("base", "one.onnx", "x/two.onnx", "y/two.onnx", "y/two.onnx #2"), files, strict=True))
    assert list(file_arms([Path("base"), Path("base")])) == ["base", "base #2"]
    with pytest.raises(ConfigError, match="no file"):
        file_arms([])


@pytest.mark.parametrize(
    ("kinds", "operator", "wanted"),
    [
        ((np.float32, np.int64), "Add", "fp32"),
        ((np.float16, np.int64), "Add", "fp16"),
        ((np.float64,), "Add", "fp64"),
        ((np.int64,), "Add", ""),
        ((np.float32, np.int8), "QLinearConv", "int8"),
    ],
)
def test_the_precision_is_that_of_most_weights(kinds: tuple[type, ...], operator: str, wanted: str) -> None:
    weights = [numpy_helper.from_array(np.ones(5 - index, kind), f"w{index}") for index, kind in enumerate(kinds)]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node(operator, ["x", "x"], ["y"])], "g", [value], [value], weights)
    assert precision(helper.make_model(graph)) == wanted


def test_a_description_is_of_the_bytes(file: Path, tmp_path: Path) -> None:
    proto = onnx.load(file)
    proto.graph.name = "another"
    onnx.save(proto, tmp_path / "net.onnx")
    one, other = describe(file), describe(tmp_path / "net.onnx")
    assert one.precision == other.precision == "fp32" and one.name == other.name and one.sha256 != other.sha256


def test_runs_on_other_arrays_stay_out_of_a_cuda_graph(file: Path) -> None:
    """Else the first checked run would be captured, and every sample would replay it on addresses that are gone."""
    with OrtRuntime().load(file) as session:
        assert session._uncaptured() is None
        captured = OrtSession(session.session, {"cuda_graph": "on"}, "", "cuda")
        options = captured._uncaptured()
        assert options is not None and options.get_run_config_entry("gpu_graph_id") == "-1"
        assert np.isfinite(captured.run(np.zeros((1, 3, 24, 24), np.float32))[0]).all()
