"""From a plan to a network that can be deployed: cut, prove, recover, export, clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from compress import checkpoint, train
from compress.centripetal import PAPER_EPS, draw_together, strength
from compress.checkpoint import Architecture
from compress.config import Job
from compress.cost import count
from compress.data import Data, Preprocessing
from compress.environment import capture
from compress.errors import ConfigError, GuardError
from compress.evaluate import Material, logits
from compress.evaluate import batches as in_batches
from compress.events import Clock, Listen, Warned, ignore
from compress.export.interface import serving_facts
from compress.export.parity import Parity, Verdict, export_verified
from compress.guard import Verified, verify
from compress.latency.protocol import LatencyResult, Settings, measure
from compress.plan import Plan, restrict
from compress.reconstruct import reconstruct
from compress.recover import reestimate
from compress.report.model import Measured
from compress.runtime.ort import OrtRuntime
from compress.surgery import cut
from compress.topology import Topology
from compress.zeroing import effective_params, held, identity_of, zero_kernels

_LEAST_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 500, 3, 30
_GUARD_INPUTS = 3
_PARITY_INPUTS = 10
_TRIM_TOLERANCE = 1e-4
_NO_PLAN = Plan()


@dataclass(frozen=True)
class Network:
    """A trained network and what is known about it.

    Attributes:
        model: unpruned (or pruned before), evaluation mode.
        name: for people and for the run's folder.
        architecture: how to build it.
        preprocessing: how its images are prepared.
        digest: of its tensors.
        plan: what had been cut before it came here.
        warnings: what loading it had to guess.
    """

    model: nn.Module
    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    digest: str
    plan: Plan = _NO_PLAN
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Realised:
    """A plan made real.

    Attributes:
        model: cut and recovered.
        plan: what was cut.
        guard: what the guard saw.
        accuracy: after each step.
        onnx: the exported file.
        parity: its comparison with the model.
        base_parity: that of the unpruned network's file.
        latency: per runtime.
        warnings: red flags.
        notes: the rest.
        digest: of the model's tensors.
    """

    model: nn.Module
    plan: Plan
    guard: Verified
    accuracy: tuple[Measured, ...]
    onnx: Path
    parity: Parity
    base_parity: Parity
    latency: tuple[LatencyResult, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""


def measured(model: nn.Module, when: str, name: str, split: train.Split) -> Measured:
    """Accuracy on a split with its Wilson interval."""
    found = train.accuracy(model, split)
    return Measured(when, name, found.top1, *found.interval, found.total)


def epochs_for(job: Job, images: int) -> int:
    """The fine-tuning epochs: as asked, or enough for 500 steps, between 3 and 30."""
    if job.epochs is not None:
        return job.epochs
    steps = max(1, math.ceil(images / job.batch))
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps)))


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


def _params(model: nn.Module) -> int:
    """Learned numbers, tied ones once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


@dataclass
class Log:
    """What is found out on the way."""

    accuracy: list[Measured] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def realise(
    network: Network,
    topology: Topology,
    plan: Plan,
    material: Material,
    data: Data | None,
    job: Job,
    folder: Path,
    *,
    clock: Clock | None = None,
    base_folder: Path | None = None,
    listen: Listen = ignore,
    trained: nn.Module | None = None,
) -> Realised:
    """Makes a plan real, step by step; nothing lands under a final name before it is proven.

    Args:
        network: the unpruned network.
        topology: its topology.
        plan: what to cut.
        material: calibration images.
        data: for accuracy and fine-tuning; None without.
        job: how to recover, export and clock.
        folder: where ``model.safetensors``, ``model.onnx`` and the training's state go.
        clock: collects wall times.
        base_folder: where ``base.onnx`` is or goes; the folder itself by default.
        listen: receives events.
        trained: the same cut network, trained already: its tensors are taken, and nothing is recovered before the fine-tuning.

    Raises:
        GuardError: wrong surgery.
        ParityError: the ONNX file computes something else.
    """
    clock = clock or Clock(listen)
    log = Log()
    judge = judging(data)
    if job.realise == "csgd" and plan:
        small, guard = draw(network.model, topology, plan, material, data, job, folder, judge, clock, log, listen)
    else:
        with clock.phase("cut", "and prove that nothing else changed"):
            small, guard = guarded_cut(network.model, topology, plan, material.calibration)
            log.accuracy += judge(small, "cut")
        if trained is not None:
            small.load_state_dict(trained.state_dict())
            log.accuracy += judge(small, "trained by stages")
        else:
            small = recovered(network.model, small, topology, plan, material, job, judge, clock, log)
        small, kernels = _zero_kernels(small, topology, plan, material, job, judge, clock, log)
        small = finetune(network.model, small, data, job, folder, judge, clock, log, listen, kernels)
        if kernels:
            log.notes.append(_effective(small))
    metadata = _provenance(network, plan, job, data, log.accuracy)
    digest = checkpoint.save(
        folder / "model.safetensors",
        small,
        architecture=network.architecture,
        plan=plan,
        preprocessing=network.preprocessing,
        metadata=metadata,
    )
    base_folder = base_folder or folder
    images = material.calibration[:_PARITY_INPUTS]
    with clock.phase("export", "ONNX, and prove that it computes the same"):
        kind, serving = job.exporter, _serving(network, data)
        exported, parity = export_verified(small, images, folder / "model.onnx", metadata=metadata, exporter=kind)
        _, base_parity = export_verified(network.model, images, base_folder / "base.onnx", metadata=serving, exporter=kind)
        log.notes += exported.warnings
    if parity.verdict is Verdict.INCONCLUSIVE:
        log.warnings.append(f"ONNX parity is inconclusive: {parity.message}")
    elif parity.verdict is Verdict.WARN:
        log.notes.append(f"ONNX parity: {parity.message}")
    latency = clock_files(base_folder / "base.onnx", folder / "model.onnx", job, clock, log, listen)
    return Realised(
        small,
        plan,
        guard,
        tuple(log.accuracy),
        exported.path,
        parity,
        base_parity,
        latency,
        tuple(log.warnings),
        tuple(log.notes),
        digest,
    )


Judge = Callable[[nn.Module, str], Sequence[Measured]]


def judging(data: Data | None) -> Judge:
    """Accuracy on the validation split, or nothing where there are no labels."""

    def judge(model: nn.Module, when: str) -> Sequence[Measured]:
        return [measured(model, when, "validation", data.validation)] if data is not None and data.labelled else []

    return judge


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


def _zero_kernels(
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


def _effective(model: nn.Module) -> str:
    effective, total = effective_params(model), _params(model)
    return (
        f"kernel mode: {effective:,} effective parameters of {total:,}; zeros in a dense weight save no MACs and no time, "
        "which are those of the dense network"
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


def schedule_for(job: Job, images: train.Split, labelled: bool) -> train.Schedule:
    """How the job trains on so many images; without labels it only imitates the unpruned network."""
    return train.Schedule(
        epochs=epochs_for(job, len(images)),
        lr=job.lr,
        batch=min(job.batch, len(images)),
        distill=job.distill if labelled else 1.0,
        seed=job.seed,
    )


def ready_to_draw(job: Job, data: Data | None) -> train.Split:
    """The images of Centripetal SGD, before any work: they must be there, and suffice to make filters equal.

    Raises:
        ConfigError: there is nothing to train on.
        TrainError: the schedule is too short or eps too weak; the hint says what would do.
    """
    if data is None or data.train is None:
        raise ConfigError(
            "C-SGD is training, and there are no training images",
            hint="add --data with training images, or use --realise cut with another method",
        )
    schedule = schedule_for(job, data.train, data.labelled)
    strength(schedule, train.steps_per_epoch(len(data.train), schedule), job.eps)
    return data.train


def draw(
    model: nn.Module,
    topology: Topology,
    plan: Plan,
    material: Material,
    data: Data | None,
    job: Job,
    folder: Path,
    judge: Judge,
    clock: Clock,
    log: Log,
    listen: Listen,
) -> tuple[nn.Module, Verified]:
    """Centripetal SGD instead of recovery: clusters are made equal first, so the trim itself changes nothing.

    Raises:
        GuardError: the trim changed an output.
    """
    images = ready_to_draw(job, data)
    assert data is not None
    schedule = schedule_for(job, images, data.labelled)
    with clock.phase("C-SGD", f"{schedule.epochs} epochs towards equal filters"):
        state = folder / "csgd"
        teacher = model if schedule.distill else None
        drawn = draw_together(
            model, topology, plan, images, schedule, eps=job.eps, teacher=teacher, state_dir=state, listen=listen
        )
        log.accuracy += judge(drawn.trained, "C-SGD")
        log.accuracy += judge(drawn.averaged, "averaged")
    with clock.phase("trim", "and prove that it changes nothing"):
        small, guard = guarded_cut(drawn.averaged, topology, plan, material.calibration)
        log.accuracy += judge(small, "cut")
        outputs = [logits(m, material.judged) for m in (drawn.trained, drawn.averaged, small)]
    averaging, trim = _changes(*outputs[:2]), _changes(*outputs[1:])
    if not trim[1] <= _TRIM_TOLERANCE:
        raise GuardError(
            f"the trim changed the outputs by {trim[1]:.1e} of the largest, at most {_TRIM_TOLERANCE:.0e} is wanted",
            hint="channels that should be equal are treated differently somewhere; please report the network",
        )
    found, total = drawn.strength, len(material.judged)
    raised = f" (raised from the paper's {PAPER_EPS:g}: the training is short)" if found.raised else ""
    log.notes += [
        f"C-SGD: eps {found.eps:.2g} in kernels, {found.vector_eps:.2g} in vectors{raised}; deviations shrink by "
        f"exp(-{found.kernels:.0f}) and exp(-{found.vectors:.0f}); the largest was {drawn.before:.2g} of its tensor, then "
        f"{drawn.after:.1e}",
        f"averaging the clusters exactly changed {averaging[0]} of {total} predictions, the outputs by {averaging[1]:.1e}",
        f"the trim changed {trim[0]} of {total} predictions, the outputs by {trim[1]:.1e}; nothing is recovered after it",
    ]
    return small, guard


def _changes(wanted: Tensor, got: Tensor) -> tuple[int, float]:
    """How many predictions differ, and the largest change over the largest output."""
    differ = int((wanted.argmax(dim=1) != got.argmax(dim=1)).sum())
    return differ, float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30))


def clock_files(base: Path, pruned: Path, job: Job, clock: Clock, log: Log, listen: Listen) -> tuple[LatencyResult, ...]:
    """Base and pruned in turn, on every runtime that the job names and the machine has."""
    if job.latency_seconds == 0:
        log.notes.append("latency was not measured (--latency-seconds 0)")
        return ()
    results = []
    for name in job.runtimes:
        runtime = OrtRuntime(name, threads=job.threads if name == "cpu" else None, require_gpu=job.require_gpu)  # type: ignore[arg-type]
        if not runtime.available() and not job.require_gpu:
            log.warnings.append(f"runtime {name} is not available here; it was not measured")
            listen(Warned(log.warnings[-1]))
            continue
        with clock.phase("latency", f"{runtime.name}, base and pruned in turn"):
            settings = Settings(budget_seconds=job.latency_seconds, seed=job.seed)
            results.append(measure(base, {"pruned": pruned}, runtime=runtime, settings=settings, listen=listen))
    return tuple(results)


def _provenance(network: Network, plan: Plan, job: Job, data: Data | None, accuracy: Sequence[Measured]) -> Mapping[str, str]:
    """What the ONNX file says about itself."""
    facts = {
        "tool": "smaller-convnets",
        "method": job.method,
        "parent": network.digest,
        "plan": plan.digest,
        "network": network.name,
        "seed": str(job.seed),
        "round_to": str(job.round_to),
        "torch": str(capture().to_json().get("torch", torch.__version__)),
        "data": data.name if data is not None else "none",
    }
    for found in accuracy:
        facts[f"accuracy {found.when} ({found.split})"] = f"{found.top1:.4f}"
    return facts | _serving(network, data)


def _serving(network: Network, data: Data | None) -> dict[str, str]:
    """What clients of the file have to know."""
    return serving_facts(network.preprocessing, data.classes if data is not None else ())
