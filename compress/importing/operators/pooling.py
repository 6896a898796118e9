"""Pools over windows and over everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.importing.node import Made, Maker, Node
from compress.importing.operators.padding import Padding, padding_of, window

_MAXIMA: Mapping[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS: Mapping[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class MaxPool(nn.Module):
    """The largest number of every window."""

    def __init__(self, around: Padding, kernel: tuple[int, ...], dilation: tuple[int, ...], ceil: bool) -> None:
        super().__init__()
        self.around, self.kernel, self.dilation, self.ceil = around, kernel, dilation, ceil
        self.plain = around.symmetric and all(2 * p <= k for p, k in zip(around.before, kernel, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """The maxima."""
        pads: Any = self.around.before if self.plain else 0
        x = x if self.plain else self.around.around(x, float("-inf"))
        pool = _MAXIMA[len(self.kernel)]
        result: Tensor = pool(x, self.kernel, self.around.stride, pads, self.dilation, ceil_mode=self.ceil)
        return result


class AveragePool(nn.Module):
    """The mean of every window, with what was padded or without it."""

    def __init__(self, around: Padding, kernel: tuple[int, ...], ceil: bool, padded: bool) -> None:
        super().__init__()
        self.around, self.kernel, self.ceil, self.padded = around, kernel, ceil, padded
        self.plain = around.symmetric and all(2 * p <= k for p, k in zip(around.before, kernel, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        pool, stride = _MEANS[len(self.kernel)], self.around.stride
        if self.plain:
            result: Tensor = pool(x, self.kernel, stride, self.around.before, self.ceil, self.padded)
            return result
        found: Tensor = pool(self.around.around(x), self.kernel, stride, 0, self.ceil)
        if self.padded:
            return found
        there = torch.ones_like(x.select(1, 0).unsqueeze(1))
        share: Tensor = pool(self.around.around(there), self.kernel, stride, 0, self.ceil)
        return found / share


def _shared(node: Node) -> tuple[Padding, tuple[int, ...], tuple[int, ...], bool]:
    count = node.rank() - 2
    if count not in _MEANS or any(node.proto.output[1:]) or int(node.attribute("storage_order", 0)):
        raise node.refused(f"pools {count} dimensions, or gives the indices of what it took")
    if node.attribute("kernel_shape") is None:
        raise node.refused("has no kernel_shape")
    kernel = window(node, "kernel_shape", count)
    stride, dilation = window(node, "strides", count), window(node, "dilations", count)
    return padding_of(node, kernel, stride, dilation), kernel, dilation, bool(node.attribute("ceil_mode", 0))


def max_pool(node: Node) -> Made:
    """``MaxPool``."""
    around, kernel, dilation, ceil = _shared(node)
    return Made(module=MaxPool(around, kernel, dilation, ceil))


def average_pool(node: Node) -> Made:
    """``AveragePool``."""
    around, kernel, dilation, ceil = _shared(node)
    if any(n != 1 for n in dilation):
        raise node.refused("is dilated")
    return Made(module=AveragePool(around, kernel, ceil, bool(node.attribute("count_include_pad", 0))))


class Everywhere(nn.Module):
    """The mean or the largest of a channel's whole plane."""

    def __init__(self, name: str, rank: int) -> None:
        super().__init__()
        self.name, self.dims = name, tuple(range(2, rank))

    def forward(self, x: Tensor) -> Tensor:
        """One number a channel, its dimensions kept."""
        return x.mean(self.dims, keepdim=True) if self.name == "mean" else x.amax(self.dims, keepdim=True)


MAKERS: Mapping[str, Maker] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda node: Made(module=Everywhere("mean", node.rank())),
    "GlobalMaxPool": lambda node: Made(module=Everywhere("max", node.rank())),
}
