"""Arithmetic of two values or of one: of tensors, of a tensor and a constant, or of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.activations import Pointwise
from compress.importing.operators.tensors import keeps
from compress.importing.sizes import MOST, Sizes, as_tensor, is_sizes, plain

Function = Callable[[Any, Any], Any]


def _divided(x: Any, y: Any) -> Any:
    if is_sizes(x) and is_sizes(y):
        real = any(isinstance(n, float) for n in (*x.reshape(-1), *y.reshape(-1)))
        return x / y if real else x // y
    whole = isinstance(x, Tensor) and not x.is_floating_point() and not (isinstance(y, Tensor) and y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc") if whole else x / y


def _power(x: Any, y: Any) -> Any:
    return x**y if is_sizes(x) else torch.pow(x, y).to(x.dtype)


def _largest(x: Any, y: Any) -> Any:
    return _each(torch.sym_max, x, y) if is_sizes(x) else torch.maximum(x, y)


def _smallest(x: Any, y: Any) -> Any:
    return _each(torch.sym_min, x, y) if is_sizes(x) else torch.minimum(x, y)


def _each(function: Function, x: Sizes, y: Sizes) -> Sizes:
    made: Sizes = np.frompyfunc(function, 2, 1)(x, y)
    return made if isinstance(made, np.ndarray) else plain(np.array(made))


FUNCTIONS: Mapping[str, Function] = {
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y,
    "Div": _divided,
    "Pow": _power,
    "Max": _largest,
    "Min": _smallest,
}


class BinaryArithmetic(nn.Module):
    """Two values that are both computed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Any, y: Any) -> Any:
        """The result, of sizes where both are."""
        if is_sizes(x) != is_sizes(y):
            x, y = as_tensor(x, y if is_sizes(x) else None), as_tensor(y, x if is_sizes(y) else None)
        made = FUNCTIONS[self.name](x, y)
        return made if not is_sizes(x) or isinstance(made, np.ndarray) else _scalar(made)


def _scalar(value: Any) -> Sizes:
    """A number of no dimensions: NumPy makes a bare one of it."""
    made: Sizes = np.empty((), dtype=object)
    made[()] = value
    return made


class WithNumber(nn.Module):
    """A tensor and one number."""

    def __init__(self, name: str, number: float, left: bool) -> None:
        super().__init__()
        self.name, self.number, self.left = name, number, left

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        if self.name in ("Max", "Min"):
            return torch.clamp(x, min=self.number) if self.name == "Max" else torch.clamp(x, max=self.number)
        if self.name == "Pow":
            return torch.pow(self.number, x) if self.left else torch.pow(x, self.number)
        function = FUNCTIONS[self.name]
        result: Tensor = function(self.number, x) if self.left else function(x, self.number)
        return result


class WithConstant(nn.Module):
    """A tensor and a constant of several numbers, which is cut where it is one a channel."""

    value: Tensor

    def __init__(self, name: str, value: np.ndarray, left: bool) -> None:
        super().__init__()
        self.name, self.left = name, left
        keeps(self, "value", value)

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        function = FUNCTIONS[self.name]
        result: Tensor = function(self.value, x) if self.left else function(x, self.value)
        return result


class WithSizes(nn.Module):
    """Sizes and constant numbers."""

    def __init__(self, name: str, value: Sizes, left: bool) -> None:
        super().__init__()
        self.name, self.value, self.left = name, value, left

    def forward(self, x: Sizes) -> Sizes:
        """The result."""
        function = FUNCTIONS[self.name]
        made = function(self.value, x) if self.left else function(x, self.value)
        return made if isinstance(made, np.ndarray) else _scalar(made)


def binary(node: Node) -> Made:
    """``Add`` and its like, with two inputs."""
    if len(node.constants) != 2:
        return several(node)
    if node.computed(0) and node.computed(1):
        return Made(module=BinaryArithmetic(node.kind), takes=(0, 1))
    place = 0 if node.computed(0) else 1
    constant, left = node.constant(1 - place), place == 1
    if constant is None:
        raise node.refused("lacks an input")
    if node.sizes(place) and constant.size <= MOST:
        return Made(module=WithSizes(node.kind, plain(constant), left), takes=(place,))
    value = node.value(place)
    integral = isinstance(value, Tensor) and not value.is_floating_point()
    numeric = constant.dtype.kind in ("iu" if integral else "f")
    if constant.size == 1 and constant.ndim <= node.rank(place) and numeric and math.isfinite(constant.item()):
        return Made(module=WithNumber(node.kind, constant.item(), left), takes=(place,))
    return Made(module=WithConstant(node.kind, constant, left), takes=(place,), held=(Held(1 - place, "value"),))


class Several(nn.Module):
    """``Sum``, ``Mean``, ``Max`` and ``Min`` of any number of tensors."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *tensors: Tensor) -> Tensor:
        """One after the other."""
        function = FUNCTIONS["Add" if self.name in ("Sum", "Mean") else self.name]
        found = tensors[0]
        for other in tensors[1:]:
            found = function(found, other)
        return found / len(tensors) if self.name == "Mean" else found


def several(node: Node) -> Made:
    """``Sum`` and its like, of what is computed."""
    places = tuple(range(len(node.constants)))
    if not all(node.computed(place) for place in places):
        raise node.refused("has constants among more than two inputs")
    return Made(module=Several(node.kind), takes=places)


class Remainder(nn.Module):
    """What is left over, with the sign of the divisor or, as C has it, of the dividend."""

    def __init__(self, like_c: bool) -> None:
        super().__init__()
        self.like_c = like_c

    def forward(self, x: Any, y: Any) -> Any:
        """The rest."""
        if is_sizes(x):
            return x % y
        return torch.fmod(x, y) if self.like_c else torch.remainder(x, y)


def mod(node: Node) -> Made:
    """``Mod`` of two computed values."""
    if not (node.computed(0) and node.computed(1)):
        raise node.refused("has a constant")
    return Made(module=Remainder(bool(node.attribute("fmod", 0))), takes=(0, 1))


class UnaryArithmetic(nn.Module):
    """One value: sizes, or a tensor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Any) -> Any:
        """The function of it."""
        if not is_sizes(x):
            return getattr(torch, self.name)(x)
        rounding = {"floor": torch.sym_int, "ceil": lambda v: -torch.sym_int(-v) if isinstance(v, float) else v}
        function: Any = rounding.get(self.name) or {"neg": lambda v: -v, "sqrt": math.sqrt, "abs": abs}[self.name]
        made = np.frompyfunc(function, 1, 1)(x)
        return made if isinstance(made, np.ndarray) else _scalar(made)


def _unary(name: str) -> Maker:
    def make(node: Node) -> Made:
        if node.sizes() and name not in ("floor", "ceil", "neg", "abs", "sqrt"):
            raise node.refused("is computed of a shape")
        return Made(module=UnaryArithmetic(name) if name in ("floor", "ceil", "neg", "abs", "sqrt") else Pointwise(name))

    return make


MAKERS: Mapping[str, Maker] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"), binary),
    **dict.fromkeys(("Sum", "Mean"), several),
    "Mod": mod,
    **{
        kind: _unary(name)
        for kind, name in {
            "Abs": "abs", "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal",
            "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin", "Cos": "cos", "Tan": "tan",
            "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh",
        }.items()
    },
}  # fmt: skip
