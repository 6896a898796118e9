"""Kernel mode: zeros per filter, chosen and re-solved in closed form, kept through a training, and never called faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.nets import inputs, traced
from torch import nn

from compress.core.cost import count
from compress.core.restriction import restrict
from compress.recovery.batch_norm import reestimate
from compress.recovery.compensation import RIDGE
from compress.recovery.kernel_sparsity import _without, effective_params, held, zero_kernels
from compress.recovery.moments import collect
from compress.recovery.schedule import Schedule
from compress.recovery.training import fit
from compress.surgery.cutting import cut
from compress.surgery.guard import random_plan


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_least_squares(seed: int) -> None:
    """E(S) and w_K against numpy's own solver on the rows themselves."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    w, left = rng.normal(size=12), rng.random(12) < 0.6
    A = torch.from_numpy(u.T @ u)
    solved, error = _without(torch.from_numpy(w), A, torch.from_numpy(left), True)
    wanted, residual, *_ = np.linalg.lstsq(u[:, left], u @ w, rcond=None)
    np.testing.assert_allclose(solved.numpy()[left], wanted, rtol=1e-8)
    assert not solved.numpy()[~left].any() and error == pytest.approx(float(residual[0]), rel=1e-8)
    plain, more = _without(torch.from_numpy(w), A, torch.from_numpy(left), False)
    assert more == pytest.approx(float(np.sum((u[:, ~left] @ w[~left]) ** 2)), rel=1e-8) and more >= error
    np.testing.assert_array_equal(plain.numpy()[left], w[left])


@pytest.mark.parametrize("name", ["chain", "residual", "dense", "flatten", "option-a"])
def test_every_filter_loses_at_most_delta_of_its_variance(name: str) -> None:
    model, topology = traced(name)
    images = [inputs(name, 32).float()]
    model = reestimate(model, images).eval()
    moments, before = collect(model, topology, images), {k: v.clone() for k, v in model.state_dict().items()}
    counts = []
    for delta in (0.0, 0.02, 0.2):
        found = zero_kernels(model, topology, images, delta)
        counts.append(found.kernels[0])
        state = found.model.state_dict()
        for key, kept in found.kept.items():
            layer = next(x for x in topology.layers if x.weight == key)
            A = moments.layers[layer.name].covariance[0].double()
            A = A + RIDGE * A.diagonal().mean() * torch.eye(len(A))
            old, new = (w[key].double().flatten(1) for w in (before, state))
            lost = ((new - old) @ A * (new - old)).sum(1)
            assert (lost <= delta * ((old @ A) * old).sum(1) + 1e-6 * lost.max().clamp_min(1e-6)).all()
            gone = ~kept.reshape(*kept.shape, *[1] * (state[key].dim() - 2)).expand_as(state[key])
            assert not state[key][gone].any() and kept.any(1).all()
    assert counts[0] >= counts[1] > counts[2]
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


class _Noise:
    """Random images with random labels."""

    digest = "noise"

    def __len__(self) -> int:
        return 64

    def batches(self, batch_size, *, shuffle_seed=None, augment=False, limit=None):
        g = torch.Generator().manual_seed(1)
        for _ in range(64 // batch_size):
            yield (
                torch.randn(batch_size, *inputs("residual", 1).shape[1:], generator=g),
                torch.randint(0, 2, (batch_size,), generator=g),
            )


def test_zeros_survive_a_cut_and_a_training() -> None:
    model, topology = traced("residual")
    images = [inputs("residual", 16).float()]
    plan = random_plan(topology, 0.3, np.random.default_rng(0))
    small = cut(reestimate(model, images), topology, plan).float().eval()
    found = zero_kernels(small, restrict(topology, plan), images, 0.1)
    schedule = Schedule(2, lr=0.05, batch=16, distill=0.0, precision="fp32")
    trained = fit(found.model, _Noise(), schedule, rewrite=held(found.kept))
    free = fit(found.model, _Noise(), schedule)
    for key, kept in found.kept.items():
        zero = ~kept.reshape(*kept.shape, *[1] * (trained.state_dict()[key].dim() - 2)).expand_as(trained.state_dict()[key])
        assert not trained.state_dict()[key][zero].any() and not torch.equal(
            trained.state_dict()[key], found.model.state_dict()[key]
        )
        assert not zero.any() or free.state_dict()[key][zero].any()  # without the hold they would come back
    total = sum(p.numel() for p in trained.parameters())
    assert effective_params(trained) < total == count(topology, plan).params
    assert held(found.kept).identity != held({k: torch.ones_like(v) for k, v in found.kept.items()}).identity


def test_a_dense_weight_counts_every_number_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.fill_(1.0)[0, 0] = 0.0
    assert effective_params(model) == 15
