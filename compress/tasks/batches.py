"""Batches of any structure: what a network is called with, which images of them, where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from compress.data import examples_in
from compress.errors import DataError

_HINT = "give batches (inputs, targets), or a task whose inputs() says what the network is called with"


def arguments_in(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a network is called with, of a batch ``(inputs, targets)`` or of inputs alone.

    The inputs are a tensor, a tuple or list of arguments, or a mapping of named ones.
    """
    inputs = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    raise DataError(f"a batch holds {type(inputs).__name__} where a network's inputs are wanted", hint=_HINT)


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device, images channels last."""

    def there(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        kept = torch.channels_last if leaf.dim() == 4 and leaf.is_floating_point() else torch.preserve_format
        return leaf.to(device, non_blocking=True, memory_format=kept)

    return tree_map(there, batch)


def single(raw: Any) -> Any:
    """An answer with its floating-point tensors in single precision."""
    return tree_map(lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, raw)


def cut_out(batch: Any, wanted: slice) -> Any:
    """Some images of a batch: of every tensor, and of every list with an entry an image, those rows."""
    count = examples_in(batch)

    def rows(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[wanted] if value.dim() and len(value) == count else value
        if isinstance(value, Mapping):
            return {k: rows(v) for k, v in value.items()}
        if isinstance(value, list) and len(value) == count and not any(isinstance(v, Tensor) for v in value):
            return value[wanted]
        if isinstance(value, tuple | list):
            return type(value)(*map(rows, value)) if hasattr(value, "_fields") else type(value)(map(rows, value))
        return value

    return rows(batch)


def first_of(batches: Iterable[Any], images: int) -> Iterator[Any]:
    """Batches of the first so many images; 0 is all of them."""
    left = images or -1
    for batch in batches:
        if left == 0:
            return
        count = examples_in(batch)
        if 0 < left < count:
            yield cut_out(batch, slice(left))
            return
        left -= count if left > 0 else 0
        yield batch
