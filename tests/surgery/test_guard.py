"""The guard lets every right cut pass and catches every wrong one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.covering import in_turns
from support.nets import NETS, any_plan, inputs, traced
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compress.core.plan import Cut, Plan, check
from compress.core.topology import Role, Topology
from compress.errors import CompressError, GuardError
from compress.surgery.cutting import cut
from compress.surgery.guard import TOLERANCE, attributes, random_plan, verify
from compress.surgery.seen_values import relative_error

every_net = pytest.mark.parametrize("name", NETS)
seeds = st.integers(0, 2**32 - 1)
styles = st.fixed_dictionaries(
    {"ratio": st.floats(0, 1), "reorder": st.booleans(), "fold": st.booleans(), "select": st.booleans()}
)


@in_turns(NETS, of=2, turn=1)
@given(seed=seeds, style=styles)
@settings(max_examples=3)
def test_a_right_cut_passes(name: str, seed: int, style: dict[str, Any]) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, seed, **style)
    seen = verify(model, topology, plan, cut(model, topology, plan), inputs(name, seed=1))
    assert 0 <= seen.error <= TOLERANCE and seen.observed >= 1


def half(topology: Topology) -> Plan:
    """Keeps every second channel of each orbit, from the second on."""
    cuts = {}
    for group in topology.groups:
        keep = [c for orbit in group.orbits() for c in (orbit[1::2] or orbit)]
        cuts[group.id] = Cut(tuple(sorted(keep)))
    return Plan(cuts)


def shifted(topology: Topology, key: str, dim: int) -> Topology:
    """The topology in which one member's channels stand one place off."""
    groups = []
    for group in topology.groups:
        members = tuple(
            replace(m, positions=m.positions[1:] + m.positions[:1]) if (m.key, m.dim) == (key, dim) else m
            for m in group.members
        )
        groups.append(replace(group, members=members))
    return replace(topology, groups=tuple(groups))


def without(topology: Topology, key: str, dim: int) -> Topology:
    groups = tuple(replace(g, members=tuple(m for m in g.members if (m.key, m.dim) != (key, dim))) for g in topology.groups)
    return replace(topology, groups=groups)


JOINED = ("chain", "flatten", "residual", "concat", "depthwise", "se-gate", "groupnorm", "layernorm", "option-a", "shuffle",
          "transposed")  # fmt: skip


@pytest.mark.parametrize("wrong", [shifted, without])
@pytest.mark.parametrize("name", sorted(JOINED))
def test_one_wrong_member_is_caught(name: str, wrong: Callable[..., Topology]) -> None:
    model, topology = traced(name)
    for key, dim in [(m.key, m.dim) for g in topology.groups for m in g.members]:
        broken = wrong(topology, key, dim)
        plan = half(topology)
        with pytest.raises(CompressError):
            check(broken, plan)
            verify(model, broken, plan, cut(model, broken, plan), inputs(name))
            pytest.fail(f"{wrong.__name__} {key}:{dim} was not seen", pytrace=False)


@every_net
def test_a_swapped_channel_is_caught(name: str) -> None:
    model, topology = traced(name)
    plan = half(topology)
    for group in topology.groups:
        small = cut(model, topology, plan)
        member = next(m for m in group.members if m.role is Role.READS)
        tensor = dict(small.state_dict(keep_vars=True))[member.key]
        if tensor.shape[member.dim] < 2 or group.id.startswith("extra"):
            continue
        with torch.no_grad():
            order = torch.arange(tensor.shape[member.dim]).roll(1)
            tensor.copy_(tensor.index_select(member.dim, order))
        with pytest.raises(GuardError, match="something else"):
            verify(model, topology, plan, small, inputs(name))


NORMED = ["chain", "residual", "concat", "dense", "depthwise", "option-a", "conv1d", "conv3d"]


@pytest.mark.parametrize("name", NORMED)
def test_a_stale_statistic_is_caught(name: str) -> None:
    """The norm of another channel, where shapes say nothing."""
    model, topology = traced(name)
    plan = half(topology)
    small = cut(model, topology, plan)
    norms = [m for m in small.modules() if isinstance(m, _NormBase) and m.num_features > 1]
    for which in ("running_mean", "running_var", "weight", "bias"):
        for i in range(len(norms)):
            wrong = copy.deepcopy(small)
            norm = [m for m in wrong.modules() if isinstance(m, _NormBase) and m.num_features > 1][i]
            with torch.no_grad():
                tensor = getattr(norm, which)
                tensor.copy_(tensor.roll(1))
            with pytest.raises(GuardError):
                verify(model, topology, plan, wrong, inputs(name))


def broken_attribute(module: nn.Module, attribute: str, by: int = 1) -> nn.Module:
    setattr(module, attribute, getattr(module, attribute) + by)
    return module


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        (nn.Conv2d(4, 6, 1), "in_channels"), (nn.Conv2d(4, 6, 1), "out_channels"), (nn.Conv2d(4, 4, 1, groups=2), "groups"),
        (nn.ConvTranspose2d(4, 6, 1, groups=2), "in_channels"), (nn.ConvTranspose2d(4, 6, 1, groups=2), "out_channels"),
        (nn.Linear(3, 4), "in_features"), (nn.Linear(3, 4), "out_features"), (nn.BatchNorm2d(4), "num_features"),
        (nn.InstanceNorm2d(4, affine=True), "num_features"), (nn.GroupNorm(2, 4), "num_channels"),
        (nn.Conv1d(2, 3, 1), "in_channels"),
    ],
)  # fmt: skip
def test_an_attribute_that_lies_is_caught(module: nn.Module, attribute: str) -> None:
    attributes(copy.deepcopy(module))
    with pytest.raises(GuardError, match="its tensor says"):
        attributes(broken_attribute(copy.deepcopy(module), attribute))


def test_other_attributes_that_lie() -> None:
    norm = nn.LayerNorm(4)
    norm.normalized_shape = (5,)
    short, narrow = nn.Conv2d(2, 4, 1), nn.Linear(2, 4)
    short.bias, narrow.bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    stale = nn.BatchNorm2d(4)
    stale.running_var = torch.ones(3)
    for module in (norm, short, narrow, stale):
        with pytest.raises(GuardError):
            attributes(nn.Sequential(module))


def test_a_network_that_no_longer_runs_is_named() -> None:
    model, topology = traced("chain")
    plan = half(topology)
    small = cut(model, topology, plan)
    small[1][0] = nn.Conv2d(7, 3, 3)  # type: ignore[index,operator]
    with pytest.raises(GuardError, match="does not run"):
        verify(model, topology, plan, small, inputs("chain"))


def test_nan_never_passes() -> None:
    model, topology = traced("chain")
    plan = half(topology)
    small = copy.deepcopy(cut(model, topology, plan))
    with torch.no_grad():
        next(small.parameters()).fill_(float("nan"))
    with pytest.raises(GuardError):
        verify(model, topology, plan, small, inputs("chain"))


def test_error_is_relative_to_the_spread_across_inputs() -> None:
    base = torch.tensor([[1000.0], [1001.0]], dtype=torch.float64)
    assert relative_error(base, base + 0.05) == pytest.approx(0.1)
    assert relative_error(base, base) == 0
    assert relative_error(base, None) == relative_error(base, base[:1]) == float("inf")
    assert relative_error(base, base * float("nan")) == float("inf")
    constant = torch.full((2, 1), 3.0, dtype=torch.float64)
    assert relative_error(constant, constant + 1e-3) == float("inf")
    assert relative_error(constant, constant + 1e-14) == 0.0
    assert relative_error(torch.zeros(2, 0), torch.zeros(2, 0)) == 0.0


def test_readers_of_a_grouped_transposed_convolution_do_not_hide_their_neighbours() -> None:
    """A reader that cannot be compared is left out; the next one must not be."""

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 1, groups=2)
            self.zoom, self.one, self.two = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.one(self.up(x).relu()) + self.two(self.zoom(x).relu())  # type: ignore[no-any-return]

    from compress.coupling.tracer import trace

    torch.manual_seed(0)
    model = Fork().eval()
    topology = trace(model, torch.zeros(1, 3, 4, 4))
    assert {"stem", "up", "zoom"} <= set(topology.by_id)
    plan = half(topology)
    verify(model, topology, plan, cut(model, topology, plan), torch.randn(3, 3, 4, 4))


@every_net
def test_random_plans_fit_and_cut_every_group_they_can(name: str) -> None:
    topology = traced(name)[1]
    plan = random_plan(topology, 0.3, np.random.default_rng(0))
    check(topology, plan)
    assert set(plan.cuts) == {g.id for g in topology.groups if any(len(o) > 1 for o in g.orbits())}
