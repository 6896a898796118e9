"""Parts of a tensor: slices, and rows picked by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.tensors import keeps, tensor_of
from compress.importing.sizes import Sizes, is_sizes, listed, plain, sizes_of

_FAR = 2**31 - 2
"""Borders beyond it mean the end."""


class Slice(nn.Module):
    """Parts along some axes; borders are constant where no sizes are given.

    Attributes:
        borders: axis -> (start, end, step); start and end are None at the ends.
    """

    def __init__(self, borders: Mapping[int, tuple[int | None, int | None, int]]) -> None:
        super().__init__()
        self.borders = dict(borders)

    def forward(self, x: Any) -> Any:
        """The part."""
        rank = len(x.shape) if is_sizes(x) else 1 + max(self.borders, default=-1)
        parts = [slice(*self.borders.get(axis, (None, None, 1))) for axis in range(rank)]
        if is_sizes(x):
            return x[tuple(parts)]
        for axis, (start, end, step) in self.borders.items():
            if step < 0:
                x = x.flip(axis)
                parts[axis] = slice(start, end, -step)
        return x[tuple(parts)]


class ComputedSlice(nn.Module):
    """Parts along some axes, between borders that are computed of shapes."""

    def __init__(self, axes: Sequence[int], starts: Sizes | None, ends: Sizes | None) -> None:
        super().__init__()
        self.axes, self.starts, self.ends = tuple(axes), starts, ends

    def forward(self, x: Any, *given: Sizes) -> Any:
        """The part."""
        queue = iter(given)
        starts = listed(self.starts if self.starts is not None else next(queue))
        ends = listed(self.ends if self.ends is not None else next(queue))
        parts: list[Any] = [slice(None)] * (1 + max(self.axes))
        for axis, start, end in zip(self.axes, starts, ends, strict=True):
            far = isinstance(end, int) and end > _FAR
            parts[axis] = slice(start, None if far else end)
        return x[tuple(parts)]


def cut_out(node: Node) -> Made:
    """``Slice``."""
    rank = node.rank()
    if any(node.computed(place) and not node.sizes(place) for place in (1, 2)) or node.computed(3) or node.computed(4):
        raise node.refused("computes its borders from values")
    axes, steps = node.numbers("axes", 3), node.numbers("steps", 4)
    if node.computed(1) or node.computed(2):
        held = [None if node.computed(p) or (c := node.constant(p)) is None else plain(c) for p in (1, 2)]
        count = next(len(h) for h in (*held, node.value(1 if node.computed(1) else 2)) if h is not None)
        axes = tuple(a % rank for a in (axes or range(count)))
        if steps is not None and any(step != 1 for step in steps):
            raise node.refused("has steps and borders that are computed")
        return Made(module=ComputedSlice(axes, *held), takes=(0, *(p for p in (1, 2) if node.computed(p))))
    starts, ends = node.numbers("starts", 1), node.numbers("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise node.refused("has no borders")
    axes, steps = axes or tuple(range(len(starts))), steps or (1,) * len(starts)
    if len(axes) != len(starts) or len(steps) != len(starts) or any(not -rank <= a < rank for a in axes) or 0 in steps:
        raise node.refused(f"has the axes {list(axes)[:8]} and steps {list(steps)[:8]}")
    borders: dict[int, tuple[int | None, int | None, int]] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        borders[axis % rank] = _borders(node, start, end, step)
    return Made(module=Slice(borders))


def _borders(node: Node, start: int, end: int, step: int) -> tuple[int | None, int | None, int]:
    if step < 0:
        if not (start == -1 or start > _FAR) or end > -_FAR:
            raise node.refused("goes backwards from or to the middle")
        return None, None, step
    return (None if start == 0 else start), (None if end > _FAR else end), step


class Picked(nn.Module):
    """One index of an axis, which goes."""

    def __init__(self, axis: int, index: int) -> None:
        super().__init__()
        self.axis, self.index = axis, index

    def forward(self, x: Any) -> Any:
        """What stands there."""
        if is_sizes(x):
            made: Sizes = np.empty((), dtype=object)
            made[()] = x[self.index]
            return made if x.ndim == 1 else x[(slice(None),) * self.axis + (self.index,)]
        return x.select(self.axis, self.index)


class Rows(nn.Module):
    """Constant indices of an axis."""

    index: Tensor

    def __init__(self, axis: int, index: np.ndarray) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", tensor_of(index.reshape(-1).astype(np.int64)), persistent=False)
        self.shape = index.shape
        self.numbers = [int(n) for n in index.reshape(-1)]

    def forward(self, x: Any) -> Any:
        """What stands there."""
        if is_sizes(x):
            return sizes_of([x[n] for n in self.numbers]).reshape(self.shape)
        found = x.index_select(self.axis, self.index)
        return found if len(self.shape) == 1 else found.unflatten(self.axis, self.shape)


class RowsOfConstant(nn.Module):
    """Rows of a table by computed number: an embedding."""

    value: Tensor

    def __init__(self, axis: int, value: np.ndarray) -> None:
        super().__init__()
        self.axis = axis
        keeps(self, "value", value)

    def forward(self, index: Tensor) -> Tensor:
        """The rows."""
        found = self.value.index_select(self.axis, index.reshape(-1).to(torch.int64))
        return found if index.dim() == 1 else unfolded(found, self.axis, index)


class ComputedRows(nn.Module):
    """Rows of an activation by computed number."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The rows."""
        found = x.index_select(self.axis, index.reshape(-1).to(torch.int64))
        return found if index.dim() == 1 else unfolded(found, self.axis, index)


def unfolded(x: Tensor, axis: int, like: Tensor) -> Tensor:
    """The shape of indices in the place of the axis along which rows were taken."""
    return x.reshape(*x.shape[:axis], *like.shape, *x.shape[axis + 1 :])


def gather(node: Node) -> Made:
    """``Gather``."""
    axis, index = node.axis(rank=node.rank(0)), node.constant(1)
    if index is None:
        if node.sizes(1):
            raise node.refused("picks by a number that is computed of a shape")
        if (table := node.constant(0)) is not None:
            return Made(module=RowsOfConstant(axis, table), takes=(1,), held=(Held(0, "value"),))
        return Made(module=ComputedRows(axis), takes=(0, 1))
    width = node.shape(0)[axis]
    if index.dtype.kind not in "iu" or (index.size and not -width <= int(index.min()) <= int(index.max()) < width):
        raise node.refused(f"picks indices beyond the {width} of axis {axis}")
    index = np.where(index < 0, index + width, index) if not node.sizes() else index
    return Made(module=Picked(axis, int(index)) if index.ndim == 0 else Rows(axis, index))


class GatheredElements(nn.Module):
    """One number each, by computed index along an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The numbers."""
        return torch.gather(x, self.axis, index.to(torch.int64))


def gather_elements(node: Node) -> Made:
    """``GatherElements`` of computed values."""
    if not (node.computed(0) and node.computed(1)):
        raise node.refused("has constants")
    return Made(module=GatheredElements(node.axis()), takes=(0, 1))


MAKERS: Mapping[str, Maker] = {"Slice": cut_out, "Gather": gather, "GatherElements": gather_elements}
