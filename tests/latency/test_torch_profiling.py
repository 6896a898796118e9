"""Layers timed in torch: what the modules do is counted as everywhere else; and what binds a layer on a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.core.cost import count
from compress.core.plan import Cut, Plan
from compress.core.topology import Topology
from compress.coupling.tracer import trace
from compress.latency.explanation import explain
from compress.latency.launches import launch_bound
from compress.latency.table_networks import by_layer, collect, table_of
from compress.latency.torch_networks import ModuleNetworks
from compress.latency.torch_profiling import BETWEEN, profile_modules
from compress.runtime import TorchRuntime
from compress.surgery.cutting import cut


class Mixed(nn.Module):
    """Dense, depthwise, transposed and linear layers, a norm, a shared activation and a sum outside of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()
        self.deep, self.wide = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 24, 1)
        self.up, self.fc = nn.ConvTranspose2d(24, 16, 2, stride=2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = self.act(self.wide(self.deep(x)) + x)
        made: Tensor = self.fc(self.act(self.up(x)).mean((2, 3)))
        return made


@pytest.fixture(scope="module")
def mixed() -> tuple[nn.Module, Topology]:
    torch.manual_seed(0)
    net = Mixed().eval()
    return net, trace(net, torch.zeros(1, 3, 12, 12))


def networks(net: nn.Module, topology: Topology) -> ModuleNetworks:
    modules: dict[Path, nn.Module] = {}

    def opens(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
        return modules[path], (3, 12, 12)

    return ModuleNetworks(model=net, topology=topology, modules=modules, runtime=TorchRuntime(opens))


@pytest.mark.parametrize("batch", [1, 3])
def test_multiply_accumulates_and_widths_are_those_of_the_count(batch: int, mixed: tuple[nn.Module, Topology]) -> None:
    net, topology = mixed
    plan = Plan({topology.groups[-1].id: Cut(tuple(range(10)))})
    made = networks(net, topology)
    for name, chosen in (("whole", Plan()), ("cut", plan)):
        made.write(chosen, Path(name))
        found, shapes = profile_modules(Path(name), runtime=made.runtime, batch=batch, seconds=0.02, least_runs=3, most_runs=5)
        (told,) = explain([(found, shapes)])
        assert told.macs == sum(one.macs for one in found.kernels) == batch * count(topology, chosen).macs
        model = made.modules[Path(name)]
        for layer, shape in shapes.items():
            module = model.get_submodule(layer)
            reads = getattr(module, "in_channels", getattr(module, "in_features", None))
            makes = getattr(module, "out_channels", getattr(module, "out_features", None))
            assert (shape.inputs, shape.outputs) == (reads, makes)
        assert {row.name for row in told.layers} >= {*shapes, "norm", "(ReLU)", f"({BETWEEN})"}


def test_times_of_modules_and_of_what_lies_between_them_are_the_runs(mixed: tuple[nn.Module, Topology]) -> None:
    net, topology = mixed
    made = networks(net, topology)
    made.write(Plan(), Path("base"))
    found, _ = profile_modules(Path("base"), runtime=made.runtime, seconds=0.2, least_runs=20)
    assert sum(one.seconds for one in found.kernels) == pytest.approx(found.run_seconds, rel=0.35)
    assert sum(by_layer(found, topology)) == pytest.approx(sum(one.seconds for one in found.kernels))
    assert sum(one.share for one in found.kernels) == pytest.approx(1.0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_written_network_is_the_cut_one(mixed: tuple[nn.Module, Topology]) -> None:
    net, topology = mixed
    plan, images = Plan({topology.groups[0].id: Cut((1, 3, 8))}), np.ones((2, 3, 12, 12), np.float32)
    made = networks(net, topology)
    made.write(plan, Path("small"))
    with made.runtime.load(Path("small")) as session, torch.no_grad():
        wanted = cut(net, topology, plan)(torch.from_numpy(images)).numpy()
        assert np.allclose(session.run(images)[0], wanted, atol=1e-6)
    made.forget(Path("small"))
    assert not made.modules


@given(st.floats(1e-9, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_layer_is_launch_bound_where_the_device_mostly_waits(seconds: float, part: float, less: float) -> None:
    assert not launch_bound(seconds, None)
    assert not launch_bound(seconds, seconds) and launch_bound(seconds, 0.0)
    if launch_bound(seconds, part * seconds):  # less work in the same time waits longer, more time for the same work, too
        assert launch_bound(seconds, less * part * seconds) and launch_bound(2 * seconds, part * seconds)
    assert launch_bound(seconds, part * seconds) == (part * seconds < 0.5 * seconds)


def test_only_layers_of_which_the_work_alone_was_timed_are_told_launch_bound(mixed: tuple[nn.Module, Topology]) -> None:
    net, topology = mixed
    made = networks(net, topology)
    made.write(Plan(), Path("base"))
    found, shapes = profile_modules(Path("base"), runtime=made.runtime, seconds=0.02, least_runs=3)
    waits = replace(found, kernels=tuple(replace(one, seconds=20e-6, alone=3e-6) for one in found.kernels))
    works = replace(found, kernels=tuple(replace(one, seconds=20e-6, alone=19e-6) for one in found.kernels))
    before, after, unknown = explain([(waits, shapes), (works, shapes), (found, shapes)])
    assert all(row.binds == "launch" and row.cause.startswith("launch-bound") for row in before.layers)
    assert "3.0 µs of work in 20.0 µs" in {row.why for row in before.layers}
    assert not any(row.cause.startswith("launch-bound") for row in (*after.layers, *unknown.layers))


@pytest.mark.slow
def test_a_table_of_torchs_own_runtime_predicts_its_networks(mixed: tuple[nn.Module, Topology]) -> None:
    net, topology = mixed
    made = networks(net, topology)
    measured = collect(made, [group.id for group in topology.groups], networks=8, seconds=0.2)
    table = table_of(topology, measured, made.runtime, 1)
    assert table.runtime == "torch-cpu" and table.machine.split(", ")[-1].startswith("torch ")
    assert table.predict(topology, {}) == pytest.approx(1.0, abs=0.15)
    assert not [path for path in made.modules if path.name != "base"]
