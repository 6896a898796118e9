"""Reshape: what its constant says of the batch and of the channels is left open where that can be proven.

An exporter that was shown one image writes ``[1, 512, 49]``. Where the first dimension that arrives is the batch and the
product of the others is that of the constant's others, 0 ("as it was") says the same for any batch. And a number of channels
becomes -1 ("what is left") where all others are known: the file then follows a cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from compress.importing.node import Made, Maker, Node
from compress.importing.operators.joining import Joined
from compress.importing.sizes import is_sizes, listed, sizes_of


class Reshaped(nn.Module):
    """Another shape: 0 for a dimension that stays, -1 for what is left.

    Attributes:
        shape: as the file has it.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Any) -> Any:
        """The same numbers."""
        if is_sizes(x):
            return x.reshape(self.shape) if self.shape else sizes_of(listed(x)).reshape(())
        return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(self.shape)])


class ComputedShape(nn.Module):
    """Another shape, of sizes that were computed."""

    def forward(self, x: Any, sizes: Any) -> Any:
        """The same numbers."""
        wanted = listed(sizes)
        if is_sizes(x):
            return x.reshape([int(n) for n in wanted])
        return x.reshape([x.shape[i] if isinstance(n, int) and n == 0 else n for i, n in enumerate(wanted)])


def reshape(node: Node) -> Made:
    """``Reshape``."""
    if node.computed(1):
        if not node.sizes(1):
            raise node.refused("computes its shape from values")
        _open_joined(node)
        return Made(module=ComputedShape(), takes=(0, 1))
    shape = node.numbers("shape", 1)
    if shape is None or (int(node.attribute("allowzero", 0)) and 0 in shape):
        raise node.refused("has no shape, or one with nothing in it")
    if any(n < -1 for n in shape) or shape.count(-1) > 1 or any(n == 0 and i >= node.rank() for i, n in enumerate(shape)):
        raise node.refused(f"has the shape {list(shape)[:8]}")
    if node.sizes():
        return Made(module=Reshaped(shape))
    found = opened(shape, node.shapes(), node.batch)
    if found == shape:
        return Made(module=Reshaped(found))
    return Made(module=Reshaped(found), rows=((1, found),), settings=(("allowzero", None),))  # 0 is "as it was" from now on


def _open_joined(node: Node) -> None:
    """Writes -1 for a constant number of channels among sizes that are computed, where only this node reads them."""
    joined = node.joined.get(node.proto.input[1])
    arriving = node.value(1)
    assert is_sizes(arriving)
    wanted, pair = [int(n) for n in listed(arriving)], node.shapes()
    if not isinstance(joined, Joined) or len(joined.fixed) != len(wanted) or -1 in wanted or 0 in wanted or node.sizes():
        return
    found = opened(tuple(wanted), pair, wanted[0] if wanted[0] == pair[0][0] else 0)
    if -1 not in found:
        return
    place = found.index(-1)
    held = joined.fixed[place]
    if held is not None and held.size == 1:
        joined.fixed[place] = sizes_of([-1])
        joined.opened.add(place)


def opened(shape: tuple[int, ...], arriving: tuple[tuple[int, ...], tuple[int, ...]], batch: int) -> tuple[int, ...]:
    """The same shape with the batch and, where it can be told, the channels left open.

    Args:
        shape: the constant.
        arriving: what arrives, at two batch sizes: where they differ is the batch.
        batch: what the file fixed its batch to; 0 where it left it open.
    """
    one, two = arriving
    if not shape or not one or one[0] == two[0] or one[1:] != two[1:]:
        return shape
    rest, left = math.prod(one[1:]), [n if n != 0 else one[i] for i, n in enumerate(shape)][1:]
    fixed = math.prod(n for n in left if n > 0)
    first = shape[0] in (0, -1) or (batch and shape[0] == batch)
    if not first or fixed == 0 or rest % fixed or (-1 not in left and fixed != rest):
        return shape  # the batch is not the first dimension of the result, or more than the batch meets there
    if -1 in left:
        return (0, *shape[1:])
    place = _channels(left, one[1:])
    return (0, *(-1 if i == place else n for i, n in enumerate(shape[1:])))


def _channels(left: Sequence[int], arriving: Sequence[int]) -> int:
    """The place of the channels: behind the batch where their number stays; else the largest of what is no height or width.

    Whether it was the right one, a trial cut shows; without a cut the shape is the same in any case.
    """
    same = 0
    while same < min(len(left), len(arriving)) - 1 and left[-1 - same] == arriving[-1 - same]:
        same += 1
    before = left[: len(left) - same]
    return 0 if before[0] == arriving[0] else max(range(len(before)), key=lambda i: before[i])


class Flattened(nn.Module):
    """All up to an axis, and all from it on."""

    def __init__(self, axis: int, rank: int) -> None:
        super().__init__()
        self.axis, self.rank = axis, rank

    def forward(self, x: Tensor) -> Tensor:
        """A matrix."""
        if self.axis == 0:
            return x.reshape(1, -1)
        if self.axis == self.rank:
            return x.reshape(-1, 1)
        x = x.flatten(self.axis)
        return x if self.axis == 1 else x.flatten(0, self.axis - 1)


def flatten(node: Node) -> Made:
    """``Flatten``."""
    rank, axis = node.rank(), int(node.attribute("axis", 1))
    if not -rank <= axis <= rank:
        raise node.refused(f"has axis={axis} of {rank} dimensions")
    return Made(module=Flattened(axis if axis >= 0 else axis + rank, rank))


MAKERS: Mapping[str, Maker] = {"Reshape": reshape, "Flatten": flatten}
