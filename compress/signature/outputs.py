"""A network's answer as named tensors, whatever it nests them in; what is no tensor is left out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from compress.errors import ModelError

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device)
"""What says something about an answer without being part of it."""


def leaves(output: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in an answer that holds nothing else, in order, with the keys, fields and positions that lead to it."""
    if isinstance(output, Mapping):
        parts = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, tuple | list) and not isinstance(output, torch.Size):
        names = getattr(output, "_fields", None) or range(len(output))
        parts = [(str(name), value) for name, value in zip(names, output, strict=True)]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    else:
        yield path, output
        return
    for name, value in parts:
        yield from leaves(value, (*path, name))


def tensors(output: object, prefix: str = "output", taken: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of an answer by name, in order; numbers, text and None among them are left out.

    A tensor in a mapping has its key as its name, one in a sequence its position behind ``prefix``; where that would be
    another one's name, all keys that lead to it.

    Args:
        output: what the network returned.
        prefix: before positions.
        taken: names that no tensor may have.

    Raises:
        ModelError: it holds no tensor, or something else than tensors and numbers; return tensors from ``forward``.
    """
    found = list(leaves(output))
    strange = next((leaf for _, leaf in found if not isinstance(leaf, (Tensor, *_PLAIN))), None)
    kept = [(path, leaf) for path, leaf in found if isinstance(leaf, Tensor)]
    if strange is not None or not kept:
        seen = type(strange if strange is not None else found[0][1]).__name__ if found else f"an empty {type(output).__name__}"
        raise ModelError(
            f"the network returns {seen}, wanted tensors, or tuples, lists and mappings of them",
            hint="wrap the network in a module whose forward returns its tensors",
        )
    short = [_short(path, prefix) for path, _ in kept]
    seen_twice = {name for name, times in Counter(short).items() if times > 1} | set(taken)
    result: dict[str, Tensor] = {}
    for (path, leaf), name in zip(kept, short, strict=True):
        chosen = name if name not in seen_twice else "_".join((prefix, *path))
        while chosen in result or chosen in taken:
            chosen += "_"
        result[chosen] = leaf
    return result


def _short(path: tuple[str, ...], prefix: str) -> str:
    """The last key with the positions behind it: ``boxes``, ``output_0``, ``features_1``."""
    names = [i for i, part in enumerate(path) if not part.isdigit()]
    return "_".join(path[names[-1] :]) if names else "_".join((prefix, *path))


def first_tensor(output: Any) -> Tensor:
    """The answer that a network is judged by: its first tensor with one row an input, else its first tensor.

    Raises:
        ModelError: there is none.
    """
    found = list(tensors(output).values())
    return next((t for t in found if t.dim() > 0 and t.is_floating_point()), found[0])
