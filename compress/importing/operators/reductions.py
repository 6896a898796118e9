"""Sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.importing.node import Made, Maker, Node
from compress.importing.sizes import is_sizes, sizes_of


class Reduced(nn.Module):
    """A reduction over axes."""

    def __init__(self, kind: str, dims: tuple[int, ...], keep: bool) -> None:
        super().__init__()
        self.kind, self.dims, self.keep = kind, dims, keep

    def forward(self, x: Any) -> Any:
        """One number for all along the axes."""
        if is_sizes(x):
            product = math.prod(x.reshape(-1)) if self.kind == "ReduceProd" else sum(x.reshape(-1))
            return sizes_of([product]) if self.keep else sizes_of([product]).reshape(())
        dims, keep = self.dims, self.keep
        if self.kind == "ReduceProd":
            for dim in sorted(dims, reverse=True):
                x = x.prod(dim, keepdim=keep)
            return x
        if self.kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp"):
            name = {"ReduceMean": "mean", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceLogSumExp": "logsumexp"}[self.kind]
            return getattr(torch, name)(x, dims, keepdim=keep)
        inner = {"ReduceL1": torch.abs, "ReduceL2": torch.square, "ReduceSumSquare": torch.square}.get(self.kind)
        found = (x if inner is None else inner(x)).sum(dims, keepdim=keep)
        outer = {"ReduceL2": torch.sqrt, "ReduceLogSum": torch.log}.get(self.kind)
        return found if outer is None else outer(found)


def reduced(node: Node) -> Made:
    """``ReduceMean`` and its like."""
    axes = node.numbers("axes", 1)
    keep = bool(node.attribute("keepdims", 1))
    if node.sizes():
        if node.kind not in ("ReduceProd", "ReduceSum"):
            raise node.refused("is computed of a shape")
        return Made(module=Reduced(node.kind, (0,), keep))
    rank = node.rank()
    if not axes:
        if int(node.attribute("noop_with_empty_axes", 0)):
            return Made(module=nn.Identity())
        axes = tuple(range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        raise node.refused(f"has the axes {list(axes)[:8]} of {rank}")
    return Made(module=Reduced(node.kind, tuple(sorted({axis % rank for axis in axes})), keep))


class Extreme(nn.Module):
    """Where the largest or smallest number of an axis stands."""

    def __init__(self, largest: bool, axis: int, keep: bool) -> None:
        super().__init__()
        self.largest, self.axis, self.keep = largest, axis, keep

    def forward(self, x: Tensor) -> Tensor:
        """Its index."""
        find = torch.argmax if self.largest else torch.argmin
        return find(x, self.axis, keepdim=self.keep)


def extreme(node: Node) -> Made:
    """``ArgMax`` and ``ArgMin``."""
    if int(node.attribute("select_last_index", 0)):
        raise node.refused("takes the last of equals")
    return Made(module=Extreme(node.kind == "ArgMax", node.axis(), bool(node.attribute("keepdims", 1))))


class Accumulated(nn.Module):
    """Sums of all before."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """The sums."""
        return x.cumsum(self.axis)


def accumulated(node: Node) -> Made:
    """``CumSum``, forwards."""
    axis = node.constant(1)
    if axis is None or int(node.attribute("exclusive", 0)) or int(node.attribute("reverse", 0)):
        raise node.refused("is exclusive, goes backwards, or computes its axis")
    return Made(module=Accumulated(int(axis.reshape(-1)[0]) % node.rank()))


class Best(nn.Module):
    """The largest or smallest numbers of an axis and where they stand."""

    def __init__(self, count: int, axis: int, largest: bool) -> None:
        super().__init__()
        self.count, self.axis, self.largest = count, axis, largest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers and indices."""
        found = x.topk(self.count, self.axis, largest=self.largest)
        return found[0], found[1]


def best(node: Node) -> Made:
    """``TopK`` of a constant number."""
    count = node.constant(1)
    if count is None or not 0 < int(count.reshape(-1)[0]) <= node.shape()[node.axis("axis", -1)]:
        raise node.refused("computes how many it takes, or takes more than there are")
    return Made(module=Best(int(count.reshape(-1)[0]), node.axis("axis", -1), bool(node.attribute("largest", 1))))


MAKERS: Mapping[str, Maker] = {
    **dict.fromkeys(
        (
            "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
            "ReduceLogSum", "ReduceLogSumExp",
        ),
        reduced,
    ),
    "ArgMax": extreme,
    "ArgMin": extreme,
    "CumSum": accumulated,
    "TopK": best,
}  # fmt: skip
