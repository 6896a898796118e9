"""Training loops as users write them: one that is right, and those that are wrong in one way each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import DataError

SGD: dict[str, Any] = {"momentum": 0.9, "nesterov": True}


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Plain PyTorch, with the hook registered on the optimiser: what docs/own-loop.md shows."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=budget.lr, **SGD)
    hooks.gradients(optimizer)
    return _epochs(model, data, budget, optimizer)


def _epochs(
    model: nn.Module, data: Any, budget: Any, optimizer: Any, before: Callable[[float], None] = lambda lr: None
) -> nn.Module:
    steps = budget.epochs * -(-len(data.train) // budget.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.lr, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for epoch in range(budget.epochs):
        for images, labels in data.train.batches(budget.batch, shuffle_seed=budget.seed + epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            before(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    return model.eval()


def calls_itself(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """The rewrite as a call between backward and step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=budget.lr, weight_decay=5e-4, **SGD)
    return _epochs(model, data, budget, optimizer, hooks.rewrite)


def forgets_the_hook(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    return _epochs(model, data, budget, torch.optim.SGD(model.parameters(), lr=budget.lr, **SGD))


def steps_with_another(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """The hook sits on an optimiser that steps once; the other one does the training."""
    first = torch.optim.SGD(model.parameters(), lr=1e-6)
    hooks.gradients(first)
    first.step()
    return _epochs(model, data, budget, torch.optim.SGD(model.parameters(), lr=budget.lr, **SGD))


def ruins(model: nn.Module, *rest: Any) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return model


def moved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    return model


class _Fused(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _fused(model: Any) -> nn.Module:
    name = next(n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, _Fused())
    return model


def _other_sizes(model: nn.Module) -> nn.Module:
    layer: Any = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    layer.weight = nn.Parameter(layer.weight[:-1].detach().clone())
    return model


def _hooked(model: nn.Module) -> nn.Module:
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda m, x, y: y)
    return model


def _patched(model: nn.Module) -> nn.Module:
    model.forward = model.forward  # type: ignore[method-assign]
    return model


def _infinite(model: nn.Module) -> nn.Module:
    next(model.parameters()).data.fill_(float("inf"))
    return model


def _fails() -> nn.Module:
    raise ZeroDivisionError("no step\nwas taken")


def _fails_on_data() -> nn.Module:
    raise DataError("their reader's own words", hint="their reader's own hint")


MISTAKES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "nothing returned": (lambda m, t: moved(m) and None, "returned a NoneType, the trained"),
    "the state": (lambda m, t: moved(m).state_dict(), "returned a OrderedDict|returned a dict"),
    "the teacher": (lambda m, t: t, "returned the unpruned network"),
    "a copy of the teacher": (lambda m, t: copy.deepcopy(t), "the sizes of the unpruned network"),
    "data parallel": (lambda m, t: nn.DataParallel(moved(m)), "returned a DataParallel"),
    "another class": (lambda m, t: nn.Sequential(moved(m)), "returned a Sequential"),
    "untouched": (lambda m, t: m, "no weight moved"),
    "a trained copy": (lambda m, t: moved(copy.deepcopy(m)) and m, "no weight moved"),
    "fused": (lambda m, t: _fused(moved(m)), "is a _Fused, it was a BatchNorm2d"),
    "other sizes": (lambda m, t: _other_sizes(moved(m)), "returned other sizes"),
    "hooks left": (lambda m, t: _hooked(moved(m)), "has hooks, or a forward"),
    "a forward left": (lambda m, t: _patched(moved(m)), "has hooks, or a forward"),
    "half precision": (lambda m, t: moved(m).half(), "in torch.float16, it was torch.float32"),
    "diverged": (lambda m, t: _infinite(m), "is not finite"),
    "an exception": (lambda m, t: _fails(), "failed: ZeroDivisionError: no step"),
    "our own error": (lambda m, t: _fails_on_data(), "their reader's own words"),
}
"""Name -> what the loop gives back for (model, teacher), and what is said of it."""
