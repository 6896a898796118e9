"""Small parts that the strange networks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=bias)


def cba(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    return nn.Sequential(conv(i, o, k, s, g), nn.BatchNorm2d(o), act())


def classify(i: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, classes))


class Shown(nn.Module):
    """A stem, the block in question, a convolution behind it and a classifier: everything the block does is read."""

    def __init__(self, width: int, block: nn.Module, out: int) -> None:
        super().__init__()
        self.stem, self.block, self.tail, self.head = cba(3, width), block, cba(out, 16), classify(16)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.tail(self.block(self.stem(x))))


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        structure: what is strange about it; several networks may share it.
        name: this one's.
        make: builds it, untrained.
        shapes: its inputs, one image each.
        other: its inputs at another size; empty where it takes only one.
        named: for a network that takes keywords or a tree of inputs: from tensors to (args, kwargs).
        training: whether training mode can be compared (not where it draws random numbers).
    """

    structure: str
    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((1, 3, 16, 16),)
    other: tuple[tuple[int, ...], ...] = ((1, 3, 24, 20),)
    named: Callable[[tuple[Tensor, ...]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None
    training: bool = True
    tags: tuple[str, ...] = field(default=())


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms with random statistics and scales, nothing near zero: by luck nothing looks right."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr,operator]
                module.running_var.uniform_(0.3, 1.5)  # type: ignore[union-attr,operator]
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        for parameter in model.parameters():
            if parameter.dim() == 0 or parameter.numel() == max(parameter.shape):
                with torch.no_grad():
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    return model
