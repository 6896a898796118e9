"""Looking before cutting: what can go, what cannot and why, and how little can be reached."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from compress.core import BranchId, Cost, LatencyTable, LayerName, Listen, Plan, Topology, count, ignore
from compress.coupling import CouplingAgreement, trace_with_agreement
from compress.evaluation import matched_inputs
from compress.export import export_verified
from compress.networks import Network
from compress.pipeline.job import Job
from compress.pipeline.latency_tables import known_table
from compress.search import NARROW, CostModel, Target, make_stages, prunable, reachable, skippable

_TRIED = 10
"""Inputs of an export that is tried."""


@dataclass(frozen=True)
class LayerRow:
    """One layer as ``compress inspect`` shows it."""

    name: LayerName
    kind: str
    channels: int
    macs: int
    params: int
    group: str
    why_not: str


@dataclass(frozen=True)
class BranchRow:
    """A branch as ``compress inspect`` shows it.

    Attributes:
        name: its id.
        macs: share of the network's; None where it cannot go.
        params: the same.
        latency: the same, predicted; None without a table.
        why_not: why it stays; empty where it may go.
    """

    name: BranchId
    macs: float | None
    params: float | None
    latency: float | None
    why_not: str


@dataclass(frozen=True)
class Inspection:
    """A network before any work.

    Attributes:
        topology: its groups.
        cost: the whole.
        layers: per layer.
        branches: per branch beside an identity shortcut.
        frozen: layer -> why its channels stay.
        least: ``macs``, ``params`` and, where a table is there, ``latency`` -> the least share that aligned widths can reach.
        least_unaligned: the same at ``--round-to 1``.
        narrow: groups of fewer than 16 channels, exempt from alignment.
        notes: how far Torch-Pruning's graph has the same groups, and what it has otherwise.
        warnings: where the network's code asks for values.
    """

    topology: Topology
    cost: Cost
    layers: tuple[LayerRow, ...]
    branches: tuple[BranchRow, ...]
    frozen: Mapping[LayerName, str]
    least: Mapping[str, float]
    least_unaligned: Mapping[str, float]
    narrow: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def traced(network: Network) -> Topology:
    """The network's topology, from an example of the size its images have."""
    return traced_with_agreement(network)[0]


def try_export(network: Network, job: Job) -> None:
    """Writes the unpruned network once, to where nobody looks: what cannot be exported is not worth a search.

    Raises:
        ExportError: it cannot be written, or not with its height and width left open.
        ParityError: the file computes something else.
    """
    rows = matched_inputs(network.model, network.shape, _TRIED, steps=0, fine_steps=0).images
    with tempfile.TemporaryDirectory() as folder:
        export_verified(network.model, rows, Path(folder) / "try.onnx", exporter=job.exporter, dynamic_size=job.dynamic_size)


def traced_with_agreement(network: Network, listen: Listen = ignore) -> tuple[Topology, CouplingAgreement]:
    """The same, and how far Torch-Pruning's dependency graph has the groups as the topology has them."""
    return trace_with_agreement(network.model, torch.zeros(1, *network.shape), listen=listen)


def reach(topology: Topology, job: Job, kind: str, round_to: int | None = None, table: LatencyTable | None = None) -> float:
    """The least share of MACs, parameters or, from a table, latency that the job's widths and branches can reach."""
    groups, _ = prunable(topology, job.ignore, job.realise)
    stages = make_stages(topology, groups, streams=job.streams)
    cost = CostModel(topology, Target(kind if kind in ("params", "latency") else "macs", 1.0), table)
    gone = job.leaving(skippable(topology, job.ignore)[0])
    return reachable(cost, [g for s in stages for g in s.groups], round_to or job.round_to, gone)


def _branches(topology: Topology, job: Job, table: LatencyTable | None) -> tuple[BranchRow, ...]:
    """What each branch takes of the whole; those that cannot go come last."""
    _, left = skippable(topology, job.ignore)
    whole, rows = count(topology, table=table), []
    for branch in topology.branches:
        now = count(topology, Plan(branches=(branch.name,)), table=table).share_of(whole)
        why = left.get(branch.name, "" if job.branches else "--no-branches")
        latency = None if now.latency is None else 1 - now.latency
        rows.append(BranchRow(name=branch.name, macs=1 - now.macs, params=1 - now.params, latency=latency, why_not=why))
    for name in (n for n in left if n not in topology.by_branch):
        rows.append(BranchRow(name=name, macs=None, params=None, latency=None, why_not=left[name]))
    return tuple(rows)


def inspect(network: Network, job: Job) -> Inspection:
    """Everything there is to know before a search; latency where a table is given or was made here before."""
    topology, agreement = traced_with_agreement(network)
    table = known_table(topology, job)
    chosen, frozen = prunable(topology, job.ignore, job.realise)
    if not job.streams:
        kept = {g for s in make_stages(topology, chosen, streams=False) for g in s.groups}
        frozen = {**frozen, **{LayerName(g): "a residual stream (--no-streams)" for g in chosen if g not in kept}}
        chosen = tuple(g for g in chosen if g in kept)
    group_of = {x.name: g for g in chosen for x in topology.writers(g)}
    rows = []
    for layer in topology.layers:
        info = topology.tensors[layer.weight]
        numel = math.prod(info.shape)
        channels = info.shape[layer.write_dim] * (layer.cardinality if layer.kind == "conv_transpose" else 1)
        follows = "follows its input" if layer.depthwise else ""
        why = "" if layer.name in group_of else frozen.get(layer.name, follows)
        rows.append(
            LayerRow(
                name=layer.name,
                kind=layer.kind,
                channels=channels,
                macs=info.sites * numel,
                params=numel,
                group=group_of.get(layer.name, ""),
                why_not=why,
            )
        )
    least = {k: reach(topology, job, k) for k in ("macs", "params")}
    loose = {k: reach(topology, job, k, 1) for k in ("macs", "params")}
    if table is not None:
        least["latency"], loose["latency"] = (reach(topology, job, "latency", r, table) for r in (None, 1))
    narrow = tuple(g for g in chosen if any(len(o) < NARROW for o in topology.by_id[g].orbits()))
    return Inspection(
        topology=topology,
        cost=count(topology),
        layers=tuple(rows),
        branches=_branches(topology, job, table),
        frozen=frozen,
        least=least,
        least_unaligned=loose,
        narrow=narrow,
        notes=agreement.sentences(),
        warnings=agreement.warnings(),
    )
