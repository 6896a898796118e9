"""Everything this package raises on purpose.

    CompressError                what, where, the number seen and wanted; ``hint`` says what to do next
    ├── ModelError               the network itself
    │   ├── CheckpointError      a file that cannot be read as weights
    │   ├── TraceError           a network whose channels cannot be followed
    │   └── UnsupportedLayer     a layer that surgery does not know
    ├── PlanError                a plan that does not fit the network
    ├── GuardError               the cut network does not compute what the masked one does
    ├── SearchError              a search that cannot reach its target
    ├── DataError                images and labels
    ├── TrainError               a schedule or a loss that cannot work
    ├── ExportError              writing ONNX
    │   └── ParityError          the ONNX file computes something else
    ├── RuntimeUnavailable       an execution provider that is not there
    ├── ServingError             an inference server, or the folder it reads
    │   ├── ServerSilent         nobody answers, or not in time
    │   └── ServerRefused        an answer that says no
    └── ConfigError              options

Foreign exceptions are wrapped where they enter, never deeper.
"""

from __future__ import annotations


class CompressError(Exception):
    """A failure the user can act on.

    Args:
        message: what went wrong, where, the number seen and the number wanted.
        hint: the next thing to try, as a sentence or a command.
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ModelError(CompressError):
    """The network cannot be used."""


class CheckpointError(ModelError):
    """A file cannot be read as the weights of a known network."""


class TraceError(ModelError):
    """The channels of the network cannot be followed."""


class UnsupportedLayer(ModelError):
    """Surgery meets a layer it does not know."""


class PlanError(CompressError):
    """A plan does not fit the network it is applied to."""


class GuardError(CompressError):
    """The cut network does not compute what the masked one does."""


class SearchError(CompressError):
    """A search cannot reach its target."""


class DataError(CompressError):
    """Images or labels cannot be used."""


class TrainError(CompressError):
    """A schedule or a loss cannot work."""


class ExportError(CompressError):
    """The network cannot be written as ONNX."""


class ParityError(ExportError):
    """The ONNX file computes something else than the network."""

    exit_code = 4


class RuntimeUnavailable(CompressError):
    """An execution provider is asked for that this machine cannot run."""


class ServingError(CompressError):
    """An inference server or its model repository is not as it must be."""


class ServerSilent(ServingError):
    """No answer from an inference server, or none in time."""


class ServerRefused(ServingError):
    """An inference server answers, but not with what was asked for; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ConfigError(CompressError):
    """An option has a value that cannot be used."""
