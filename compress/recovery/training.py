"""Training a network: one loop, resumable to the bit, that leaves the caller's network alone.

Device and data parallelism are Accelerate's. What a step does depends on its position (seed, epoch, step), the weights
and the momentum alone, so a state of tensors and a few numbers is all that a killed run needs to end with the weights it
would have ended with (same machine, threads and number of processes). Several processes share each batch; the first one keeps
the state.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compress.core import derive
from compress.data import examples_in
from compress.errors import TrainError
from compress.networks import autocast, channels_last, frozen_copy, seeded
from compress.recovery import training_state
from compress.recovery.data_parallel import DataParallel, connected, joined
from compress.recovery.training_state import TrainingState
from compress.signature import bare
from compress.tasks import Classification, Task, moved, single

_REPORT_EVERY = 10
"""Steps between looks at the loss: each look makes the host wait for the device."""


class LabelledImages(Protocol):
    """The images of one part of a data set, with what they are answered with."""

    @property
    def digest(self) -> str:
        """Identifies the images, their order and their pre-processing."""
        ...

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[Any]:
        """Batches as the task takes them: of normalised float32 images (n, c, h, w), and labels (n,) or other targets."""
        ...


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


@dataclass(frozen=True)
class GradientRewrite:
    """What is done to the gradients between backward and step.

    Attributes:
        change: changes a network's gradients in place, knowing the learning rate of the step.
        identity: names what it does; an interrupted training goes on under the same name only. Empty where nothing is kept.
    """

    change: Callable[[nn.Module, float], None]
    identity: str = ""

    def __call__(self, model: nn.Module, lr: float) -> None:
        """Changes the gradients in place."""
        self.change(model, lr)


def learning_rate(schedule: Schedule, at: float) -> float:
    """The learning rate after ``at`` epochs: a line up to ``schedule.lr``, then half a cosine down to 0."""
    length = schedule.epochs + schedule.extra
    warmup = min(schedule.warmup_epochs, length / 2)
    if at < warmup:
        # Starting from a tenth: a step at rate 0 would be wasted.
        return schedule.lr * (0.1 + 0.9 * at / warmup)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (length - warmup)))


def fit(
    model: nn.Module,
    train: LabelledImages,
    schedule: Schedule,
    *,
    teacher: nn.Module | None = None,
    state_dir: Path | None = None,
    save_every: int = 200,
    listen: Callable[[TrainingEvent], object] = lambda event: None,
    rewrite: GradientRewrite | None = None,
) -> nn.Module:
    """A copy of the network, trained; its weights are those of the last epoch, never of the best.

    Parameters that do not require gradients stay as they are, and modules that have no others stay in eval mode: their
    batch-norm statistics do not move either.

    Started by torchrun or ``accelerate launch``, every process has to call this, with equal images, schedule and teacher, and
    a network of equal form: the first one's weights are trained. Each takes its part of every batch; all return the same.

    Args:
        model: where training starts; it is left as it is.
        train: images and labels.
        schedule: how to train.
        teacher: the network whose outputs are imitated, as the schedule's task says.
        state_dir: where the first process keeps the state; a run that finds its own state there goes on from it. None: nothing
            is kept.
        save_every: steps between savings; the end of an epoch is always saved.
        listen: hears of progress.
        rewrite: changes the gradients before each step.

    Raises:
        TrainError: a loss that is no number, a teacher with other classes, missing labels or labels beyond the classes,
            nothing to train, no memory, or a state that belongs to another run.
        ProcessLost: another process of the training ended, or is silent.
    """
    result = copy.deepcopy(model)
    if schedule.epochs == 0:
        return result
    if not any(p.requires_grad for p in model.parameters()):
        raise TrainError("no parameter requires a gradient, so there is nothing to train", hint="unfreeze some layers")
    together = joined()
    with connected():
        student = _trained(together, model, train, schedule, teacher, _Keeping(state_dir, save_every, listen, rewrite))
    # Into a fresh copy: it has the caller's device, memory format, precision and modes.
    result.load_state_dict(student.state_dict())
    return result


@dataclass(frozen=True)
class _Keeping:
    """What accompanies a training: the last four arguments of :func:`fit`."""

    state_dir: Path | None
    save_every: int
    listen: Callable[[TrainingEvent], object]
    rewrite: GradientRewrite | None


def _trained(
    together: DataParallel,
    model: nn.Module,
    train: LabelledImages,
    schedule: Schedule,
    teacher: nn.Module | None,
    keeping: _Keeping,
) -> nn.Module:
    """The loop of :func:`fit`; the network is on the device of training."""
    accelerator, device, rank, world = together.accelerator, together.device, together.rank, together.world
    state_dir, save_every, listen, rewrite = keeping.state_dir, keeping.save_every, keeping.listen, keeping.rewrite
    task = schedule.learns
    student = _normalised_together(bare(channels_last(copy.deepcopy(model).float())), schedule, together)
    momentum = schedule.momentum
    sgd = torch.optim.SGD(_groups(student, schedule), lr=schedule.lr, momentum=momentum, nesterov=momentum > 0)
    wrapped, optimizer = together.prepare(student, sgd)
    guide = bare(frozen_copy(teacher, device)) if teacher is not None and schedule.distill > 0 else None
    smallest = _smallest_batch(schedule, world)
    steps = steps_per_epoch(len(train), schedule, world)
    if steps == 0:
        raise TrainError(
            f"{len(train)} training images cannot fill a step" + (f" of {world} processes" if world > 1 else ""),
            hint="give at least two training images" + (f" a process, and a batch of at least {world}" if world > 1 else ""),
        )
    lengths = passes(schedule, steps)
    identity, found = "", None
    if state_dir is not None and rank == 0:
        how = schedule.to_json() | ({"rewrite": rewrite.identity} if rewrite is not None and rewrite.identity else {})
        how |= {"processes": world} if world > 1 else {}
        identity = training_state.identity(model, teacher, how, train.digest)
        found = training_state.load(state_dir, identity, student, sgd)
        if found is not None:
            listen(Resumed(epoch=found.epoch + 1, epochs=len(lengths), step=found.step, steps=steps, seconds=found.seconds))
    start_at = training_state.alike(together, found, student, sgd) or TrainingState(0, 0, 0.0, torch.zeros(3))
    seen = start_at.seen.to(device)  # on the device, so that no step waits for it
    begun = time.perf_counter()

    def save(epoch: int, step: int) -> None:
        if state_dir is not None and rank == 0:
            seconds = start_at.seconds + time.perf_counter() - begun
            training_state.save(state_dir, identity, TrainingState(epoch, step, seconds, seen), student, sgd)

    _train_mode(wrapped)
    with seeded(schedule.seed) as reseed:
        for epoch, length in list(enumerate(lengths))[start_at.epoch :]:
            done_before = start_at.step if epoch == start_at.epoch else 0
            start = time.perf_counter()
            losses: list[Tensor] = []
            order = derive(schedule.seed, "shuffle", epoch)
            batches = train.batches(schedule.batch, shuffle_seed=order, augment=schedule.augment)
            for step, batch in enumerate(batches):
                if step == length < steps:
                    break
                count = examples_in(batch)
                if step < done_before or count < smallest:
                    continue
                lr = sgd.param_groups[0]["lr"] = sgd.param_groups[1]["lr"] = learning_rate(schedule, epoch + step / steps)
                reseed(derive(schedule.seed, "step", epoch, step, rank))
                batch, weight = together.share(batch)
                batch = moved(batch, device)
                count = examples_in(batch)
                try:
                    args, kwargs = task.inputs(batch)
                    with autocast(device, schedule.precision):
                        raw = wrapped(*args, **kwargs)
                        with torch.no_grad():
                            target = None if guide is None else guide(*args, **kwargs)
                    raw, target = single(raw), single(target)  # once: what is learnt from it twice is summed unrounded
                    task.check_step(raw, target, batch, schedule.distill)
                    loss = _loss(raw, target, batch, schedule)
                    accelerator.backward(loss if weight == 1 else weight * loss)
                except torch.OutOfMemoryError as error:
                    raise TrainError(f"no memory left at batch {schedule.batch}", hint="halve batch and lr") from error
                if rewrite is not None:
                    accelerator.unscale_gradients(optimizer)
                    rewrite(student, lr)
                optimizer.step()
                optimizer.zero_grad()

                losses.append(loss.detach() if world == 1 else loss.detach() * (weight / world))
                now = loss.detach()
                seen += torch.stack((now * count, _hits(task, raw, batch).to(loss), torch.full_like(now, count)))
                done = step + 1
                saves = done % save_every == 0 and done < length
                if done % _REPORT_EVERY == 0 or done == length or saves:
                    _check_finite(together.summed(torch.stack(losses)), epoch, done, schedule, steps)
                    losses.clear()
                    total = together.summed(seen)
                    mean = float(total[0] / total[2])
                    listen(
                        TrainingProgress(
                            epoch=epoch + 1,
                            epochs=len(lengths),
                            step=done,
                            steps=steps,
                            loss=mean,
                            lr=lr,
                            seconds=time.perf_counter() - start,
                        )
                    )
                if saves:
                    together.average_statistics(student)
                    seen = total if rank == 0 else torch.zeros_like(total)
                    save(epoch, done)
            loss_sum, hit, count = together.summed(seen).tolist()
            if count == 0:
                raise TrainError(f"epoch {epoch + 1}: the split gave no image, {len(train)} were promised")
            if losses:  # the split gave fewer batches than its length promised
                _check_finite(together.summed(torch.stack(losses)), epoch, done, schedule, steps)
            together.average_statistics(student)
            _check_weights(student, epoch, schedule)
            seen.zero_()
            save(epoch + 1, 0)
            listen(
                EpochDone(
                    epoch=epoch + 1,
                    epochs=len(lengths),
                    loss=loss_sum / count,
                    accuracy=hit / count if task.names_one_label else None,
                    seconds=time.perf_counter() - start,
                )
            )
    return student


def passes(schedule: Schedule, steps: int) -> list[int]:
    """Steps of every pass, ``steps`` of a whole one; the last may be a part of one."""
    rest = round(schedule.extra * steps) if schedule.epochs else 0
    return [steps] * schedule.epochs + ([rest] if rest else [])


def steps_per_epoch(images: int, schedule: Schedule, world: int = 1) -> int:
    """Optimiser steps in one pass over so many images; ``world`` processes share each batch."""
    whole, rest = divmod(images, schedule.batch)
    return whole + (rest >= _smallest_batch(schedule, world))


def _smallest_batch(schedule: Schedule, world: int) -> int:
    """Batch norm cannot normalise a single image, so a process gets two of a batch, or none."""
    return max(world, min(schedule.batch, 2 * world))


def _groups(model: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _normalised_together(student: nn.Module, schedule: Schedule, together: DataParallel) -> nn.Module:
    """The network, its batch norms over all processes where the schedule wants that.

    Raises:
        TrainError: there is no GPU to do it on.
    """
    if not schedule.sync_batch_norm or together.world == 1:
        return student
    if together.device.type != "cuda":
        raise TrainError(
            f"sync_batch_norm is on, but the device is {together.device.type}: torch synchronises batch norms on CUDA only",
            hint="leave it out: each process normalises its own images, so give every process at least 16 of a batch",
        )
    made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
    return made


def _train_mode(model: nn.Module) -> None:
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def _loss(raw: Any, target: Any, batch: Any, schedule: Schedule) -> Tensor:
    """The task's own loss, mixed with its imitation of the teacher."""
    task, taught, share = schedule.learns, torch.zeros(()), 0.0
    if target is not None:
        share, taught = schedule.distill, task.imitate(raw, target)
    if share == 1:  # the targets may be missing
        return taught
    own = task.loss(raw, batch)
    return (1 - share) * own + share * taught.to(own.device)


def _hits(task: Task, raw: Any, batch: Any) -> Tensor:
    """How many images got their label; 0 where the task names none, or the labels are missing."""
    decided = task.decisions(raw) if task.names_one_label else None
    known = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    if decided is None or not isinstance(known, Tensor) or known.numel() != decided.numel():
        return torch.zeros(())
    return (decided.detach() == known.reshape(-1)).sum()


def _check_weights(student: nn.Module, epoch: int, schedule: Schedule) -> None:
    """Looks at what an epoch left: losses may be finite while statistics or weights are not."""
    for name, tensor in student.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainError(
                f"the training diverged: {name} is not finite after epoch {epoch + 1} of {schedule.epochs}, at a learning rate "
                f"of up to {schedule.lr:.2g}",
                hint=f"lower the learning rate (lr {schedule.lr / 10:.2g}), or warm up longer",
            )


def _check_finite(losses: Tensor, epoch: int, done: int, schedule: Schedule, steps: int) -> None:
    """Looks at the losses of the last steps, of which ``done`` is the number of the last."""
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
