"""Matched inputs: nearer to the statistics than noise, by the definition, and honest where there is nothing to match."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.evaluation.synthetic_images import matched_inputs


def smooth(count: int, side: int = 16) -> Tensor:
    """Images unlike noise: shifted, scaled, blurred."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(count, 3, side // 4, side // 4, generator=draw)
    return 1 + 2 * nn.functional.interpolate(x, (side, side), mode="bilinear")


def net(side: int = 16) -> nn.Sequential:
    """A network whose statistics are those of :func:`smooth`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, stride=2, bias=False),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 4),
        )
        model.train()(smooth(64, side))
    return model.eval()


def distance(model: nn.Sequential, images: Tensor) -> float:
    """The mismatch of the first two layers, from the definition."""
    total = 0.0
    for end in (1, 4):
        x, norm = model[:end](images), model[end]
        sigma = norm.running_var.sqrt()
        mean = ((x.mean((0, 2, 3)) - norm.running_mean) / sigma).square().mean()
        total += float(mean + ((x.std((0, 2, 3)) - sigma) / sigma).square().mean()) / 2
    return total


def test_matched_images_come_nearer() -> None:
    model = net()
    found = matched_inputs(model, (3, 16, 16), 16, seed=1)
    noise = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert distance(model, found.images) < distance(model, noise) / 10
    assert found.matched and found.mismatch is not None and found.mismatch[1] < found.mismatch[0] / 10
    assert found.images.shape == (16, 3, 16, 16) and found.images.dtype == torch.float32 and found.images.is_contiguous()
    assert not found.images.requires_grad


def test_large_images_start_small() -> None:
    """Two phases: the result still has the full size and still matches."""
    model = net(64)
    found = matched_inputs(model, (3, 64, 64), 8, steps=40, fine_steps=5)
    assert found.images.shape == (8, 3, 64, 64)
    assert found.mismatch is not None and found.mismatch[1] < found.mismatch[0] / 5


def test_a_network_of_one_size_is_matched_at_that_size() -> None:
    model = net(64)
    model[6] = nn.MaxPool2d(8)
    with torch.no_grad(), pytest.raises(RuntimeError):
        model(torch.zeros(1, 3, 32, 32))
    found = matched_inputs(model, (3, 64, 64), 4, steps=20)
    assert found.mismatch is not None and found.mismatch[1] < found.mismatch[0] / 3


def test_the_seed_decides_and_nothing_else_changes() -> None:
    model = net().train()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first = matched_inputs(model, (3, 16, 16), 4, seed=1, steps=3).images
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())
    torch.rand(3)
    assert torch.equal(first, matched_inputs(model, (3, 16, 16), 4, seed=1, steps=3).images)
    assert not torch.equal(first, matched_inputs(model, (3, 16, 16), 4, seed=2, steps=3).images)


def test_noise_says_why() -> None:
    untrained = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    broken = net()
    broken[1].running_mean[0] = torch.nan
    cases = {
        "no batch norm": nn.Sequential(nn.Conv2d(3, 4, 3)),
        "no trained statistics": untrained,
        "not finite": broken,
    }
    for why, model in cases.items():
        found = matched_inputs(model, (3, 16, 16), 64, seed=4)
        assert why in found.reason and not found.matched and found.mismatch is None
        assert abs(found.images.mean()) < 0.05 and abs(found.images.std() - 1) < 0.05
        assert torch.equal(found.images, matched_inputs(model, (3, 16, 16), 64, seed=4).images)
    assert "one image" in matched_inputs(net(), (3, 16, 16), 1).reason


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ModelError, match=r"does not take images of shape \(1, 16, 16\)"):
        matched_inputs(net(), (1, 16, 16), 4)
