"""Reconstruction against least squares from the library; elimination against brute force."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nets import NETS, any_plan, block, build, conv, inputs, traced
from torch import Tensor, nn

from compress.core.plan import Cut, Plan, kept_positions
from compress.core.topology import GroupId
from compress.coupling.tracer import trace
from compress.errors import DataError
from compress.evaluation.criteria import CRITERIA, CriterionInputs, gather, l1, obs, obs_and_curves, obs_curve
from compress.evaluation.obs_elimination import EliminationReader, eliminate
from compress.recovery.batch_norm import reestimate
from compress.recovery.least_squares import from_rows, from_sums
from compress.recovery.moments import Sums, collect
from compress.recovery.reconstruction import Reconstructed, ReconstructionSettings, reconstruct
from compress.surgery.cutting import cut

NAMES = sorted(NETS)


def batches(name: str, count: int = 64, seed: int = 0) -> list[Tensor]:
    return list(inputs(name, count, seed).float().split(40))


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else next(iter(output))


def deviation(model: nn.Module, small: nn.Module, data: list[Tensor]) -> float:
    """Squared error of the outputs over their variance."""
    with torch.no_grad():
        wanted = torch.cat([first(model(x)) for x in data])
        got = torch.cat([first(small(x)) for x in data])
    return float((got - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def solved(name: str, plan: Plan, **settings: Any) -> tuple[nn.Module, nn.Module, Reconstructed]:
    model, topology = traced(name)
    small = cut(model, topology, plan)
    return model, small, reconstruct(model, small, topology, plan, batches(name), settings=ReconstructionSettings(**settings))


@pytest.mark.parametrize(("memory", "every"), [(0, True), (1 << 30, True), (1 << 30, False)])
@pytest.mark.parametrize("name", ["residual", "dense", "grouped"])
def test_nothing_lost_nothing_changed(name: str, memory: int, every: bool) -> None:
    """A plan that only removes a channel nobody hears leaves the function as it was, to rounding."""
    model, topology = copy.deepcopy(traced(name)[0]), traced(name)[1]
    group = topology.groups[0]
    gone = group.size - 1
    with torch.no_grad():
        for member in group.members:
            if member.role.value == "reads":
                model.state_dict()[member.key].index_fill_(member.dim, torch.tensor(member.positions[gone]), 0.0)
    plan = Plan({group.id: Cut(tuple(range(gone)))})
    data, how = batches(name), ReconstructionSettings(memory=memory, every=every)
    found = reconstruct(model, cut(model, topology, plan), topology, plan, data, settings=how)
    assert found.layers and deviation(model, found.model, data) < 1e-9
    empty = reconstruct(model, model, topology, Plan(), data, settings=how)
    assert all(torch.equal(v, empty.model.state_dict()[k]) for k, v in model.state_dict().items())


def test_equals_the_librarys_least_squares() -> None:
    """One linear reader, no ridge: weights and bias are those of ``torch.linalg.lstsq`` with a column of ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double()
    topology = trace(model, torch.zeros(1, 3, 8, 8).double())
    plan = Plan({GroupId("0"): Cut((0, 2, 5))})
    small = cut(model, topology, plan)
    x = torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    found = reconstruct(model, small, topology, plan, [x[:50], x[50:]], settings=ReconstructionSettings(ridge=0.0))
    with torch.no_grad():
        u = torch.cat([small[:4](x), torch.ones(80, 1).double()], 1)
        answer = torch.linalg.lstsq(u, model(x)).solution
    torch.testing.assert_close(found.model[4].weight, nn.Parameter(answer[:3].T), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found.model[4].bias, nn.Parameter(answer[3]), atol=1e-9, rtol=1e-7)
    assert torch.equal(found.model[0].weight, small[0].weight)


@pytest.mark.parametrize("dual", [False, True])
def test_no_other_weights_do_better(dual: bool) -> None:
    """Ridge least squares: moving the solved layer's weights any way cannot lower the penalised error."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 2)).double()
    topology = trace(model, torch.zeros(1, 3, 5, 5).double())
    plan = Plan({GroupId("0"): Cut((1, 2, 4))})
    small = cut(model, topology, plan)
    x = torch.randn(60, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()
    ridge = 0.05
    settings = ReconstructionSettings(ridge=ridge, widest=10**4 if not dual else 11)
    found = reconstruct(model, small, topology, plan, [x], settings=settings)
    if dual:  # only so many rows are used: too few to know
        assert found.layers[0].after < found.layers[0].before
        return
    with torch.no_grad():
        u, target = small[:2](x), model(x)
        rows = nn.functional.unfold(u, 2).transpose(1, 2).flatten(0, 1)
        pull = ridge * float(rows.var(0, correction=0).mean()) * len(rows)

        def loss(weight: Tensor, bias: Tensor) -> float:
            error = nn.functional.conv2d(u, weight, bias) - target
            return float(error.square().sum() + pull * (weight - small[2].weight).square().sum())

        best = loss(found.model[2].weight, found.model[2].bias)
        assert best < loss(small[2].weight, small[2].bias)
        generator = torch.Generator().manual_seed(2)
        for scale in (1e-1, 1e-3):
            for _ in range(20):
                w = scale * torch.randn(5, 3, 2, 2, generator=generator).double()
                b = scale * torch.randn(5, generator=generator).double()
                assert loss(found.model[2].weight + w, found.model[2].bias + b) > best


def test_the_dual_form_is_the_same_answer() -> None:
    """With as few rows as it is given, both forms solve the same problem."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 15, 40, generator=generator).double() + 3
    residual = torch.randn(2, 15, 3, generator=generator).double()
    for centred in (True, False):
        sums = Sums()
        sums.add(u, residual)
        one, two = from_sums(sums, 0.01, centred), from_rows(u, residual, 0.01, centred)
        for field in ("change", "intercept", "mean", "variance", "left"):
            torch.testing.assert_close(getattr(one, field), getattr(two, field), atol=1e-8, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 50), memory=st.sampled_from([0, 1 << 30]))
def test_any_network_any_plan(name: str, seed: int, memory: int) -> None:
    """No layer gets worse on what it was solved on; what lost inputs is solved or named; shapes and modes stay."""
    model, topology = traced(name)
    plan = any_plan(topology, seed, reorder=True, fold=True)
    before = copy.deepcopy(model.state_dict())
    _, small, found = solved(name, plan, memory=memory)
    for layer in found.layers:
        assert layer.after <= layer.before * (1 + 1e-6) + 1e-9, layer
    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in found.model.state_dict().items()}
    assert all(bool(torch.isfinite(v).all()) for v in found.model.state_dict().values())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    table = kept_positions(topology, plan)
    lost = {x.name for x in topology.layers if (x.weight, x.read_dim) in table and not x.depthwise}
    assert lost == {x.name for x in found.layers if x.name in lost} | set(found.skipped)


GAINING = ["chain", "plain", "flatten", "residual", "projection", "concat", "dense", "depthwise", "depthwise-2", "grouped"]
GAINING += ["transposed", "se-gate", "option-a", "layernorm", "shuffle", "split", "conv1d", "conv3d", "two-heads"]


@pytest.mark.parametrize("name", GAINING)
def test_outputs_come_nearer(name: str) -> None:
    """On the calibration images, and on average over plans, nearer than batch-norm re-estimation alone."""
    model, topology = traced(name)
    data = batches(name)
    gained = []
    for seed in range(3):
        plan = any_plan(topology, seed, 0.3)
        _, small, found = solved(name, plan)
        plain = deviation(model, reestimate(small, data), data)
        gained.append((deviation(model, small, data), plain, deviation(model, found.model, data)))
    raw, plain, restored = np.mean(gained, axis=0)
    assert restored < min(raw, plain) + 1e-9, gained


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_batch_norms_move_as_their_inputs_do(memory: int) -> None:
    """Mean: by the same difference; variance: by the same factor; both between what the two networks really compute."""
    for name in ("residual", "depthwise", "dense"):
        model, topology = traced(name)
        plan = any_plan(topology, 2, 0.4)
        found = solved(name, plan, memory=memory)[2].model
        table = kept_positions(topology, plan)
        norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        before, after = (statistics(m, norms, torch.cat(batches(name))) for m in (model, found))
        moved = 0.0
        for norm in norms:
            old, new = model.get_submodule(norm), found.get_submodule(norm)
            kept = table.get((f"{norm}.running_mean", 0), np.arange(old.num_features))
            shift = new.running_mean - old.running_mean[kept]
            torch.testing.assert_close(shift, after[norm][0] - before[norm][0][kept], atol=2e-4, rtol=1e-3)
            factor = new.running_var / old.running_var[kept]
            torch.testing.assert_close(factor, after[norm][1] / before[norm][1][kept], atol=1e-3, rtol=5e-3)
            moved = max(moved, float(shift.abs().max()))
        assert moved > 1e-2, name


def statistics(model: nn.Module, norms: list[str], x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of what enters each batch norm."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    hooked = copy.deepcopy(model).eval()
    for name in norms:

        def note(module: nn.Module, args: tuple[Tensor], name: str = name) -> None:
            found[name] = (args[0].mean((0, 2, 3)), args[0].var((0, 2, 3), correction=0))

        hooked.get_submodule(name).register_forward_pre_hook(note)
    with torch.no_grad():
        hooked(x)
    return found


def test_both_ways_of_getting_activations_agree() -> None:
    for name in ("residual", "dense", "option-a", "grouped"):
        plan = any_plan(traced(name)[1], 1)
        one, two = (solved(name, plan, memory=memory)[2] for memory in (1 << 30, 0))
        for key, value in one.model.state_dict().items():
            torch.testing.assert_close(value, two.model.state_dict()[key], atol=1e-4, rtol=1e-3)
        assert [x.name for x in one.layers] == [x.name for x in two.layers]


class Levels(nn.Module):
    """One head on maps of two sizes, as a detector has it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.last = block(3, 8), block(8, 6), conv(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x := self.stem(x), F.max_pool2d(x, 2)]
        return torch.cat([self.last(self.head(m)).mean((2, 3)) for m in maps], 1)


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_layer_that_runs_on_several_maps_is_solved_for_all_of_them(memory: int) -> None:
    """No other weights of a shared layer come nearer on all its runs together, and its batch norm moves by their mean."""
    torch.manual_seed(0)
    model = Levels().eval()
    topology = trace(model, torch.zeros(1, 3, 8, 8))
    plan = Plan({GroupId("stem.0"): Cut((0, 2, 5, 7)), GroupId("head.0"): Cut((0, 1, 3, 4))})
    data, how = [torch.randn(24, 3, 8, 8) for _ in range(2)], ReconstructionSettings(memory=memory, ridge=0.0)
    small = cut(model, topology, plan)
    found = reconstruct(model, small, topology, plan, data, settings=how)
    assert not found.skipped and {"head.0", "last"} <= {x.name for x in found.layers}

    def entering(network: nn.Module, name: str) -> list[Tensor]:
        seen: list[Tensor] = []
        handle = network.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
        network(torch.cat(data))
        handle.remove()
        return seen

    kept = list(plan.cuts[GroupId("head.0")].keep)
    wanted = [m.transpose(0, 1).flatten(1)[kept] for m in entering(model, "head.1")]

    def apart(layer: nn.Module) -> Tensor:
        got = [layer(m).transpose(0, 1).flatten(1) for m in entering(found.model, "head.0")]
        off = torch.cat(got, 1) - torch.cat(wanted, 1)
        return (off - off.mean(1, keepdim=True)).square().sum()

    solved_, cut_ = (copy.deepcopy(m.get_submodule("head.0")).requires_grad_(True) for m in (found.model, small))
    slopes = [torch.autograd.grad(apart(layer), layer.weight)[0].norm() for layer in (solved_, cut_)]
    assert slopes[0] < 1e-3 * slopes[1]
    moved = torch.stack(
        [now.mean((0, 2, 3)) - was.mean(1) for now, was in zip(entering(found.model, "head.1"), wanted, strict=True)]
    )
    norm, before = found.model.get_submodule("head.1"), model.get_submodule("head.1")
    torch.testing.assert_close(norm.running_mean - before.running_mean[kept], moved.mean(0), atol=1e-4, rtol=1e-3)


def test_layers_that_cannot_be_solved_are_named() -> None:
    for name, layer, why in (
        ("shared", "both", "runs 2 times, on what it made itself"),
        ("transposed-grouped", "1", "in groups"),
    ):
        found = solved(name, any_plan(traced(name)[1], 3, 0.5))[2]
        assert why in found.skipped[layer]


def test_selected_inputs_are_read() -> None:
    """A layer that reads some of its inputs is solved for those."""
    plan = Plan(inputs={"1.0": (0, 2, 3, 7)})
    _, small, found = solved("chain", plan)
    assert found.layers[0].name == "1.0" and found.layers[0].after < found.layers[0].before
    assert found.model[1][0].weight.shape == small[1][0].weight.shape


def test_too_few_images() -> None:
    model, topology = traced("chain")
    with pytest.raises(DataError, match="at least 2"):
        reconstruct(model, model, topology, Plan(), [])


def test_modes_stay_and_events_come() -> None:
    model, topology = copy.deepcopy(traced("chain")[0]).train(), traced("chain")[1]
    plan = any_plan(topology, 0)
    told: list[Any] = []
    found = reconstruct(model, cut(model, topology, plan), topology, plan, batches("chain"), listen=told.append)
    assert all(m.training for m in found.model.modules()) and model.training
    assert tuple(told) == found.layers and told


# ---- elimination -----------------------------------------------------------------------------------------------------


def residual_error(moments: np.ndarray, weights: np.ndarray, kept: list[int]) -> float:
    """What is left of ||U W0 - U_S W||^2 (damping included) when the kept columns are solved again."""
    a, s = moments, np.array(kept, dtype=int)
    whole = np.trace(weights.T @ a @ weights)
    if not kept:
        return float(whole)
    b = a[s] @ weights
    return float(whole - np.trace(b.T @ np.linalg.solve(a[np.ix_(s, s)], b)))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), channels=st.integers(2, 6), readers=st.integers(1, 2), others=st.integers(0, 3))
def test_order_is_that_of_brute_force(seed: int, channels: int, readers: int, others: int) -> None:
    """Each step takes the channel without which the best re-solved layer is least wrong; errors add up to it exactly."""
    rng = np.random.default_rng(seed)
    made, problems = [], []
    for _ in range(readers):
        taps = [int(rng.integers(0, 3)) for _ in range(channels)]
        total = sum(taps) + others + 1
        u = rng.normal(size=(3 * total, total)) @ rng.normal(size=(total, total))
        moments, weights = u.T @ u / len(u) + 1e-2 * np.eye(total), rng.normal(size=(total, 2))
        shuffled = rng.permutation(total).tolist()
        places = [[shuffled.pop() for _ in range(t)] for t in taps]
        made.append(EliminationReader(torch.from_numpy(moments), torch.from_numpy(weights), places, 2.0))
        problems.append((moments, weights, places))

    def error(gone: list[int]) -> float:
        total = 0.0
        for moments, weights, places in problems:
            out = {c for g in gone for c in places[g]}
            total += residual_error(moments, weights, [c for c in range(len(moments)) if c not in out]) / 2.0
        return total

    order, errors = eliminate(made)
    assert sorted(order.tolist()) == list(range(channels)) and errors[0] == 0 and (np.diff(errors) >= 0).all()
    for step in range(channels):
        gone = order[:step].tolist()
        choices = {c: error([*gone, c]) for c in range(channels) if c not in gone}
        np.testing.assert_allclose(choices[int(order[step])], min(choices.values()), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(errors[step + 1], choices[int(order[step])], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("taps", [1, 2])
def test_removals_may_wait(taps: int) -> None:
    """However many are multiplied into the inverse at once, the same channels go at the same errors."""
    rng = np.random.default_rng(taps)
    columns = 8 * taps
    made = []
    for outputs in (1, 3):
        u, weights = rng.normal(size=(2, 2 * columns, columns)), rng.normal(size=(columns, outputs))
        moments = torch.from_numpy(u[0].T @ u[0] / columns + u[1].T @ u[1])
        places = rng.permutation(columns).reshape(8, taps).tolist()
        made.append(EliminationReader(moments, torch.from_numpy(weights), places, 1.0))
    at_once, errors = eliminate(made, held=1)
    for held in (3, 5, 100):
        order, others = eliminate(made, held=held)
        assert order.tolist() == at_once.tolist()
        np.testing.assert_allclose(others, errors, rtol=1e-9)


@pytest.mark.parametrize("name", ["chain", "flatten", "residual", "concat", "depthwise", "grouped", "option-a", "conv1d"])
def test_obs_orders_every_group(name: str) -> None:
    """A permutation, so that widths are nested; a channel that no reader uses goes first; errors end at the whole."""
    model, topology = copy.deepcopy(traced(name)[0]), traced(name)[1]
    group = topology.groups[0]
    silent = 2
    with torch.no_grad():
        for member in group.members:
            if member.role.value == "reads":
                model.state_dict()[member.key].index_fill_(member.dim, torch.tensor(member.positions[silent]), 0.0)
    criterion_inputs = replace(gather(model, []), moments=collect(model, topology, batches(name)))
    order, errors = obs_curve(criterion_inputs, topology, group)
    assert order[0] == silent and errors[1] < 1e-6
    assert (np.diff(errors) >= 0).all() and len(errors) == group.size + 1
    importance = obs(criterion_inputs, topology, group)
    np.testing.assert_array_equal(np.argsort(importance), order)
    readers = len([x for x in topology.readers(group.id) if x.name in criterion_inputs.moments.layers])
    if name in ("chain", "depthwise", "grouped"):  # the reader reads nothing else: all of it is lost, damping adds a little
        assert errors[-1] == pytest.approx(readers, rel=0.05)


def test_obs_is_better_than_l1_at_what_it_promises() -> None:
    """After re-solving, the next layer is less wrong with the channels that obs keeps."""
    wins = 0
    for seed in range(4):
        model, topology = build("chain", seed), traced("chain")[1]
        data = batches("chain")
        criterion_inputs = replace(gather(model, []), moments=collect(model, topology, data))
        group = topology.groups[0]
        errors = []
        for criterion in (l1, obs):
            keep = np.argsort(-criterion(criterion_inputs, topology, group), kind="stable")[:3]
            plan = Plan({group.id: Cut(tuple(sorted(keep.tolist())))})
            lossy = ReconstructionSettings(every=False)
            found = reconstruct(model, cut(model, topology, plan), topology, plan, data, settings=lossy)
            errors.append(found.layers[0].after)
        assert errors[1] <= errors[0] * 1.001
        wins += errors[1] < errors[0] * 0.99
    assert wins >= 2


def test_obs_predicts_the_restored_error() -> None:
    """The curve is the very error that re-solving the reader leaves."""
    model, topology = traced("chain")
    data = batches("chain")
    criterion_inputs = replace(gather(model, []), moments=collect(model, topology, data))
    group = topology.groups[0]
    order, errors = obs_curve(criterion_inputs, topology, group, damping=1e-6)
    for width in (6, 4, 2):
        plan = Plan({group.id: Cut(tuple(sorted(order[group.size - width :].tolist())))})
        found = reconstruct(
            model, cut(model, topology, plan), topology, plan, data, settings=ReconstructionSettings(every=False, ridge=1e-6)
        )
        assert found.layers[0].after == pytest.approx(errors[group.size - width], rel=0.02)


def test_without_moments_obs_is_l1() -> None:
    model, topology = traced("chain")
    criterion_inputs = CriterionInputs(dict(model.state_dict()))
    for group in topology.groups:
        np.testing.assert_array_equal(CRITERIA["obs"](criterion_inputs, topology, group), l1(criterion_inputs, topology, group))
        order, errors = obs_curve(criterion_inputs, topology, group)
        assert sorted(order) == list(range(group.size)) and not errors.any()


def test_curves_in_the_channels_order() -> None:
    model, topology = traced("residual")
    criterion_inputs = replace(gather(model, []), moments=collect(model, topology, batches("residual")))
    importance, curves = obs_and_curves(criterion_inputs, topology, list(topology.by_id))
    for group in topology.groups:
        order, errors = obs_curve(criterion_inputs, topology, group)
        np.testing.assert_array_equal(importance[group.id], obs(criterion_inputs, topology, group))
        np.testing.assert_allclose(np.cumsum(curves[group.id][order]), errors[1:])
