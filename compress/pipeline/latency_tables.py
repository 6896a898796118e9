"""Which latency table a run uses: a file that was given, one that was made here before, or one that is made now."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from compress.core import GroupId, LatencyTable, Listen, Plan, Topology, Warned, capture, user_cache, write_json
from compress.errors import ConfigError, ModelError, RuntimeUnavailable
from compress.export import Resizable, export, resizable
from compress.importing import ImportedNetwork
from compress.latency import (
    NETWORKS,
    ImportedNetworks,
    ModuleNetworks,
    OnnxNetworks,
    SizedNetworks,
    block_of,
    collect,
    machine,
    table_of,
)
from compress.networks import Network
from compress.pipeline.job import Job
from compress.pipeline.latency_floor import check_floor
from compress.pipeline.module_files import of_torch, torch_runtime
from compress.pipeline.run import Run, runtime_for
from compress.runtime import TORCH_RUNTIMES, OrtRuntime
from compress.search import CostModel, Target, prunable, share_at
from compress.signature import bare
from compress.surgery import cut
from compress.workers import alone

_ALIGNMENTS = (1, 2, 4, 8, 16, 32)
_AS_FAST = 1.02
"""A finer alignment is taken if its networks take at most so much longer."""
_COMPARED = np.linspace(0.25, 0.85, 25)
"""Shares of the multiply-accumulates at which alignments are compared."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """A network of a latency table was measured."""

    done: int
    total: int


def needed(job: Job) -> bool:
    """Whether a run asks for predicted latency."""
    return job.target == "latency" or job.auto_round or bool(job.table)


def known_table(topology: Topology, job: Job) -> LatencyTable | None:
    """The table that a run would use without measuring; None where it would have to be made."""
    if job.table:
        return load(Path(job.table), topology, force=job.force, threads=job.threads, runtime=_clocked_by(job))
    path = kept_at(topology, job)
    return load(path, topology, force=False, threads=job.threads, runtime=_clocked_by(job)) if path.exists() else None


def table_for(run: Run, topology: Topology) -> LatencyTable:
    """The table of a run; made, and kept for other runs, where there is none.

    Raises:
        ConfigError: the file is damaged, of another network, or from another environment.
        RuntimeUnavailable: the job's first runtime measures no layers.
    """
    job = run.job
    found = known_table(topology, job)
    if found is None:
        with alone():
            found = known_table(topology, job) or _made(run, topology)  # another run beside this one may have made it
    return found


def _made(run: Run, topology: Topology) -> LatencyTable:
    path, clock, source = kept_at(topology, run.job), run.clock, networks_of(run.network, topology, run.job)
    check_floor(run, source)
    with clock.phase("latency table", f"{NETWORKS} networks of random widths, once for this machine and network"):
        found = make(run.network, topology, run.job, path, run.listen, source=source)
    run.listen(Warned(f"latency table kept at {path}; it took {clock.seconds['latency table']:.0f} s"))
    return found


def networks_of(network: Network, topology: Topology, job: Job) -> SizedNetworks:
    """The unpruned network at any widths, as the job's first runtime measures it: ONNX files on the CPU, or modules in torch.

    Raises:
        ExportError: it cannot be exported so that its weights keep their names.
        RuntimeUnavailable: the job's first runtime is a GPU through ONNX Runtime, whose kernels' times a profile does not tell.
    """
    name = _clocked_by(job)
    if name in TORCH_RUNTIMES:
        modules: dict[Path, nn.Module] = {}
        runtime = torch_runtime(network, name, threads=job.threads, modules=modules)
        return ModuleNetworks(model=network.model, topology=topology, modules=modules, runtime=runtime)
    if isinstance(bare(network.model), ImportedNetwork):
        return ImportedNetworks(model=network.model, topology=topology, runtime=runtime_for(job))
    return OnnxNetworks(source_of(network, topology, job), runtime_for(job))


def _clocked_by(job: Job) -> str:
    """The runtime that the job's tables are of.

    Raises:
        RuntimeUnavailable: it is a GPU through ONNX Runtime.
    """
    first = job.runtimes[0] if job.runtimes else "cpu"
    if of_torch(first) or first == "cpu":
        return first if of_torch(first) else "ort-cpu"
    raise RuntimeUnavailable(
        f"latency tables are measured on the CPU or in torch, the job's first runtime is {first}",
        hint="leave --runtime out, name torch-cuda first, or give --macs as the target and have the result clocked on the GPU",
    )


def kept_at(topology: Topology, job: Job) -> Path:
    """Where this machine's table of a network is kept between runs."""
    runtime = _clocked_by(job)
    by = "" if runtime == "ort-cpu" else f"-{runtime}"
    return user_cache() / "tables" / f"{topology.digest}-{capture(threads=job.threads).digest}{by}.json"


def make(
    network: Network,
    topology: Topology,
    job: Job,
    path: Path,
    listen: Listen,
    *,
    networks: int = NETWORKS,
    seconds: float | None = None,
    source: SizedNetworks | None = None,
) -> LatencyTable:
    """Measures a table and writes it; what was measured when it was interrupted is not measured again.

    Args:
        network: unpruned.
        topology: its topology.
        job: threads, exporter, what may be cut.
        path: the table's final name; a journal stands beside it until it is finished.
        listen: receives :class:`Measuring`.
        networks: how many.
        seconds: of measuring each; by default as the network's size wants.
        source: the network at any widths, where the caller has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    groups, _ = prunable(topology, job.ignore, job.realise)
    source = source or networks_of(network, topology, job)
    runtime = source.runtime
    here = machine(runtime).digest
    journal = path.with_name(f"{path.stem}-{topology.digest}-{here}-{job.seed}.jsonl")
    measured = collect(
        source,
        groups,
        kept=journal,
        networks=networks,
        seconds=seconds or _seconds(topology),
        seed=job.seed,
        listen=lambda done, total: listen(Measuring(done, total)),
    )
    block = block_of(runtime) if isinstance(runtime, OrtRuntime) else 1
    table = table_of(topology, measured, runtime, block)
    write_json(path, table.to_json())
    journal.unlink(missing_ok=True)
    return table


def _seconds(topology: Topology) -> float:
    """A second or two each: enough for a dozen runs of a ResNet-50."""
    return float(np.clip(topology.whole[0] / 2e9, 0.7, 3.0))


def source_of(network: Network, topology: Topology, job: Job) -> Resizable:
    """The unpruned network as a file that plans can be applied to.

    Raises:
        ExportError: it cannot be exported so that its weights keep their names.
    """
    example = torch.zeros(2, *network.shape)
    with tempfile.TemporaryDirectory(prefix="compress-base-") as folder:
        path = Path(folder) / "base.onnx"
        export(network.model, example, path, exporter=job.exporter)
        base = onnx.load(str(path))

    def again(plan: Plan, to: Path) -> None:
        export(cut(network.model, topology, plan), example, to, exporter=job.exporter)

    return resizable(base, topology, again)


def load(path: Path, topology: Topology, *, force: bool, threads: int = 1, runtime: str = "ort-cpu") -> LatencyTable:
    """A table from a file.

    Args:
        path: of ``compress table``.
        topology: the network that it must be of.
        force: take one from another environment.
        threads: that the run measures with.
        runtime: that the run measures on.

    Raises:
        ConfigError: no table, of another network or runtime, or from another environment.
    """
    try:
        table = LatencyTable.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no latency table: {error}", hint=f"make one: compress table MODEL --out {path}"
        ) from error
    except ConfigError as error:
        error.met_in(path)
        raise
    if table.topology != topology.digest:
        raise ModelError(
            f"{path} is of network {table.topology}, this one is {topology.digest}",
            hint=f"make one of this network: compress table MODEL --out {path}",
        )
    if table.runtime != runtime:
        wanted = "" if runtime == "ort-cpu" else f" --runtime {runtime}"
        raise ConfigError(
            f"{path} was measured on {table.runtime}, this run measures on {runtime}",
            hint=f"make one there: compress table MODEL{wanted} --out {path}",
        )
    here = capture(threads=threads)
    if table.environment != here.digest and not force:
        raise ConfigError(
            f"{path} was measured in another environment ({table.machine}; {table.environment}, this one is {here.digest})",
            hint="make one here: compress table MODEL --out T.json; --force takes it all the same",
        )
    return table


def alignment(topology: Topology, groups: Sequence[GroupId], table: LatencyTable) -> int:
    """The finest multiple whose networks are as fast, at equal multiply-accumulates, as the fastest one's.

    Args:
        topology: the network's.
        groups: what may be cut.
        table: its latency.
    """
    models = (CostModel(topology, Target("macs", 1.0)), CostModel(topology, Target("latency", 1.0), table))
    cost = {}
    for step in _ALIGNMENTS:
        ratios = np.linspace(0.2, 1.0, 41).tolist()
        kept, times = (np.array([share_at(model, groups, ratio, step) for ratio in ratios]) for model in models)
        order = np.argsort(kept, kind="stable")
        cost[step] = float(np.interp(_COMPARED, kept[order], times[order]).mean())
    best = min(cost.values())
    return next(step for step in _ALIGNMENTS if cost[step] <= best * _AS_FAST)
