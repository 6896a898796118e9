"""Padding as convolutions and pools have it in ONNX: two numbers a side, or what the width of the input asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compress.importing.node import Node

_LARGEST = 65_536


@dataclass(frozen=True)
class Padding:
    """How much stands before and behind each side.

    Attributes:
        before: numbers.
        after: numbers.
        same: ``upper`` or ``lower``: so much that the output has ``width / stride``, rounded up; empty otherwise.
        kernel: with its dilation, in pixels.
        stride: of the window.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    same: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether both ends are the same, and known."""
        return not self.same and self.before == self.after

    def around(self, x: Tensor, value: float = 0.0) -> Tensor:
        """The tensor with its padding."""
        pads: list[Any] = []
        for side in reversed(range(len(self.before))):
            pads += self._ends(x.shape[2 + side], side)
        return functional.pad(x, pads, value=value)

    def _ends(self, width: Any, side: int) -> tuple[Any, Any]:
        if not self.same:
            return self.before[side], self.after[side]
        stride = self.stride[side]
        outputs = (width + stride - 1) // stride
        total = torch.sym_max((outputs - 1) * stride + self.kernel[side] - width, 0)
        less = total // 2
        return (less, total - less) if self.same == "upper" else (total - less, less)


def padding_of(node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Padding:
    """The padding of a convolution or pool.

    Raises:
        ImportRefused: it makes no sense.
    """
    count = len(kernel)
    pads = tuple(int(n) for n in node.attribute("pads", [0] * (2 * count)))
    auto = node.attribute("auto_pad", "NOTSET")
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if len(pads) != 2 * count or any(not 0 <= n <= _LARGEST for n in pads):
        raise node.refused(f"has the pads {list(pads)[:8]} for {count} dimensions")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        if all(s == 1 for s in stride):  # known without the width
            total = [n - 1 for n in reach]
            less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
            before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
            return Padding(before=before, after=after, same="", kernel=reach, stride=tuple(stride))
        return Padding(before=(0,) * count, after=(0,) * count, same=auto[5:].lower(), kernel=reach, stride=tuple(stride))
    if auto == "VALID":
        pads = (0,) * (2 * count)
    elif auto not in ("NOTSET", ""):
        raise node.refused(f"has auto_pad={auto!r}")
    return Padding(before=pads[:count], after=pads[count:], same="", kernel=reach, stride=tuple(stride))


def window(node: Node, name: str, count: int, otherwise: int = 1) -> tuple[int, ...]:
    """Strides, dilations or a kernel, one number a side.

    Raises:
        ImportRefused: they are too many, too few, or no sizes.
    """
    found = tuple(int(n) for n in node.attribute(name, [otherwise] * count))
    if len(found) != count or any(not 1 <= n <= _LARGEST for n in found):
        raise node.refused(f"has {name}={list(found)[:8]} for {count} dimensions")
    return found
