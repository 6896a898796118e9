"""Scales of one tensor do not hide one another, and what rounding leaves of a channel is no fault."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.covering import thinned
from support.nets import block
from torch import Tensor, nn

from compress.core import Plan
from compress.coupling import trace
from compress.errors import GuardError
from compress.surgery import cut, random_plan, verify

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels second": lambda y: y,
    "channels last": lambda y: y.movedim(1, -1),
    "channels last, places flat": lambda y: y.flatten(2).transpose(1, 2),
    "one row": lambda y: y.flatten(1),
}


class Scaled(nn.Module):
    """A dense head whose channels are of very different sizes, in one tensor."""

    def __init__(self, scales: Tensor, layout: str) -> None:
        super().__init__()
        self.a, self.b, self.layout = block(3, 8), block(8, 8), layout
        self.head = nn.Conv2d(8, len(scales), 1)
        self.register_buffer("scales", scales.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return LAYOUTS[self.layout](self.head(self.b(self.a(x))) * self.scales)


def network(layout: str, seed: int, channels: int = 6) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    exponents = torch.rand(channels, generator=generator) * 10 - 5
    return Scaled(10**exponents, layout).eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(3, 3, 6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.999, 1.001, -1.0]))
@settings(max_examples=max(3, settings().max_examples // 2), deadline=None)
def test_a_channel_that_is_wrong_is_seen_whatever_stands_beside_it(layout: str, seed: int, share: float) -> None:
    model = network(layout, seed)
    topology = trace(model, images()[:1])
    plan = random_plan(topology, 0.4, np.random.default_rng(seed))
    small = cut(model, topology, plan)
    assert plan and verify(model, topology, plan, small, images(seed)).error <= 1e-5
    for channel in range(6):
        wrong = copy.deepcopy(small)
        with torch.no_grad():
            wrong.scales[0, channel] *= share
        with pytest.raises(GuardError, match="something else"):
            verify(model, topology, plan, wrong, images(seed))


class Cancelling(nn.Module):
    """One channel is what rounding leaves of a difference of equals; the next is that beside something real."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.a, self.b, self.large = block(3, 8), nn.Conv2d(8, 4, 1), large

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        rest = (y + self.large) - y - self.large
        return torch.cat([y, rest, rest.sum(1, keepdim=True) * 1e-3], 1)


@pytest.mark.parametrize("large", thinned([0.0, 1.0, 1e3, 1e6], of=2, turn=1))
def test_what_rounding_leaves_is_no_fault(large: float) -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        model = Cancelling(large).eval()
        topology = trace(model, images()[:1])
        assert topology.groups, topology.frozen
        plan = random_plan(topology, 0.5, np.random.default_rng(seed))
        verify(model, topology, plan, cut(model, topology, plan), images(seed))


def test_a_network_of_nans_is_told_as_such() -> None:
    model = network("one row", 0)
    topology = trace(model, images()[:1])
    with torch.no_grad():
        model.head.bias[0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(GuardError, match="uncut network gives NaN"):
        verify(model, topology, Plan(), copy.deepcopy(model), images())
