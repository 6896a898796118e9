"""Input selections have to pay: which layers may select is measured before a search, what was selected once more after it.

Both measurements are noisy, and a search must end the same way after an interruption: what was found is kept in the run's
folder and read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import torch
from torch import nn

from compress.core import LayerName, Plan, Topology, kept_positions, plural, read_json, selectable, write_json
from compress.errors import ConfigError
from compress.latency import GAIN, TimedReader, gains, readers, worthwhile
from compress.pipeline.module_files import of_torch
from compress.pipeline.run import Run
from compress.pipeline.run_folder import SELECTIONS
from compress.runtime import OrtRuntime
from compress.search import METHODS, Front, Space, non_dominated, slices
from compress.surgery import cut
from compress.workers import alone

_BEFORE, _AFTER = "before the search", "after the search"


def may_select(run: Run, space: Space) -> Space:
    """The space with the layers for which reading selected inputs is measurably faster on the job's first runtime.

    Nothing is measured where the method selects no inputs, the job measures no latency, or the runtime is not here: then every
    layer may select that can. No layer may where C-SGD realises the plan: clusters of filters are widths.
    """
    if run.job.realise == "csgd":
        return replace(space, selecting={})
    runtime = _runtime(run)
    if not METHODS[run.job.method].reader_losses or runtime is None:
        return space
    topology = space.topology
    several = {g for g in space.groups if len(topology.readers(g)) > 1}
    names = [
        n
        for n, r in space.statistics.reader_losses.items()
        if {g for g, _ in r.sources} & several and selectable(topology, topology.by_layer[n])
    ]
    found = _kept(run.folder, _BEFORE)
    if found is None:
        with (
            alone(),
            run.clock.phase(
                "selections", f"does it pay to read selected inputs? {plural(len(names), 'layer')}, {runtime.name}"
            ),
        ):
            example = torch.zeros(1, *topology.example)
            model, seed = run.network.model, run.job.seed
            measured = worthwhile(model, example, names, runtime=runtime, seed=seed, listen=run.listen)
        found = {str(name): share for name, share in measured.items()}
        _keep(run.folder, _BEFORE, found)
    return replace(space, selecting={LayerName(name): share for name, share in found.items()})


def settled(run: Run, space: Space, front: Front) -> tuple[Front, tuple[str, ...]]:
    """The front with those selections only that are measurably faster in its plans' own shapes, and what was found.

    A layer whose selection does not pay reads everything that arrives again: the point then costs more, and is at least as
    accurate as it was scored.
    """
    runtime = _runtime(run)
    selecting = [p for p in front if p.plan.inputs]
    if not selecting:
        return front, ()
    if runtime is None:
        return front, ("layers read selected inputs; whether that is faster was not measured",)
    known = _kept(run.folder, _AFTER) or {}

    def gain(reader: TimedReader, reads: int, contiguous: bool) -> float:
        key = json.dumps([*astuple(reader), reads, contiguous])
        if key not in known:
            measured = gains(reader, [reads], runtime=runtime, contiguous=contiguous, seed=run.job.seed, listen=run.listen)
            known[key] = measured.get(reads, 0.0)
            _keep(run.folder, _AFTER, known)
        return known[key]

    points, asked, kept = [p for p in front if not p.plan.inputs], 0, 0
    with (
        alone(),
        run.clock.phase(
            "selections", f"{plural(len(selecting), 'plan')} read selected inputs: are they faster? {runtime.name}"
        ),
    ):
        for point in selecting:
            paid = _paying(run.network.model, space.topology, point.plan, gain)
            asked, kept = asked + len(point.plan.inputs), kept + len(paid.inputs)
            points.append(space.point(paid, point.error, point.fidelity))
    found = f"{kept} of {plural(asked, 'input selection')} in {plural(len(selecting), 'plan')}"
    note = f"{found}: at least {GAIN:g}x as fast as all inputs, each layer measured alone on {runtime.name}"
    if kept == asked:
        return front, (note,)
    if space.target.kind != "max_drop" and all(space.share(p.plan) > space.target.value + 1e-9 for p in points):
        return front, (f"{note}; the others stay all the same: without them no plan is within the target",)
    return non_dominated(points, space.target.kind), (f"{note}; the others were taken back",)


def _paying(model: nn.Module, topology: Topology, plan: Plan, gain: Callable[[TimedReader, int, bool], float]) -> Plan:
    """The plan with the selections that gain enough."""
    whole = cut(model, topology, replace(plan, inputs={}))
    shapes = readers(whole, torch.zeros(1, *topology.example), plan.inputs)
    table, contiguous = kept_positions(topology, plan), set(slices(topology, plan))
    kept = {}
    for name, shape in shapes.items():
        layer = topology.by_layer[name]
        if gain(shape, len(table[layer.weight, layer.read_dim]), name in contiguous) >= GAIN:
            kept[name] = plan.inputs[name]
    return replace(plan, inputs=kept)


def _runtime(run: Run) -> OrtRuntime | None:
    """What the selections are measured on; None where nothing is measured."""
    if run.job.latency_seconds == 0 or of_torch(run.job.runtimes[0]):
        return None
    runtime = run.runtime(run.job.runtimes[0])
    return runtime if runtime.available() else None


def _kept(folder: Path, when: str) -> dict[str, float] | None:
    try:
        found = read_json(folder / SELECTIONS, hint="start over with --fresh").get(when)
    except ConfigError:
        return None
    whole = isinstance(found, dict) and all(isinstance(v, int | float) for v in found.values())
    return {str(k): float(v) for k, v in found.items()} if whole and found is not None else None


def _keep(folder: Path, when: str, found: dict[str, float]) -> None:
    held = {w: kept for w in (_BEFORE, _AFTER) if (kept := _kept(folder, w)) is not None}
    write_json(folder / SELECTIONS, {**held, when: found})
