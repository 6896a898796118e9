"""Random inputs for an imported network, of several kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from compress.importing.network import ImportedNetwork

DTYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32, TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32,
    TensorProto.BOOL: torch.bool, TensorProto.UINT8: torch.uint8, TensorProto.INT8: torch.int8,
}  # fmt: skip
KINDS = ("normal", "unit", "pixels")
"""Normal noise, uniform in [0, 1], and whole numbers up to 255."""


def takes_whole_numbers(network: ImportedNetwork) -> bool:
    """Whether an input is of whole numbers."""
    return any(not DTYPES[value.type.tensor_type.elem_type].is_floating_point for value in network.graph.inputs)


def shape_for(network: ImportedNetwork, name: str, count: int) -> tuple[int, ...]:
    """The shape of an input for so many examples."""
    shape, axis = network.axes.sizes[name], network.axes.inputs[name]
    return tuple(count if i == axis else n for i, n in enumerate(shape))


def random_of(
    network: ImportedNetwork, count: int, kind: str, generator: torch.Generator, *, whole: int = 2
) -> tuple[Tensor, ...]:
    """One tensor for each input; whole numbers are below ``whole``, no larger than their type holds."""
    found: list[Tensor] = []
    for value in network.graph.inputs:
        shape: Any = shape_for(network, value.name, count)
        dtype = DTYPES[value.type.tensor_type.elem_type]
        if not dtype.is_floating_point:
            most = 2 if dtype == torch.bool else min(whole, torch.iinfo(dtype).max + 1)
            found.append(torch.randint(0, most, shape, generator=generator).to(dtype))
        elif kind == "normal":
            found.append(torch.randn(shape, generator=generator))
        else:
            made = torch.rand(shape, generator=generator)
            found.append(made if kind == "unit" else (made * 255).round())
    return tuple(found)
