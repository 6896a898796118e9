"""The steps from a plan to a recovered network: cut and prove, recover without training, train."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from compress import train
from compress.config import Job
from compress.cost import count
from compress.data import Data
from compress.errors import GuardError
from compress.evaluate import Material
from compress.evaluate import batches as in_batches
from compress.events import Clock, Listen
from compress.guard import Verified, verify
from compress.plan import Plan, restrict
from compress.reconstruct import reconstruct
from compress.recover import reestimate
from compress.report.model import Measured
from compress.surgery import cut
from compress.topology import Topology
from compress.zeroing import effective_params, held, identity_of, zero_kernels

_LEAST_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 500, 3, 30
_GUARD_INPUTS = 3


@dataclass
class Log:
    """What is found out on the way."""

    accuracy: list[Measured] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Judge = Callable[[nn.Module, str], Sequence[Measured]]


def measured(model: nn.Module, when: str, name: str, split: train.Split) -> Measured:
    """Accuracy on a split with its Wilson interval."""
    found = train.accuracy(model, split)
    return Measured(when, name, found.top1, *found.interval, found.total)


def judging(data: Data | None) -> Judge:
    """Accuracy on the validation split, or nothing where there are no labels."""

    def judge(model: nn.Module, when: str) -> Sequence[Measured]:
        return [measured(model, when, "validation", data.validation)] if data is not None and data.labelled else []

    return judge


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


def recovered(
    original: nn.Module,
    small: nn.Module,
    topology: Topology,
    plan: Plan,
    material: Material,
    job: Job,
    judge: Judge,
    clock: Clock,
    log: Log,
) -> nn.Module:
    """Without training: batch norms re-estimated, then readers re-solved by least squares."""
    if job.recover == "none" or not plan:
        return small
    batches = in_batches(material.calibration)
    with clock.phase("batch norm", f"statistics of {len(material.calibration)} images"):
        restored = reestimate(small, batches)
        log.accuracy += judge(restored, "batch norm")
    if job.recover == "bn":
        return restored
    with clock.phase("reconstruct", "least squares on the readers, no labels"):
        solved = reconstruct(original, small, topology, plan, batches)
        log.notes += [f"not reconstructed: {name}: {why}" for name, why in solved.skipped.items()]
        log.accuracy += judge(solved.model, "reconstructed")
    return solved.model


def with_zero_kernels(
    small: nn.Module,
    topology: Topology,
    plan: Plan,
    material: Material,
    job: Job,
    judge: Judge,
    clock: Clock,
    log: Log,
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Kernel mode, where the job wants it: the network with zeros, and which kernels each weight keeps."""
    if job.zero_kernels == 0:
        return small, {}
    with clock.phase("zero kernels", f"each filter may lose {100 * job.zero_kernels:g} % of its output's variance"):
        found = zero_kernels(small, restrict(topology, plan), in_batches(material.calibration), job.zero_kernels)
        log.accuracy += judge(found.model, "kernels zeroed")
    kept, total = found.kernels
    log.notes.append(f"kernel mode: {kept:,} of {total:,} kernels of {len(found.kept)} layers are kept, the others are zero")
    return found.model, found.kept


def epochs_for(job: Job, images: int) -> int:
    """The fine-tuning epochs: as asked, or enough for 500 steps, between 3 and 30."""
    if job.epochs is not None:
        return job.epochs
    steps = max(1, math.ceil(images / job.batch))
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps)))


def schedule_for(job: Job, images: train.Split, labelled: bool) -> train.Schedule:
    """How the job trains on so many images; without labels it only imitates the unpruned network."""
    return train.Schedule(
        epochs=epochs_for(job, len(images)),
        lr=job.lr,
        batch=min(job.batch, len(images)),
        distill=job.distill if labelled else 1.0,
        seed=job.seed,
    )


def finetune(
    teacher: nn.Module,
    small: nn.Module,
    data: Data | None,
    job: Job,
    folder: Path,
    judge: Judge,
    clock: Clock,
    log: Log,
    listen: Listen,
    kernels: Mapping[str, Tensor] = MappingProxyType({}),
    state: str = "finetune",
) -> nn.Module:
    """Training after the cut, as the job wants it; the same for every method that is compared. Zeroed kernels stay zero.

    An interrupted one is kept in the folder's ``state``.
    """
    if data is None or data.train is None:
        log.notes.append("no training images: recovery is without training")
        return small
    epochs = epochs_for(job, len(data.train))
    if epochs == 0:
        return small
    if not data.labelled and job.distill < 1:
        log.notes.append("no labels: the fine-tuning imitates the unpruned network")
    schedule = schedule_for(job, data.train, data.labelled)
    distill = schedule.distill
    with clock.phase("fine-tune", f"{epochs} epochs"):
        trained = train.fit(
            small,
            data.train,
            schedule,
            teacher=teacher if distill else None,
            state_dir=folder / state,
            listen=listen,
            rewrite=held(kernels) if kernels else None,
            rewrite_identity=identity_of(kernels) if kernels else "",
        ).eval()
        log.accuracy += judge(trained, "fine-tuned")
    return trained


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
