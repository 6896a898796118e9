"""fp16 and int8: what is written computes nearly the same, what cannot bear 8 bits is left alone, and the record is true."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compress_cli.app import app
from compress_models import MODELS
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn
from typer.testing import CliRunner

from compress.data import Data, open_data
from compress.errors import DataError, ExportError, ParityError
from compress.export import precision as record
from compress.export.conversion import Options, _with_accuracy, convert
from compress.export.exporting import export
from compress.export.int8 import QuantisedLayer, Quantiser, digest_of, fewest
from compress.export.parity import ParityVerdict
from compress.export.precision import Precision, PrecisionLatency, Precisions
from compress.networks.checkpoint import load
from compress.runtime.ort import OrtRuntime

DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load(DIGITS, zoo=MODELS).model


def written(model: nn.Module, data: Data, folder: Path) -> Path:
    images = data.calibration.images(10)
    return export(model, images[:2], folder / "net.onnx", metadata={"plan": "abc"}, exporter="legacy").path


def outputs(path: Path, images: Tensor) -> np.ndarray:
    with OrtRuntime().load(path) as session:
        return session.run(images.numpy())[0]


# ---- which layers go back ----------------------------------------------------------------------------------------------


@given(layers=st.integers(1, 70), needed=st.integers(1, 80))
def test_fewest_layers_are_found_in_few_tries(layers: int, needed: int) -> None:
    order = [QuantisedLayer(str(i), str(i)) for i in range(layers)]
    tried: list[int] = []

    def bearable(left: object) -> bool:
        tried.append(len(left))  # type: ignore[arg-type]
        return len(left) >= needed  # type: ignore[arg-type]

    found = fewest(order, bearable)
    assert found == (order[:needed] if needed < layers else None)
    assert len(tried) == len(set(tried)) <= 2 * layers.bit_length() + 1


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_what_is_found_was_tried_however_accuracy_jumps(bears: list[bool]) -> None:
    found = fewest([QuantisedLayer(str(i), "") for i in range(len(bears))], lambda left: bears[len(left)])
    assert found is None or bears[len(found)]


def outlier(model: nn.Module, factor: float) -> nn.Module:
    """The same function with one channel whose range drowns the others: 8 bits for the whole tensor cannot hold both."""
    blown = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False), model).eval()
    with torch.no_grad():
        blown[0].weight.copy_(torch.tensor([1.0, -1.0, factor, 0.0]).view(4, 1, 1, 1))
        blown[2].weight.copy_(torch.tensor([1.0, -1.0, 1e-3 / factor, 0.0]).view(1, 4, 1, 1))
    return blown


def test_layers_that_cannot_bear_int8_go_back_to_fp32(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    source = written(outlier(network, 1e4), digits, tmp_path)
    found = convert(source, tmp_path / "net.int8.onnx", "int8", digits, inputs=digits.calibration.images(4))
    assert found.in_fp32 and "2" in found.in_fp32 and len(found.in_fp32) < found.layers
    assert found.drop is not None and found.drop <= 0.01
    graph = onnx.load(str(tmp_path / "net.int8.onnx")).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    plain = {node.input[1].removesuffix(".weight") for node in graph.node if node.op_type == "Conv" and node.input[1] in floats}
    assert plain == set(found.in_fp32)  # the record says what the file does
    held = {prop.key: prop.value for prop in onnx.load(str(tmp_path / "net.int8.onnx")).metadata_props}
    assert json.loads(held["int8 layers in fp32"]) == list(found.in_fp32)


def test_nothing_is_written_where_no_layer_bears_it(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    source = written(outlier(network, 1e4), digits, tmp_path)
    with pytest.raises(ParityError, match="no layer can be left"):
        convert(
            source,
            tmp_path / "net.int8.onnx",
            "int8",
            digits,
            inputs=digits.calibration.images(4),
            options=Options(max_drop=-1),
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


# ---- the files ----------------------------------------------------------------------------------------------------------


def test_int8_points_the_same_way_and_says_what_it_was_calibrated_on(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    source, target = written(network, digits, tmp_path), tmp_path / "net.int8.onnx"
    images = digits.calibration.images(50)
    found = convert(source, target, "int8", digits, inputs=images, options=Options(calibration=50))
    assert found.verdict == ParityVerdict.PASS and not found.in_fp32 and found.cosine is not None and found.cosine > 0.999
    assert (found.calibration_images, found.calibration_digest) == (50, digest_of(images))
    assert digest_of(images) != digest_of(images + 1e-3)
    assert found.bytes == target.stat().st_size < source.stat().st_size / 2
    model = onnx.load(str(target))
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    held = {prop.key: prop.value for prop in model.metadata_props}
    assert (held["plan"], held["precision"]) == ("abc", "int8") and found.calibration_digest in held["int8 calibration"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    dequantised = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    for node in convolutions:  # one scale an output channel
        weight, scale = dequantised[node.input[1]].input[:2]
        assert stored[weight].dtype == np.int8 and stored[scale].shape == stored[weight].shape[:1]
    assert len(convolutions) == found.layers - 1
    for batch in (1, 2, 5):
        assert outputs(target, images[:batch]).shape == (batch, 10)
    wanted, got = outputs(source, digits.test.images(200)), outputs(target, digits.test.images(200))
    assert np.mean(wanted.argmax(1) == got.argmax(1)) > 0.98 and not np.array_equal(wanted, got)
    assert found.score is not None and found.fp32_score is not None and found.drop is not None
    assert found.drop == pytest.approx(found.fp32_score - found.score) and found.images == len(digits.test)


def test_ranges_of_another_file_are_not_reused(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    images, other = digits.calibration.images(20), nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 10)).eval()
    for model in (network, other):
        Quantiser.of(written(model, digits, tmp_path), images, tmp_path).write(tmp_path / "int8.onnx")
    assert outputs(tmp_path / "int8.onnx", images).shape == (20, 10)


def test_fp16_is_sorted_close_and_keeps_its_inputs(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    source, target = written(network, digits, tmp_path), tmp_path / "net.fp16.onnx"
    images = digits.calibration.images(10)
    found = convert(source, target, "fp16", None, inputs=images)
    assert found.verdict == ParityVerdict.PASS and found.error is not None and 1e-6 < found.error < 5e-3
    assert any("CPU" in note for note in found.notes) and found.score is None
    model = onnx.load(str(target))
    onnx.checker.check_model(model, full_check=True)  # refuses a graph that is not sorted
    assert not [node.name for node in model.graph.node if node.op_type == "Gemm"]  # tract types it wrongly
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {onnx.TensorProto.FLOAT}
    assert outputs(target, images).dtype == np.float32


class Loud(nn.Module):
    """Sums beyond what half precision holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return ((self.conv(x) * 3e4) ** 2).mean((2, 3)) * 1e-9


def test_fp16_that_overflows_leaves_no_file(digits: Data, tmp_path: Path) -> None:
    source = written(Loud().eval(), digits, tmp_path)
    with pytest.raises(ParityError, match="fp16"):
        convert(source, tmp_path / "net.fp16.onnx", "fp16", None, inputs=digits.calibration.images(10))
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_a_network_that_tells_nothing_is_inconclusive(digits: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dull = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).eval()
    with torch.no_grad():
        dull[3].weight.mul_(1e-4)
        dull[3].bias.copy_(torch.randn(10))
    source = written(dull, digits, tmp_path)
    found = convert(
        source, tmp_path / "net.int8.onnx", "int8", digits, inputs=digits.calibration.images(4), options=Options(max_drop=1)
    )
    assert found.verdict == ParityVerdict.INCONCLUSIVE and "any file would pass" in found.message


def test_a_drop_on_the_test_images_is_told(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    source = written(network, digits, tmp_path)
    spoilt = copy.deepcopy(network)
    last = [m for m in spoilt.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[3] -= 100  # never answers 3
    (tmp_path / "worse").mkdir()
    found = _with_accuracy(
        Precision("int8", verdict=ParityVerdict.PASS), source, written(spoilt, digits, tmp_path / "worse"), digits, 0.05
    )
    threes = float(np.mean(digits.test.labels == 3))
    assert found.drop is not None and found.drop_low is not None and found.drop_high is not None
    assert found.drop == pytest.approx(threes, abs=0.01) and found.drop_low < found.drop < found.drop_high
    assert found.drop_low > 0.05 and found.verdict == ParityVerdict.WARN and "points are lost" in found.notes[-1]
    assert found.agreement == pytest.approx(1 - threes, abs=0.01)


def test_int8_wants_images(digits: Data, network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="real images"):
        convert(written(network, digits, tmp_path), tmp_path / "o.onnx", "int8", None, inputs=digits.calibration.images(2))


# ---- the record ---------------------------------------------------------------------------------------------------------

ROW = PrecisionLatency("ort-cpu", 8, 1, 0.02, 0.01, 0.5, 0.4, 0.6, "different", "cpu", 30, ("noisy",))


def test_a_record_reads_back_and_shows_a_grid(tmp_path: Path) -> None:
    entries = (Precision("fp16", latency=(ROW,)), Precision("int8", in_fp32=("conv1",), latency=(replace(ROW, batch=1), ROW)))
    held = Precisions("model.onnx", "abc", 10, entries, {"cpu": "x"})
    path = tmp_path / "precision.json"
    path.write_text(json.dumps(held.to_json()))
    assert record.read_precisions(path) == held
    assert set(held.grid()) == {("fp16", 8), ("int8", 1), ("int8", 8)}
    assert held.with_entry(Precision("int8")).grid() == {("fp16", 8): ROW}
    assert (ROW.direction, replace(ROW, speedup=2.0).direction, replace(ROW, verdict="same").direction) == (
        "slower", "faster", "same",
    )  # fmt: skip
    assert record.read_precisions(tmp_path / "none.json") is None
    path.write_text(path.read_text().replace(record.SCHEMA, "compress-precisions-0"))
    with pytest.raises(ExportError, match="schema"):
        record.read_precisions(path)


def test_the_command_writes_beside_the_checkpoint_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--exporter", "legacy", "--quiet", "--batches", "2"]
    for precision, data in (("int8", ["--data", "digits"]), ("fp16", [])):
        data += ["--latency-seconds", "0"]
        done = CliRunner().invoke(app, ["export", str(DIGITS), "--precision", precision, *data, *more])
        assert done.exit_code == 0, done.stdout + done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "digits-net.fp16.onnx", "digits-net.int8.onnx", "digits-net.onnx", "digits-net.precision.json",
    ]  # fmt: skip
    held = record.read_precisions(tmp_path / "digits-net.precision.json")
    assert (
        held is not None
        and held.source == "digits-net.onnx"
        and [entry.precision for entry in held.entries] == ["fp16", "int8"]
    )
    again = CliRunner().invoke(
        app,
        ["export", "digits-net.onnx", "--precision", "int8", "--data", "digits", "--latency-seconds", "0.1", *more, "--json"],
    )
    assert again.exit_code == 0, again.stdout + again.stderr
    shown = json.loads(again.stdout)
    assert [entry["precision"] for entry in shown["entries"]] == ["fp16", "int8"]
    assert shown["entries"][1]["latency"][0]["batch"] == 2
    none = ["--precision", "int8", "--data", "digits", "--calibration-images", "0"]
    for wrong in (["--precision", "int8"], ["--precision", "int4"], ["--precision", "fp32"], none):
        assert CliRunner().invoke(app, ["export", "digits-net.onnx", *wrong]).exit_code in (2, 3)
