"""Readers re-solved from moments, against the textbook's least squares on the rows themselves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.nets import NETS, inputs, traced
from torch import Tensor, nn

from compress.core.plan import Cut, Plan, kept_positions
from compress.core.topology import Topology
from compress.coupling.symbolic import symbolic_graph
from compress.evaluation.stage_runner import StageRunner, cutout
from compress.recovery.compensation import Compensation
from compress.recovery.moments import collect
from compress.recovery.unfolding import filters, matrix, unfold
from compress.search.stages import make_stages, prunable
from compress.surgery.cutting import cut, replaced
from compress.surgery.guard import random_plan


def setting(name: str, images: int = 24, ridge: float = 1e-9) -> tuple[nn.Module, Topology, Tensor, Compensation]:
    model, topology = traced(name)
    x = inputs(name, images).float()
    moments = collect(model, topology, [x])
    return model, topology, x, Compensation(model.state_dict(), topology, moments, ridge=ridge)


def passing(model: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: seen.extend((a[0], out)))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0], seen[1]


@pytest.mark.parametrize("name", ["chain", "flatten", "residual", "concat", "grouped", "depthwise", "transposed"])
def test_new_weights_are_the_least_squares_of_the_rows(name: str) -> None:
    model, topology, x, compensation = setting(name)
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    table = kept_positions(topology, plan)
    checked = 0
    for key, weight in compensation(plan).items():
        layer = next((y for y in topology.layers if y.weight == key), None)
        if layer is None:
            continue
        module = model.get_submodule(layer.name)
        entering, leaving = passing(model, layer.name, x)
        at = torch.arange(leaving[0, 0].numel() if leaving.dim() > 2 else 1)
        rows = unfold(module, entering, leaving, at).double()
        weight = filters(weight, layer)
        taps = weight[0, 0].numel()
        stays = torch.zeros(rows.shape[2] // taps, dtype=torch.bool)
        stays[torch.from_numpy(table[key, layer.read_dim])] = True
        stays = stays.repeat_interleave(taps)
        rows = rows - rows.mean(1, keepdim=True)
        old = matrix(module).double()
        new = weight.double().reshape(len(rows), -1, rows.shape[2]).transpose(1, 2)
        wanted = rows @ old
        best = torch.linalg.lstsq(rows[:, :, stays], wanted).solution
        left = (wanted - rows[:, :, stays] @ new[:, stays]).square().sum()
        least = (wanted - rows[:, :, stays] @ best).square().sum()
        plain = (wanted - rows[:, :, stays] @ old[:, stays]).square().sum()
        assert left <= least * 1.02 + 1e-6 * wanted.square().sum()  # the moments may come from some of the positions
        assert left < plain
        checked += 1
    assert checked


@pytest.mark.parametrize("name", sorted(NETS))
def test_nothing_lost_changes_nothing(name: str) -> None:
    _, topology, _, compensation = setting(name, 4)
    assert compensation(Plan()) == {}
    whole = Plan({g.id: Cut(tuple(range(g.size))) for g in topology.groups})
    assert compensation(whole) == {}


def test_what_another_channel_repeats_is_no_loss() -> None:
    model, topology = traced("chain")
    model = copy.deepcopy(model)
    group = topology.groups[0]
    with torch.no_grad():  # channel 1 becomes channel 0, by every row that makes it
        state = model.state_dict()
        for m in group.members:
            if m.role == "writes":
                state[m.key].select(m.dim, m.positions[1][0]).copy_(state[m.key].select(m.dim, m.positions[0][0]))
    x = inputs("chain", 24).float()
    compensation = Compensation(model.state_dict(), topology, collect(model, topology, [x]), ridge=1e-9)
    plan = Plan({group.id: Cut(tuple(c for c in range(group.size) if c != 1))})
    with torch.no_grad():
        wanted, got = model(x), cut(replaced(model, compensation(plan)), topology, plan)(x)
        lost = cut(model, topology, plan)(x)
    assert (got - wanted).abs().max() < 1e-3 * wanted.abs().max() < (lost - wanted).abs().max()


def test_folded_channels_are_left_to_the_fold() -> None:
    _, topology, _, compensation = setting("chain")
    group = topology.groups[0]
    plan = Plan({group.id: Cut(tuple(range(1, group.size)), {0: 1})})
    reading = {y.weight for y in topology.readers(group.id)}
    assert not reading & set(compensation(plan))


@pytest.mark.parametrize("name", ["chain", "grouped", "transposed"])
def test_what_is_remembered_is_what_was_solved(name: str) -> None:
    """Bit for bit and in the same layout, in less memory than whole weights take."""
    _, topology, _, compensation = setting(name, 4)
    last = {k: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for k, t in compensation.state.items()}
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    for state in (compensation.state, last):
        compensation.state = state
        compensation._known.clear()
        compensation.bytes = 0
        solved = compensation(plan)
        assert compensation.bytes < sum(t.numel() * t.element_size() for t in solved.values())
        again = compensation(plan)
        assert solved.keys() == again.keys() and solved
        for key, tensor in solved.items():
            assert torch.equal(tensor, again[key]) and tensor.stride() == again[key].stride()


def test_what_is_remembered_has_a_bound() -> None:
    _, topology, _, compensation = setting("chain")
    group = max(topology.groups, key=lambda g: g.size)
    rng = np.random.default_rng(0)
    bound = 4 * max(t.numel() * 4 for t in compensation.state.values())
    compensation.most = bound
    seen = 0
    for _ in range(60):
        keep = np.flatnonzero(rng.random(group.size) < 0.5)
        compensation(Plan({group.id: Cut(tuple(keep.tolist()) or (0,))}))
        held = sum(t.numel() * t.element_size() for pair in compensation._known.values() for t in pair)
        assert held == compensation.bytes <= bound
        seen = max(seen, len(compensation._known))
    assert seen > 1


@pytest.mark.parametrize("name", ["chain", "plain", "residual", "concat", "depthwise", "option-a"])
def test_a_stage_with_compensation_is_a_stage_of_the_compensated_network(name: str) -> None:
    """Two ways to the same number: tensors replaced before the cut, or inside the runner; with surroundings and without."""
    model, topology, x, compensation = setting(name)
    graph = symbolic_graph(model)
    rng = np.random.default_rng(1)
    before = Plan()
    for stage in make_stages(topology, prunable(topology, [])[0]):
        own = random_plan(topology, 0.5, rng, list(stage.groups))
        plan = Plan({**before.cuts, **own.cuts})
        surrounded = cut(replaced(model, compensation(before)), topology, before)
        part, solved = cutout(graph, topology, stage.groups), replaced(model, compensation(plan))
        runner = StageRunner(model, graph, topology, part, before, x, surrounded, compensation)
        direct = StageRunner(solved, graph, topology, part, before, x, surrounded, None)
        direct.targets, direct.spread = runner.targets, runner.spread
        direct.inputs = runner.inputs
        full = solved.state_dict()
        layers = {k for k in direct.state if k in full} - set(direct.bare.values())
        direct.state = {k: runner._surrounded(k, full[k]) if k in layers else t for k, t in direct.state.items()}
        assert runner.error(plan, len(x)) == pytest.approx(direct.error(plan, len(x)), rel=1e-4, abs=1e-7)
        before = plan
