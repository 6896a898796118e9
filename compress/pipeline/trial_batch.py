"""One batch, before any long work: does the network fit its task, and does the task have what the job asks of it?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compress.data import examples_in
from compress.errors import CompressError, ConfigError, TaskError, one_line
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.signature import bare
from compress.surgery import own_tensors
from compress.tasks import Task

_IMAGES = 8


def check_asked(task: Task, job: Job, *, scored: bool) -> None:
    """Whether the task can say what the job's target is held against, and what its training minimises.

    Args:
        task: what the network is for.
        job: what is asked for.
        scored: whether there are images with the task's targets.

    Raises:
        ConfigError: it cannot, or the drop that is allowed is implausible.
    """
    if job.target == "max_drop":
        figure = task.figure
        if figure is None:
            raise ConfigError(
                f"--max-drop is in the unit of what is scored, and the task {task.name} scores nothing",
                hint="say what the network is for with --task, or give --macs or --params",
            )
        if figure.share and job.value > 100:
            raise ConfigError(
                f"target max_drop is {job.value:g} points of {figure.name}, but must be at most 100", hint="--max-drop 1.0"
            )
        if not scored and task.bounded != figure:
            raise ConfigError(
                f"--max-drop is about {figure.name}, which nothing bounds without targets",
                hint=f"give images with their {' or '.join(task.targets)}, or --macs or --params",
            )
    trains = job.epochs is None or job.epochs > 0 or job.stage_epochs > 0
    if trains and job.distill == 0 and not task.has("loss"):
        raise ConfigError(
            f"the task {task.name} has no loss, and the unpruned network is not to be imitated: there is nothing to train by",
            hint="leave --no-distill out, give the task loss(raw, batch), or --epochs 0",
        )


def try_batch(run: Run) -> None:
    """Runs the network on one batch, as its task calls it, and looks at everything that the task says of the answer.

    Raises:
        TaskError: outputs or targets do not fit, a figure or a loss is no number, or the loss does not depend on the network.
    """
    if run.data is None:
        return
    task, split = run.task, run.data.validation
    batch = next(iter(split.batches(_IMAGES, limit=_IMAGES)), None)
    if batch is None or not examples_in(batch):
        return  # said where the images are read
    network = own_tensors(run.network.model).eval().requires_grad_(True)
    args, kwargs = task.inputs(batch)
    raw = _own(task, "the network, called with its inputs", lambda: bare(network)(*args, **kwargs))
    outputs = _own(task, "outputs()", lambda: task.outputs(raw))
    lost = next((name for name, t in outputs.items() if not bool(t.isfinite().all())), None)
    if lost is not None:
        raise TaskError(f"the network's output {name_of(lost)} is not finite on the first images", hint="check its weights")
    _number(task, "imitate()", _own(task, "imitate()", lambda: task.imitate(raw, raw)))
    if not run.scored:
        return
    _own(task, "check()", lambda: task.check(raw, batch))
    if task.has("loss") and run.job.distill < 1:
        loss = _own(task, "loss()", lambda: task.loss(raw, batch))
        _number(task, "loss()", loss)
        if not loss.requires_grad:
            raise TaskError(
                f"the loss of the task {task.name} does not depend on the network",
                hint="compute it from the answer that loss() is given, without detach() and without numpy",
            )
        loss.backward()
        if not any(p.grad is not None for p in network.parameters()):
            raise TaskError(
                f"the loss of the task {task.name} reaches no parameter of the network",
                hint="compute it from the answer that loss() is given",
            )


def name_of(output: str) -> str:
    """An output's name in a sentence."""
    return repr(output)


def _own(task: Task, what: str, call: Any) -> Any:
    """What a task's member gives; what it raises is told as the task's."""
    try:
        return call()
    except CompressError:
        raise
    except Exception as error:  # the user's own code
        raise TaskError(
            f"the task {task.name}: {what} failed on the first batch: {type(error).__name__}: {one_line(error, 200)}"
        ) from error


def _number(task: Task, what: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TaskError(f"the task {task.name}: {what} gave {seen}, one number as a tensor is wanted", hint="return its mean")
    with torch.no_grad():
        if not math.isfinite(float(value)):
            raise TaskError(
                f"the task {task.name}: {what} is {float(value)} on the first batch of the unpruned network",
                hint="check the targets, and how the images are prepared: --mean, --std, --size",
            )
