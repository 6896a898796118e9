"""What a runtime promises, so that measuring and parity need not know which one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feed = Array | Sequence[Array]  # one array, or one for each input in the order of `inputs_of`
Transfer = Literal["e2e", "device"]  # with the copies from and to the host, or between tensors that already lie on the device
TorchPrecision = Literal["fp32", "tf32", "fp16"]
TORCH_RUNTIMES: Mapping[str, tuple[Literal["cpu", "cuda"], TorchPrecision]] = {
    "torch-cpu": ("cpu", "fp32"),
    "torch-cuda": ("cuda", "fp32"),
    "torch-cuda-tf32": ("cuda", "tf32"),
    "torch-cuda-fp16": ("cuda", "fp16"),
}
"""torch's own runtimes: name -> device and number format."""


@dataclass(frozen=True, slots=True)
class SessionInput:
    """One array that a session takes.

    Attributes:
        name: as the file says.
        shape: its dimensions; None where any number will do.
        dtype: its element type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@runtime_checkable
class Session(Protocol):
    """A loaded network that answers arrays with arrays; one that takes several also has ``inputs``, see :func:`inputs_of`."""

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The first input's dimensions; None where any number will do."""
        ...

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The element type the first input must have."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs, in the order in which ``run`` returns them."""
        ...

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs the network, first choice first: not what was asked for."""
        ...

    @property
    def placement(self) -> Mapping[str, int]:
        """How many nodes each provider got; empty where the runtime does not tell."""
        ...

    @property
    def fallback(self) -> str:
        """Why something else runs than what was asked for; empty when nothing fell back."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The provenance that the file carries; empty where it has none."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """The settings that change how fast it runs, for the record."""
        ...

    def run(self, feed: Feed) -> tuple[Array, ...]:
        """Compute the outputs for one batch."""
        ...

    def prepare(self, feed: Feed, transfer: Transfer = "e2e") -> Callable[[], object]:
        """A call without arguments that runs the network on this batch and returns when it is done, for the stopwatch."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Something that can load an exported file. Extension point: implement this to measure elsewhere."""

    @property
    def name(self) -> str:
        """The short name reports use, e.g. ``ort-cpu``."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads one run may use on the CPU; None where the library decides."""
        ...

    def available(self) -> bool:
        """Whether this machine has the device and the library."""
        ...

    def load(self, path: Path) -> AbstractContextManager[Session]:
        """Open a file for as long as the context lasts."""
        ...


def inputs_of(session: Session) -> tuple[SessionInput, ...]:
    """Everything a session takes, in the order in which it takes it."""
    found: tuple[SessionInput, ...] | None = getattr(session, "inputs", None)
    return found if found is not None else (SessionInput("input", session.input_shape, session.input_dtype),)


def arrays_of(feed: Feed) -> tuple[Array, ...]:
    """The arrays of a feed."""
    return (feed,) if isinstance(feed, np.ndarray) else tuple(feed)
