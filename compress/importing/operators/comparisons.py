"""Comparisons, choices between two values, and changes of type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.activations import Pointwise
from compress.importing.operators.tensors import keeps
from compress.importing.sizes import MOST, Sizes, as_tensor, is_sizes, plain

_FUNCTIONS: Mapping[str, str] = {
    "Equal": "eq", "Greater": "gt", "Less": "lt", "GreaterOrEqual": "ge", "LessOrEqual": "le",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
}  # fmt: skip
TYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64, TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32, TensorProto.BOOL: torch.bool, TensorProto.UINT8: torch.uint8, TensorProto.INT8: torch.int8,
}  # fmt: skip


class Constants(nn.Module):
    """Values of which some are constant, in order.

    Attributes:
        fixed: place -> numbers of sizes; None for a tensor that the module holds, or for what is computed.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.count = len(node.constants)
        self.fixed: list[Sizes | None] = [None] * self.count
        self.held: list[bool] = [False] * self.count
        sized = any(node.sizes(place) for place in range(self.count))
        for place in range(self.count):
            constant = node.constant(place)
            if constant is not None and sized and constant.size <= MOST:
                self.fixed[place] = plain(constant)
            elif constant is not None:
                keeps(self, f"value_{place}", constant)
                self.held[place] = True

    def values(self, given: tuple[Any, ...]) -> list[Any]:
        """All of them."""
        queue = iter(given)
        found = []
        for place in range(self.count):
            fixed = self.fixed[place]
            found.append(fixed if fixed is not None else getattr(self, f"value_{place}") if self.held[place] else next(queue))
        return found

    def places(self) -> tuple[int, ...]:
        """Of what is computed."""
        return tuple(p for p in range(self.count) if self.fixed[p] is None and not self.held[p])

    def tensors(self) -> tuple[Held, ...]:
        """The tensors that it holds."""
        return tuple(Held(p, f"value_{p}") for p in range(self.count) if self.held[p])


def together(values: list[Any]) -> list[Any]:
    """All tensors where one of them is."""
    like = next((x for x in values if isinstance(x, Tensor)), None)
    return values if like is None else [as_tensor(x, like) if is_sizes(x) else x for x in values]


class ComparedNumbers(Constants):
    """Two values, compared number by number."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.name = _FUNCTIONS[node.kind]

    def forward(self, *given: Any) -> Any:
        """Truth values."""
        x, y = together(self.values(given))
        if is_sizes(x):
            return plain(np.asarray(getattr(np, {"eq": "equal", "gt": "greater", "lt": "less"}[self.name])(x, y)))
        return getattr(torch, self.name)(x, y)


class Chosen(Constants):
    """The one or the other, number by number."""

    def forward(self, *given: Any) -> Any:
        """What was chosen."""
        condition, x, y = together(self.values(given))
        if is_sizes(condition):
            made: Sizes = np.where(condition.astype(bool), x, y)
            return made
        return torch.where(condition.to(torch.bool), x, y)


def compared(node: Node) -> Made:
    """``Equal`` and its like."""
    if any(node.sizes(place) for place in range(2)) and node.kind not in ("Equal", "Greater", "Less"):
        raise node.refused("compares shapes")
    made = ComparedNumbers(node)
    return Made(module=made, takes=made.places(), held=made.tensors())


def where(node: Node) -> Made:
    """``Where``."""
    made = Chosen(node)
    return Made(module=made, takes=made.places(), held=made.tensors())


class Cast(nn.Module):
    """Another type of numbers; sizes stay plain numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        """The same in another type."""
        if not is_sizes(x):
            return x.to(self.dtype) if self.dtype != torch.float32 or not x.is_floating_point() else x
        kind: Any = float if self.dtype.is_floating_point else int if self.dtype != torch.bool else bool
        result: Sizes = np.empty(x.shape, dtype=object)
        for index in np.ndindex(x.shape):
            value = x[index]
            plain_number = isinstance(value, bool | int | float)
            result[index] = kind(value) if plain_number else torch.sym_float(value) if kind is float else value
        return result


def cast(node: Node) -> Made:
    """``Cast``."""
    to = int(node.attribute("to", 0))
    if to not in TYPES:
        name = TensorProto.DataType.Name(to) if to in TensorProto.DataType.values() else str(to)
        raise node.refused(f"makes numbers of type {name}")
    return Made(module=Cast(TYPES[to]))


class Not(nn.Module):
    """The opposite."""

    def forward(self, x: Tensor) -> Tensor:
        """Truth values."""
        return torch.logical_not(x)


MAKERS: Mapping[str, Maker] = {
    **dict.fromkeys(_FUNCTIONS, compared),
    "Where": where,
    "Cast": cast,
    "Not": lambda node: Made(module=Not()),
    "IsNaN": lambda node: Made(module=Pointwise("isnan")),
}
