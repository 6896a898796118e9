"""One batch, before any long work: does the network fit its task, and does the task have what the job asks of it?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from compress.data import Split, examples_in
from compress.errors import CompressError, ConfigError, TaskError, one_line
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.signature import bare
from compress.surgery import own_tensors
from compress.tasks import Task

_IMAGES = 8


def check_asked(run: Run) -> None:
    """Whether the task can say what the job's target is held against, and what its training minimises.

    Raises:
        ConfigError: it cannot, or the drop that is allowed is implausible.
    """
    task, job = run.task, run.job
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
        if not run.scored and task.bounded != figure:
            raise ConfigError(
                f"--max-drop is about {figure.name}, which nothing bounds without targets",
                hint=f"give images with their {' or '.join(task.targets)}, or --macs or --params",
            )
    if not trains(job) or job.distill > 0 or run.train is not None:
        return
    if not task.has("loss"):
        raise ConfigError(
            f"the task {task.name} has no loss, and the unpruned network is not to be imitated: there is nothing to train by",
            hint="leave --no-distill out, give the task loss(raw, batch), or --epochs 0",
        )
    if run.data is not None and run.data.train is not None and not run.answered:
        raise ConfigError(
            "the training images have no targets, and the unpruned network is not to be imitated: there is nothing to train by",
            hint=f"leave --no-distill out, give images with their {' or '.join(task.targets)}, or --epochs 0",
        )


def trains(job: Job) -> bool:
    """Whether a job may train."""
    return job.epochs is None or job.epochs > 0 or job.stage_epochs > 0


def try_batch(run: Run) -> None:
    """Runs the network on one batch to judge and one to train on, and looks at everything that the task says of the answer.

    Raises:
        TaskError: outputs or targets do not fit, or a loss is no number or does not depend on the network.
    """
    if run.data is None:
        return
    task, job = run.task, run.job
    batch = _first(run.data.validation)
    if batch is None:
        return  # said where the images are read
    network = own_tensors(run.network.model).eval().requires_grad_(True)
    args, kwargs = task.inputs(batch)
    raw = _own(task, "the network, called with its inputs", lambda: bare(network)(*args, **kwargs))
    outputs = _own(task, "outputs()", lambda: task.outputs(raw))
    lost = next((name for name, t in outputs.items() if not bool(t.isfinite().all())), None)
    if lost is not None:
        raise TaskError(f"the network's output {name_of(lost)} is not finite on the first images", hint="check its weights")
    teacher = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, raw)
    imitated = _own(task, "imitate()", lambda: task.imitate(raw, teacher))
    _number(task, "imitate()", imitated)
    ours = trains(job) and run.train is None and run.data.train is not None
    learns = run.answered and task.has("loss") and job.distill < 1
    if ours and (job.distill > 0 or not learns):
        _depends(task, "imitate()", "the first answer", imitated, raw)
    if not run.answered:
        return
    _own(task, "check()", lambda: task.check(raw, batch))
    if learns:
        loss = _own(task, "loss()", lambda: task.loss(raw, batch))
        _number(task, "loss()", loss)
        _depends(task, "loss()", "the answer", loss, raw)
    if ours and learns and run.data.train is not None:
        _try_targets(task, network, run.data.train)


def _try_targets(task: Task, network: nn.Module, train: Split) -> None:
    """The first targets to train on; those of the test split are looked at when it is scored, and no earlier.

    Raises:
        TaskError: they do not fit.
    """
    batch = _first(train)
    if batch is None:
        return
    with torch.no_grad():
        raw = _own(task, "the network, called with inputs of train,", lambda: task.answer(network, batch))
    try:
        _own(task, "check()", lambda: task.check(raw, batch))
    except CompressError as error:
        raise TaskError(f"train: {error.message}", hint=error.hint) from error


def _first(split: Split) -> Any:
    """The first images of a split with what they are answered with; None where there are none."""
    batch = next(iter(split.batches(_IMAGES, limit=_IMAGES)), None)
    return None if batch is None or not examples_in(batch) else batch


def _depends(task: Task, what: str, given: str, value: Tensor, raw: Any) -> None:
    """Whether a number that training minimises has a gradient in the network's answer.

    Raises:
        TaskError: it has none.
    """
    leaves = [leaf for leaf in tree_leaves(raw) if isinstance(leaf, Tensor) and leaf.requires_grad]
    reached: tuple[Tensor | None, ...] = (value,) if value.requires_grad else ()
    if reached and leaves:  # an answer of another kind cannot be looked into
        reached = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    if all(gradient is None for gradient in reached):
        raise TaskError(
            f"{what} of the task {task.name} does not depend on the network",
            hint=f"compute it from {given} that it is given, without detach() and without numpy",
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
