"""Shapes asked for, and dimensions that are added, taken away, repeated or changed in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.importing.graph import array_of
from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.tensors import keeps, tensor_of
from compress.importing.sizes import is_sizes, listed, sizes_of

_MOST_PADDED = 65_536


class ShapeOf(nn.Module):
    """The sizes of some dimensions."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Any) -> Any:
        """Plain numbers."""
        return sizes_of([x.shape[i] for i in range(self.first, self.last)])


def shape(node: Node) -> Made:
    """``Shape``."""
    rank = node.rank()
    first, last = (max(0, min(rank, int(n) + rank if n < 0 else int(n)))
                   for n in (node.attribute("start", 0), node.attribute("end", rank)))  # fmt: skip
    return Made(module=ShapeOf(first, last))


class Count(nn.Module):
    """How many numbers a tensor has."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, x: Any) -> Any:
        """A plain number."""
        found: Any = 1
        for i in range(self.rank):
            found = found * x.shape[i]
        return sizes_of([found]).reshape(())


class Transposed(nn.Module):
    """Dimensions in another order."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, x: Any) -> Any:
        """The same numbers."""
        return x.transpose(self.order) if is_sizes(x) else x.permute(self.order)


def transpose(node: Node) -> Made:
    """``Transpose``."""
    rank = node.rank()
    order = tuple(int(n) for n in node.attribute("perm", list(reversed(range(rank)))))
    if sorted(order) != list(range(rank)):
        raise node.refused(f"orders {rank} dimensions as {list(order)[:8]}")
    return Made(module=Transposed(order))


class Squeezed(nn.Module):
    """Dimensions of size 1 taken away."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(sorted(axes, reverse=True))

    def forward(self, x: Any) -> Any:
        """The same numbers."""
        if is_sizes(x):
            return x.reshape(()) if x.shape == (1,) else np.squeeze(x, self.axes)
        for axis in self.axes:
            x = x.squeeze(axis)
        return x


def squeeze(node: Node) -> Made:
    """``Squeeze``."""
    axes, rank = node.numbers("axes", 1), node.rank()
    one, two = node.shapes()
    if axes is None:
        axes = tuple(i for i in range(rank) if one[i] == 1)
    axes = tuple(axis % rank for axis in axes)
    if any(one[axis] != 1 or two[axis] != 1 for axis in axes):
        raise node.refused(f"takes away the dimensions {list(axes)} of {list(one)}, which are not 1")
    return Made(module=Squeezed(axes))


class Unsqueezed(nn.Module):
    """Dimensions of size 1 added."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(sorted(axes))

    def forward(self, x: Any) -> Any:
        """The same numbers."""
        if is_sizes(x):
            return sizes_of([x[()]]) if x.ndim == 0 else np.expand_dims(x, self.axes)
        for axis in self.axes:
            x = x.unsqueeze(axis)
        return x


def unsqueeze(node: Node) -> Made:
    """``Unsqueeze``."""
    axes = node.numbers("axes", 1)
    if not axes:
        raise node.refused("has no axes")
    rank = node.rank() + len(axes)
    if any(not -rank <= axis < rank for axis in axes) or rank > 8:
        raise node.refused(f"adds the dimensions {list(axes)[:8]}")
    return Made(module=Unsqueezed([axis % rank for axis in axes]))


class Expanded(nn.Module):
    """Repeated along dimensions of size 1."""

    def __init__(self, sizes: Sequence[int] | None, value: np.ndarray | None) -> None:
        super().__init__()
        self.sizes, self.constant = None if sizes is None else tuple(sizes), value is not None
        if value is not None:
            keeps(self, "value", value)

    def forward(self, *given: Any) -> Tensor:
        """As large as is wanted, or as it was where that is larger."""
        queue = iter(given)
        x: Tensor = self.state_dict(keep_vars=True)["value"] if self.constant else next(queue)
        wanted = list(self.sizes) if self.sizes is not None else listed(next(queue))
        dims = [1] * (len(x.shape) - len(wanted)) + wanted
        first = len(dims) - len(x.shape)
        return x.expand([-1 if isinstance(n, int) and n == 1 and i >= first else n for i, n in enumerate(dims)])


def expand(node: Node) -> Made:
    """``Expand``."""
    sizes = node.constant(1)
    if sizes is None and not node.sizes(1):
        raise node.refused("computes its shape from values")
    if node.sizes(0):
        raise node.refused("repeats the numbers of a shape")
    value = node.constant(0)
    wanted = None if sizes is None else tuple(int(n) for n in sizes.reshape(-1))
    takes = tuple(place for place in (0, 1) if node.computed(place))
    return Made(module=Expanded(wanted, value), takes=takes, held=() if value is None else (Held(0, "value"),))


class Tiled(nn.Module):
    """Repeated."""

    def __init__(self, times: Sequence[int] | None) -> None:
        super().__init__()
        self.times = None if times is None else tuple(times)

    def forward(self, x: Any, times: Any = None) -> Any:
        """So many times along each dimension."""
        wanted = self.times if self.times is not None else tuple(listed(times))
        return np.tile(x, wanted) if is_sizes(x) else x.repeat(wanted)


def tile(node: Node) -> Made:
    """``Tile``."""
    times = node.constant(1)
    if times is None and node.sizes(1) and node.computed(0):
        return Made(module=Tiled(None), takes=(0, 1))
    if times is None or not node.computed(0):
        raise node.refused("computes how often it repeats, or repeats a constant")
    return Made(module=Tiled([int(n) for n in times.reshape(-1)]))


class Padded(nn.Module):
    """More at the ends of some dimensions."""

    def __init__(self, pads: Sequence[int] | None, mode: str, value: float) -> None:
        super().__init__()
        self.pads, self.mode, self.value = None if pads is None else tuple(pads), mode, value

    def forward(self, x: Tensor, pads: Any = None) -> Tensor:
        """Wider, or narrower where a number is negative."""
        found = list(self.pads) if self.pads is not None else listed(pads)
        count = len(found) // 2
        pairs = [n for i in reversed(range(count)) for n in (found[i], found[count + i])]
        if self.mode == "constant":
            return functional.pad(x, pairs, value=self.value)
        for axis in range(count):
            if found[axis] or found[count + axis]:
                x = self._along(x, axis, found[axis], found[count + axis])
        return x

    def _along(self, x: Tensor, axis: int, before: int, after: int) -> Tensor:
        last = x.movedim(axis, -1)
        wider = functional.pad(last.flatten(0, -2).unsqueeze(0), (before, after), mode=self.mode).squeeze(0)
        return wider.reshape(*last.shape[:-1], -1).movedim(-1, axis)


def pad(node: Node) -> Made:
    """``Pad``."""
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    mode = modes.get(str(node.attribute("mode", "constant")))
    if mode is None or node.computed(2) or node.computed(3):
        raise node.refused("pads in a way that is not known here, or computes what with")
    filler = node.constant(2)
    value = float(filler.reshape(-1)[0]) if filler is not None and filler.size else float(node.attribute("value", 0.0))
    if node.sizes(1) and not node.has(3):
        return Made(module=Padded(None, mode, value), takes=(0, 1))
    pads, rank = node.numbers("pads", 1), node.rank()
    axes = node.numbers("", 3) or tuple(range(rank))
    if pads is None or len(pads) != 2 * len(axes) or any(abs(n) > _MOST_PADDED for n in pads):
        raise node.refused(f"has the pads {list(pads or ())[:8]} for {rank} dimensions")
    every = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        every[axis % rank], every[rank + axis % rank] = pads[i], pads[len(axes) + i]
    if mode != "constant" and (rank < 2 or every[0] or every[rank]):
        raise node.refused(f"reflects examples: {every}")
    return Made(module=Padded(every, mode, value))


class Range(nn.Module):
    """Numbers from one to another."""

    where: Tensor

    def __init__(self, node: Node) -> None:
        super().__init__()
        constants = [node.constant(place) for place in range(3)]
        self.fixed = [None if c is None else c.reshape(-1)[0].item() for c in constants]
        self.register_buffer("where", torch.empty(0), persistent=False)

    def forward(self, *given: Any) -> Tensor:
        """A row."""
        queue = iter(given)
        start, limit, step = (n if n is not None else next(queue).reshape(-1)[0] for n in self.fixed)
        return torch.arange(start, limit, step, device=self.where.device)


def numbers(node: Node) -> Made:
    """``Range`` of sizes."""
    if any(node.computed(place) and not node.sizes(place) for place in range(3)):
        raise node.refused("counts to a value")
    return Made(module=Range(node), takes=tuple(place for place in range(3) if node.computed(place)))


class Filled(nn.Module):
    """A tensor of one number, of a computed shape; a short row of whole numbers stays numbers, for it is part of a shape."""

    value: Tensor

    def __init__(self, value: np.ndarray, row: bool) -> None:
        super().__init__()
        self.register_buffer("value", tensor_of(value.reshape(())), persistent=False)
        self.whole = int(value.item()) if row else None

    def forward(self, sizes: Any) -> Any:
        """The number everywhere."""
        return self.value.expand(listed(sizes)) if self.whole is None else sizes_of([self.whole] * listed(sizes)[0])


_LONGEST_SHAPE = 16
"""Numbers: pads on both ends of eight dimensions."""


def filled(node: Node) -> Made:
    """``ConstantOfShape`` of sizes."""
    if not node.sizes(0):
        raise node.refused("computes its shape from values")
    held = next((array_of(a.t) for a in node.proto.attribute if a.name == "value"), np.zeros(1, np.float32))
    counts = [listed(value) for value in node.values[0] or () if is_sizes(value)]
    row = held.dtype.kind == "i" and len(counts[0]) == 1 and counts[0] == counts[-1] and counts[0][0] <= _LONGEST_SHAPE
    return Made(module=Filled(held.copy(), row))


class Blocks(nn.Module):
    """Channels into pixels, or pixels into channels, in the order of Caffe (``DCR``) or of torch (``CRD``)."""

    def __init__(self, block: int, order: str) -> None:
        super().__init__()
        self.block, self.order = block, order

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        if self.order == "CRD":
            return functional.pixel_shuffle(x, self.block)
        n, c, h, w, b = x.shape[0], x.shape[1], x.shape[2], x.shape[3], self.block
        if self.order == "DCR":
            parts = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
            return parts.reshape(n, c // (b * b), h * b, w * b)
        return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def blocks(node: Node) -> Made:
    """``DepthToSpace`` and ``SpaceToDepth``."""
    block = int(node.attribute("blocksize", 0))
    order = str(node.attribute("mode", "DCR")) if node.kind == "DepthToSpace" else "pixels"
    if node.rank() != 4 or not 1 <= block <= 256 or order not in ("DCR", "CRD", "pixels"):
        raise node.refused(f"has blocks of {block} in {node.rank()} dimensions")
    return Made(module=Blocks(block, order))


MAKERS: Mapping[str, Maker] = {
    "Shape": shape,
    "Size": lambda node: Made(module=Count(node.rank())),
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "Range": numbers,
    "ConstantOfShape": filled,
    "DepthToSpace": blocks,
    "SpaceToDepth": blocks,
}
