"""Networks before and after a cut."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from compress.core.plan import Plan
from compress.core.topology import Role, Topology


def assert_same(expected: list[Tensor], got: list[Tensor], tolerance: float = 1e-9) -> None:
    assert len(expected) == len(got)
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        assert bool(torch.isfinite(a).all())
        assert float((a - b).abs().max()) <= tolerance * float((a - a.mean(0)).abs().max()) + 1e-13 * float(a.abs().max())


def assert_identical(expected: nn.Module, got: nn.Module) -> None:
    a, b = expected.state_dict(), got.state_dict()
    assert list(a) == list(b)
    for key in a:
        assert torch.equal(a[key], b[key]), key


def silenced(model: nn.Module, topology: Topology, plan: Plan) -> nn.Module:
    """What a plan means, spelt out: removed channels hand their readers' weights on, and are read no more."""
    masked = copy.deepcopy(model)
    state = masked.state_dict()
    read = [(g, m) for g in topology.groups if g.id in plan.cuts for m in g.members if m.role is Role.READS]
    with torch.no_grad():
        for group, m in read:
            tensor = state[m.key].movedim(m.dim, 0)
            for removed, heir in plan.cuts[group.id].fold.items():
                for a, b in zip(m.positions[removed], m.positions[heir], strict=True):
                    tensor[b] += tensor[a]
        for group, m in read:
            for channel in set(range(group.size)) - set(plan.cuts[group.id].keep):
                for index in m.positions[channel]:
                    state[m.key].movedim(m.dim, 0)[index] = 0
        for name, chosen in plan.inputs.items():
            layer = topology.by_layer[name]
            tensor = state[layer.weight].movedim(layer.read_dim, 0)
            for index in set(range(len(tensor))) - set(chosen):
                tensor[index] = 0
    return masked
