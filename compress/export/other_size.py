"""Another height and width than a file was exported for: whether the network takes it, and whether the file does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.errors import ExportError, one_line
from compress.runtime import Array
from compress.signature import bare, signature_of, tensors

_AT_ANOTHER = 4  # images that are compared at another size
SCALES = ((1.5, 1.25), (1.5, 2.0), (2.0, 3.0))
"""What height and width are multiplied with for the second size: no square, and still multiples of what the first are."""


@dataclass(frozen=True)
class OtherSize:
    """Inputs of another height and width than a network is exported for, and what the network answers.

    Attributes:
        inputs: in the order of the network's signature.
        wanted: its outputs by name.
        size: for people.
    """

    inputs: tuple[Tensor, ...]
    wanted: Mapping[str, Array]
    size: str


def other_size(model: nn.Module, images: Tensor) -> OtherSize:
    """The first other size that the network takes.

    Raises:
        ExportError: it takes none, or has no sides; leave the size fixed.
    """
    signature, network = signature_of(model), bare(model)
    rows = images[:_AT_ANOTHER].detach().cpu()
    inputs = (rows,) if signature is None else signature.unpacked(rows)
    batched = [True] if signature is None else [one.batched for one in signature.inputs]
    if not any(b and x.dim() > 2 for b, x in zip(batched, inputs, strict=True)):
        raise ExportError("the network's inputs have no height and width", hint="leave --dynamic-size out")
    where = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    refused = ""
    for scale in SCALES:
        other = tuple(_scaled(x, scale) if b and x.dim() > 2 else x for b, x in zip(batched, inputs, strict=True))
        placed = tuple(x.to(where) for x in other)
        args, kwargs = (placed, {}) if signature is None else signature.arguments(placed)
        try:
            with torch.no_grad():
                answer = network(*args, **kwargs)
        except Exception as error:  # whatever the user's forward raises
            refused = refused or f"{' and '.join(_sides(x) for x in other)}: {one_line(error, 160)}"
            continue
        found = tensors(answer, taken=() if signature is None else signature.names)
        size = " and ".join(dict.fromkeys(_sides(x) for x in other if x.dim() > 2))
        return OtherSize(other, {name: tensor.cpu().numpy() for name, tensor in found.items()}, size)
    raise ExportError(f"the network itself takes no other size ({refused})", hint="leave --dynamic-size out")


def _scaled(x: Tensor, scale: tuple[float, float]) -> Tensor:
    """Inputs of another size: enlarged by whole repetitions and cut, whatever their type."""
    for dim in range(2, x.dim()):
        wanted = max(1, round(x.shape[dim] * scale[(dim - 2) % 2]))
        x = x.index_select(dim, torch.arange(wanted) % x.shape[dim])
    return x.contiguous()


def _sides(x: Tensor) -> str:
    return "x".join(str(size) for size in x.shape[2:])
