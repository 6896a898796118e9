"""Everything this package raises on purpose, and how what others raise is told.

    CompressError                what, where, the number seen and wanted; ``hint`` says what to do next
    ├── ModelError               the network itself
    │   ├── CheckpointError      a file that cannot be read as weights
    │   ├── ImportRefused        an ONNX file that cannot be made a network that computes the same
    │   ├── TraceError           a network whose channels cannot be followed
    │   └── UnsupportedLayer     a layer that surgery does not know
    ├── PlanError                a plan that does not fit the network
    ├── GuardError               the cut network does not compute what the masked one does
    ├── SearchError              a search that cannot reach its target
    ├── DataError                images and labels
    ├── TrainError               a schedule or a loss that cannot work
    ├── ProcessLost              another process of the same training that ended, or is silent
    ├── TaskError                what a network is for, and what it returns or is given, do not fit
    ├── ExportError              writing ONNX
    │   └── ParityError          the ONNX file computes something else
    ├── RuntimeUnavailable       an execution provider that is not there
    ├── ServingError             an inference server, or the folder it reads
    │   ├── ServerSilent         nobody answers, or not in time
    │   └── ServerRefused        an answer that says no
    ├── WorkerError              processes that score plans beside this one
    └── ConfigError              options

Foreign exceptions are wrapped where they enter, never deeper.
"""

from __future__ import annotations


class CompressError(Exception):
    """A failure the user can act on.

    Args:
        message: what went wrong, where, the number seen and the number wanted.
        hint: the next thing to try, as a sentence or a command; without one, what is right for the kind of failure.
    """

    exit_code = 3
    cure = "run again with --debug and report what it prints"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.cure

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}"

    def met_in(self, where: object) -> None:
        """Names the file, split or part first that it was met in."""
        self.message = f"{where}: {self.message}"


class ModelError(CompressError):
    """The network cannot be used."""

    cure = "look at it with `compress inspect`"


class CheckpointError(ModelError):
    """A file cannot be read as the weights of a known network."""

    cure = "copy the file again from where it was made, or name the network with --arch"


class ImportRefused(ModelError):
    """An ONNX file cannot be made a network that computes the same."""

    cure = "give the PyTorch weights that it was exported from"


class TraceError(ModelError):
    """The channels of the network cannot be followed."""

    cure = "give a convolutional network that runs on one image batch"


class UnsupportedLayer(ModelError):
    """Surgery meets a layer it does not know."""

    cure = "leave the layer alone with --ignore"


class PlanError(CompressError):
    """A plan does not fit the network it is applied to."""

    cure = "use a plan that compress wrote for this network; `compress inspect` lists its groups"


class GuardError(CompressError):
    """The cut network does not compute what the masked one does."""

    cure = "this is a mistake in compress: please report the network"


class SearchError(CompressError):
    """A search cannot reach its target."""

    cure = "ask for less, or see `compress prune --dry-run` for what can be reached"


class DataError(CompressError):
    """Images or labels cannot be used."""

    cure = "`compress prune --help` says how images are given"


class TrainError(CompressError):
    """A schedule or a loss cannot work."""

    cure = "change the schedule: --epochs, --lr, --batch"


class ProcessLost(CompressError):
    """Another process of the same training ended, or does not answer."""

    exit_code = 8
    cure = "what the other process said comes first; start all of them again: a training goes on where it stopped"


class TaskError(CompressError):
    """What a network is for does not fit what it returns, or what it is given."""

    cure = "name what the network is for with --task; docs/tasks.md lists the tasks"


class ExportError(CompressError):
    """The network cannot be written as ONNX."""

    cure = "try the other exporter: --exporter legacy or dynamo"


class ParityError(ExportError):
    """The ONNX file computes something else than the network."""

    exit_code = 4


class RuntimeUnavailable(CompressError):
    """An execution provider is asked for that this machine cannot run."""

    cure = "see `compress doctor` for what this machine can run"


class ServingError(CompressError):
    """An inference server or its model repository is not as it must be."""


class ServerSilent(ServingError):
    """No answer from an inference server, or none in time."""


class ServerRefused(ServingError):
    """An inference server answers, but not with what was asked for; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class WorkerError(CompressError):
    """A process that scores plans beside this one cannot go on."""

    cure = "fewer workers want less memory: --workers 1; the same command goes on from the journal"


class ConfigError(CompressError):
    """An option has a value that cannot be used."""

    cure = "every option is explained by --help"


def one_line(said: object, most: int | None = 300) -> str:
    """What a foreign error, warning or file says, on one line.

    Args:
        said: an exception, or text; an exception that says nothing is told by its type.
        most: characters; what is longer ends in dots.
    """
    text = " ".join(str(said).split())
    if not text and isinstance(said, BaseException):
        return type(said).__name__
    return text if most is None or len(text) <= most else f"{text[:most]}..."
