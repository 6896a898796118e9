"""Training a network: one loop, resumable to the bit, that leaves the caller's network alone.

Device and data parallelism are Accelerate's. What a step does depends on its position (seed, epoch, step), the weights
and the momentum alone, so a state of tensors and a few numbers is all that a killed run needs to end with the weights it
would have ended with (same machine, threads and number of processes). Several processes share each batch; the first one keeps
the state.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compress.core import derive, plural
from compress.data import examples_in
from compress.errors import TaskError, TrainError
from compress.networks import autocast, channels_last, frozen_copy, seeded
from compress.recovery import training_state
from compress.recovery.data_parallel import DataParallel, connected, joined
from compress.recovery.divergence import check_losses, check_weights
from compress.recovery.schedule import Schedule, learning_rate, passes, smallest_batch, steps_per_epoch
from compress.recovery.training_events import EpochDone, Resumed, TrainingEvent, TrainingProgress
from compress.recovery.training_state import TrainingState
from compress.signature import bare
from compress.tasks import Task, moved, single

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
    keeping = _Keeping(state_dir, save_every, listen, rewrite)
    together = joined()
    with connected():
        student = _Training(together, model, train, schedule, teacher, keeping).run()
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


class _Training:
    """A training under way: the network on its device, and what was seen of the epoch so far."""

    def __init__(
        self,
        together: DataParallel,
        model: nn.Module,
        train: LabelledImages,
        schedule: Schedule,
        teacher: nn.Module | None,
        keeping: _Keeping,
    ) -> None:
        self.together, self.train, self.schedule, self.keeping = together, train, schedule, keeping
        self.task = schedule.learns
        self.student = _normalised_together(bare(channels_last(copy.deepcopy(model).float())), schedule, together)
        momentum = schedule.momentum
        self.sgd = torch.optim.SGD(_groups(self.student, schedule), lr=schedule.lr, momentum=momentum, nesterov=momentum > 0)
        self.wrapped, self.optimizer = together.prepare(self.student, self.sgd)
        self.guide = bare(frozen_copy(teacher, together.device)) if teacher is not None and schedule.distill > 0 else None
        self.steps = _steps(len(train), schedule, together.world)
        self.lengths = passes(schedule, self.steps)
        self.identity = ""
        found = self._found(model, teacher) if keeping.state_dir is not None and together.rank == 0 else None
        self.start = training_state.alike(together, found, self.student, self.sgd) or TrainingState(0, 0, 0.0, torch.zeros(3))
        self.seen = self.start.seen.to(together.device)  # on the device, so that no step waits for it
        self.begun = time.perf_counter()

    def _found(self, model: nn.Module, teacher: nn.Module | None) -> TrainingState | None:
        """What an interrupted training of the same identity left; weights and momentum are taken from it."""
        assert self.keeping.state_dir is not None
        rewrite, world = self.keeping.rewrite, self.together.world
        how = self.schedule.to_json() | ({"rewrite": rewrite.identity} if rewrite is not None and rewrite.identity else {})
        how |= {"processes": world} if world > 1 else {}
        self.identity = training_state.identity(model, teacher, how, self.train.digest)
        found = training_state.load(self.keeping.state_dir, self.identity, self.student, self.sgd)
        if found is not None:
            self.keeping.listen(
                Resumed(
                    epoch=found.epoch + 1,
                    epochs=len(self.lengths),
                    step=found.step,
                    steps=self.steps,
                    seconds=found.seconds,
                )
            )
        return found

    def run(self) -> nn.Module:
        """All epochs that are left; the network is on the device of training."""
        _train_mode(self.wrapped)
        with seeded(self.schedule.seed) as reseed:
            for epoch in range(self.start.epoch, len(self.lengths)):
                self._epoch(epoch, reseed)
        return self.student

    def _epoch(self, epoch: int, reseed: Callable[[int], object]) -> None:
        start, length, losses, done = time.perf_counter(), self.lengths[epoch], list[Tensor](), 0
        for step, batch in self._batches(epoch):
            losses.append(self._step(epoch, step, batch, reseed))
            done = step + 1
            saves = done % self.keeping.save_every == 0 and done < length
            if done % _REPORT_EVERY == 0 or done == length or saves:
                total = self._look(losses, epoch, done, start)
                losses.clear()
            if saves:
                self.together.average_statistics(self.student)
                self.seen = total if self.together.rank == 0 else torch.zeros_like(total)
                self._save(epoch, done)
        loss_sum, hit, count = self.together.summed(self.seen).tolist()
        if count == 0:
            raise TrainError(f"epoch {epoch + 1}: the split gave no image, {len(self.train)} were promised")
        if losses:  # the split gave fewer batches than its length promised
            check_losses(self.together.summed(torch.stack(losses)), epoch, done, self.schedule, self.steps)
        self.together.average_statistics(self.student)
        check_weights(self.student, epoch, self.schedule)
        self.seen.zero_()
        self._save(epoch + 1, 0)
        self.keeping.listen(
            EpochDone(
                epoch=epoch + 1,
                epochs=len(self.lengths),
                loss=loss_sum / count,
                accuracy=hit / count if self.task.names_one_label else None,
                seconds=time.perf_counter() - start,
            )
        )

    def _batches(self, epoch: int) -> Iterator[tuple[int, Any]]:
        """The epoch's steps that are left, each with its batch over all processes."""
        schedule, done_before = self.schedule, self.start.step if epoch == self.start.epoch else 0
        smallest = smallest_batch(schedule, self.together.world)
        order = derive(schedule.seed, "shuffle", epoch)
        batches = self.train.batches(schedule.batch, shuffle_seed=order, augment=schedule.augment)
        for step, batch in enumerate(batches):
            if step == self.lengths[epoch] < self.steps:
                return
            if step >= done_before and examples_in(batch) >= smallest:
                yield step, batch

    def _step(self, epoch: int, step: int, batch: Any, reseed: Callable[[int], object]) -> Tensor:
        """One step of the weights; this process's part of the batch's loss."""
        schedule, together, rewrite = self.schedule, self.together, self.keeping.rewrite
        lr = learning_rate(schedule, epoch + step / self.steps)
        for group in self.sgd.param_groups:
            group["lr"] = lr
        reseed(derive(schedule.seed, "step", epoch, step, together.rank))
        batch, weight = together.share(batch)
        batch = moved(batch, together.device)
        count = examples_in(batch)
        try:
            raw, loss = self._answered(batch)
            together.accelerator.backward(loss if weight == 1 else weight * loss)
        except torch.OutOfMemoryError as error:
            raise TrainError(f"no memory left at batch {schedule.batch}", hint="halve batch and lr") from error
        if rewrite is not None:
            together.accelerator.unscale_gradients(self.optimizer)
            rewrite(self.student, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        now = loss.detach()
        self.seen += torch.stack((now * count, _hits(self.task, raw, batch).to(loss), torch.full_like(now, count)))
        return now if together.world == 1 else now * (weight / together.world)

    def _answered(self, batch: Any) -> tuple[Any, Tensor]:
        """The network's answer to a batch, and its loss."""
        args, kwargs = self.task.inputs(batch)
        with autocast(self.together.device, self.schedule.precision):
            raw = self.wrapped(*args, **kwargs)
            with torch.no_grad():
                target = None if self.guide is None else self.guide(*args, **kwargs)
        raw, target = single(raw), single(target)  # once: what is learnt from it twice is summed unrounded
        try:
            self.task.check_step(raw, target, batch, self.schedule.distill)
        except TaskError as error:
            error.met_in("train")
            raise
        return raw, _loss(raw, target, batch, self.schedule)

    def _look(self, losses: list[Tensor], epoch: int, done: int, start: float) -> Tensor:
        """Looks at the losses since the last look, and tells how far the epoch is; what all processes saw of it."""
        check_losses(self.together.summed(torch.stack(losses)), epoch, done, self.schedule, self.steps)
        total = self.together.summed(self.seen)
        self.keeping.listen(
            TrainingProgress(
                epoch=epoch + 1,
                epochs=len(self.lengths),
                step=done,
                steps=self.steps,
                loss=float(total[0] / total[2]),
                lr=self.sgd.param_groups[0]["lr"],
                seconds=time.perf_counter() - start,
            )
        )
        return total

    def _save(self, epoch: int, step: int) -> None:
        if self.keeping.state_dir is not None and self.together.rank == 0:
            seconds = self.start.seconds + time.perf_counter() - self.begun
            state = TrainingState(epoch, step, seconds, self.seen)
            training_state.save(self.keeping.state_dir, self.identity, state, self.student, self.sgd)


def _steps(images: int, schedule: Schedule, world: int) -> int:
    """Steps of a whole pass.

    Raises:
        TrainError: there is none.
    """
    steps = steps_per_epoch(images, schedule, world)
    if steps == 0:
        raise TrainError(
            f"{plural(images, 'training image')} cannot fill a step" + (f" of {plural(world, 'process')}" if world > 1 else ""),
            hint="give at least two training images" + (f" a process, and a batch of at least {world}" if world > 1 else ""),
        )
    return steps


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
