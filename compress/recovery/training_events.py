"""What a training tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Some steps are done: ``step`` of ``steps`` of this epoch; ``loss`` is the mean over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    seconds: float


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is done; ``accuracy`` is that of the training batches as they went by, while the weights changed; None where the
    task names no label."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """An interrupted training goes on from here; ``seconds`` is what earlier sittings took."""

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float = 0.0


TrainingEvent = TrainingProgress | EpochDone | Resumed
