"""Re-estimation against the definition of an average, and against torch's own cumulative one."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import DataError
from compress.recovery.batch_norm import reestimate


def images(count: int, seed: int = 0, size: int = 6) -> Tensor:
    return 2 + 3 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)
        )
        for norm in (model[1], model[5]):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model


def test_one_batch_gives_its_own_statistics() -> None:
    x = images(20)
    model = net().eval()
    norms = reestimate(model, [x])
    pre = model[0](x)
    torch.testing.assert_close(norms[1].running_mean, pre.mean((0, 2, 3)))
    torch.testing.assert_close(norms[1].running_var, pre.var((0, 2, 3)))
    # The second layer sees what the first one, normalising by its batch and without dropout, hands on.
    inner = model[4](torch.relu(nn.functional.batch_norm(pre, None, None, model[1].weight, model[1].bias, True)))
    torch.testing.assert_close(norms[5].running_mean, inner.mean((0, 2, 3)))


def test_outputs_become_normalised() -> None:
    """In eval mode, over the calibration images, each channel's mean is the bias and its spread the scale."""
    x = images(64)
    model = net().eval()
    out = reestimate(model, [x])(x)
    torch.testing.assert_close(out.mean((0, 2, 3)), model[5].bias, atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), model[5].weight, atol=1e-2, rtol=0)
    assert (model(x).mean((0, 2, 3)) - model[5].bias).abs().max() > 0.5


@settings(deadline=None, max_examples=20)
@given(batches=st.integers(1, 5))
def test_equal_batches_average_as_torch_does_cumulatively(batches: int) -> None:
    parts = [images(8, seed=s) for s in range(batches)]
    oracle = net().eval()
    for norm in (oracle[1], oracle[5]):
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        for part in parts:
            oracle(part)
    found = reestimate(net(), parts)
    for at in (1, 5):
        torch.testing.assert_close(found[at].running_mean, oracle[at].running_mean)
        torch.testing.assert_close(found[at].running_var, oracle[at].running_var)


def test_a_short_last_batch_counts_by_its_images() -> None:
    parts = [images(30, 1), images(2, 2)]
    found = reestimate(net(), parts)
    torch.testing.assert_close(found[1].running_mean, net()[0](torch.cat(parts)).mean((0, 2, 3)))


def test_a_layer_called_twice_averages_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(10 + x)

    parts = [images(8, 1), images(8, 2)]
    found = reestimate(Twice(), parts)
    torch.testing.assert_close(found.norm.running_mean, torch.cat(parts).mean((0, 2, 3)) + 5)


def test_only_the_statistics_of_the_copy_change() -> None:
    model = net().train()
    model[4].eval()
    model[1].momentum = 0.3
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = reestimate(model, [images(8)])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    changed = {k for k, v in found.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"{n}.{s}" for n in (1, 5) for s in ("running_mean", "running_var", "num_batches_tracked")}
    assert [m.training for m in found.modules()] == [m.training for m in model.modules()]
    assert found[1].momentum == 0.3 and not found[1]._forward_pre_hooks


def test_pinned_untracked_and_unreached_norms_stay() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aside = net(), nn.BatchNorm2d(7)
            self.main[1].momentum = 0.0

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.main(x)
            return out

    model = Aside()
    before, after = model.state_dict(), reestimate(model, [images(8)]).state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {f"main.5.{s}" for s in ("running_mean", "running_var", "num_batches_tracked")}
    untracked = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    assert reestimate(untracked, [images(8)])[0].running_mean is None


def test_a_network_without_batch_norm_reads_nothing() -> None:
    def never() -> object:
        raise AssertionError("read")
        yield

    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2))
    found = reestimate(model, never())  # type: ignore[arg-type]
    assert found is not model and torch.equal(found[0].weight, model[0].weight)


def test_too_few_images_are_named() -> None:
    with pytest.raises(DataError, match="no image"):
        reestimate(net(), [])
    with pytest.raises(DataError, match="at least 2"):
        reestimate(net(), [images(1, size=5)])
    with pytest.raises(RuntimeError, match="channels"):
        reestimate(net(), [torch.zeros(4, 1, 6, 6)])
