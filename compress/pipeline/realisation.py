"""From a plan to a network that can be deployed: cut, prove, recover, export, clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compress.core import Clock, Listen, Measured, Plan, Topology, Warned, capture, ignore
from compress.data import Data
from compress.evaluation import Material
from compress.export import Parity, ParityVerdict, export_verified, serving_facts
from compress.latency import LatencyResult, Settings, measure
from compress.networks import Network, save
from compress.pipeline.csgd import draw
from compress.pipeline.job import Job
from compress.pipeline.steps import Workbench, effective, finetune, guarded_cut, recovered, with_zero_kernels
from compress.runtime import OrtRuntime
from compress.surgery import Verified

_PARITY_INPUTS = 10
_NO_PLAN = Plan()


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
    bench = Workbench(data, job, folder, clock or Clock(listen))
    clock, log = bench.clock, bench.log
    images = material.calibration
    if job.realise == "csgd" and plan:
        small, guard = draw(bench, network.model, topology, plan, material)
    else:
        with clock.phase("cut", "and prove that nothing else changed"):
            small, guard = guarded_cut(network.model, topology, plan, images)
            bench.judge(small, "cut")
        if trained is not None:
            small.load_state_dict(trained.state_dict())
            bench.judge(small, "trained by stages")
        else:
            small = recovered(bench, network.model, small, topology, plan, images)
        small, kernels = with_zero_kernels(bench, small, topology, plan, images)
        small = finetune(bench, network.model, small, kernels)
        if kernels:
            log.notes.append(effective(small))
    metadata = _provenance(network, plan, job, data, log.accuracy)
    digest = save(
        folder / "model.safetensors",
        small,
        architecture=network.architecture,
        plan=plan,
        preprocessing=network.preprocessing,
        metadata=metadata,
    )
    base_folder = base_folder or folder
    images = images[:_PARITY_INPUTS]
    with clock.phase("export", "ONNX, and prove that it computes the same"):
        kind, serving = job.exporter, _serving(network, data)
        exported, parity = export_verified(small, images, folder / "model.onnx", metadata=metadata, exporter=kind)
        _, base_parity = export_verified(network.model, images, base_folder / "base.onnx", metadata=serving, exporter=kind)
        log.notes += exported.warnings
    if parity.verdict is ParityVerdict.INCONCLUSIVE:
        log.warnings.append(f"ONNX parity is inconclusive: {parity.message}")
    elif parity.verdict is ParityVerdict.WARN:
        log.notes.append(f"ONNX parity: {parity.message}")
    latency = clock_files(bench, base_folder / "base.onnx", folder / "model.onnx")
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


def clock_files(bench: Workbench, base: Path, pruned: Path) -> tuple[LatencyResult, ...]:
    """Base and pruned in turn, on every runtime that the job names and the machine has."""
    job, clock, log = bench.job, bench.clock, bench.log
    if job.latency_seconds == 0:
        log.notes.append("latency was not measured (--latency-seconds 0)")
        return ()
    results = []
    for name in job.runtimes:
        runtime = OrtRuntime(name, threads=job.threads if name == "cpu" else None, require_gpu=job.require_gpu)  # type: ignore[arg-type]
        if not runtime.available() and not job.require_gpu:
            log.warnings.append(f"runtime {name} is not available here; it was not measured")
            clock.listen(Warned(log.warnings[-1]))
            continue
        with clock.phase("latency", f"{runtime.name}, base and pruned in turn"):
            settings = Settings(budget_seconds=job.latency_seconds, seed=job.seed)
            results.append(measure(base, {"pruned": pruned}, runtime=runtime, settings=settings, listen=clock.listen))
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
