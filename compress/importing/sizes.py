"""Sizes while they are computed: what a graph derives from shapes stays plain numbers and never becomes a tensor.

A graph that asks for the shape of an activation, picks a number out of it and reshapes by that would, done in tensors, branch
on values: exporters and tracers stop there. Here such values are NumPy arrays of Python's own numbers (or of whatever stands
for them while a network is traced), and operators on them are Python's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypeIs

Sizes: TypeAlias = NDArray[Any]
"""Numbers of any shape, of dtype object."""
MOST = 4096
"""Numbers of a constant that may take part in computing sizes."""


def is_sizes(value: Any) -> TypeIs[Sizes]:
    """Whether a value is numbers and not a tensor."""
    return isinstance(value, np.ndarray)


def sizes_of(values: Sequence[Any]) -> Sizes:
    """A row of numbers."""
    result = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        result[index] = value
    return result


def plain(array: NDArray[Any]) -> Sizes:
    """A constant as Python's numbers."""
    result: Sizes = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        result[index] = array[index].item()
    return result


def listed(sizes: Sizes) -> list[Any]:
    """The numbers in a row, whole ones as such."""
    return [int(value) if isinstance(value, float) else value for value in sizes.reshape(-1)]


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """A tensor, of whatever it was; next to another tensor, on its device and, among floating-point numbers, of its type."""
    if isinstance(value, np.ndarray):
        held = value.tolist()
        value = torch.tensor(held, device=None if like is None else like.device)
        if like is not None and like.is_floating_point() and value.is_floating_point():
            value = value.to(like.dtype)
    result: Tensor = value
    return result
