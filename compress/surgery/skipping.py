"""What stands in the place of a module that went with its branch, and a network whose branches contribute nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.core import ACTIVATIONS, SKIPPED, ZEROS, SkippedModule
from compress.errors import PlanError

_MOST = 4
"""Activations that are left of one module, at the most."""
_DONE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "mish": F.mish,
}


class Skipped(nn.Module):
    """A module that is gone: it hands its first input on, through activations at the most, or gives zeros of its shape.

    What it does is in the state_dict, so that a file of the tensors tells it.
    """

    skipped: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer(SKIPPED, codes.clone())
        self.steps = tuple(int(code) for code in codes)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Its first tensor."""
        x: Tensor = next(t for t in (*args, *kwargs.values()) if isinstance(t, Tensor))
        for step in self.steps:
            x = torch.zeros_like(x) if step == ZEROS else _DONE[ACTIVATIONS[step]](x)
        return x

    def extra_repr(self) -> str:
        """Told in ``print(model)``."""
        return ", ".join("zeros" if step == ZEROS else ACTIVATIONS[step] for step in self.steps)


def skip(model: nn.Module, name: str, codes: Tensor) -> None:
    """Puts :class:`Skipped` in a module's place; with the module, everything in it is gone.

    Raises:
        PlanError: there is no such module, or these are no codes.
    """
    parent, _, last = name.rpartition(".")
    if not name or last not in getattr(_found(model, parent), "_modules", {}):
        raise PlanError(f"{name!r} is no module of {type(model).__name__}", hint="save the network anew")
    legal = codes.dtype == torch.int64 and codes.dim() == 1 and 1 <= len(codes) <= _MOST
    if not legal or not bool(((codes >= ZEROS) & (codes < len(ACTIVATIONS))).all()):
        raise PlanError(f"{name}.{SKIPPED} does not say what the module became", hint="save the network anew")
    holder = _found(model, parent)
    assert holder is not None
    made = Skipped(codes)
    made.training = holder._modules[last].training  # type: ignore[union-attr]
    holder._modules[last] = made


def _found(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def codes_of(module: SkippedModule) -> Tensor:
    """What a file says of it."""
    return torch.tensor(module.codes, dtype=torch.int64)


def silence(model: nn.Module, names: Iterable[str]) -> None:
    """From now on these modules give zeros, in the shape of what they compute; in place."""
    for name in names:
        module = model.get_submodule(name)
        kind: Any = type(module)
        module.__class__ = _silent_class(kind)


class _Silent:
    """Runs as ever; its result is zeros."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)  # type: ignore[misc]
        return torch.zeros_like(found)


@cache
def _silent_class(kind: Any) -> type[nn.Module]:
    return type(f"Silent{kind.__name__}", (_Silent, kind), {})
