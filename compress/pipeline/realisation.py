"""From a plan to a network that can be deployed: cut, prove, recover, export, clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.core import Plan, capture
from compress.data import GivenSplit, Preprocessing, preset_for
from compress.export import Parity, ParityVerdict, export_verified, serving_facts
from compress.latency import LatencyResult, Settings, measure
from compress.networks import TASK, save
from compress.pipeline.csgd import train_and_trim
from compress.pipeline.module_files import of_torch, torch_runtime
from compress.pipeline.preparation import Prepared, holding_out
from compress.pipeline.run import Run
from compress.pipeline.steps import effective, finetune, guarded_cut, recovered, with_zero_kernels
from compress.surgery import Verified
from compress.workers import alone

_PARITY_INPUTS = 10


@dataclass(frozen=True)
class Realised:
    """A plan made real; accuracies, warnings and notes stand in the run's log.

    Attributes:
        model: cut and recovered.
        plan: what was cut.
        guard: what the guard saw.
        onnx: the exported file.
        parity: its comparison with the model.
        latency: per runtime.
        digest: of the model's tensors.
    """

    model: nn.Module
    plan: Plan
    guard: Verified
    onnx: Path
    parity: Parity
    latency: tuple[LatencyResult, ...]
    digest: str


def realise(run: Run, prepared: Prepared, plan: Plan, trained: nn.Module | None = None) -> Realised:
    """Makes a plan real, step by step; nothing lands under a final name before it is proven.

    Args:
        run: how to recover, export and clock; its folder receives ``model.safetensors``, both ONNX files and the training's
            state.
        prepared: topology and calibration images.
        plan: what to cut.
        trained: the same cut network, trained already: its tensors are taken, and nothing is recovered before the fine-tuning.

    Raises:
        GuardError: wrong surgery.
        ParityError: the ONNX file computes something else.
    """
    network, images = run.network, prepared.material.calibration
    if run.job.realise == "csgd" and plan:
        small, guard = train_and_trim(run, prepared, plan)
    else:
        small, guard = _cut_and_recovered(run, prepared, plan, trained)
    metadata = _provenance(run, plan)
    digest = save(
        run.folder / "model.safetensors",
        small,
        architecture=network.architecture,
        plan=plan,
        preprocessing=network.preprocessing,
        metadata=metadata,
    )
    with run.clock.phase("export", "ONNX, and prove that it computes the same"):
        exported = export_pair(run, small, images, metadata)
    run.note(*exported.warnings)
    if exported.parity.verdict is ParityVerdict.INCONCLUSIVE:
        run.warn(f"ONNX parity is inconclusive: {exported.parity.message}")
    elif exported.parity.verdict is ParityVerdict.WARN:
        run.note(f"ONNX parity: {exported.parity.message}")
    return Realised(
        model=small,
        plan=plan,
        guard=guard,
        onnx=exported.pruned,
        parity=exported.parity,
        latency=clock_files(run, exported, small),
        digest=digest,
    )


def _cut_and_recovered(run: Run, prepared: Prepared, plan: Plan, trained: nn.Module | None) -> tuple[nn.Module, Verified]:
    """Cut under the guard's eyes, recovered without training unless it was trained already, and fine-tuned."""
    topology, images, original = prepared.topology, prepared.material.calibration, run.network.model
    run = holding_out(run, prepared)
    with run.clock.phase("cut", "and prove that nothing else changed"):
        small, guard = guarded_cut(original, topology, plan, images)
        run.judge(small, "cut")
    if trained is not None:
        small.load_state_dict(trained.state_dict())
        run.judge(small, "trained by stages")
    else:
        small = recovered(run, original, small, topology, plan, images)
    small, kernels = with_zero_kernels(run, small, topology, plan, images)
    small = finetune(run, small, kernels, plan=plan)
    if kernels:
        run.note(effective(small))
    return small, guard


@dataclass(frozen=True)
class ExportedPair:
    """A run's two files.

    Attributes:
        base: of the unpruned network.
        pruned: of the pruned one.
        parity: how far the pruned one's is from its network.
        warnings: of its export.
    """

    base: Path
    pruned: Path
    parity: Parity
    warnings: tuple[str, ...]


def export_pair(run: Run, small: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> ExportedPair:
    """``base.onnx`` and ``model.onnx`` in the run's folder, both proven on the first images.

    Raises:
        ParityError: a file computes something else than its network.
    """
    images, kind, sides = images[:_PARITY_INPUTS], run.job.exporter, run.job.dynamic_size
    base, pruned = run.folder / "base.onnx", run.folder / "model.onnx"
    exported, parity = export_verified(small, images, pruned, metadata=metadata, exporter=kind, dynamic_size=sides)
    export_verified(run.network.model, images, base, metadata=_serving(run), exporter=kind, dynamic_size=sides)
    return ExportedPair(base, exported.path, parity, tuple(exported.warnings))


def clock_files(run: Run, files: ExportedPair, small: nn.Module) -> tuple[LatencyResult, ...]:
    """Base and pruned in turn, on every runtime that the job names and the machine has: files, or on torch the modules."""
    job, clock = run.job, run.clock
    if job.latency_seconds == 0:
        run.note("latency was not measured (--latency-seconds 0)")
        return ()
    results = []
    for name in job.runtimes:
        if of_torch(name):
            results.append(_clock_modules(run, name, small))
            continue
        runtime = run.runtime(name)
        if not runtime.available() and not job.require_gpu:
            run.warn(f"runtime {name} is not available here; it was not measured", now=True)
            continue
        with alone(), clock.phase("latency", f"{runtime.name}, base and pruned in turn"):
            settings = Settings(budget_seconds=job.latency_seconds, seed=job.seed)
            arms = {"pruned": files.pruned}
            results.append(measure(files.base, arms, runtime=runtime, settings=settings, listen=clock.listen))
    return tuple(results)


def _clock_modules(run: Run, name: str, small: nn.Module) -> LatencyResult:
    """The unpruned network and what became of it in turn, on one of torch's own runtimes."""
    job, clock, base, pruned = run.job, run.clock, Path("base"), Path("pruned")
    modules = {base: run.network.model, pruned: small}
    runtime = torch_runtime(run.network, name, threads=job.threads, modules=modules)
    settings = Settings(budget_seconds=job.latency_seconds, seed=job.seed, transfer="device" if runtime.on_gpu else "e2e")
    with alone(), clock.phase("latency", f"{runtime.name}, base and pruned in turn"):
        return measure(base, {"pruned": pruned}, runtime=runtime, settings=settings, listen=clock.listen)


def _provenance(run: Run, plan: Plan) -> Mapping[str, str]:
    """What the ONNX file says about itself."""
    network, job = run.network, run.job
    facts = {
        "tool": "smaller-convnets",
        "method": job.method,
        "parent": network.digest,
        "plan": plan.digest,
        "network": network.name,
        "seed": str(job.seed),
        "round_to": str(job.round_to),
        "torch": str(capture().to_json().get("torch", torch.__version__)),
        "data": run.data.name if run.data is not None else "none",
        TASK: run.task.spec,
    }
    for found in run.log.scores:
        facts[f"{run.task.figure.short if run.task.figure else 'score'} {found.when} ({found.split})"] = f"{found.value:.4f}"
    return facts | _serving(run)


def _serving(run: Run) -> dict[str, str]:
    """What clients of the file have to know."""
    classes = run.data.classes if run.data is not None and run.task.logit_per_class else ()
    return serving_facts(_preparation(run), classes)


def _preparation(run: Run) -> Preprocessing | None:
    """How a client prepares an image; None where only the user's own code knows: no guess is told as a fact."""
    network, split = run.network, None if run.data is None else run.data.validation
    if not isinstance(split, GivenSplit):
        return network.preprocessing
    guessed = network.architecture.runs_user_code and network.preprocessing == preset_for(
        network.architecture.name, network.shape
    )
    return split.prepared or (None if guessed else network.preprocessing)
