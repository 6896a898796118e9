"""How to train: how long, how fast, and from what."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from compress.errors import TrainError
from compress.tasks import Classification, Task


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to train: SGD with Nesterov momentum, a linear warm-up, then a cosine down to zero.

    Attributes:
        epochs: passes over the training images; the last one's weights are the result.
        extra: share of another pass after them, below 1.
        lr: the highest learning rate.
        batch: images a step, over all processes.
        momentum: of SGD.
        weight_decay: on tensors of two or more dimensions only.
        warmup_epochs: length of the warm-up; may be a fraction.
        label_smoothing: share of the target spread over all classes.
        distill: weight of the teacher's term, 1 - distill that of the labels'; without a teacher it does nothing. At 1 the
            labels are not looked at.
        temperature: of the teacher's and the student's distributions.
        precision: ``auto`` (bf16 where the device computes in it), ``bf16`` or ``fp32``.
        augment: whether the split may vary its images.
        seed: of the order of the images, their variation, and dropout.
        task: what the network is for: its loss, and how it imitates. None is classification, by this schedule.
        sync_batch_norm: several processes on GPUs normalise a batch together, not each its own images (torch's SyncBatchNorm).
    """

    epochs: int
    lr: float = 0.02
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    distill: float = 0.9
    temperature: float = 4.0
    precision: str = "auto"
    augment: bool = True
    seed: int = 0
    task: Task | None = None
    sync_batch_norm: bool = False
    extra: float = 0.0

    def __post_init__(self) -> None:
        wanted = {
            "epochs": (self.epochs >= 0, "0 or more"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "batch": (self.batch >= 1, "1 or more"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "warmup_epochs": (0 <= self.warmup_epochs < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "distill": (0 <= self.distill <= 1, "in [0, 1]"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "precision": (self.precision in ("auto", "bf16", "fp32"), "auto, bf16 or fp32"),
            "seed": (self.seed >= 0, "0 or more"),
            "extra": (0 <= self.extra < 1, "in [0, 1)"),
        }
        for name, (fits, rule) in wanted.items():
            if not fits:
                raise TrainError(f"{name} is {getattr(self, name)!r}, but must be {rule}", hint=f"change {name}")

    @property
    def learns(self) -> Task:
        """What the network is for."""
        return self.task or Classification(label_smoothing=self.label_smoothing, temperature=self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Plain values: what identifies a training."""
        optional = ("sync_batch_norm", "extra")
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("task", *optional)}
        told |= {name: value for name in optional if (value := getattr(self, name))}
        return told | ({} if self.learns.name == "classification" else {"task": self.learns.spec})


def learning_rate(schedule: Schedule, at: float) -> float:
    """The learning rate after ``at`` epochs: a line up to ``schedule.lr``, then half a cosine down to 0."""
    length = schedule.epochs + schedule.extra
    warmup = min(schedule.warmup_epochs, length / 2)
    if at < warmup:
        # Starting from a tenth: a step at rate 0 would be wasted.
        return schedule.lr * (0.1 + 0.9 * at / warmup)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (length - warmup)))


def passes(schedule: Schedule, steps: int) -> list[int]:
    """Steps of every pass, ``steps`` of a whole one; the last may be a part of one."""
    rest = round(schedule.extra * steps) if schedule.epochs else 0
    return [steps] * schedule.epochs + ([rest] if rest else [])


def steps_per_epoch(images: int, schedule: Schedule, world: int = 1) -> int:
    """Optimiser steps in one pass over so many images; ``world`` processes share each batch."""
    whole, rest = divmod(images, schedule.batch)
    return whole + (rest >= smallest_batch(schedule, world))


def smallest_batch(schedule: Schedule, world: int) -> int:
    """Batch norm cannot normalise a single image, so a process gets two of a batch, or none."""
    return max(world, min(schedule.batch, 2 * world))
