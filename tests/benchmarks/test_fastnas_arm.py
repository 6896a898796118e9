"""FastNAS's network as a plan of ours, which ModelOpt is not needed for; and what is said where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.nets import build, traced
from torch import nn

from compress.core import Cut, Plan
from compress.errors import ModelError
from compress.surgery import cut


@pytest.fixture(scope="module")
def fastnas_arm() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import fastnas_arm

    return fastnas_arm


def test_channels_that_stayed_are_read_off_the_batch_norms_in_any_order(fastnas_arm: ModuleType) -> None:
    model, topology = traced("chain")
    plan = Plan({g.id: Cut(tuple(range(1, g.size, 2))) for g in topology.groups})
    small = cut(model, topology, plan)
    for norm in norms(small):
        norm.weight.data, norm.bias.data = norm.weight.flip(0), norm.bias.flip(0)  # a search that sorts channels leaves them so
    assert fastnas_arm.plan_of(model, small, topology) == plan
    assert fastnas_arm.plan_of(model, model, topology) == Plan()
    alike = build("chain")
    for norm in norms(alike):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    with pytest.raises(ModelError, match="told apart"):
        fastnas_arm.plan_of(alike, cut(alike, topology, plan), topology)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_without_modelopt_it_is_said_how_to_install_it(fastnas_arm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastnas_arm, "there", lambda: False)
    model, topology = traced("chain")
    with pytest.raises(SystemExit, match="not installed: pip install"):
        fastnas_arm.plan_at(model, topology, 0.5, images=[], score=lambda m: 0.0, kept=Path("x.pth"))
