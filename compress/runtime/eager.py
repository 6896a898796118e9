"""A module in memory as a session: what files are compared with, and what torch's own runtimes measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.runtime.base import Array, Feed, Transfer, arrays_of
from compress.signature import signature_of, tensors


@dataclass(frozen=True, slots=True)
class EagerSession:
    """A module in evaluation mode on the device where its weights lie; one that takes rows is given rows."""

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

    def run(self, feed: Feed) -> tuple[Array, ...]:
        """Compute the outputs for one batch."""
        with torch.inference_mode():
            answer = self.model(*self.placed(feed))
        taken = signature.names if (signature := signature_of(self.model)) is not None else ()
        return tuple(tensor.cpu().numpy() for tensor in tensors(answer, taken=taken).values())

    def prepare(self, feed: Feed, transfer: Transfer = "e2e") -> Callable[[], object]:
        """A stopwatch-ready run; on a GPU it returns when the work is done."""
        if transfer == "e2e":
            return lambda: self.run(feed)
        batch, device = self.placed(feed), self._like.device

        def on_device() -> None:
            with torch.inference_mode():
                self.model(*batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return on_device

    def placed(self, feed: Feed) -> list[Tensor]:
        """The arrays where the weights lie."""
        return [torch.from_numpy(array).to(self._like.device) for array in arrays_of(feed)]
