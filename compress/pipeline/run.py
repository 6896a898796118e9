"""One run: what it works on, where, and what it found out on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from compress.core import Clock, Listen, Measured, Step, TaskScore, Warned
from compress.data import Data, Split
from compress.errors import DataError
from compress.evaluation import outputs_apart, score_on
from compress.networks import Network, identity, recognised
from compress.pipeline.job import Job
from compress.recovery import OwnLoop, Signals
from compress.runtime import OrtRuntime
from compress.search import Target
from compress.tasks import Task

_LOST = 1.0
"""The error of outputs that are the mean over the images, whatever the image."""


@dataclass
class Log:
    """What is found out on the way.

    Attributes:
        scores: of the network after each step, in their order.
        steps: every judged network from the cut on, those too that were taken back.
        warnings: red flags, for the report's top.
        notes: the rest.
    """

    scores: list[Measured] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def all_kept(self) -> bool:
        """Whether no recovery was taken back."""
        return all(step.kept for step in self.steps)


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
        held_out: where there are no labels, images that recoveries are compared on; nothing is solved or trained on them.
        train: the user's own training loop; None trains by ours.
        signals: to the other processes that train; None where there are none.
    """

    network: Network
    data: Data | None
    job: Job
    folder: Path
    clock: Clock = field(default_factory=Clock)
    log: Log = field(default_factory=Log)
    command: str = ""
    held_out: Tensor | None = None
    train: OwnLoop | None = None
    signals: Signals | None = None

    @property
    def listen(self) -> Listen:
        """Receives events."""
        return self.clock.listen

    @property
    def identity(self) -> dict[str, str]:
        """Digests of what the run's scores and files stand on; another one of these is another run."""
        return identity(self.network, self.data)

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self.network.purpose

    @property
    def answered(self) -> bool:
        """Whether there are images with targets of the task's kind."""
        return self.data is not None and target_kind(self.data.validation) in self.task.targets

    @property
    def scored(self) -> bool:
        """Whether networks are judged by the task's figure."""
        return self.answered and self.task.figure is not None

    @property
    def goal(self) -> Target:
        """What is searched for; a drop as a fraction, or in the unit of the task's figure."""
        figure = self.task.figure
        if self.job.target == "max_drop" and figure is not None and not figure.share:
            return Target("max_drop", self.job.value)
        return self.job.goal

    def judge(self, model: nn.Module, when: str) -> None:
        """Notes what a network is worth on validation images, where that can be told."""
        score = self._score(model, when)
        if score is not None:
            self.log.steps.append(Step(when, score))

    def better(self, before: nn.Module, after: nn.Module, when: str) -> nn.Module:
        """What a recovery made, unless it is worse than the network that was judged last; then it is taken back, and said.

        Outputs that are further off than a constant answer would be (:data:`_LOST`) tell no better network from a worse one: a
        detector that finds nothing is closer there than one that finds something. Then the recovery stays, unless it doubles
        the error.

        Args:
            before: the network that was judged last.
            after: what the step ``when`` made of it.
            when: the step.
        """
        score = self._score(after, when)
        if score is None:
            return after
        figure = self.task.figure
        last = next((s.score for s in reversed(self.log.steps) if s.kept), math.nan)
        worse = figure.worse(last, score) if self.scored and figure is not None else score - last
        untold = not self.scored and last >= _LOST and score <= 2 * last
        kept = worse <= 0 or math.isnan(last) or untold  # a score of NaN is never kept
        self.log.steps.append(Step(when, score, kept))
        if kept:
            return after
        where = "synthetic inputs" if self.data is None else "validation images"
        said = f"taken back: {when}: {self.told(score)} on {where}, {self.told(last)} before it"
        self.note(said)
        self.listen(Warned(said))
        return before

    def told(self, score: float) -> str:
        """A step's score as a sentence has it."""
        figure = self.task.figure
        return f"{figure.short} {figure.text(score)}" if self.scored and figure is not None else f"output error {score:.3g}"

    def _score(self, model: nn.Module, when: str) -> float | None:
        """By the task's figure, else by the outputs on the images that were held out; None where there is neither."""
        if self.data is not None and self.scored:
            found = measured(score_on(model, self.data.validation, self.task), when, "validation")
            self.log.scores.append(found)
            return found.value
        return None if self.held_out is None else outputs_apart(self.network.model, model, self.held_out)

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


def loop_for(network: Network, train: OwnLoop | None) -> OwnLoop | None:
    """The loop that trains: as given, else the task's own, where it has one."""
    own: OwnLoop | None = getattr(network.purpose, "train", None)
    return own if train is None else train


def with_task(network: Network, data: Data | None, listen: Listen) -> Network:
    """The network with its task, told where it had to be taken for one of which nothing is known.

    Raises:
        DataError: the images are answered with something else than the task is scored on.
    """
    found, said = recognised(network, data)
    if said:
        listen(Warned(said))
    kind = "none" if data is None else target_kind(data.validation)
    if kind not in ("none", *found.purpose.targets):
        raise _not_of(found.purpose, kind)
    return found


def _not_of(task: Task, kind: str) -> DataError:
    """What is said of targets that a task is not scored on."""
    wanted = f"the task {task.name} wants {' or '.join(task.targets)}"
    if kind == "own":
        return DataError(
            f"the batches hold targets of no kind that is known, {wanted}",
            hint="give batches (inputs, targets), or name a task of your own that takes them apart: docs/tasks.md",
        )
    numbers = "give them as float32 if they are numbers; else " if kind == "classes" and "values" in task.targets else ""
    return DataError(
        f"the images are answered with {kind}, {wanted}",
        hint=f"{numbers}name the task that they are for with --task, or give images alone: nothing is scored then",
    )


def target_kind(split: Split) -> str:
    """What a split's images are answered with: ``none``, ``classes``, or another kind of ``compress.data``."""
    return split.target_kind


def measured(found: TaskScore, when: str, split: str) -> Measured:
    """A score as a report keeps it."""
    return Measured(
        when=when,
        split=split,
        value=float(found.value),
        low=float(found.low),
        high=float(found.high),
        images=found.images,
    )


def runtime_for(job: Job, name: str = "cpu") -> OrtRuntime:
    """ONNX Runtime with a provider of ``compress.runtime.PROVIDERS``, with the job's threads on the CPU.

    That a GPU is required holds for the runtimes that the job names: what is asked of the CPU besides may stay there.
    """
    threads = job.threads if name == "cpu" else None
    return OrtRuntime(provider=name, threads=threads, require_gpu=job.require_gpu and name in job.runtimes)  # type: ignore[arg-type]
