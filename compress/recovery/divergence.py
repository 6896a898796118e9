"""A training that diverges is told at once, with the learning rate it was at."""

from __future__ import annotations

import math

from torch import Tensor, nn

from compress.errors import TrainError
from compress.recovery.schedule import Schedule, learning_rate


def check_weights(student: nn.Module, epoch: int, schedule: Schedule) -> None:
    """Looks at what an epoch left: losses may be finite while statistics or weights are not.

    Raises:
        TrainError: a tensor holds what is no number.
    """
    for name, tensor in student.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainError(
                f"the training diverged: {name} is not finite after epoch {epoch + 1} of {schedule.epochs}, at a learning rate "
                f"of up to {schedule.lr:.2g}",
                hint=f"lower the learning rate (lr {schedule.lr / 10:.2g}), or warm up longer",
            )


def check_losses(losses: Tensor, epoch: int, done: int, schedule: Schedule, steps: int) -> None:
    """Looks at the losses of the last steps, of which ``done`` is the number of the last.

    Raises:
        TrainError: one is no number.
    """
    values = losses.tolist()
    for step, value in enumerate(values, start=done - len(values)):
        if not math.isfinite(value):
            lr = learning_rate(schedule, epoch + step / steps)
            raise TrainError(
                f"the loss became {value} in epoch {epoch + 1} of {schedule.epochs}, step {step + 1} of {steps}, "
                f"at learning rate {lr:.2g}",
                hint=f"lower the learning rate (lr {schedule.lr / 10:.2g}), or warm up longer; "
                "if it happens in the first step, check the weights and the images' normalisation",
            )
