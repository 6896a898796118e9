"""What a branch that is gone gave on average is not lost: the layers behind it take it up."""

from __future__ import annotations

import pytest
import torch
from support.comparing import assert_same
from support.nets import any_plan, inputs, traced
from support.shortcuts import WITH_BRANCHES
from torch import Tensor, nn

from compress.core.plan import Plan
from compress.core.topology import Topology
from compress.recovery.batch_norm import reestimate
from compress.recovery.reconstruction import ReconstructionSettings, reconstruct
from compress.surgery.cutting import cut

every_net = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("resnet", "c2f", "in-root") else pytest.mark.slow) for n in WITH_BRANCHES]
)


def case(name: str) -> tuple[nn.Module, Topology, Plan, list[Tensor]]:
    model, topology = traced(name)
    plan = Plan(any_plan(topology, 3, 0.2).cuts, branches=(topology.branches[0].name,))
    return model, topology, plan, list(inputs(name, 96).float().split(40))


def answers(model: nn.Module, data: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(x) for x in data])


@every_net
def test_nearer_than_with_batch_norms_alone(name: str) -> None:
    model, topology, _, data = case(name)
    plan = Plan(branches=(topology.branches[0].name,))
    wanted = answers(model, data)
    small = cut(model, topology, plan)
    before = float((answers(reestimate(small, data), data) - wanted).square().sum())
    found = reconstruct(model, small, topology, plan, data)
    after = float((answers(found.model, data) - wanted).square().sum())
    assert found.layers and after < 0.9 * before


@every_net
def test_the_mean_of_the_outputs_comes_back(name: str) -> None:
    """The last layer has a bias: what is missing on average is in it, whatever went before."""
    model, topology, plan, data = case(name)
    found = reconstruct(model, cut(model, topology, plan), topology, plan, data)
    wanted, got = (answers(m, data) for m in (model, found.model))
    assert torch.allclose(wanted.mean(0), got.mean(0), atol=1e-3 * float(wanted.std(0).max()))


@every_net
def test_with_a_graph_or_from_the_start_it_is_the_same(name: str) -> None:
    """Both networks node by node, or anew for every layer."""
    model, topology, plan, data = case(name)
    small = cut(model, topology, plan)
    one, two = (
        reconstruct(model, small, topology, plan, data, settings=ReconstructionSettings(memory=m)) for m in (0, 1 << 30)
    )
    assert_same([answers(one.model, data)], [answers(two.model, data)], 1e-3)
