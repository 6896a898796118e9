"""Moments over channels: simulated, cut, and built narrow are one, and the guard sees it where they are not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.covering import in_turns
from support.moments import NORMS, divided_by_width, each_with_its_half, narrowed, network, where_largest
from torch import Tensor, nn

from compress.core import Cut, Plan, Topology, count
from compress.coupling import trace
from compress.surgery import cut, verify
from compress.surgery.channel_moments import over_kept_channels
from compress.surgery.cutting import simulate
from compress.surgery.guard import TOLERANCE
from compress.surgery.guard_training import verify_training


@cache
def traced_norm(name: str) -> tuple[nn.Module, Topology]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network(NORMS[name]).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model, trace(model, torch.zeros(1, 3, 8, 8), probe=False)  # what the law shows needs no trial


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(model: nn.Module, x: Tensor, *, training: bool = False) -> Tensor:
    with torch.no_grad():
        result: Tensor = copy.deepcopy(model).double().train(training)(x)
    return result


@in_turns(NORMS, of=3, turn=0)
@given(keep=st.sets(st.integers(0, 7), min_size=2, max_size=7).map(sorted))
@settings(max_examples=2)
def test_cut_and_simulated_are_the_code_built_narrow(name: str, keep: list[int]) -> None:
    model, topology = traced_norm(name)
    assert {"a.0", "c.0"} <= set(topology.by_id) and topology.moments == ("a.0",), topology.frozen
    plan = Plan({"a.0": Cut(tuple(keep))})  # type: ignore[dict-item]
    small, masked = cut(model, topology, plan), simulate(model, topology, plan)
    for training in (False, True):
        wanted = run(narrowed(NORMS[name], model, keep), images(), training=training)
        for network_of_both in (small, masked):
            torch.testing.assert_close(run(network_of_both, images(), training=training), wanted, rtol=1e-9, atol=1e-11)
    assert verify(model, topology, plan, small, images(1)).error <= TOLERANCE
    verify_training(model, topology, plan, small, [images(2)])
    assert count(topology, plan).params == sum(p.numel() for p in small.parameters())
    assert not topology.foldable("a.0") and topology.foldable("c.0")  # type: ignore[arg-type]


def test_a_moment_over_other_channels_is_seen() -> None:
    """The guard compares moments: with those of all channels, every one of these cuts is wrong."""
    for name in NORMS:
        model, topology = traced_norm(name)
        plan = Plan({"a.0": Cut((0, 2, 5))})  # type: ignore[dict-item]
        wanted = run(simulate(model, topology, plan), images())
        silenced = run(simulate(model, Topology(**{**vars_of(topology), "moments": ()}), plan), images())
        off = float((wanted - silenced).abs().max() / (wanted - wanted.mean(0)).abs().max())
        assert off > 1e-3, (name, off)


def vars_of(topology: Topology) -> dict[str, Any]:
    return {name: getattr(topology, name) for name in topology.__dataclass_fields__}


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (divided_by_width, "computes something else"),
        (where_largest, "the numbers of its channels go into"),
    ],
)
def test_what_follows_no_cut_stays_and_says_why(norm: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    topology = trace(network(norm).eval(), torch.zeros(1, 3, 8, 8))
    assert "a.0" not in topology.by_id and re.search(reason, topology.frozen["a.0"]), topology.frozen  # type: ignore[index]


def test_sums_of_pairs_are_no_moments() -> None:
    topology = trace(network(each_with_its_half).eval(), torch.zeros(1, 3, 8, 8))
    assert topology.moments == ()


def test_a_network_that_raises_leaves_no_mode_behind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    over_kept_channels(model)
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 2, 2))
    assert bool(torch.tensor([1.0, torch.nan]).mean().isnan())
