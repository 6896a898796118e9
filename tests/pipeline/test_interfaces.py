"""Whatever a network takes and gives: inspected, cut, written, compared, clocked, packaged; or refused before any work."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from support.covering import thinned
from support.interfaces import ANSWERS, CALLED, answering, called, image, statistics
from torch import Tensor, nn

from compress import Job, Preprocessing, inspect, network_of, prune
from compress.coupling import trace
from compress.errors import CompressError, ConfigError, ExportError, ModelError
from compress.export import ParityVerdict, export_verified, read_interface
from compress.latency import Settings, measure
from compress.networks import Network, preflight
from compress.runtime import OrtRuntime
from compress.serving import Serving, package
from compress.signature import Signature, bare, leaves
from compress.surgery import cut, random_plan, verify

SMALL = Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8))


def exported(names: Iterable[str], dynamo: set[str]) -> Any:
    """Every third name with the legacy exporter, some with the dynamo exporter; all with both are slow tests."""
    slow = [pytest.param(name, "dynamo", marks=() if name in dynamo else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize(("name", "exporter"), [*thinned(((name, "legacy") for name in names), of=3), *slow])


def rows_of(network: Network, count: int = 10) -> Tensor:
    return torch.randn(count, *network.shape) if network.signature is None else network.signature.rows(count)


def halved(network: Network) -> nn.Module:
    """The network with about half of its channels, through the guard."""
    preflight(network)
    topology = trace(network.model, torch.zeros(1, *network.shape))
    assert topology.groups, topology.frozen
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    small = cut(network.model, topology, plan)
    verify(network.model, topology, plan, small, rows_of(network, 3))
    return small


def same(one: Any, two: Any) -> None:
    """Equal in structure and values."""
    flat, other = (dict(leaves(x)) for x in (one, two))
    assert flat.keys() == other.keys()
    for key, value in flat.items():
        assert torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]


@exported(CALLED, dynamo={"a dict with more"})
def test_however_a_network_is_called(name: str, exporter: Any, tmp_path: Path) -> None:
    model, example, names = called(name)
    network = network_of(model, example=example)
    assert network.signature is not None and network.signature.names == names
    small, file = halved(network), tmp_path / "model.onnx"
    _, parity = export_verified(small, rows_of(network), file, exporter=exporter)
    assert parity.verdict is ParityVerdict.PASS, parity.message
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    ports, wanted = session.get_inputs(), {one.name: one for one in network.signature.inputs}
    assert [port.name for port in ports] == list(names)
    for port in ports:
        expected = (["batch"] if wanted[port.name].batched else []) + list(wanted[port.name].shape)
        assert [size if isinstance(size, int) else "batch" for size in port.shape] == expected
    result = measure(file, {"again": file}, runtime=OrtRuntime(), settings=Settings(budget_seconds=0.02, min_rounds=3))
    assert result.arm("again").latency.p50 > 0
    batch = 8 if all(one.batched for one in network.signature.inputs) else 0
    made = package(file, tmp_path / "served", "triton", name="it", serving=Serving(max_batch=batch))
    assert made.interface == read_interface(file)
    if not batch:
        with pytest.raises(ExportError, match="batch size baked in"):
            package(file, tmp_path / "batching", "triton", name="it")


@pytest.mark.parametrize("name", CALLED)
def test_rows_are_the_inputs_and_the_caller_keeps_its_network(name: str) -> None:
    model, example, _ = called(name)
    before, kind = copy.deepcopy(model.state_dict()), type(model)
    network = network_of(model.train(), example=example)
    assert network.signature is not None
    inputs = network.signature.unpacked(network.signature.rows(3, seed=1))
    args, kwargs = network.signature.arguments(inputs)
    with torch.no_grad():
        same(bare(network.model)(*args, **kwargs), network.model(network.signature.rows(3, seed=1)))
    assert type(model) is kind and model.training and not any(m.training for m in network.model.modules())
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert list(network.model.state_dict()) == list(model.state_dict())


@exported(ANSWERS, dynamo={"a scalar loss", "a namedtuple"})
def test_whatever_a_network_answers(name: str, exporter: Any, tmp_path: Path) -> None:
    model, names = answering(name)
    network = network_of(model, SMALL)
    small, file = halved(network), tmp_path / "model.onnx"
    _, parity = export_verified(small, rows_of(network), file, exporter=exporter)
    assert parity.verdict is ParityVerdict.PASS, parity.message
    assert tuple(port.name for port in read_interface(file).outputs) == names


@pytest.mark.parametrize(
    "name",
    [
        "two images of odd width",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("no batch", "whole numbers", "a dict with more", "sound", "a volume")
        ),
    ],
)
def test_a_whole_run_without_images(name: str, tmp_path: Path) -> None:
    model, example, names = called(name)
    network = network_of(model, example=example)
    assert inspect(network, Job()).topology.groups
    job = Job(value=0.7, budget=300, latency_seconds=0.05, epochs=0, round_to=1, exporter="legacy")
    result = prune(network, None, job, tmp_path / "run")
    assert result.report.parity["verdict"] == "pass" and result.report.after.macs < result.report.before.macs
    args, kwargs = network.signature.arguments(network.signature.unpacked(network.signature.rows(2)))  # type: ignore[union-attr]
    with torch.no_grad():
        result.model(*args, **kwargs)
    assert tuple(port.name for port in read_interface(result.onnx).inputs) == names
    again = prune(network, None, job, tmp_path / "run")  # a finished run is only read
    assert again.report == result.report


# ---- what cannot be done is said before any work --------------------------------------------------------------------


class Detector(nn.Module):
    """Boxes that are found: as many as there are."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.net, self.answer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)), answer

    def forward(self, x: Tensor) -> Any:
        y = self.net(x).flatten(2).transpose(1, 2)
        found = [{"boxes": one[one[:, 4] > 0.1, :4], "scores": one[one[:, 4] > 0.1, 4]} for one in y]
        return {"list": found, "dict": found[0], "tensor": torch.cat([f["boxes"] for f in found])}[self.answer]


@pytest.mark.parametrize("answer", ["list", "dict", "tensor"])
def test_answers_without_a_row_an_input_are_refused_at_once(answer: str, tmp_path: Path) -> None:
    network = network_of(Detector(answer).eval(), SMALL)
    with pytest.raises(ModelError, match="no row belongs to an input") as caught:
        prune(network, None, Job(budget=300, latency_seconds=0, epochs=0), tmp_path / "run")
    assert "before they are selected" in caught.value.hint


@pytest.mark.parametrize(
    "example",
    [(image(),), (image(), torch.zeros(2, 9)), {"image": image(), "sound": image()}, "text", [], {}, (1, 2), torch.tensor(1.0)],
    ids=str,
)
def test_examples_that_do_not_fit_are_refused(example: Any) -> None:
    model, _, _ = called("keywords")
    with pytest.raises(ModelError) as caught:
        network_of(model, example=example)
    assert caught.value.hint


def test_nothing_said_of_the_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing says what the network takes"):
        network_of(called("one image")[0])
    with pytest.raises(ConfigError, match="the example has the shape"):
        network_of(called("one image")[0], Preprocessing((0.5,) * 3, (0.5,) * 3, (9, 9)), example=image())


def test_images_for_a_network_of_several_inputs_are_refused(digits: Any, tmp_path: Path) -> None:
    model, example, _ = called("two images")
    with pytest.raises(ConfigError, match="takes before 3x8x8, after 3x8x8"):
        prune(network_of(model, example=example), digits[1], Job(), tmp_path / "run")


def test_a_network_that_does_not_run_on_its_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="does not run on 2 inputs"):
        prune(network_of(called("two images")[0], SMALL), None, Job(), tmp_path / "run")


def test_a_network_in_training_mode_is_copied(tmp_path: Path) -> None:
    model = statistics(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(288, 3))
    )
    for part in (model, model[1], model[3]):
        model.eval()
        part.train()
        modes = [m.training for m in model.modules()]
        network = network_of(model, SMALL)
        assert [m.training for m in model.modules()] == modes and not any(m.training for m in network.model.modules())
        export_verified(network.model, torch.randn(8, 3, 8, 8), tmp_path / "m.onnx", exporter="legacy")


def test_a_signature_is_plain_data() -> None:
    model, example, _ = called("whole numbers")
    told = Signature.of(model, example).to_json()
    assert told[1] == {"name": "words", "shape": [3], "dtype": "int64", "range": [0, 6], "batched": True}
