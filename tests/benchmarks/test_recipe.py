"""The benchmark of the recipe: what is put around a convolution is merged into it; arms are held against their own rate."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import recipe

    return recipe


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_a_convolution_between_two_of_1_x_1_is_merged_into_one(recipe: ModuleType, stride: int, padding: int) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 5, 3, stride, padding, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 1, bias=False))
    images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = plain(images)
        wide = recipe.replaced(plain, nn.Conv2d, recipe.Around)
        torch.testing.assert_close(wide(images), before)  # the identity at first
        for n, tensor in enumerate(wide.parameters()):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(n)))
        trained = wide(images)
        merged = recipe.replaced(wide, recipe.Around, recipe.Around.merged)
        assert sum(p.numel() for p in merged.parameters()) == 3 * 5 * 9 + 5 * 4
        torch.testing.assert_close(merged(images), trained)


def test_an_arm_is_held_against_its_own_learning_rate(recipe: ModuleType) -> None:
    def runs(right: str) -> dict[str, dict[str, str]]:
        return {"0": {"before": right * 100, "after": right * 100}}

    told = {"as it is": "1111", "rate 0.005": "1000", "rate 0.005, labels only": "1100", "labels only": "1110"}
    rows = recipe.table({"0.5": {name: runs(right) for name, right in told.items()}}).splitlines()[2:]
    assert ["+25.00" in row for row in rows] == [False, False, True, False]
    assert "-75.00" in rows[1] and "-25.00" in rows[3] and rows[0].endswith("|  |")
