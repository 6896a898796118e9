"""ShuffleNet with its splits and shuffles as tables: the same numbers, and every stage can be cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from compress.coupling.tracer import trace
from compress.networks.checkpoint import Architecture, load, save
from compress.surgery.cutting import cut
from compress.surgery.guard import random_plan, verify
from compress.surgery.rewriting import ChannelMap, ShuffleUnit, cuttable


def shufflenet() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.ShuffleNetV2([1, 2, 1], [8, 12, 16, 24, 32], num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


def test_the_same_numbers_and_the_original_untouched() -> None:
    model = shufflenet()
    described, x = repr(model), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        tables = cuttable(model)
        assert torch.equal(tables(x), expected) and torch.equal(model(x), expected)
    assert repr(model) == described and sum(isinstance(m, ShuffleUnit) for m in tables.modules()) == 4
    assert all(torch.equal(t, tables.state_dict()[k]) for k, t in model.state_dict().items())
    assert not any(m.training for m in tables.modules()) and cuttable(tables) is tables
    assert all(m.training for m in cuttable(model.train()).modules())


def test_every_stage_is_cut_and_reloads(tmp_path: Path) -> None:
    model = cuttable(shufflenet())
    topology = trace(model, torch.zeros(1, 3, 32, 32))
    assert not {n for n, why in topology.frozen.items() if "network's output" not in why}
    assert {"stage2.0.branch1.2", "stage2.0.branch2.5", "stage3.1.branch2.5"} <= set(topology.by_id)
    for seed in range(6):
        plan = random_plan(topology, 0.2 + 0.1 * seed, np.random.default_rng(seed))
        small = cut(model, topology, plan)
        assert verify(model, topology, plan, small, torch.randn(3, 3, 32, 32)).error < 1e-9
    sizes = [(len(a.sources), len(b.sources)) for a, b in zip(model.modules(), small.modules(), strict=True)
             if isinstance(a, ChannelMap) and isinstance(b, ChannelMap)]  # fmt: skip
    assert sizes and all(b < a for a, b in sizes)


@pytest.mark.slow
def test_torchvisions_own_is_saved_cut_and_reloaded(tmp_path: Path) -> None:
    model = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    file = tmp_path / "shufflenet.pt"
    torch.save(model.state_dict(), file)
    loaded = load(file)
    x = torch.randn(2, 3, 64, 64)
    topology = trace(loaded.model, x[:1])
    assert {n for n, why in topology.frozen.items() if "network's output" not in why} == set()
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    small = cut(loaded.model, topology, plan)
    save(tmp_path / "small.safetensors", small, architecture=Architecture("torchvision:shufflenet_v2_x0_5"), plan=plan)
    again = load(tmp_path / "small.safetensors").model
    with torch.no_grad():
        assert torch.equal(again(x), small(x))
