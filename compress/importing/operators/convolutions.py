"""Convolutions, forward and transposed, of one to three dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.padding import Padding, padding_of, window
from compress.importing.operators.tensors import parameter

_KINDS: Mapping[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Mapping[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class _Padded:
    """A convolution with other padding before than behind."""

    around: Padding

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.around.around(input))  # type: ignore[misc,no-any-return]


class PaddedConv1d(_Padded, nn.Conv1d):
    """Of one dimension."""


class PaddedConv2d(_Padded, nn.Conv2d):
    """Of two dimensions."""


class PaddedConv3d(_Padded, nn.Conv3d):
    """Of three dimensions."""


_PADDED: Mapping[int, type[nn.Module]] = {1: PaddedConv1d, 2: PaddedConv2d, 3: PaddedConv3d}


def conv(node: Node) -> Made:
    """``Conv``."""
    weight, cardinality = _weight(node)
    count = weight.ndim - 2
    stride, dilation = window(node, "strides", count), window(node, "dilations", count)
    around = padding_of(node, weight.shape[2:], stride, dilation)
    incoming = weight.shape[1] * cardinality
    if node.rank() != weight.ndim or node.shape()[1] != incoming or weight.shape[0] % cardinality:
        raise node.refused(f"has a weight {list(weight.shape)} for inputs {list(node.shape())} in {cardinality} groups")
    kind = (_KINDS if around.symmetric else _PADDED)[count]
    made = _module(
        kind,
        (incoming, weight.shape[0], weight.shape[2:]),
        stride=stride,
        padding=around.before if around.symmetric else 0,
        dilation=dilation,
        groups=cardinality,
    )
    if not around.symmetric:
        made.around = around
    return _filled(node, made, weight.shape[0])


def conv_transpose(node: Node) -> Made:
    """``ConvTranspose``."""
    weight, cardinality = _weight(node)
    count = weight.ndim - 2
    stride, dilation = window(node, "strides", count), window(node, "dilations", count)
    extra = tuple(int(n) for n in node.attribute("output_padding", [0] * count))
    around = padding_of(node, weight.shape[2:], stride, dilation)
    shaped = node.attribute("output_shape")
    if shaped is not None or around.same or len(extra) != count or any(not 0 <= n < 4096 for n in extra):
        raise node.refused("says the size of its output in a way that is not known here (output_shape, auto_pad)")
    if node.rank() != weight.ndim or node.shape()[1] != weight.shape[0] or weight.shape[0] % cardinality:
        raise node.refused(f"has a weight {list(weight.shape)} for inputs {list(node.shape())} in {cardinality} groups")
    lessened = tuple(a - b for a, b in zip(around.after, around.before, strict=True))  # torch has one padding for both ends
    extra = tuple(e - d for e, d in zip(extra, lessened, strict=True))
    if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise node.refused(f"has the pads {list(around.before)} and {list(around.after)}, which cannot be had")
    made = _module(
        _TRANSPOSED[count],
        (weight.shape[0], weight.shape[1] * cardinality, weight.shape[2:]),
        stride=stride,
        padding=around.before,
        output_padding=extra,
        dilation=dilation,
        groups=cardinality,
    )
    return _filled(node, made, weight.shape[1] * cardinality)


def _weight(node: Node) -> tuple[Any, int]:
    weight, cardinality = node.floats(1), int(node.attribute("group", 1))
    if weight.ndim not in (3, 4, 5) or not 1 <= cardinality <= max(weight.shape[0], 1) or 0 in weight.shape:
        raise node.refused(f"has a weight {list(weight.shape)} in {cardinality} groups")
    return weight, cardinality


def _module(kind: type[nn.Module], sizes: tuple[Any, ...], **options: Any) -> Any:
    """Without weights of its own, which nobody would read."""
    with torch.device("meta"):
        return kind(*sizes, bias=False, **options)


def _filled(node: Node, made: Any, channels: int) -> Made:
    held = [Held(1, "weight")]
    made.weight = parameter(node.floats(1))
    if node.has(2):
        made.bias = parameter(node.floats(2, (channels,)))
        held.append(Held(2, "bias"))
    return Made(module=made, held=tuple(held), counts=(("group", "groups"),))


MAKERS: Mapping[str, Maker] = {"Conv": conv, "ConvTranspose": conv_transpose}
