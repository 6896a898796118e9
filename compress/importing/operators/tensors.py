"""Arrays of a file as tensors of a module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compress.importing.graph import Constant


def tensor_of(array: Constant) -> Tensor:
    """The same numbers in memory of their own; doubles become floats, zeros that take no memory stay so."""
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.size > 1 and all(step == 0 or n == 1 for step, n in zip(array.strides, array.shape, strict=True)):
        return torch.from_numpy(array.reshape(-1)[:1].copy()).reshape(()).expand(array.shape)
    return torch.from_numpy(np.array(array, order="C"))


def parameter(array: Constant) -> nn.Parameter:
    """A weight."""
    return nn.Parameter(tensor_of(array))


def keeps(module: nn.Module, name: str, array: Constant) -> None:
    """A constant of a module: a parameter where it is one number a channel, which training may change; a buffer otherwise."""
    channels = array.dtype.kind == "f" and sum(n > 1 for n in array.shape) == 1
    if channels:
        module.register_parameter(name, parameter(array))
    else:
        module.register_buffer(name, tensor_of(array))
