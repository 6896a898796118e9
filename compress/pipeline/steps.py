"""The steps from a plan to a recovered network: cut and prove, recover without training, train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from compress.core import Clock, Listen, Plan, Topology, count, plural, restrict
from compress.errors import GuardError
from compress.networks import in_batches
from compress.pipeline.announcing import announce_cut
from compress.pipeline.job import Job
from compress.pipeline.own_training import check_zeros, train_by_loop
from compress.pipeline.run import Run
from compress.recovery import (
    LabelledImages,
    Resumed,
    Schedule,
    effective_params,
    fit,
    held,
    reconstruct,
    reestimate,
    steps_per_epoch,
    zero_kernels,
)
from compress.search import METHODS, Round, halving
from compress.surgery import Verified, cut, verify

_LEAST_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 500, 3, 30
_WHOLE_RATE, _LEAST_RATE = 300, 0.1
"""Steps from which on a training takes the whole learning rate, and the share of it that the shortest take."""
_GUARD_INPUTS = 3
FINALISTS = 8
"""Plans that are trained before one is taken, where the job says nothing."""
_SHARE = 0.5
"""Of an epoch's steps: what all these trainings together may take."""
WORTH_FINALISTS = 3
"""Epochs of a training from which on it has finalists unasked: they take a sixth of it at the most then."""


def guarded_cut(model: nn.Module, topology: Topology, plan: Plan, images: Tensor) -> tuple[nn.Module, Verified]:
    """Cuts, and lets the guard compare; counted cost must be real cost.

    Raises:
        GuardError: the cut network computes something else, or has another size than counted.
    """
    small = cut(model, topology, plan)
    seen = verify(model, topology, plan, small, images[:_GUARD_INPUTS])
    real = _params(small)
    counted = count(topology, plan).params
    if real != counted:
        raise GuardError(f"the cut network has {real} parameters, {counted} were counted")
    return small, seen


def with_batch_norms(run: Run, small: nn.Module, images: Tensor) -> nn.Module:
    """The network with its batch norms' statistics re-estimated on the images, or as it was where that is worse."""
    with run.clock.phase("batch norm", f"statistics of {plural(len(images), 'image')}"):
        return run.better(small, reestimate(small, in_batches(images)), "batch norm")


def recovered(run: Run, original: nn.Module, small: nn.Module, topology: Topology, plan: Plan, images: Tensor) -> nn.Module:
    """Without training: batch norms re-estimated on the images, then readers re-solved by least squares.

    What makes it worse is taken back.
    """
    if run.job.recover == "none" or not plan:
        return small
    restored = with_batch_norms(run, small, images)
    if run.job.recover == "bn":
        return restored
    with run.clock.phase("reconstruct", "least squares on the readers, no labels"):
        solved = reconstruct(original, small, topology, plan, in_batches(images))
        run.note(*(f"not reconstructed: {name}: {why}" for name, why in solved.skipped.items()))
        return run.better(restored, solved.model, "reconstructed")


def with_zero_kernels(
    run: Run, small: nn.Module, topology: Topology, plan: Plan, images: Tensor
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Kernel mode, where the job wants it: the network with zeros, and which kernels each weight keeps."""
    share = run.job.zero_kernels
    if share == 0:
        return small, {}
    with run.clock.phase("zero kernels", f"each filter may lose {100 * share:g} % of its output's variance"):
        found = zero_kernels(small, restrict(topology, plan), in_batches(images), share)
        run.judge(found.model, "kernels zeroed")
    kept, total = found.kernels
    run.note(
        f"kernel mode: {kept:,} of {plural(total, 'kernel')} of {plural(len(found.kept), 'layer')} kept, the others are zero"
    )
    return found.model, found.kept


def epochs_for(job: Job, images: int) -> int:
    """The fine-tuning epochs: as asked, or enough for 500 steps, between 3 and 30."""
    if job.epochs is not None:
        return job.epochs
    steps = max(1, math.ceil(images / job.batch))
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps)))


def schedule_for(run: Run, images: LabelledImages) -> Schedule:
    """How the job trains on so many images; without targets, or without a loss, it only imitates the unpruned network."""
    job, task = run.job, run.task
    taught = run.answered and task.has("loss")
    return Schedule(
        epochs=epochs_for(job, len(images)),
        lr=job.lr,
        batch=min(job.batch, len(images)),
        distill=job.distill if taught else 1.0,
        seed=job.seed,
        task=None if task.name == "classification" else task,
    )


def rate_for(job: Job, steps: int) -> float:
    """The highest learning rate of a training of so many steps.

    A short one at all of it undoes what was recovered: ResNet-20 at a quarter of its MACs falls from 50 to 30 % in 40 steps
    at 0.02, and rises to 57 % at a tenth of that (``benchmarks/recipe.py``). The share of a full training that is affordable
    decides, as in ALLR (Zimmer, Spiegel, Pokutta: arXiv 2111.00843).
    """
    share = min(1.0, max(_LEAST_RATE, steps / _WHOLE_RATE)) if job.lr_by_budget else 1.0
    return job.lr * share


def finalists_of(job: Job, images: int) -> int:
    """How many plans are trained before one is taken, at the most, of a training on so many images.

    Where the job says nothing, a training of few epochs has none: on ResNet-20 and ResNet-56 half of a pass was worth more to
    the one network that is kept (``benchmarks/README.md``, equal latency).
    """
    epochs = epochs_for(job, images)
    usual = FINALISTS if epochs >= WORTH_FINALISTS else 0
    return (usual if job.finalists is None else job.finalists) if epochs else 0


def rounds_of(run: Run, images: LabelledImages) -> tuple[Round, ...]:
    """The rounds of a run's finalists: all these short trainings together take at most half of an epoch's steps."""
    steps = steps_per_epoch(len(images), schedule_for(run, images))
    return halving(finalists_of(run.job, len(images)), int(_SHARE * steps))


def finalists_share(run: Run, images: LabelledImages) -> float:
    """Of an epoch: what finalists that were asked for would have taken, of a method that has none; it trains so much longer."""
    job = run.job
    if not job.finalists or METHODS[job.method].finalists or job.stage_epochs:
        return 0.0
    steps = steps_per_epoch(len(images), schedule_for(run, images))
    return sum(r.plans * r.steps for r in rounds_of(run, images)) / max(1, steps)


def finetune(
    run: Run,
    small: nn.Module,
    kernels: Mapping[str, Tensor] = MappingProxyType({}),
    state: str = "finetune",
    plan: Plan | None = None,
) -> nn.Module:
    """Training after the cut, as the job wants it; the same for every method that is compared. Zeroed kernels stay zero.

    The run's network is the teacher. An interrupted training is kept in the folder's ``state``. A training that made the
    network worse is taken back. Other processes of the run's launcher cut their networks by the ``plan``, and train too.
    """
    data, job, teacher = run.data, run.job, run.network.model
    rewrite = held(kernels) if kernels else None
    images = data.train if data is not None else None
    if images is None and run.train is None:
        run.note("no training images: recovery is without training")
        return small
    epochs = epochs_for(job, len(images) if images is not None else 0)
    if epochs == 0:
        return small
    if run.train is not None:
        with run.clock.phase("fine-tune", f"{job.train}, {plural(epochs, 'epoch')}"):
            trained = train_by_loop(run, small, epochs, rewrite, state)
            check_zeros(trained, kernels)
            return run.better(small, trained, "fine-tuned")
    assert data is not None and images is not None
    extra, schedule = finalists_share(run, images), schedule_for(run, images)
    steps = round((epochs + extra) * steps_per_epoch(len(images), schedule))
    schedule = replace(schedule, extra=extra, lr=rate_for(job, steps))
    if schedule.distill == 1 and job.distill < 1:
        why = "no labels" if not run.answered else f"the task {run.task.name} has no loss"
        run.note(f"{why}: the fine-tuning imitates the unpruned network")
    with run.clock.phase("fine-tune", f"{plural(epochs, 'epoch')}"):
        announce_cut(run, plan, schedule, kernels)
        trained = fit(
            small,
            images,
            schedule,
            teacher=teacher if schedule.distill else None,
            state_dir=run.folder / state,
            listen=resuming(run.clock, "fine-tune"),
            rewrite=rewrite,
        ).eval()
        return run.better(small, trained, "fine-tuned")


def resuming(clock: Clock, phase: str) -> Listen:
    """A training's listener: what earlier sittings took is part of the phase's time."""

    def hear(event: Any) -> None:
        if isinstance(event, Resumed):
            clock.add(phase, event.seconds)
        clock.listen(event)

    return hear


def effective(model: nn.Module) -> str:
    """What kernel mode left of the parameters, as a sentence."""
    effective, total = effective_params(model), _params(model)
    return (
        f"kernel mode: {effective:,} effective parameters of {total:,}; zeros in a dense weight save no MACs and no time, "
        "which are those of the dense network"
    )


def _params(model: nn.Module) -> int:
    """Learned numbers, tied ones once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
