from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from compress_models import MODELS
from support.kernels import kernels
from torch import Tensor, nn

from compress.core.accuracy import Measured
from compress.core.cost import count, sizes_after
from compress.core.latency_table import FEATURES, LatencyTable, features, kind_of, slow_layers
from compress.core.plan import Cut, Plan
from compress.core.topology import Topology
from compress.coupling.tracer import trace
from compress.errors import ConfigError, ExportError, ModelError
from compress.export.cutting_onnx import Resizable, resizable, resized, write_resized
from compress.export.exporting import export
from compress.latency.table_fit import Sample, fit, validate
from compress.latency.table_measure import OnnxNetworks, block_of
from compress.latency.table_networks import collect, machine, random_plan, table_of
from compress.pipeline.latency_tables import alignment, load
from compress.pipeline.latency_target import TRIALS, latency_trials, proposal, towards
from compress.runtime.ort import OrtRuntime
from compress.search.front import Fidelity
from compress.search.space import Target
from compress.search.stages import prunable
from compress.search.uniform import Uniform
from compress.search.widths import plan_of, scaled
from compress.surgery.cutting import cut
from compress.testing import ToySpace, toy_table


class Inverted(nn.Module):
    """A stem, two inverted residuals and a head: what loses ONNX Runtime's fast kernels at odd widths."""

    def __init__(self) -> None:
        super().__init__()

        def block(i: int, o: int, k: int, groups: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU())

        self.stem = block(3, 32, 3)
        self.first = nn.Sequential(block(32, 96, 1), block(96, 96, 3, 96), block(96, 32, 1))
        self.second = nn.Sequential(block(32, 64, 1), block(64, 64, 3, 64), block(64, 32, 1))
        self.last = block(32, 128, 3)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        x = self.last(x + self.second(x))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Topology, Resizable]:
    torch.manual_seed(0)
    net = Inverted().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("inverted") / "base.onnx"
    export(net, torch.zeros(2, 3, 16, 16), path, exporter="dynamo")
    topology = trace(net, torch.zeros(1, 3, 16, 16))
    return net, topology, resizable(onnx.load(str(path)), topology)


def widths_at(topology: Topology, step: int, seed: int) -> Plan:
    rng = np.random.default_rng(seed)
    cuts = {}
    for group in topology.groups:
        width = int(rng.integers(1, group.size // step + 1)) * step
        if width < group.size:
            cuts[group.id] = Cut(tuple(sorted(rng.choice(group.size, width, replace=False).tolist())))
    return Plan(cuts)


# ---- a plan applied to a file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "seed"), [(1, 0), (1, 1), (4, 2), (16, 3)])
def test_a_resized_file_computes_what_the_cut_network_computes(
    inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path, step: int, seed: int
) -> None:
    net, topology, source = inverted
    plan = widths_at(topology, step, seed)
    onnx.save(resized(source, plan), tmp_path / "small.onnx")
    images = torch.randn(3, 3, 16, 16)
    with OrtRuntime().load(tmp_path / "small.onnx") as session, torch.no_grad():
        got, wanted = session.run(images.numpy())[0], cut(net, topology, plan)(images).numpy()
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_older_exporters_file_is_resized_too(inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path) -> None:
    """It renames the weights that it folds batch norms into; they get their names back, and layers their times."""
    net, topology, _ = inverted
    path, small = tmp_path / "base.onnx", tmp_path / "small.onnx"
    export(net, torch.zeros(2, 3, 16, 16), path, exporter="legacy")
    plan, images = widths_at(topology, 4, 2), torch.randn(3, 3, 16, 16)
    source = resizable(onnx.load(str(path)), topology)
    names = [tensor.name for tensor in source.model.graph.initializer]
    assert {layer.weight for layer in topology.layers} <= set(names) and len(names) == len(
        onnx.load(str(path)).graph.initializer
    )
    write_resized(source, plan, small)
    with OrtRuntime().load(small) as session, torch.no_grad():
        got, wanted = session.run(images.numpy())[0], cut(net, topology, plan)(images).numpy()
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert min(OnnxNetworks(source, OrtRuntime()).layers(small, 0.05)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_zero_padded_shortcut_follows(tmp_path: Path, seed: int) -> None:
    """Option A: how many zeros go in front and behind is a number in the file, not a weight."""
    torch.manual_seed(0)
    net = MODELS["resnet20"]().eval()
    path = tmp_path / "base.onnx"
    export(net, torch.zeros(2, 3, 32, 32), path, exporter="dynamo")
    topology = trace(net, torch.zeros(1, 3, 32, 32))
    plan = random_plan(topology, [g.id for g in topology.groups], np.random.default_rng(seed))
    write_resized(resizable(onnx.load(str(path)), topology), plan, tmp_path / "small.onnx")
    images = torch.randn(2, 3, 32, 32)
    with OrtRuntime().load(tmp_path / "small.onnx") as session, torch.no_grad():
        got, wanted = session.run(images.numpy())[0], cut(net, topology, plan)(images).numpy()
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_plan_that_the_file_cannot_follow_is_exported(
    inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path
) -> None:
    """Selected inputs need another graph: the network's own export is asked for, and without one it is refused."""
    _, topology, source = inverted
    layer = next(x for x in topology.layers if x.name == "last.0")
    plan = Plan(inputs={layer.name: tuple(range(16))})
    with pytest.raises(ExportError, match="cannot be applied"):
        write_resized(source, plan, tmp_path / "small.onnx")
    asked: list[Plan] = []
    write_resized(replace(source, again=lambda p, path: asked.append(p)), plan, tmp_path / "small.onnx")
    assert asked == [plan]


def test_what_no_width_says_is_refused(inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path) -> None:
    _, topology, source = inverted
    group = topology.groups[0]
    with pytest.raises(ExportError, match="only plans of widths"):
        resized(source, Plan({group.id: Cut((0, 1), {2: 0})}))
    lost = onnx.ModelProto()
    lost.CopyFrom(source.model)
    del lost.graph.initializer[:]
    with pytest.raises(ExportError, match="is missing"):
        resizable(lost, topology)
    asked: list[Plan] = []
    plan = widths_at(topology, 4, 0)
    write_resized(resizable(lost, topology, lambda p, path: asked.append(p)), plan, tmp_path / "small.onnx")
    assert asked == [plan]


# ---- which kernels widths get, without timing anything --------------------------------------------------------------


@pytest.mark.parametrize(("step", "seed"), [(1, 0), (2, 1), (4, 2), (8, 3), (1, 4)])
def test_the_rules_say_which_convolutions_lose_the_fast_kernel(
    inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path, step: int, seed: int
) -> None:
    """As many as ONNX Runtime's optimised graph has outside its blocked layout."""
    _, topology, source = inverted
    plan = widths_at(topology, step, seed)
    onnx.save(resized(source, plan), tmp_path / "small.onnx")
    found = kernels(tmp_path / "small.onnx")
    said = slow_layers(topology, sizes_after(topology, plan), block_of(OrtRuntime()))
    assert found.slow == len(said)
    assert found.fast == sum(layer.kind == "conv" for layer in topology.layers) - len(said)


def test_automatic_alignment_keeps_the_fast_kernels(inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path) -> None:
    """The finest alignment without a loss, by a table; odd widths beside it need other kernels and conversions."""
    _, topology, source = inverted
    block = block_of(OrtRuntime())
    step = alignment(topology, prunable(topology, ())[0], toy_table(topology, block))
    assert step == block
    onnx.save(resized(source, widths_at(topology, step, 0)), tmp_path / "aligned.onnx")
    inner = [g for g in topology.groups if g.id.startswith(("first", "second"))]
    odd = Plan({g.id: Cut(tuple(range(g.size - 3))) for g in inner})
    onnx.save(resized(source, odd), tmp_path / "odd.onnx")
    aligned, unaligned = kernels(tmp_path / "aligned.onnx"), kernels(tmp_path / "odd.onnx")
    assert aligned.slow == 0 and aligned.counts["nchwc:Conv"] == 8
    assert unaligned.slow >= 4 and unaligned.counts["FusedConv"] >= 1
    assert unaligned.reorders > aligned.reorders


# ---- the fit ---------------------------------------------------------------------------------------------------------


def samples_of(topology: Topology, number: int, noise: float, seed: int = 0) -> tuple[list[Sample], list[str], LatencyTable]:
    """Networks timed by a known machine, whose layers are up to twice as dear as their kinds, with noise."""
    rng = np.random.default_rng(seed)
    table = toy_table(topology, 16)
    own = table._matrix * rng.uniform(0.7, 1.4, (len(table.layers), 1))
    own /= (features(topology, {}, 16) * own).sum() / 0.95
    plans = [Plan(), *(random_plan(topology, [g.id for g in topology.groups], rng) for _ in range(number))]
    plans += [widths_at(topology, 8, i) for i in range(8)]
    found = []
    for i, plan in enumerate(plans):
        rows = features(topology, sizes_after(topology, plan), 16)
        layers, whole = (own * rows).sum(1), float((own * rows).sum()) + 0.05
        shaken = layers * np.exp(noise * 3 * rng.standard_normal(len(layers)))
        found.append(Sample(rows, 0.01 * shaken, 1.0 if i == 0 else whole * float(np.exp(noise * rng.standard_normal()))))
    return found, [kind_of(topology, layer) for layer in topology.layers], table


def test_a_known_machine_is_found_again(inverted: tuple[nn.Module, Topology, Resizable]) -> None:
    _, topology, _ = inverted
    samples, kinds, _ = samples_of(topology, 18, noise=0.01)
    made = fit(samples[:19], kinds)
    errors = [abs(made.predict(s.features) / s.ratio - 1) for s in samples[19:]]
    assert np.median(errors) <= 0.03 and max(errors) <= 0.12
    assert (made.coefficients >= 0).all()
    told = validate(samples, kinds)
    assert told.networks == 26 and told.median <= 0.03


def test_the_error_is_of_networks_that_were_not_seen(inverted: tuple[nn.Module, Topology, Resizable]) -> None:
    """Times that nothing explains: the fit may follow them, the stated error must not."""
    _, topology, _ = inverted
    samples, kinds, _ = samples_of(topology, 18, noise=0.01)
    rng = np.random.default_rng(1)
    shuffled = [samples[0], *(replace(s, ratio=s.ratio * float(rng.choice([0.7, 1.3]))) for s in samples[1:])]
    assert validate(shuffled, kinds).median > 0.15


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_table_predicts_through_count(inverted: tuple[nn.Module, Topology, Resizable]) -> None:
    _, topology, _ = inverted
    table = toy_table(topology)
    whole = count(topology, table=table)
    assert whole.latency == pytest.approx(1.0)
    narrow = Plan({g.id: Cut(tuple(range(16))) for g in topology.groups})
    less = count(topology, narrow, table=table)
    assert less.latency is not None and less.latency < 0.6
    assert count(topology, narrow).latency is None
    # Between two blocks a width costs what the whole block costs; a channel more than a multiple of 4 costs the fast kernel.
    last = topology.groups[-1]
    at = {w: count(topology, Plan({last.id: Cut(tuple(range(w)))}), table=table).latency for w in (100, 104, 112)}
    assert at[104] == pytest.approx(at[100], rel=0.02) and at[104] <= at[112] * 1.001


def test_tables_survive_a_file_and_nothing_else_does(inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path) -> None:
    _, topology, _ = inverted
    here = replace(toy_table(topology), environment=machine(OrtRuntime()).digest)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(here.to_json()))
    assert load(path, topology, force=False) == here

    def damaged(**changes: Any) -> None:
        path.write_text(json.dumps({**here.to_json(), **changes}))

    for changes in ({"format": 9}, {"coefficients": [[1.0]]}, {"block": 0}, {"constant": float("nan")}, {"error": {}}):
        damaged(**changes)
        with pytest.raises(ConfigError, match="damaged"):
            load(path, topology, force=True)
    path.write_text("{")
    with pytest.raises(ConfigError, match="no latency table"):
        load(path, topology, force=True)
    with pytest.raises(ConfigError, match="no latency table"):
        load(tmp_path / "absent.json", topology, force=True)
    damaged(environment="elsewhere")
    with pytest.raises(ConfigError, match="another environment") as caught:
        load(path, topology, force=False)
    assert "--force" in caught.value.hint
    assert load(path, topology, force=True).environment == "elsewhere"
    other = ToySpace.make().space.topology
    with pytest.raises(ModelError, match="of network"):
        load(path, other, force=True)
    with pytest.raises(ConfigError, match="is of network"):
        count(other, table=here)


@pytest.mark.slow
def test_measuring_goes_on_where_it_stopped(inverted: tuple[nn.Module, Topology, Resizable], tmp_path: Path) -> None:
    """The real thing: eight networks measured, the journal torn, the rest measured again and nothing else."""
    _, topology, source = inverted
    runtime, kept = OrtRuntime(), tmp_path / "t.jsonl"
    groups = [g.id for g in topology.groups]
    told: list[int] = []
    first = collect(
        OnnxNetworks(source, runtime), groups, kept=kept, networks=8, seconds=0.2, listen=lambda done, _: told.append(done)
    )
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:5]) + "\n" + lines[5][: len(lines[5]) // 2])
    again = collect(OnnxNetworks(source, runtime), groups, kept=kept, networks=8, seconds=0.2)
    same = {m.plan.digest: m for m in first}
    assert [m.plan for m in again] == [m.plan for m in first]
    assert sum(m == same[m.plan.digest] for m in again) == 5
    table = table_of(topology, again, runtime, block_of(runtime))
    assert table.predict(topology, {}) == pytest.approx(1.0, abs=0.1)
    assert table.error.networks == 8 and len(table.coefficients[0]) == len(FEATURES)
    with pytest.raises(ConfigError, match="6 or more"):
        table_of(topology, again[:4], runtime, 16)
    assert Measured.from_json(json.loads(json.dumps(again[1].to_json()))) == again[1]


# ---- from predicted to measured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("bias", [0.85, 1.0, 1.2])
def test_a_biased_table_is_corrected_by_measuring(bias: float, gone: int) -> None:
    """By widths: the branches that a plan leaves out stay out."""
    toy = ToySpace.make(target=Target("latency", 0.6), round_to=4).with_branches()
    branches = toy.space.branches[:gone]
    plan = towards(toy.space, Plan(branches=branches), 0.6)
    shots = latency_trials(toy.space, (), plan, lambda p: bias * toy.space.share(p), within=0.05)
    assert abs(shots[-1].measured / 0.6 - 1) <= 0.05
    assert all(s.plan.branches == branches for s in shots)
    assert len(shots) <= TRIALS and shots[-1].predicted == pytest.approx(shots[-1].measured / bias)
    assert len(shots) == 1 if bias == 1.0 else len(shots) > 1


def test_what_is_fast_enough_is_not_left_for_a_worse_plan() -> None:
    """Branches out and all widths whole, a little faster than asked for, beside narrow layers that hit the target."""
    space = ToySpace.make(target=Target("latency", 0.6), round_to=4).with_branches().space
    short = Plan(branches=space.branches[:2])
    target = space.share(short) / 0.97
    space = replace(space, cost=replace(space.cost, target=Target("latency", target)))
    narrow = towards(space, Plan(), target)
    front = tuple(space.point(plan, error, Fidelity.FULL) for plan, error in ((short, 0.1), (narrow, 0.3)))
    assert latency_trials(space, front, short, space.share)[-1].plan == short
    better = tuple(replace(p, error=0.05) if p.plan == narrow else p for p in front)
    assert latency_trials(space, better, short, space.share)[-1].plan == narrow


def test_what_is_too_slow_is_taken_only_where_nothing_is_fast_enough() -> None:
    toy = ToySpace.make(target=Target("latency", 0.6))
    measured = iter((0.55, 0.62, 0.63, 0.64))
    shots = latency_trials(toy.space, (), Uniform().plan(toy.space, 0.6), lambda p: next(measured))
    assert shots[-1].measured == 0.55 and len(shots) > 1


def test_an_aim_that_cannot_be_hit_ends() -> None:
    toy = ToySpace.make(target=Target("latency", 0.6))
    rng = np.random.default_rng(0)
    shots = latency_trials(toy.space, (), Uniform().plan(toy.space, 0.6), lambda p: float(rng.uniform(1.1, 3.0)))
    assert 1 <= len(shots) <= TRIALS
    assert shots[-1].measured == min(s.measured for s in shots)


def test_a_plan_brought_to_another_budget_keeps_what_it_kept() -> None:
    toy = ToySpace.make(target=Target("latency", 0.6))
    plan = plan_of(toy.space, scaled(toy.space, 0.6), "random")
    less, more = towards(toy.space, plan, 0.4), towards(toy.space, plan, 0.9)
    assert toy.space.share(less) <= 0.4 < toy.space.share(plan) < toy.space.share(more) <= 0.9
    for group, kept in plan.cuts.items():
        narrower = set(less.cuts[group].keep)
        assert narrower <= set(kept.keep)
        assert group not in more.cuts or set(kept.keep) <= set(more.cuts[group].keep)


def test_what_is_not_faster_is_told_what_would_help() -> None:
    toy = ToySpace.make(target=Target("latency", 0.6), round_to=1)
    odd = Plan({g.id: Cut(tuple(range(g.size - 3))) for g in toy.space.topology.groups})
    said = proposal(toy.space, odd, 16)
    assert "lost ONNX Runtime's fast kernel" in said
    step = int(said.split("--round-to ")[1].split()[0])
    aligned = Uniform().plan(replace(toy.space, round_to=step, cost=replace(toy.space.cost, target=Target("macs", 0.8))), 0.8)
    assert step in (4, 8, 16, 32) and toy.space.share(aligned) < toy.space.share(odd)
    assert "--round-to auto" in proposal(replace(toy.space, cost=replace(toy.space.cost, table=None)), odd, 16)


def test_a_target_of_latency_needs_a_table() -> None:
    toy = ToySpace.make(target=Target("latency", 0.5))
    bare = replace(toy.space, cost=replace(toy.space.cost, table=None))
    with pytest.raises(ConfigError, match="needs a latency table"):
        bare.share(Plan())
