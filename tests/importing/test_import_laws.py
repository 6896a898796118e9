"""Laws of importing: a file and its network compute the same, whatever the file; ONNX Runtime is the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.onnx_models import FAMILIES, OPSETS, cancelling, padded_by_size

from compress.errors import ImportRefused
from compress.importing import ImportedNetwork, example_of, import_onnx, rebuilt, structure_of, written
from compress.importing.parity import proven


def session_of(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def fed(network: ImportedNetwork, given: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in zip(network.graph.input_names, given, strict=True)}


def run(session: ort.InferenceSession, network: ImportedNetwork, given: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """A file of a fixed batch one example after the other."""
    feeds = [
        {n: x[i : i + 1].numpy() for n, x in zip(network.graph.input_names, given, strict=True)} for i in range(len(given[0]))
    ]
    if not network.graph.batch:
        return session.run(None, {n: x.numpy() for n, x in zip(network.graph.input_names, given, strict=True)})
    return [np.concatenate(parts) for parts in zip(*(session.run(None, feed) for feed in feeds), strict=True)]


DEFAULT = ("convolutions", "shapes", "arithmetic")


@pytest.mark.parametrize("family", [f if f in DEFAULT else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_file_its_network_and_the_file_again_compute_the_same(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "law.onnx"
    model = FAMILIES[family](data.draw, data.draw(st.sampled_from(OPSETS)), data.draw(st.integers(0, 99)))
    path.write_bytes(model.SerializeToString())
    network = import_onnx(path).network
    given = example_of(network, 3, seed=1)
    wanted = run(session_of(path.read_bytes()), network, given)
    with torch.no_grad():
        answer = network(*given)
    got = list(answer.values()) if isinstance(answer, dict) else [answer]
    again = session_of(written(network).SerializeToString()).run(None, fed(network, given))
    for one, two, three in zip(wanted, got, again, strict=True):
        np.testing.assert_allclose(two.numpy(), one, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(one).max(initial=0.0)))
        np.testing.assert_allclose(three, one, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(one).max(initial=0.0)))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_structure_is_rebuilt_with_the_same_names_and_shapes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "structure.onnx"
    family = data.draw(st.sampled_from(sorted(FAMILIES)))
    model = FAMILIES[family](data.draw, data.draw(st.sampled_from(OPSETS)), data.draw(st.integers(0, 99)))
    path.write_bytes(model.SerializeToString())
    network = import_onnx(path).network
    text = structure_of(network)
    other = rebuilt(text)
    assert {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    other.load_state_dict({k: v.clone() for k, v in network.state_dict().items()}, assign=True)
    given = example_of(network, 2, seed=3)
    with torch.no_grad():
        one, two = network(*given), other(*given)
    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    assert structure_of(other) == text


def test_the_names_of_inputs_and_outputs_the_metadata_and_the_operator_set_stay(tmp_path: Path) -> None:
    model = FAMILIES["norms"](lambda strategy: 1, 13, 0)
    onnx.helper.set_model_props(model, {"author": "somebody"})
    model.producer_name = "another"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    again = written(import_onnx(path).network, {"tool": "ours"})
    assert [v.name for v in again.graph.input] == [v.name for v in model.graph.input]
    assert [v.name for v in again.graph.output] == [v.name for v in model.graph.output]
    assert {p.key: p.value for p in again.metadata_props} == {"author": "somebody", "tool": "ours"}
    assert again.producer_name == "another" and again.opset_import[0].version == 13
    assert again.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_formula_that_cancels_is_no_difference_and_a_difference_is_one(tmp_path: Path) -> None:
    """Where whole numbers of 0 and 1 leave nothing but rounding, larger ones tell whether the network is the file's."""
    path = tmp_path / "cancelling.onnx"
    path.write_bytes(cancelling().SerializeToString())
    network = import_onnx(path).network
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1.01
    with pytest.raises(ImportRefused, match="something else"):
        proven(network, path)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pads_may_follow_the_size(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "padded.onnx"
    path.write_bytes(padded_by_size(mode).SerializeToString())
    (x,) = example_of(import_onnx(path).network, 2)
    with torch.no_grad():
        assert import_onnx(path).network(x).shape == (2, 4, 10, 10)
