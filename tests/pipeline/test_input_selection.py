"""Input selections that pay: measured layer by layer, kept in the run's folder, and taken back where they do not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from support.bilevel import evolved, forked, space_of
from support.nets import traced
from torch import nn

from compress.core.plan import Plan, canonical
from compress.core.topology import LayerName
from compress.data import Preprocessing
from compress.latency.input_selection import GAIN, TimedReader, _file, gains, readers, worthwhile
from compress.networks.architecture import Architecture
from compress.networks.network import Network
from compress.pipeline import input_selection, run_folder
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.runtime.ort import OrtRuntime
from compress.search.bicnn.problem import Bilevel
from compress.search.front import Fidelity

LARGE = TimedReader((64, 28, 28), 64, (3, 3), (1, 1), (1, 1), (1, 1))
SMALL = TimedReader((64,), 10)
ORT = OrtRuntime("cpu", threads=1)


@pytest.mark.slow
def test_half_of_a_large_convolution_pays_and_of_a_small_linear_layer_does_not() -> None:
    assert gains(LARGE, [32], runtime=ORT, seconds=0.2)[32] > GAIN
    assert gains(SMALL, [32], runtime=ORT, seconds=0.2)[32] < GAIN


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("reader", [LARGE, SMALL, TimedReader((16, 9, 9), 8, (3, 3), (2, 2), (0, 0), (2, 2))])
def test_the_files_compute_what_the_layers_do(reader: TimedReader, contiguous: bool) -> None:
    """Against torch, with the constants of the file."""
    import onnx
    from onnx import numpy_helper

    for reads in (reader.arriving[0], reader.arriving[0] // 2):
        data = _file(reader, reads, contiguous)
        held = {
            t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load_from_string(data).graph.initializer
        }
        x = torch.randn(2, *reader.arriving)
        chosen = torch.arange(reads) if contiguous else held.get("chosen", torch.arange(reader.arriving[0]))
        if reader.kernel:
            made = nn.functional.conv2d(x, held["scale"], groups=x.shape[1])[:, chosen]
            wanted = nn.functional.conv2d(made, held["weight"], None, reader.stride, reader.padding, reader.dilation)
        else:
            wanted = torch.relu(x)[:, chosen] @ held["weight"]
        (got,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=1e-4, atol=1e-3)


def test_shapes_come_from_the_networks_own_run_and_alike_layers_are_measured_once(monkeypatch) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(1024, 4)
    )
    names = [LayerName(n) for n in "0124"]
    found = readers(model, torch.zeros(1, 3, 16, 16), names)
    assert found[LayerName("0")] == TimedReader((3, 16, 16), 16, (3, 3), (2, 2), (1, 1), (1, 1))
    assert found[LayerName("1")] == found[LayerName("2")] and found[LayerName("4")] == TimedReader((1024,), 4)
    asked: list[TimedReader] = []

    def pays_at_half(reader, reads, **_):
        asked.append(reader)
        return {n: 2.0 if n <= reader.arriving[0] / 2 else 0.9 for n in reads}

    monkeypatch.setattr("compress.latency.input_selection.gains", pays_at_half)
    share = worthwhile(model, torch.zeros(1, 3, 16, 16), [*names, LayerName("3")], runtime=ORT)
    assert len(asked) == 3 and share[LayerName("4")] == 0.5 and share[LayerName("3")] == 0.0


@pytest.mark.parametrize("most", [0.5, 0.75])
def test_a_layer_reads_everything_or_little_enough(most: float) -> None:
    space = replace(forked(32), round_to=4)
    space = replace(space, selecting=dict.fromkeys(space.statistics.reader_losses, most))
    search = evolved(space, delta=0.05, generations=4)
    seen = 0
    for found in search.archive.values():
        for consumer, read in zip(search.problem.consumers, found.reads, strict=True):
            kept = int(found.u[consumer.index].sum())
            assert read.sum() == kept or read.sum() <= most * kept
            seen += read.sum() < kept
    assert seen


@pytest.mark.parametrize("pays", [True, False])
def test_branches_that_are_gone_stay_gone(pays: bool) -> None:
    model, topology = traced("pad-option-a")
    gone = tuple(b.name for b in topology.branches)
    name, width = LayerName("b.0"), topology.by_layer[LayerName("b.0")]
    reads = tuple(range(topology.tensors[width.weight].shape[width.read_dim] // 2))
    plan = canonical(topology, Plan({}, {name: reads}, gone))
    paid = input_selection._paying(model, topology, plan, lambda *layer: GAIN if pays else 0.0)
    assert plan.inputs and paid == replace(plan, inputs=plan.inputs if pays else {})


def test_what_does_not_pay_is_taken_back_and_an_interrupted_run_finds_the_same(tmp_path, monkeypatch) -> None:
    model, space, _ = space_of("dense", target=0.9)
    problem, rng = Bilevel(space, "plain", "obs"), np.random.default_rng(1)
    points = []
    while len(points) < 4:
        u = problem.genes.repair(rng.random(problem.genes.length) < 0.8)
        reads = problem.without(u, tuple((rng.random(len(c.index)) < 0.4) & c.free for c in problem.consumers))
        plan = problem.plan(*problem.tidy(u, reads))
        if plan.inputs:
            points.append(space.point(plan, 1.0 - 0.1 * len(points), Fidelity.FULL))
    network = Network(model, "net", Architecture("x", {}), Preprocessing((0.5,), (0.5,), (8, 8)), "0")
    run, calls = Run(network, None, Job(method="bicnn", value=0.9), tmp_path), []

    def measured(reader, reads, **_):
        calls.append(reader)
        return dict.fromkeys(reads, GAIN + 0.1 if reader.arriving[0] % 2 else GAIN - 0.1)

    monkeypatch.setattr(input_selection, "gains", measured)
    front, notes = input_selection.settled(run, space, tuple(points))
    held = json.loads((tmp_path / run_folder.SELECTIONS).read_text())
    assert calls and held["after the search"] and "input selection" in notes[0]
    for point in front:
        assert set(point.plan.inputs) <= set().union(*(p.plan.inputs for p in points))
        assert point.cost == space.point(point.plan, 0.0, Fidelity.FULL).cost
    monkeypatch.setattr(input_selection, "gains", None)  # asking again would fail
    again, _ = input_selection.settled(run, space, tuple(points))
    assert again == front


def test_nothing_is_measured_where_nothing_selects_or_no_latency_is_wanted(tmp_path) -> None:
    model, space, _ = space_of("dense")
    network = Network(model, "net", Architecture("x", {}), Preprocessing((0.5,), (0.5,), (8, 8)), "0")
    for job in (Job(method="obs"), Job(method="bicnn", latency_seconds=0)):
        assert input_selection.may_select(Run(network, None, job, tmp_path), space) is space
    front = (space.point(Plan(), 0.0, Fidelity.FULL),)
    run = Run(network, None, Job(method="bicnn"), tmp_path)
    assert input_selection.settled(run, space, front) == (front, ())
    assert not list(tmp_path.iterdir())


def test_no_layer_selects_where_csgd_makes_the_plan_real(tmp_path) -> None:
    """Clusters of filters are widths: a selection that was found would have to be given up after the search."""
    model, space, _ = space_of("dense")
    network = Network(model, "net", Architecture("x", {}), Preprocessing((0.5,), (0.5,), (8, 8)), "0")
    job = Job(method="bicnn", realise="csgd", epochs=3)
    assert input_selection.may_select(Run(network, None, job, tmp_path), space).selecting == {}
    assert not list(tmp_path.iterdir())
