"""What a layer's filters see: unfolded inputs, and the weight as the matrix that multiplies them.

One row is a position of the output, its columns what one filter of one conv-group reads there: input channel, then kernel
position. A transposed convolution is a reader like any other: what one of its outputs sees are the inputs that its kernel lays
there, and zeros where the stride leaves a tap without one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from compress.core import READS, Layer

ODD = "it computes something else than its weight says"


def unsupported(module: nn.Module | None, layer: Layer) -> str:
    """Why a layer's inputs cannot be unfolded; empty if they can."""
    if isinstance(module, _ConvTransposeNd) and module.groups > 1 and not layer.depthwise:
        return "a transposed convolution in groups"
    if not isinstance(module, _ConvNd | nn.Linear):
        return "no convolution or linear module holds its weight"
    if "weight" not in module._parameters:
        return "its weight is computed"
    return "a depthwise convolution" if layer.depthwise else ""


def plain(module: nn.Module, x: Tensor, output: Tensor) -> bool:
    """Whether a layer computes what its weight and attributes say, and no subclass pads or standardises on its own."""
    at = torch.linspace(0, map_size(module, output) - 1, min(16, map_size(module, output))).long()
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    try:
        rows = unfold(module, x[:2], output[:2], at)
        said = (rows @ matrix(module)).transpose(0, 1).flatten(1)
    except (IndexError, RuntimeError):
        return False
    done = flat_output(module, output[:2], at)
    said = said if bias is None else said + bias
    return bool((said - done).abs().max() <= 1e-3 * done.abs().max())


def filters(weight: Tensor, layer: Layer) -> Tensor:
    """A layer's weight with what it makes first and what it reads second: a view, of transposed convolutions another one."""
    return weight.transpose(0, 1) if layer.kind == "conv_transpose" else weight


def matrix(module: nn.Module) -> Tensor:
    """A layer's weight as what multiplies :func:`unfold`'s rows, (cardinality, columns, outputs)."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    weight = weight.transpose(0, 1) if isinstance(module, _ConvTransposeNd) else weight
    return weight.reshape(getattr(module, "groups", 1), -1, width(module)).transpose(1, 2)


def shaped(rows: Tensor, module: nn.Module) -> Tensor:
    """The other way: a matrix as :func:`matrix` gives it in the layout of the layer's weight."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    if not isinstance(module, _ConvTransposeNd):
        return rows.transpose(1, 2).reshape(weight.shape)
    return rows.transpose(1, 2).reshape(weight.transpose(0, 1).shape).transpose(0, 1)


def width(module: nn.Module) -> int:
    """Columns of a layer's flattened weight: what one conv-group's filter reads at one position."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight[:, 0].numel() if isinstance(module, _ConvTransposeNd) else weight[0].numel()


def map_size(module: nn.Module, output: Tensor) -> int:
    """At how many positions of one image the layer is applied."""
    return output[0, ..., 0].numel() if isinstance(module, nn.Linear) else output[0, 0].numel()


def unfold(module: nn.Module, x: Tensor, output: Tensor | torch.Size, at: Tensor) -> Tensor:
    """What the layer's filters see at some positions.

    Args:
        module: a convolution or linear layer.
        x: its input.
        output: its output, or the output's shape.
        at: flat positions in the output map.

    Returns:
        (cardinality, n * positions, columns); columns run over input channel, then kernel position, as the weight's do.
    """
    if isinstance(module, nn.Linear):
        reads: Any = getattr(module, READS, None)
        rows = x.reshape(len(x), -1, x.shape[-1])[:, at.to(x.device)].flatten(0, 1)
        return (rows if reads is None else rows.index_select(-1, reads)).unsqueeze(0)
    assert isinstance(module, _ConvNd)
    x, pads = _convolved(module, x)
    shape = output if isinstance(output, torch.Size) else output.shape
    index = torch.zeros(1, 1, dtype=torch.int64)
    inside = torch.ones(1, 1, dtype=torch.bool)
    rest = at
    strides = [int(np.prod(shape[d + 1 :])) for d in range(2, len(shape))]
    transposed = isinstance(module, _ConvTransposeNd)
    if any(pads):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, pads, mode=mode)
    for d, below in enumerate(strides):
        coordinate, rest = rest // below, rest % below
        taps = torch.arange(module.kernel_size[d]) * module.dilation[d]
        if transposed:  # input i is laid at i * stride - padding + tap
            reached = coordinate[:, None] + int(module.padding[d]) - taps
            here = reached // module.stride[d]
            there = (reached % module.stride[d] == 0) & (here >= 0) & (here < x.shape[2 + d])
            here = here.clamp(0, x.shape[2 + d] - 1)
            inside = (inside[:, :, None] & there[:, None, :]).flatten(1)
        else:
            here = (coordinate * module.stride[d])[:, None] + taps  # (positions, kernel)
        index = (index[:, :, None] * x.shape[2 + d] + here[:, None, :]).flatten(1)
    taps_per_channel = index.shape[1]
    seen = x.flatten(2).index_select(2, index.flatten().to(x.device))
    if transposed:
        seen = seen * inside.flatten().to(seen)
    seen = seen.view(len(x), module.groups, -1, len(at), taps_per_channel)  # (n, g, channels, positions, taps)
    return seen.permute(1, 0, 3, 2, 4).reshape(module.groups, len(x) * len(at), -1)


def _convolved(module: _ConvNd, x: Tensor) -> tuple[Tensor, Any]:
    """What a convolution convolves, and the zeros (or whatever its mode says) that come around it.

    A class of its own may select inputs or pad before it convolves (as ``auto_pad`` and timm's ``Conv2dSame`` do): its code
    is run, and what it hands on is taken.
    """
    pads = module._reversed_padding_repeated_twice
    if isinstance(module, _ConvTransposeNd):
        reads: Any = getattr(module, READS, None)
        return x if reads is None else x.index_select(1, reads), ()
    if type(module).forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward):
        return x, pads
    with _Convolution(module.weight) as watching:
        module.forward(x)
    found, padding = watching.found or (x, module.padding)
    if padding == module.padding:
        return found, pads
    return found, [n for n in reversed(padding) for _ in range(2)] if isinstance(padding, tuple) else ()


class _Convolution(TorchFunctionMode):
    """Notes what a convolution with this weight is given, and its padding."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.found: tuple[Tensor, Any] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS:
            given = dict(zip(_CONVOLVES, args, strict=False)) | (kwargs or {})
            if given["weight"] is self.weight:
                self.found = given["input"], given.get("padding", 0)
        return func(*args, **(kwargs or {}))


_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d})
_CONVOLVES = ("input", "weight", "bias", "stride", "padding")


def flat_output(module: nn.Module, output: Tensor, at: Tensor) -> Tensor:
    """What the layer computed at these positions, (n * positions, channels), in the order of :func:`unfold`'s rows."""
    if isinstance(module, nn.Linear):
        return output.reshape(len(output), -1, output.shape[-1])[:, at.to(output.device)].flatten(0, 1)
    return output.flatten(2).index_select(2, at.to(output.device)).transpose(1, 2).flatten(0, 1)
