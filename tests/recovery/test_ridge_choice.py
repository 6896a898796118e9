"""The pull towards old weights: errors on held-out images against least squares itself, and what choosing it is good for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.core.plan import Cut, Plan
from compress.core.topology import GroupId
from compress.coupling.tracer import trace
from compress.recovery.least_squares import from_rows
from compress.recovery.reconstruction import reconstruct
from compress.recovery.ridge_choice import few, held_out_errors, held_out_ridge
from compress.surgery.cutting import cut


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rows", [6, 40])
def test_errors_are_those_of_the_solutions(rows: int, centred: bool) -> None:
    """Few rows and many: what is said of a pull is what the weights solved with it do on the other images."""
    known, other = (drawn(1, 2, rows, 11) + 3, drawn(2, 2, rows, 3)), (drawn(3, 2, 9, 11) + 3, drawn(4, 2, 9, 3))
    ladder = [0.01, 0.3, 5.0]
    for ridge, error in zip(ladder, held_out_errors(known, other, ladder, centred), strict=True):
        found = from_rows(*known, ridge, centred)
        said = other[0] @ found.change + found.intercept[:, None]
        torch.testing.assert_close(error, (other[1] - said).square().sum())


def test_noise_is_not_fitted_and_what_is_there_is() -> None:
    """Residuals that no input explains get the strongest pull, those that inputs explain the weakest; none stays none."""
    inputs = [drawn(image, 1, 1, 12) for image in range(16)]
    weights = drawn(99, 12, 2)
    assert few(16, 12)
    assert held_out_ridge([(u, u @ weights) for u in inputs], 1e-3, True) == 1e-3
    assert held_out_ridge([(u, drawn(100 + n, 1, 1, 2)) for n, u in enumerate(inputs)], 1e-3, True) > 1
    assert held_out_ridge([(u, u @ weights) for u in inputs], 0.0, True) == 0


def test_a_pooled_layer_seen_on_few_images_is_right_on_others() -> None:
    """Behind a global average: images beyond those that it was solved from are nearer than with the smallest pull."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 8)).double()
    topology = trace(model, torch.zeros(1, 3, 8, 8).double())
    plan = Plan({GroupId("0"): Cut(tuple(range(24)))})
    small = cut(model, topology, plan)
    x, others = drawn(5, 28, 3, 8, 8), drawn(6, 200, 3, 8, 8)
    found = reconstruct(model, small, topology, plan, [x])
    with torch.no_grad():
        loose = from_rows(small[:4](x)[None], (model(x) - small(x))[None], 1e-3, True)
        wanted, start = model(others), small(others)
        errors = [
            float((wanted - y).square().sum())
            for y in (found.model(others), start + small[:4](others) @ loose.change[0] + loose.intercept[0])
        ]
    assert found.layers[0].ridge > 1e-3 and errors[0] < 0.9 * errors[1], errors
