"""Activations: number by number, or over an axis (softmax)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.tensors import parameter


class HardSigmoid(nn.Module):
    """``min(1, max(0, alpha x + beta))``."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Between 0 and 1."""
        return torch.clamp(x * self.alpha + self.beta, 0.0, 1.0)


class Clip(nn.Module):
    """Between two numbers, either of which may be left out."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Within the bounds."""
        if self.low is None and self.high is None:
            return x
        return torch.clamp(x, self.low, self.high)


class Pointwise(nn.Module):
    """A function of torch, number by number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """The function's values."""
        result: Tensor = getattr(torch, self.name)(x)
        return result


class Thresholded(nn.Module):
    """Itself above a threshold, 0 below."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Large numbers."""
        return torch.where(x > self.alpha, x, torch.zeros_like(x))


class Shrink(nn.Module):
    """Towards 0 by a bias; 0 within a threshold of it."""

    def __init__(self, bias: float, threshold: float) -> None:
        super().__init__()
        self.bias, self.threshold = bias, threshold

    def forward(self, x: Tensor) -> Tensor:
        """Smaller numbers."""
        kept = (x.abs() > self.threshold).to(x.dtype)
        return kept * (x - self.bias * x.sign())


class FlattenedSoftmax(nn.Module):
    """Softmax over an axis and all behind it, as before operator set 13."""

    def __init__(self, axis: int, log: bool) -> None:
        super().__init__()
        self.axis, self.log = axis, log

    def forward(self, x: Tensor) -> Tensor:
        """Shares that sum to 1."""
        flat = x.flatten(self.axis)
        found = functional.log_softmax(flat, dim=-1) if self.log else functional.softmax(flat, dim=-1)
        return found.reshape(x.shape)


class SlopedPerEntry(nn.Module):
    """A leaky ReLU whose slopes are not one a channel."""

    def __init__(self, slope: np.ndarray) -> None:
        super().__init__()
        self.slope = parameter(slope)

    def forward(self, x: Tensor) -> Tensor:
        """Negative numbers times their slopes."""
        return torch.where(x >= 0, x, x * self.slope)


def softmax(node: Node) -> Made:
    """``Softmax`` and ``LogSoftmax``."""
    log = node.kind == "LogSoftmax"
    axis = node.axis("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and axis != node.rank() - 1:
        return Made(module=FlattenedSoftmax(axis, log))
    return Made(module=nn.LogSoftmax(dim=axis) if log else nn.Softmax(dim=axis))


def clip(node: Node) -> Made:
    """``Clip`` between constants."""
    if node.computed(1) or node.computed(2):
        raise node.refused("computes its bounds")
    bounds: list[float | None] = []
    for place, name in ((1, "min"), (2, "max")):
        held = node.constant(place)
        if held is not None and held.size == 1:
            bounds.append(held.item())
        else:
            found = node.attribute(name) if held is None else None
            bounds.append(None if found is None or abs(found) >= 3.4e38 else float(found))
    low, high = bounds
    if (low, high) == (0.0, 6.0):
        return Made(module=nn.ReLU6())
    return Made(module=Clip(low, high))


def prelu(node: Node) -> Made:
    """``PRelu``: one slope a channel, or any that can be broadcast."""
    slope, rank = node.floats(1), node.rank()
    shape = (1,) * (rank - slope.ndim) + slope.shape if slope.ndim <= rank else slope.shape
    per_channel = rank > 1 and len(shape) == rank and slope.size == shape[1] and slope.size in (1, node.shape()[1])
    if not per_channel:
        return Made(module=SlopedPerEntry(slope), held=(Held(1, "slope"),))
    with torch.device("meta"):
        made = nn.PReLU(slope.size)
    made.weight = parameter(np.ascontiguousarray(slope.reshape(-1)))
    place = slope.ndim - (rank - 1)  # of the channels among the slope's own dimensions
    told = tuple(-1 if d == place else 1 for d in range(slope.ndim)) if slope.ndim else (-1,)
    return Made(module=made, held=(Held(1, "weight", shape=told if -1 in told else (-1,)),))


def gelu(node: Node) -> Made:
    """``Gelu``, exact or by a tangent."""
    return Made(module=nn.GELU(approximate=str(node.attribute("approximate", "none"))))


def _of(kind: type[nn.Module]) -> Maker:
    return lambda node: Made(module=kind())


def _number(node: Node, name: str, otherwise: float) -> float:
    return float(node.attribute(name, otherwise))


MAKERS: Mapping[str, Maker] = {
    "Relu": _of(nn.ReLU),
    "Sigmoid": _of(nn.Sigmoid),
    "Tanh": _of(nn.Tanh),
    "HardSwish": _of(nn.Hardswish),
    "Softplus": _of(nn.Softplus),
    "Softsign": _of(nn.Softsign),
    "Mish": _of(nn.Mish),
    "Identity": _of(nn.Identity),
    "Dropout": _of(nn.Identity),
    "Erf": lambda node: Made(module=Pointwise("erf")),
    "LeakyRelu": lambda node: Made(module=nn.LeakyReLU(_number(node, "alpha", 0.01))),
    "Elu": lambda node: Made(module=nn.ELU(_number(node, "alpha", 1.0))),
    "Celu": lambda node: Made(module=nn.CELU(_number(node, "alpha", 1.0))),
    "Selu": _of(nn.SELU),
    "HardSigmoid": lambda node: Made(module=HardSigmoid(_number(node, "alpha", 0.2), _number(node, "beta", 0.5))),
    "ThresholdedRelu": lambda node: Made(module=Thresholded(_number(node, "alpha", 1.0))),
    "Shrink": lambda node: Made(module=Shrink(_number(node, "bias", 0.0), _number(node, "lambd", 0.5))),
    "Gelu": gelu,
    "PRelu": prelu,
    "Clip": clip,
    "Softmax": softmax,
    "LogSoftmax": softmax,
}
