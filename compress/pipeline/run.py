"""One run: what it works on, where, and what it found out on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from compress.core import Clock, Listen, Measured, Warned
from compress.data import Data
from compress.evaluation import accuracy
from compress.networks import Network, identity
from compress.pipeline.job import Job
from compress.runtime import OrtRuntime


@dataclass
class Log:
    """What is found out on the way.

    Attributes:
        scores: of the network after each step, in their order.
        warnings: red flags, for the report's top.
        notes: the rest.
    """

    scores: list[Measured] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What the steps of a run share.

    Attributes:
        network: unpruned; where stages are trained, the teacher of them all.
        data: images; None without.
        job: what to do.
        folder: the run's own.
        clock: collects wall times and tells where the run is.
        log: what is found out on the way.
        command: how the user started this.
    """

    network: Network
    data: Data | None
    job: Job
    folder: Path
    clock: Clock = field(default_factory=Clock)
    log: Log = field(default_factory=Log)
    command: str = ""

    @property
    def listen(self) -> Listen:
        """Receives events."""
        return self.clock.listen

    @property
    def identity(self) -> dict[str, str]:
        """Digests of what the run's scores and files stand on; another one of these is another run."""
        return identity(self.network, self.data)

    def judge(self, model: nn.Module, when: str) -> None:
        """Notes the accuracy on the validation split, where there are labels."""
        if self.data is not None and self.data.labelled:
            self.log.scores.append(accuracy(model, self.data.validation).measured(when, "validation"))

    def warn(self, text: str, *, now: bool = False) -> None:
        """A red flag for the report; told to the listener too where the user should know ``now``."""
        self.log.warnings.append(text)
        if now:
            self.listen(Warned(text))

    def note(self, *texts: str) -> None:
        """What the report says besides."""
        self.log.notes += texts

    def runtime(self, name: str) -> OrtRuntime:
        """ONNX Runtime as the job measures on it."""
        return runtime_for(self.job, name)


def runtime_for(job: Job, name: str = "cpu") -> OrtRuntime:
    """ONNX Runtime with a provider of ``compress.runtime.PROVIDERS``, with the job's threads on the CPU.

    That a GPU is required holds for the runtimes that the job names: what is asked of the CPU besides may stay there.
    """
    threads = job.threads if name == "cpu" else None
    return OrtRuntime(provider=name, threads=threads, require_gpu=job.require_gpu and name in job.runtimes)  # type: ignore[arg-type]
