"""Networks about which nothing can be proven are told as such; what training alone uses is cut right or left whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.interfaces import statistics
from support.nets import block, head
from torch import Tensor, nn
from torch.nn import functional as F

from compress import Job, Preprocessing, inspect, network_of, prune
from compress.coupling import trace
from compress.errors import SearchError
from compress.surgery import cut, random_plan

X = torch.zeros(1, 3, 8, 8)


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.h, self.between = block(3, width), block(width, 6), head(6), between

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.b(self.between(self.a(x))))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 1e3)


class MonteCarlo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, training=True)


@pytest.mark.parametrize("width", [8, 5])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Noise, "its evaluation is random: two runs on the same input differ, first in 'between'"),
        (MonteCarlo, "its evaluation is random: two runs on the same input differ, first in 'between'"),
        (lambda: lambda x: x * torch.rand(()), "is random: two runs on the same input differ, first in 'b.0'"),
        (Log, "its evaluation gives NaN or infinity, first in 'between'"),
    ],
)
def test_random_and_undefined_evaluations_are_told(
    make: Callable[[], Callable[[Tensor], Tensor]], said: str, width: int
) -> None:
    model = statistics(Between(make(), width))
    topology = trace(model, X)
    assert not topology.groups and {said in why or "makes the network's output" in why for why in topology.frozen.values()} == {
        True
    }
    assert any(said in why for why in topology.frozen.values())
    seen = inspect(network_of(model, Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8))), Job())
    assert any(said in layer.why_not for layer in seen.layers)


def test_a_run_says_why_nothing_may_go(tmp_path: Path) -> None:
    network = network_of(statistics(Between(Log())), Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8)))
    with pytest.raises(SearchError, match="may be cut: its evaluation gives NaN or infinity, first in 'between'"):
        prune(network, None, Job(), tmp_path / "run")


def test_steady_networks_stay_cut() -> None:
    assert len(trace(statistics(Between(nn.Dropout(0.3))), X).groups) == 2


class Centre(nn.Module):
    """Something of one number a channel that only training uses."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        made = torch.randn(width)
        if kind.startswith("buffer"):
            self.register_buffer("centre", made)
        else:
            self.centre = nn.Parameter(made)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.kind == "buffer updated":
            self.centre.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3)))
            return x
        return x * self.centre.view(1, -1, 1, 1) if self.kind.endswith("gain") else x - self.centre[None, :, None, None]


@pytest.mark.parametrize("width", [8, 5])
@pytest.mark.parametrize("kind", ["buffer", "buffer updated", "buffer gain", "parameter", "parameter gain"])
def test_what_training_alone_uses_is_cut_right_or_left_whole(kind: str, width: int) -> None:
    model = statistics(Between(Centre(width, kind), width))
    topology = trace(model, X)
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    small = cut(model, topology, plan).train()
    small(torch.randn(4, 3, 8, 8))[0].sum().backward()  # training begins
    assert topology.by_id or topology.frozen
    if "a.0" not in {g.id for g in topology.groups}:
        assert "training mode" in topology.frozen["a.0"]  # type: ignore[index]
