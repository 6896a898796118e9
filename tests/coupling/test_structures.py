"""Every structure is cut exactly or left alone by name; whole networks that cannot be followed are refused in one sentence."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparing import assert_same, silenced
from support.covering import in_turns
from support.nets import NETS, any_plan, build, example, inputs, traced
from support.structures import REFUSED, STRUCTURES
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compress.core import Cut, Plan, check
from compress.coupling.tracer import trace
from compress.errors import PlanError, TraceError
from compress.surgery.cutting import cut, simulate
from compress.surgery.guard import TOLERANCE, verify

every_structure = pytest.mark.parametrize("name", STRUCTURES)


@in_turns(STRUCTURES, of=3, turn=0)
def test_what_must_be_free_is_free_and_what_stays_says_why(name: str) -> None:
    topology = traced(name)[1]
    assert set(STRUCTURES[name].free) <= set(topology.by_id)
    cuttable = {layer.name for g in topology.groups for layer in topology.writers(g.id)}
    assert not {*STRUCTURES[name].stuck, *STRUCTURES[name].why} & cuttable
    for layer, pattern in STRUCTURES[name].why.items():
        assert re.search(pattern, topology.frozen[layer]), topology.frozen[layer]  # type: ignore[index]


@in_turns([*NETS, *STRUCTURES], of=3, turn=1)
def test_every_layer_that_stays_has_its_reason(name: str) -> None:
    topology = traced(name)[1]
    cuttable = {layer.name for g in topology.groups for layer in topology.writers(g.id)}
    for layer in topology.layers:
        assert layer.name in cuttable or layer.depthwise or topology.frozen.get(layer.name), layer.name


@in_turns(STRUCTURES, of=3, turn=2)
@given(seed=st.integers(0, 2**32 - 1), ratio=st.floats(0, 1), reorder=st.booleans())
@settings(max_examples=2)
def test_a_right_cut_passes(name: str, seed: int, ratio: float, reorder: bool) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, seed, ratio, reorder=reorder)
    assert verify(model, topology, plan, cut(model, topology, plan), inputs(name, seed=1)).error <= TOLERANCE


def test_a_plan_that_keeps_more_of_one_piece_than_of_another_is_refused() -> None:
    refused = 0
    for name in ("cross-stage", "aggregation", "by-number"):
        topology = traced(name)[1]
        for group in topology.groups:
            for pieces in group.coupled_counts:
                keep = tuple(c for c in range(group.size) if c != pieces[0][0])
                with pytest.raises(PlanError, match="pieces of a chunk"):
                    check(topology, Plan({group.id: Cut(keep)}))
                refused += 1
    assert refused >= 3


def outputs(model: nn.Module, x: Any) -> list[Tensor]:
    with torch.no_grad():
        given = x if isinstance(x, tuple) else (x,)
        return [t for t in tree_flatten(copy.deepcopy(model).double().eval()(*given))[0] if isinstance(t, Tensor)]


@pytest.mark.slow
def test_no_random_plan_is_silently_wrong() -> None:
    """40 plans for every structure that can be cut; the readers of what was removed are silenced by hand."""
    plans = 0
    for name in STRUCTURES:
        model, topology = traced(name)
        x = inputs(name, 4, seed=7)
        for seed in range(40) if topology.groups else ():
            plan = any_plan(topology, seed, (seed % 10) / 10, reorder=seed % 3 == 0, fold=seed % 2 == 0, select=seed % 5 == 0)
            small = outputs(cut(model, topology, plan), x)
            masked = simulate(model, topology, plan) if topology.moments else silenced(model, topology, plan)
            assert_same(outputs(masked, x), small, 1e-5)
            plans += 1
    assert plans >= 1000


@every_structure
def test_the_cut_network_trains(name: str) -> None:
    model, topology = traced(name)
    small = copy.deepcopy(cut(model, topology, any_plan(topology, 3, 0.5))).train()
    given = inputs(name, 2)
    outputs = small(*(x.float() for x in (given if isinstance(given, tuple) else (given,))))
    sum(t.sum() for t in tree_flatten(outputs)[0]).backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in small.parameters())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_sentence(name: str) -> None:
    make, pattern = REFUSED[name]
    with pytest.raises(TraceError, match=pattern) as caught:
        trace(make().eval(), torch.zeros(1, 3, 8, 8))
    assert "\n" not in caught.value.message and caught.value.hint


def test_several_inputs_are_named_where_they_do_not_fit() -> None:
    with pytest.raises(TraceError, match=r"shape \(1, 3, 8, 8\) and \(1, 9, 8, 8\)"):
        trace(build("two-inputs"), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 9, 8, 8)))
    assert example("two-inputs")[1].shape == (1, 2, 8, 8)
