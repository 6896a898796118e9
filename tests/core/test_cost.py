"""Counted is measured: parameters by the tensors, MACs by PyTorch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.covering import in_turns
from support.nets import NETS, any_plan, example, traced
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.core.cost import Cost, Share, count, sizes_after
from compress.core.plan import Cut, Plan
from compress.core.restriction import compose, restrict
from compress.surgery.cutting import cut, is_channel_map

every_net = pytest.mark.parametrize("name", NETS)
seeds = st.integers(0, 2**32 - 1)
styles = st.fixed_dictionaries({"ratio": st.floats(0, 1), "fold": st.booleans(), "select": st.booleans()})


def measured(model: nn.Module, name: str) -> Cost:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(example(name))
    return Cost(counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters()))


@every_net
def test_the_whole_network_is_counted(name: str) -> None:
    model, topology = traced(name)
    assert count(topology) == measured(model, name)


@in_turns(NETS, of=2, turn=0)
@given(seed=seeds, style=styles)
@settings(max_examples=4)
def test_counted_is_measured(name: str, seed: int, style: dict[str, Any]) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, seed, **style)
    small = cut(model, topology, plan)
    assert count(topology, plan) == measured(small, name)
    state = small.state_dict()
    for key, shape in sizes_after(topology, plan).items():
        assert is_channel_map(key, topology) or tuple(state[key].shape) == shape


@in_turns(NETS, of=2, turn=1)
@given(seed=seeds, first=styles, second=styles)
@settings(max_examples=4)
def test_the_restricted_network_costs_what_the_composed_plan_costs(
    name: str, seed: int, first: dict[str, Any], second: dict[str, Any]
) -> None:
    topology = traced(name)[1]
    p = any_plan(topology, seed, **first)
    smaller = restrict(topology, p)
    assert count(smaller) == count(topology, p)
    q = any_plan(smaller, seed + 1, **second)
    assert count(smaller, q) == count(topology, compose(topology, p, q))


@in_turns(NETS, of=2, turn=0)
@given(data=st.data())
@settings(max_examples=4)
def test_dropping_more_never_costs_more(name: str, data: st.DataObject) -> None:
    topology = traced(name)[1]
    plan = any_plan(topology, data.draw(seeds), 0.3)
    cost = count(topology, plan)
    assert cost.macs <= count(topology).macs and cost.params <= count(topology).params
    for group, cut_ in plan.cuts.items():
        if len(cut_.keep) > 1:
            fewer = list(cut_.keep)
            fewer.remove(data.draw(st.sampled_from(fewer)))
            less = count(topology, Plan({**plan.cuts, group: Cut(tuple(fewer))}))
            assert less.macs <= cost.macs and less.params <= cost.params
            assert less != cost or "extra" in group


def test_a_shared_layer_counts_once_in_params_and_twice_in_macs() -> None:
    topology = traced("shared")[1]
    assert count(topology).params == sum(p.numel() for p in traced("shared")[0].parameters())
    assert topology.tensors["both.weight"].sites == 2 * 64


def test_shares() -> None:
    assert Cost(5, 3).share_of(Cost(10, 4)) == Share(0.5, 0.75)
    assert Cost(0, 0).share_of(Cost(0, 0)) == Share(0.0, 0.0)
