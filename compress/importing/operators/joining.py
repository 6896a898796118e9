"""Joining and dividing along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import plural
from compress.importing.node import Made, Maker, Node
from compress.importing.operators.comparisons import Constants, together
from compress.importing.sizes import is_sizes


class Joined(Constants):
    """Values side by side; a constant that has one row is repeated for every example.

    Attributes:
        opened: places of numbers that the file has and that became -1, "what is left".
    """

    def __init__(self, node: Node, axis: int, rows: bool) -> None:
        super().__init__(node)
        self.axis, self.rows, self.opened = axis, rows, set[int]()

    def forward(self, *given: Any) -> Any:
        """All of them."""
        values = together(self.values(given))
        if is_sizes(values[0]):
            return np.concatenate(values, axis=self.axis)
        if self.rows:
            count = next(x.shape[0] for x in given if isinstance(x, Tensor))
            values = [x.expand(count, *x.shape[1:]) if held else x for x, held in zip(values, self.held, strict=True)]
        return torch.cat(values, dim=self.axis)


def concat(node: Node) -> Made:
    """``Concat``."""
    first = next(place for place in range(len(node.constants)) if node.computed(place))
    axis = node.axis(rank=node.rank(first))
    constant = [c for p in range(len(node.constants)) if (c := node.constant(p)) is not None]
    rows = axis != 0 and not node.sizes(first) and all(c.ndim and c.shape[0] == 1 for c in constant) and bool(constant)
    made = Joined(node, axis, rows)
    return Made(module=made, takes=made.places(), held=made.tensors())


class EqualParts(nn.Module):
    """Equal parts: how wide they are follows what arrives."""

    def __init__(self, count: int, axis: int) -> None:
        super().__init__()
        self.count, self.axis = count, axis

    def forward(self, x: Any) -> Any:
        """The parts, in order."""
        if is_sizes(x):
            return tuple(np.split(x, self.count, self.axis))
        return x.chunk(self.count, self.axis)


class Parts(nn.Module):
    """Parts of constant sizes, which a cut may change."""

    def __init__(self, sizes: tuple[int, ...], axis: int) -> None:
        super().__init__()
        self.sizes, self.axis = sizes, axis

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts, in order."""
        return torch.split(x, list(self.sizes), self.axis)


def split(node: Node) -> Made:
    """``Split``: equal parts are said to be equal in the file, too, so that they follow a cut."""
    axis, count = node.axis(), len(node.proto.output)
    sizes = node.numbers("split", 1)
    if sizes is not None and len(sizes) != count:
        raise node.refused(f"has {plural(count, 'output')} for {plural(len(sizes), 'part')}")
    if (sizes is None or len(set(sizes)) == 1) and node.shape()[axis] % count == 0:
        equal: list[tuple[str, Any]] = [("num_outputs", count)] if node.opset >= 18 else [("split", None)]
        return Made(module=EqualParts(count, axis), settings=tuple(equal), rows=((1, ()),) if node.has(1) else ())
    if sizes is None:
        part = -(-node.shape()[axis] // count)
        sizes = (*[part] * (count - 1), node.shape()[axis] - part * (count - 1))
    if sum(sizes) != node.shape()[axis] or any(n < 0 for n in sizes):
        raise node.refused(f"divides {node.shape()[axis]} into {list(sizes)[:8]}")
    where: str | int = "split" if node.opset < 13 else 1
    return Made(module=Parts(tuple(sizes), axis), counts=((where, "sizes"),))


MAKERS: Mapping[str, Maker] = {"Concat": concat, "Split": split}
