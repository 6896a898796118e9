"""A plan that leaves branches out: counted, simulated and cut it is one network, and the one its author would have written."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparing import assert_identical, assert_same
from support.nets import NETS, any_plan, inputs, traced
from support.shortcuts import SHORTCUTS, WITH_BRANCHES, leave_out
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.core import Plan, Topology, canonical, compose, count, restrict, widths
from compress.errors import PlanError
from compress.surgery.cutting import cut, shaped_to, simulate
from compress.surgery.guard import verify
from compress.surgery.skipping import Skipped

_FIRST = ("resnet", "convnext", "c2f", "two-in-one", "nested")
_OTHERS = tuple(n for n in WITH_BRANCHES if n not in _FIRST)
_OLDER = ("residual", "option-a", "pad-option-a", "layernorm")
every_shortcut = pytest.mark.parametrize("name", [*_FIRST, *(pytest.param(n, marks=pytest.mark.slow) for n in _OTHERS)])
every_net = pytest.mark.parametrize("name", [*_FIRST, *(pytest.param(n, marks=pytest.mark.slow) for n in (*_OTHERS, *_OLDER))])
seeds = st.integers(0, 2**32 - 1)


def drawn(topology: Topology, seed: int, ratio: float = 0.3, fold: bool = False) -> Plan:
    """A random plan of channels and branches."""
    rng = np.random.default_rng(seed)
    plan = any_plan(topology, seed, ratio, fold=fold, reorder=fold)
    gone = tuple(b.name for b in topology.branches if rng.random() < 0.6)
    return Plan(plan.cuts, plan.inputs, gone)


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [copy.deepcopy(model).double().eval()(x.double())]


@every_net
@given(seed=seeds, ratio=st.floats(0, 0.8), fold=st.booleans())
@settings(max_examples=2)
def test_what_is_simulated_is_what_is_cut(name: str, seed: int, ratio: float, fold: bool) -> None:
    model, topology = traced(name)
    assert topology.branches
    plan = drawn(topology, seed, ratio, fold and not topology.moments)
    x = inputs(name, seed=seed % 1000)
    assert_same(outputs(simulate(model, topology, plan), x), outputs(cut(model, topology, plan), x))


@every_shortcut
def test_it_is_what_the_code_without_the_branches_computes(name: str) -> None:
    """Every branch alone, and all: against the network's own code, which does not add them."""
    model, topology = traced(name)
    names = [b.name for b in topology.branches]
    assert names
    for gone in (*((n,) for n in names), tuple(names)):
        written = copy.deepcopy(model)
        leave_out(written, frozenset(gone))
        x = inputs(name)
        plan = Plan(branches=gone)
        assert_same(outputs(written, x), outputs(cut(model, topology, plan), x))
        assert float((outputs(model, x)[0] - outputs(written, x)[0]).abs().max()) > 1e-6


@every_net
@given(seed=seeds)
@settings(max_examples=2)
def test_counted_is_measured(name: str, seed: int) -> None:
    model, topology = traced(name)
    plan = drawn(topology, seed)
    small = cut(model, topology, plan)
    cost = count(topology, plan)
    assert cost.params == sum(p.numel() for p in small.parameters())
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        small(inputs(name, 1).float())
    assert cost.macs == flops.get_total_flops() // 2
    after = restrict(topology, plan)
    assert count(after).params == cost.params and count(after).macs == cost.macs
    assert {k: tuple(t.shape) for k, t in small.state_dict().items()} == {k: t.shape for k, t in after.tensors.items()}
    assert {n for n, (_, kept) in widths(topology, plan).items() if kept == 0} == set(topology.by_layer) - set(after.by_layer)


@every_net
def test_no_dead_layer_is_left(name: str) -> None:
    """With all branches gone, nothing of them is a module any more, and the user's class is what it was."""
    model, topology = traced(name)
    plan = Plan(branches=tuple(b.name for b in topology.branches))
    small = cut(model, topology, plan)
    assert type(small) is type(model)
    gone = {m.name for b in topology.branches for m in b.modules}
    for module_name, module in small.named_modules():
        inside = [g for g in gone if module_name == g or module_name.startswith(f"{g}.")]
        assert isinstance(module, Skipped) == bool(inside), module_name
    assert any(isinstance(m, nn.Conv2d | nn.Linear) for m in small.modules())


@every_net
@given(seed=seeds)
@settings(max_examples=2)
def test_a_cut_network_is_reloaded_from_its_tensors(name: str, seed: int) -> None:
    """Without the original's tensors: those of the architecture are overwritten with garbage first."""
    model, topology = traced(name)
    small = cut(model, topology, drawn(topology, seed))
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.zero_()
    again = shaped_to(fresh, small.state_dict())
    assert_identical(small, again)
    x = inputs(name)
    assert torch.equal(outputs(small, x)[0], outputs(again, x)[0])
    assert torch.equal(outputs(copy.deepcopy(small), x)[0], outputs(again, x)[0])


@every_net
@given(seed=seeds)
@settings(max_examples=2)
def test_plans_compose(name: str, seed: int) -> None:
    model, topology = traced(name)
    first = drawn(topology, seed)
    after = restrict(topology, first)
    second = drawn(after, seed + 1)
    both = compose(topology, first, second)
    assert both == canonical(topology, both)
    x = inputs(name)
    one = cut(cut(model, topology, first), after, second)
    two = cut(model, topology, both)
    assert_identical(one, two)
    assert_same(outputs(one, x), outputs(two, x))


@every_net
@given(seed=seeds)
@settings(max_examples=2)
def test_one_network_has_one_digest(name: str, seed: int) -> None:
    """Cuts and branches inside a branch that is gone are no part of a canonical plan, and do nothing in any other."""
    model, topology = traced(name)
    plan = drawn(topology, seed)
    said_once = canonical(topology, plan)
    assert_identical(cut(model, topology, plan), cut(model, topology, said_once))
    assert count(topology, plan) == count(topology, said_once)
    gone = {key for b in said_once.branches for key in topology.branch_keys[b]}
    for group in said_once.cuts:
        assert any(m.key not in gone for m in topology.by_id[group].members)
    assert Plan.from_json(plan.to_json()) == plan


def test_nested_branches_go_with_the_outer_one() -> None:
    _, topology = traced("nested")
    everything = Plan(branches=tuple(b.name for b in topology.branches))
    assert canonical(topology, everything) == Plan(branches=("1",))  # type: ignore[arg-type]


def test_a_plan_without_branches_is_written_as_ever() -> None:
    assert "branches" not in Plan().to_json()
    assert Plan().digest == "7a86990cb13ebf87"
    assert not Plan() and Plan(branches=("x",))  # type: ignore[arg-type]


def test_the_guard_compares() -> None:
    """A network that lacks another branch than the plan's is refused."""
    model, topology = traced("resnet")
    one, two = (Plan(branches=(b.name,)) for b in topology.branches)
    verify(model, topology, one, cut(model, topology, one), inputs("resnet"))
    with pytest.raises(Exception, match="computes something else"):
        verify(model, topology, one, cut(model, topology, two), inputs("resnet"))


def test_an_unknown_branch_is_refused_and_a_kept_one_says_why() -> None:
    model, topology = traced("resnet")
    with pytest.raises(PlanError, match="does not have"):
        cut(model, topology, Plan(branches=("layer9",)))  # type: ignore[arg-type]
    model, topology = traced("leaky")
    with pytest.raises(PlanError, match=r"has to stay: .*used elsewhere"):
        cut(model, topology, Plan(branches=tuple(SHORTCUTS["leaky"].kept)))  # type: ignore[arg-type]


@pytest.mark.parametrize("codes", [[], [99], [-2], [0, 0, 0, 0, 0]])
def test_a_file_cannot_say_anything_else(codes: list[int]) -> None:
    model, topology = traced("resnet")
    state = cut(model, topology, Plan(branches=("1",))).state_dict()  # type: ignore[arg-type]
    state["1.skipped"] = torch.tensor(codes, dtype=torch.int64)
    with pytest.raises(PlanError, match="does not say"):
        shaped_to(model, state)


def test_a_skipped_network_trains() -> None:
    model, topology = traced("resnet")
    small = cut(model, topology, Plan(branches=("1",))).train()  # type: ignore[arg-type]
    small(inputs("resnet").float()).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_networks_without_shortcuts_have_none() -> None:
    assert {n for n in ("chain", "dense", "projection", *_OLDER) if n in NETS and traced(n)[1].branches} == set(_OLDER)


def test_a_cut_network_is_a_module_that_can_be_pickled(tmp_path: Path) -> None:
    model, topology = traced("resnet")
    small = cut(model, topology, Plan(branches=("1",)))  # type: ignore[arg-type]
    torch.save(small, tmp_path / "small.pt")
    again = torch.load(tmp_path / "small.pt", weights_only=False)
    assert torch.equal(outputs(small, inputs("resnet"))[0], outputs(again, inputs("resnet"))[0])
