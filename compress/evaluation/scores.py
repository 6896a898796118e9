"""What a network scores on a split, by the figure of its task."""

from __future__ import annotations

from torch import nn

from compress.core import TaskScore
from compress.data import Split
from compress.errors import TaskError
from compress.networks import frozen_copy
from compress.tasks import Task


def score_on(model: nn.Module, split: Split, task: Task, *, batch: int = 256) -> TaskScore:
    """The figure that decides, with its interval.

    Args:
        model: the network; it is left as it is.
        split: images with the task's targets.
        task: what the network is for.
        batch: images at a time.

    Raises:
        DataError: there is no image, or no target.
        TaskError: what the task scored is no number.
    """
    from accelerate import Accelerator

    try:
        return task.scored(frozen_copy(model, Accelerator().device), split.batches(batch))
    except TaskError as error:
        error.met_in(split.name)
        raise
