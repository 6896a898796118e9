"""Norms: of the batch's statistics, of an instance, of channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.tensors import parameter, tensor_of

_BATCH: Mapping[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: Mapping[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def batch_norm(node: Node) -> Made:
    """``BatchNormalization`` with the statistics that it was trained to."""
    if node.attribute("training_mode", 0) or node.rank() not in _BATCH or any(node.proto.output[1:]):
        raise node.refused(f"is in training mode, or of {node.rank()} dimensions")
    channels = node.shape()[1]
    made = _BATCH[node.rank()](1, eps=float(node.attribute("epsilon", 1e-5)), momentum=0.1)
    made.num_features = channels
    made.weight, made.bias = parameter(node.floats(1, (channels,))), parameter(node.floats(2, (channels,)))
    made.running_mean, made.running_var = tensor_of(node.floats(3, (channels,))), tensor_of(node.floats(4, (channels,)))
    held = (Held(1, "weight"), Held(2, "bias"), Held(3, "running_mean"), Held(4, "running_var"))
    return Made(module=made.eval(), held=held)


def instance_norm(node: Node) -> Made:
    """``InstanceNormalization``."""
    if node.rank() not in _INSTANCE:
        raise node.refused(f"is of {node.rank()} dimensions")
    channels = node.shape()[1]
    made = _INSTANCE[node.rank()](channels, eps=float(node.attribute("epsilon", 1e-5)), affine=True)
    made.weight, made.bias = parameter(node.floats(1, (channels,))), parameter(node.floats(2, (channels,)))
    return Made(module=made, held=(Held(1, "weight"), Held(2, "bias")))


class ScaledLast(nn.Module):
    """A layer norm over several dimensions, or over others than the last, by its definition."""

    weight: Tensor
    bias: Tensor

    def __init__(self, first: int, eps: float, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.first, self.eps = first, eps
        self.weight, self.bias = parameter(weight), parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance over the last dimensions, scaled and shifted."""
        dims = tuple(range(self.first, 0))
        centred = x - x.mean(dims, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + self.eps) * self.weight + self.bias


def layer_norm(node: Node) -> Made:
    """``LayerNormalization``."""
    first = node.axis("axis", -1)
    shape, eps = node.shape()[first:], float(node.attribute("epsilon", 1e-5))
    weight = node.floats(1)
    bias = node.floats(2) if node.has(2) else np.zeros_like(weight)
    held = (Held(1, "weight"), Held(2, "bias")) if node.has(2) else (Held(1, "weight"),)
    if any(node.proto.output[1:]):
        raise node.refused("gives its moments, too")
    if weight.shape != shape or bias.shape != shape:
        return Made(module=ScaledLast(first - node.rank(), eps, weight, bias), held=held)
    made = nn.LayerNorm(shape, eps=eps)
    made.weight = parameter(weight)
    made.bias = parameter(bias) if node.has(2) else None  # type: ignore[assignment]
    return Made(module=made, held=held)


def group_norm(node: Node) -> Made:
    """``GroupNormalization``, whose scale is one number a channel since operator set 21."""
    groups, channels = int(node.attribute("num_groups", 1)), node.shape()[1]
    if not 1 <= groups <= channels or channels % groups or int(node.attribute("stash_type", 1)) != 1:
        raise node.refused(f"has {groups} groups of {channels} channels")
    made = nn.GroupNorm(groups, channels, eps=float(node.attribute("epsilon", 1e-5)))
    if node.opset < 21:
        scales = [np.repeat(node.floats(place, (groups,)), channels // groups) for place in (1, 2)]
        made.weight, made.bias = parameter(scales[0]), parameter(scales[1])
        return Made(module=made)
    made.weight, made.bias = parameter(node.floats(1, (channels,))), parameter(node.floats(2, (channels,)))
    return Made(module=made, held=(Held(1, "weight"), Held(2, "bias")))


class Lrn(nn.Module):
    """Every number over the squares of those in neighbouring channels."""

    def __init__(self, size: int, alpha: float, beta: float, bias: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def forward(self, x: Tensor) -> Tensor:
        """The local response."""
        return nn.functional.local_response_norm(x, self.size, self.alpha, self.beta, self.bias)


def local_response_norm(node: Node) -> Made:
    """``LRN``."""
    size = int(node.attribute("size", 1))
    if not 1 <= size <= 1025 or size % 2 == 0:
        raise node.refused(f"looks at {size} channels")
    get = node.attribute
    return Made(module=Lrn(size, float(get("alpha", 1e-4)), float(get("beta", 0.75)), float(get("bias", 1.0))))


class LpNorm(nn.Module):
    """Every row over its length."""

    def __init__(self, p: int, axis: int) -> None:
        super().__init__()
        self.p, self.axis = p, axis

    def forward(self, x: Tensor) -> Tensor:
        """Rows of length 1."""
        length = x.abs().sum(self.axis, keepdim=True) if self.p == 1 else x.square().sum(self.axis, keepdim=True).sqrt()
        return x / length


def lp_norm(node: Node) -> Made:
    """``LpNormalization``."""
    p = int(node.attribute("p", 2))
    if p not in (1, 2):
        raise node.refused(f"has p={p}")
    return Made(module=LpNorm(p, node.axis("axis", -1)))


MAKERS: Mapping[str, Maker] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "LRN": local_response_norm,
    "LpNormalization": lp_norm,
}
