"""Folded weights compute the same, and nothing else changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from support.nets import block, conv, head
from torch import nn
from torch.nn.utils import parametrizations, prune

from compress.coupling.tracer import trace
from compress.surgery.parametrizations import folded


def old(norm: Callable[..., nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def made(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(layer)

    return made


def masked(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.4)
    prune.random_unstructured(layer, "bias", 0.4)
    return layer


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight and bias": lambda layer: parametrizations.weight_norm(
        parametrizations.spectral_norm(layer, "weight"), "bias", None
    ),
    "both": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
    "old weight norm": old(nn.utils.weight_norm),
    "old spectral norm": old(nn.utils.spectral_norm),
    "masks": masked,
}


def network(compute: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(block(3, 6), compute(conv(6, 8)), nn.ReLU(), block(8, 6), head(6)).eval()
    x = torch.randn(2, 3, 8, 8)
    model(x)  # old hooks compute on the first call
    return model


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("learns", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_function_stays_and_the_weight_can_be_cut(name: str, learns: bool) -> None:
    model = network(COMPUTED[name])
    for parameter in model[1].parameters():  # type: ignore[index]
        parameter.requires_grad_(learns)
    model[1].train()  # type: ignore[index]
    calls: list[int] = []
    model[1].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index]
    before = {k: t.clone() for k, t in model.state_dict().items()}
    plain = folded(model)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(plain.eval()(x), model(x), rtol=1e-5, atol=1e-6)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert "1.weight" in dict(plain.named_parameters()) and type(plain[1]) is nn.Conv2d  # type: ignore[index]
    assert plain[1].weight.requires_grad == learns and plain[1].weight.is_leaf and calls  # type: ignore[index]
    assert "1" in trace(plain, x[:1]).by_id


def test_modes_survive() -> None:
    model = network(COMPUTED["spectral norm"])
    model[1].train()  # type: ignore[index]
    plain = folded(model)
    assert [m.training for m in plain.modules()] == [m is plain[1] for m in plain.modules()]  # type: ignore[index]


def test_what_computes_nothing_is_left_as_it_is() -> None:
    model = nn.Sequential(block(3, 6), head(6))
    assert folded(model) is model
