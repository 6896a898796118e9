"""Simulating, cutting and refitting agree, whatever the coupling."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparing import assert_identical, assert_same, silenced
from support.covering import in_turns
from support.nets import NETS, any_plan, build, example, inputs, traced
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compress.core.plan import Cut, Plan
from compress.core.restriction import compose, restrict
from compress.core.topology import READS, LayerName, Role, Topology
from compress.errors import PlanError, UnsupportedLayer
from compress.surgery.cutting import cut, cut_state, is_channel_map, own_tensors, select_inputs, shaped_to, simulate

every_net = pytest.mark.parametrize("name", NETS)
seeds = st.integers(0, 2**32 - 1)
styles = st.fixed_dictionaries(
    {"ratio": st.floats(0, 1), "reorder": st.booleans(), "fold": st.booleans(), "select": st.booleans()}
)


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = tree_flatten(copy.deepcopy(model).double().eval()(x))[0]
    return [t for t in found if isinstance(t, Tensor)]


def equivalent(name: str, seed: int, style: dict[str, Any]) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, seed, **style)
    x = inputs(name, seed=seed % 1000)
    assert_same(outputs(simulate(model, topology, plan), x), outputs(cut(model, topology, plan), x))


@every_net
@given(seed=seeds, style=styles)
@settings(max_examples=3)
def test_what_is_simulated_is_what_is_cut(name: str, seed: int, style: dict[str, Any]) -> None:
    equivalent(name, seed, style)


@pytest.mark.slow
@every_net
@given(seed=seeds, style=styles)
@settings(max_examples=100)
def test_what_is_simulated_is_what_is_cut_at_length(name: str, seed: int, style: dict[str, Any]) -> None:
    equivalent(name, seed, style)


@pytest.mark.slow
def test_no_random_plan_is_silently_wrong() -> None:
    """60 plans for every coupling, compared by hand: outputs of the masked and the cut network, dense and in float64.

    The readers of what was removed are silenced here, from the plan's own channels, not by ``simulate``.
    """
    plans = 0
    for name in NETS:
        model, topology = traced(name)
        x = inputs(name, 4, seed=7)
        for seed in range(60):
            fold = bool(topology.moments) or seed % 2 == 0
            plan = any_plan(topology, seed, (seed % 10) / 10, reorder=seed % 3 == 0, fold=fold, select=seed % 5 == 0)
            small = outputs(cut(model, topology, plan), x)
            masked = simulate(model, topology, plan) if topology.moments else silenced(model, topology, plan)
            assert_same(outputs(masked, x), small, 1e-5)
            plans += 1
    assert plans >= 2000


@in_turns(NETS, of=3, turn=1)
def test_a_real_cut_changes_what_is_computed(name: str) -> None:
    """The laws above would hold for networks that ignore their channels."""
    model, topology = traced(name)
    x = inputs(name)
    before = outputs(model, x)
    for group in topology.groups:
        keep = [c for orbit in group.orbits() for c in orbit[: max(1, len(orbit) // 2)]]
        after = outputs(simulate(model, topology, Plan({group.id: Cut(tuple(sorted(keep)))})), x)
        if "extra" not in group.id:  # only training runs it
            assert any(float((a - b).abs().max()) > 1e-6 for a, b in zip(before, after, strict=True)), group.id


@in_turns(NETS, of=3, turn=2)
def test_an_empty_plan_changes_no_bit(name: str) -> None:
    model, topology = traced(name)
    x = inputs(name).float()
    for same in (cut(model, topology, Plan()), simulate(model, topology, Plan())):
        assert_identical(model, same)
        with torch.no_grad():
            for a, b in zip(tree_flatten(model(x))[0], tree_flatten(same(x))[0], strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n, net in NETS.items() if net.oracle])
@given(data=st.data())
@settings(max_examples=4)
def test_a_cut_is_torch_prunings(name: str, data: st.DataObject) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, data.draw(seeds), data.draw(st.floats(0.1, 0.9)))
    theirs = build(name)
    for group_id, decision in plan.cuts.items():
        group, layer = topology.by_id[group_id], topology.by_layer[LayerName(group_id)]
        member = next(m for m in group.members if (m.key, m.dim) == (layer.weight, layer.write_dim))
        gone = sorted(i for c in set(range(group.size)) - set(decision.keep) for i in member.positions[c])
        module = theirs.get_submodule(layer.name)
        prune = {"conv": tp.prune_conv_out_channels, "linear": tp.prune_linear_out_channels}.get(layer.kind)
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=example(name))
        if gone:
            graph.get_pruning_group(module, prune or tp.prune_conv_out_channels, gone).prune()
    assert_identical(theirs, cut(model, topology, plan))


def duplicated(model: nn.Module, topology: Topology, group: str, source: int, target: int) -> nn.Module:
    """The network in which one channel is a copy of another: everything that makes it is the same."""
    twin = copy.deepcopy(model)
    state = twin.state_dict()
    with torch.no_grad():
        for m in topology.by_id[group].members:  # type: ignore[index]
            if m.role is Role.WRITES and not is_channel_map(m.key, topology):
                tensor = state[m.key]
                a, b = (torch.tensor(m.positions[c], dtype=torch.int64) for c in (source, target))
                tensor.index_copy_(m.dim, b, tensor.index_select(m.dim, a))
    return twin


@in_turns(NETS, of=3, turn=0)
@given(data=st.data())
@settings(max_examples=4)
def test_a_duplicated_filter_folds_without_loss(name: str, data: st.DataObject) -> None:
    model, topology = traced(name)
    if topology.moments:
        return  # removing a duplicate changes the moments
    x = inputs(name)
    for group in topology.groups:
        orbit = data.draw(st.sampled_from([o for o in group.orbits() if len(o) > 1]))
        source, target = data.draw(st.permutations(orbit))[:2]
        twin = duplicated(model, topology, group.id, source, target).double()
        keep = tuple(c for c in range(group.size) if c != target)
        folded = cut(twin, topology, Plan({group.id: Cut(keep, {target: source})}))
        assert_same(outputs(twin, x), outputs(folded, x))


@in_turns(NETS, of=3, turn=1)
@given(seed=seeds, first=styles, second=styles)
@settings(max_examples=5)
def test_two_cuts_are_one(name: str, seed: int, first: dict[str, Any], second: dict[str, Any]) -> None:
    model, topology = copy.deepcopy(traced(name)[0]).double(), traced(name)[1]
    p = any_plan(topology, seed, **first)
    smaller = restrict(topology, p)
    q = any_plan(smaller, seed + 1, **second)
    twice = cut(cut(model, topology, p), smaller, q)
    once = cut(model, topology, compose(topology, p, q))
    a, b = once.state_dict(), twice.state_dict()
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-12, atol=1e-13)
    x = inputs(name)
    assert_same(outputs(once, x), outputs(twice, x))


@in_turns(NETS, of=3, turn=2)
@given(seed=seeds, first=styles, second=styles)
@settings(max_examples=3)
def test_a_restricted_topology_is_that_of_the_cut_network(
    name: str, seed: int, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """A cut network can be simulated and cut again through ``restrict`` alone."""
    model, topology = traced(name)
    p = any_plan(topology, seed, **first)
    small, smaller = cut(model, topology, p), restrict(topology, p)
    state = small.state_dict()
    for key, info in smaller.tensors.items():
        assert is_channel_map(key, smaller) or tuple(state[key].shape) == info.shape, key
    q = any_plan(smaller, seed + 1, **second)
    x = inputs(name)
    assert_same(outputs(simulate(small, smaller, q), x), outputs(cut(small, smaller, q), x))


@in_turns(NETS, of=3, turn=0)
@given(seed=seeds, style=styles)
@settings(max_examples=3)
def test_reloading_a_cut_network_is_the_same_function(name: str, seed: int, style: dict[str, Any]) -> None:
    model, topology = traced(name)
    small = cut(model, topology, any_plan(topology, seed, **style))
    again = shaped_to(build(name, seed=1), copy.deepcopy(small.state_dict()))
    assert_identical(small, again)
    x = inputs(name)
    assert_same(outputs(small, x), outputs(again, x), 0.0)


@in_turns(NETS, of=3, turn=0)
@given(seed=seeds)
@settings(max_examples=2)
def test_the_callers_model_is_left_alone(name: str, seed: int) -> None:
    model, topology = traced(name)
    tensors = {k: (id(t), t.clone()) for k, t in model.state_dict(keep_vars=True).items()}
    described = repr(model)
    plan = any_plan(topology, seed, 0.5, reorder=True, fold=True, select=True)
    simulate(model, topology, plan)
    cut(model, topology, plan)
    assert repr(model) == described
    for key, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == tensors[key][0] and torch.equal(tensor, tensors[key][1])


@pytest.mark.parametrize("make", [cut, simulate])
def test_a_trained_copy_shares_nothing(make: Callable[..., nn.Module]) -> None:
    model, topology = traced("chain")
    mine = own_tensors(make(model, topology, any_plan(topology, 0)))
    theirs = {t.data_ptr() for t in model.state_dict().values()}
    assert not theirs & {t.data_ptr() for t in mine.state_dict().values() if t.numel()}


def test_mode_dtype_memory_format_gradients_and_hooks_survive() -> None:
    model, topology = build("frozen"), traced("frozen")[1]
    model = model.to(torch.float16).to(memory_format=torch.channels_last)
    model.train()
    model[1].eval()  # type: ignore[index]
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index]
    for small in (cut(model, topology, any_plan(topology, 3)), simulate(model, topology, any_plan(topology, 3))):
        for (name, old), (_, new) in zip(model.named_modules(), small.named_modules(), strict=True):
            assert old.training == new.training, name
        for (key, old), (_, new) in zip(model.named_parameters(), small.named_parameters(), strict=True):
            assert old.requires_grad == new.requires_grad and old.dtype == new.dtype and new.is_leaf, key
            if old.dim() == 4:
                assert new.is_contiguous(memory_format=torch.channels_last), key
        calls.clear()
        small.float()(torch.zeros(2, 3, 8, 8))
        assert calls == [1]


@pytest.mark.slow
@every_net
@given(seed=seeds, dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
@settings(max_examples=2)
def test_nothing_is_lost_on_the_way(name: str, seed: int, dtype: torch.dtype) -> None:
    """Modes, types, memory formats, what learns, buffers and hooks of every module, whatever was set where."""
    generator = np.random.default_rng(seed)
    model, topology = build(name).to(dtype), traced(name)[1]
    parameters, modules = list(model.parameters()), list(model.modules())
    for parameter in parameters:
        parameter.requires_grad_(bool(generator.random() < 0.5))
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    calls: list[nn.Module] = []
    for module in modules:
        module.training = bool(generator.random() < 0.5)
        module.register_buffer("of_the_user", torch.full((2,), 3.0), persistent=False)
        module.register_forward_pre_hook(lambda m, _: calls.append(m))
    plan = any_plan(topology, seed, 0.5)
    for small in (cut(model, topology, plan), simulate(model, topology, plan)):
        for (where, old), (_, new) in zip(model.named_modules(), small.named_modules(), strict=True):
            assert old.training == new.training and type(old).__name__ in type(new).__name__, where
            assert torch.equal(new.of_the_user, old.of_the_user) and "of_the_user" not in new.state_dict(), where
            hooks, same = ([h.__code__ for h in m._forward_pre_hooks.values()] for m in (old, new))
            assert hooks == same, where
        for (key, old), (_, new) in zip(model.named_parameters(), small.named_parameters(), strict=True):
            assert (old.requires_grad, old.dtype) == (new.requires_grad, new.dtype) and new.is_leaf, key
            assert old.dim() != 4 or new.is_contiguous(memory_format=torch.channels_last), key
        for (key, old), (_, new) in zip(model.named_buffers(), small.named_buffers(), strict=True):
            assert old.dtype == new.dtype and not new.requires_grad, key
    assert [p.requires_grad for p in parameters] == [p.requires_grad for p in model.parameters()]
    assert not calls or name == "weight-norm"  # its weight is computed whenever it is looked at


def test_selected_inputs_are_narrowed_where_they_stand_together() -> None:
    model, topology = traced("chain")
    layer = LayerName("1.0")
    together = cut(model, topology, Plan(inputs={layer: (2, 3, 4)})).get_submodule(layer)
    apart = cut(model, topology, Plan(inputs={layer: (2, 4, 5)})).get_submodule(layer)
    assert together.span == (2, 3) and apart.span is None
    assert isinstance(together, nn.Conv2d) and "reads" in together.state_dict()
    y = torch.randn(1, 8, 5, 5)
    for module, chosen in ((together, [2, 3, 4]), (apart, [2, 4, 5])):
        weight = model.get_submodule(layer).weight[:, chosen]  # type: ignore[index]
        torch.testing.assert_close(module(y), torch.conv2d(y[:, chosen], weight, padding=1))


def test_grouped_layers_cannot_select_inputs() -> None:
    with pytest.raises(UnsupportedLayer):
        select_inputs(nn.Conv2d(4, 4, 1, groups=2), torch.tensor([0]), "a")
    with pytest.raises(UnsupportedLayer):
        select_inputs(nn.BatchNorm2d(4), torch.tensor([0]), "a")


def test_tensors_of_another_network_do_not_fit() -> None:
    model = build("chain")
    state = model.state_dict()
    with pytest.raises(PlanError, match="1 missing"):
        shaped_to(model, {k: v for k, v in state.items() if k != "0.0.weight"})
    with pytest.raises(PlanError, match="1 unknown"):
        shaped_to(model, {**state, "nobody": torch.zeros(1)})
    odd = build("depthwise-2")
    state = odd.state_dict()
    with pytest.raises(PlanError, match="multiplier 2"):
        shaped_to(odd, {**state, "1.0.weight": state["1.0.weight"][:5]})


def test_a_misfitting_plan_is_refused_before_anything_is_cut() -> None:
    model, topology = traced("chain")
    for function in (cut, simulate):
        with pytest.raises(PlanError):
            function(model, topology, Plan({"nobody": Cut((0,))}))  # type: ignore[dict-item]


def test_indices_and_values_of_a_cut_by_hand() -> None:
    model, topology = traced("flatten")
    state = model.state_dict()
    got = cut_state(state, topology, Plan({"0.0": Cut((4, 1), {0: 4})}))  # type: ignore[dict-item]
    assert torch.equal(got["0.0.weight"], state["0.0.weight"][[4, 1]])
    assert torch.equal(got["0.1.running_var"], state["0.1.running_var"][[4, 1]])
    columns = state["3.weight"].view(10, 6, 4)
    expected = torch.stack([columns[:, 4] + columns[:, 0], columns[:, 1]], 1).reshape(10, 8)
    assert torch.equal(got["3.weight"], expected)
    assert np.all([k in got for k in state]) and READS not in got
