"""torch itself behind the same Session, for comparing with what runs today."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.runtime.base import Array, Transfer


def tensors(output: object, prefix: str = "output") -> dict[str, Tensor]:
    """The tensors of a network's answer by name, in order: it may be a tensor, a tuple, a dict, or those nested.

    Raises:
        ModelError: there is something else in it; return tensors from ``forward``.
    """
    if isinstance(output, Tensor):
        return {prefix: output}
    if isinstance(output, Mapping):
        parts = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, tuple | list):
        parts = [(f"{prefix}_{index}", value) for index, value in enumerate(output)]
    else:
        raise ModelError(
            f"the network returns {type(output).__name__}, wanted tensors", hint="return a tensor, tuple or dict of them"
        )
    found: dict[str, Tensor] = {}
    for name, value in parts:
        found |= tensors(value, name)
    return found


@dataclass(frozen=True, slots=True)
class EagerSession:
    """A module in evaluation mode on the device where its weights lie."""

    model: nn.Module
    input_shape: tuple[int | None, ...] = (None, 3, None, None)
    _like: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.model.training:
            raise ModelError("the network is in training mode, evaluation mode is wanted", hint="call model.eval() first")
        weights = (tensor for tensor in self.model.parameters() if tensor.is_floating_point())
        object.__setattr__(self, "_like", next(weights, torch.zeros(())))

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The weights' element type."""
        return np.dtype(torch.zeros((), dtype=self._like.dtype).numpy().dtype)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Unknown before it runs: torch does not name them."""
        return ()

    @property
    def providers(self) -> tuple[str, ...]:
        """torch and the kind of device."""
        return (f"torch-{self._like.device.type}",)

    @property
    def placement(self) -> Mapping[str, int]:
        """Empty: torch has no graph to place."""
        return {}

    @property
    def fallback(self) -> str:
        """Never: the device is the caller's choice."""
        return ""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Empty: a module carries none."""
        return {}

    @property
    def options(self) -> Mapping[str, str]:
        """The threads torch uses now."""
        return {"provider": self.providers[0], "threads": str(torch.get_num_threads())}

    def run(self, array: Array) -> tuple[Array, ...]:
        """Compute the outputs for one batch."""
        with torch.inference_mode():
            answer = self.model(torch.from_numpy(array).to(self._like.device))
        return tuple(tensor.cpu().numpy() for tensor in tensors(answer).values())

    def prepare(self, array: Array, transfer: Transfer = "e2e") -> Callable[[], object]:
        """A stopwatch-ready run; on a GPU it returns when the work is done."""
        if transfer == "e2e":
            return lambda: self.run(array)
        batch, device = torch.from_numpy(array).to(self._like.device), self._like.device

        def on_device() -> None:
            with torch.inference_mode():
                self.model(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return on_device


@contextmanager
def session(
    model: nn.Module, *, input_shape: tuple[int | None, ...] = (None, 3, None, None), threads: int | None = 1
) -> Iterator[EagerSession]:
    """A module as a Session, with torch's thread count set for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield EagerSession(model, input_shape)
    finally:
        torch.set_num_threads(before)
