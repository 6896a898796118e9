"""An evaluator, or anything else of a run, as a file that other processes of the run make it again from."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compress.errors import CompressError, ConfigError, one_line

_ROOM = "make room on the disk, or leave workers out"
_PICKLABLE = (
    "its classes and functions have to stand at the top of a module, none inside a function and no lambda; "
    "or leave workers out: one process needs no copy"
)


def store(path: Path, value: Any, what: str, *, by_value: bool = False) -> None:
    """Writes a value for :class:`Stored`; tensors that share memory share it in the file too.

    Args:
        path: the file.
        value: picklable.
        what: its name in a message.
        by_value: for other machines, by Ray's pickling: classes and functions of the user's own script, which is not there,
            go along.

    Raises:
        ConfigError: it cannot be pickled.
        CompressError: the disk is full.
    """
    try:
        torch.save(value, path, pickle_module=_by_value() if by_value else pickle)
    except OSError as error:
        raise CompressError(f"{path} cannot be written: {error.strerror or error}", hint=_ROOM) from error
    except Exception as error:  # whatever a foreign class raises while it is pickled
        if "PytorchStreamWriter" in str(error):
            raise CompressError(f"{path} cannot be written: {one_line(error)}", hint=_ROOM) from error
        raise ConfigError(f"{what} cannot be sent to another process: {one_line(error)}", hint=_PICKLABLE) from error


def _by_value() -> Any:
    import ray.cloudpickle

    return ray.cloudpickle


@dataclass(frozen=True, slots=True)
class Stored:
    """Makes again, in another process of the same run, what :func:`store` wrote; a worker's ``Recipe``.

    The file is mapped, not read: all processes of one machine share its pages.

    Attributes:
        path: the file, which this run wrote.
        threads: torch computes with, from then on.
    """

    path: str
    threads: int

    def at(self, path: str) -> Stored:
        """The same where the file lies elsewhere, as on another machine."""
        return Stored(path, self.threads)

    def __call__(self) -> Any:
        """The value."""
        torch.set_num_threads(self.threads)
        return torch.load(self.path, map_location="cpu", mmap=True, weights_only=False)
