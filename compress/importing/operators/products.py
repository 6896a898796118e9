"""Products of matrices: linear layers where one side is constant, plain products otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.importing.node import Held, Made, Maker, Node
from compress.importing.operators.tensors import keeps, parameter


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


class Product(nn.Module):
    """A product of two matrices, or of stacks of them, that are both computed."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Their product."""
        return torch.matmul(x, y)


class ConstantProduct(nn.Module):
    """A product with a constant that is no linear layer's: on the left, or a stack of matrices."""

    value: Tensor

    def __init__(self, value: np.ndarray, left: bool) -> None:
        super().__init__()
        self.left = left
        keeps(self, "value", value)

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return torch.matmul(self.value, x) if self.left else torch.matmul(x, self.value)


def matmul(node: Node) -> Made:
    """``MatMul``."""
    if node.computed(0) and node.computed(1):
        return Made(module=Product(), takes=(0, 1))
    place = 1 if node.computed(0) else 0
    constant = node.floats(place)
    if place == 1 and constant.ndim == 2 and node.rank() > 1:
        weight = parameter(np.ascontiguousarray(constant.T))
        return Made(module=_linear(weight, None), held=(Held(1, "weight", transposed=True),))
    return Made(module=ConstantProduct(constant, left=place == 0), takes=(1 - place,), held=(Held(place, "value"),))


class GeneralProduct(nn.Module):
    """``alpha * op(A) op(B) + beta * C`` of which more than A is computed."""

    def __init__(self, first: bool, second: bool, alpha: float, beta: float) -> None:
        super().__init__()
        self.first, self.second, self.alpha, self.beta = first, second, alpha, beta

    def forward(self, x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
        """The sum."""
        found = self.alpha * ((x.t() if self.first else x) @ (y.t() if self.second else y))
        return found if z is None else found + self.beta * z


def gemm(node: Node) -> Made:
    """``Gemm``."""
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    first, second = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    if node.computed(1) or first or node.computed(2) or not node.computed(0):
        if not all(node.computed(place) for place in range(len(node.constants)) if node.has(place)):
            raise node.refused("multiplies computed matrices and constants in a way that is not known here")
        return Made(module=GeneralProduct(first, second, alpha, beta), takes=tuple(p for p in range(3) if node.has(p)))
    weight = node.floats(1) * np.float32(alpha) if alpha != 1 else node.floats(1)
    if weight.ndim != 2:
        raise node.refused(f"has a weight {list(weight.shape)}")
    matrix = weight if second else np.ascontiguousarray(weight.T)
    held, bias = [Held(1, "weight", transposed=not second)], None
    if node.has(2):
        row = (node.floats(2) * np.float32(beta) if beta != 1 else node.floats(2)).reshape(-1)
        if row.size not in (1, matrix.shape[0]) or node.floats(2).size != max(node.floats(2).shape[-1:], default=1):
            raise node.refused(f"adds a constant of shape {list(node.floats(2).shape)} to rows of {matrix.shape[0]}")
        bias = parameter(np.ascontiguousarray(np.broadcast_to(row, matrix.shape[:1])))
        held.append(Held(2, "bias"))
    return Made(module=_linear(parameter(matrix), bias), held=tuple(held), settings=(("alpha", 1.0), ("beta", 1.0)))


class Einsum(nn.Module):
    """A sum of products by a formula."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, *tensors: Tensor) -> Tensor:
        """The sum."""
        return torch.einsum(self.equation, *tensors)


def einsum(node: Node) -> Made:
    """``Einsum`` of what is computed."""
    places = tuple(range(len(node.constants)))
    if not all(node.computed(place) for place in places):
        raise node.refused("has constants among its factors")
    equation = str(node.attribute("equation", ""))
    if len(equation) > 200:
        raise node.refused(f"has a formula of {len(equation)} characters")
    return Made(module=Einsum(equation), takes=places)


MAKERS: Mapping[str, Maker] = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum}
