"""From a finished run to its report: what was measured, in one object."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from compress.core import (
    Certificate,
    Difference,
    Figure,
    Plan,
    Topology,
    capture,
    count,
    finite_json,
    gone_keys,
    made_by,
    plural,
    sizes_after,
    widths,
)
from compress.data import Data
from compress.latency import identify
from compress.pipeline.job import Job
from compress.pipeline.preparation import Prepared
from compress.pipeline.realisation import Realised
from compress.pipeline.run import Run
from compress.pipeline.search_summary import SearchSummary
from compress.report import (
    BranchSpan,
    Report,
    Scoring,
    Sensitivity,
    Size,
    Width,
    flags,
    latency_of,
    missed_drop,
    verdict_sentence,
)
from compress.search import METHODS, NARROW, Space, behind, prunable, skippable


def build_report(
    run: Run,
    prepared: Prepared,
    done: Realised,
    search: SearchSummary,
    *,
    certificate: Certificate | None = None,
    change: Difference | None = None,
) -> Report:
    """One frozen report of everything that was measured.

    Args:
        run: that ended.
        prepared: what its search stood on.
        done: the network that was made.
        search: where its plan comes from.
        certificate: what can have been lost, without targets.
        change: of the test figure, paired by image.
    """
    network, data, job, folder = run.network, run.data, run.job, run.folder
    topology, space, scores = prepared.topology, prepared.space, (*prepared.base, *run.log.scores)
    task, figure = run.task, run.task.figure
    before, after = (count(topology, plan, table=space.table) for plan in (Plan(), done.plan))
    latency = tuple(latency_of(r) for r in done.latency)
    share = space.target.share(after.share_of(before))
    warnings = [
        *flags(_scoring(run, certificate), scores, latency),
        *(missed_drop(run.goal.value, figure, scores, certificate) if job.target == "max_drop" and figure is not None else ()),
        *run.log.warnings,
    ]
    notes = [
        *network.warnings,
        *(data.warnings if data is not None else ()),
        *search.notes,
        *run.log.notes,
    ]
    notes.append(f"{job.target}: {search.chosen}")
    if task.bounded is None:
        notes.append(f"no certificate: without targets, nothing bounds what the network lost (task: {task.name})")
    elif data is not None and certificate is None and job.target != "max_drop":
        notes.append("no certificate of the loss: no image was left for it; more images, even without labels, would give one")
    if job.realise == "csgd" and job.recover != Job().recover:
        notes.append(f"recover {job.recover} had no effect: nothing is recovered after the trim of C-SGD")
    if done.plan.branches:
        may = len(skippable(topology, job.ignore)[0])
        named = ", ".join(done.plan.branches)
        notes.append(f"{len(done.plan.branches)} of {plural(may, 'branch')} beside shortcuts left out: {named}")
    narrow = [g for g in space.groups if any(len(o) < NARROW for o in topology.by_id[g].orbits())]
    if narrow and job.round_to > 1:
        notes.append(
            f"exempt from alignment, with fewer than {NARROW} channels: {plural(len(narrow), 'group')}, {', '.join(narrow[:4])}"
        )
    return Report(
        name=folder.name,
        verdict=verdict_sentence(latency, scores, before.macs / max(after.macs, 1), certificate, figure, change),
        warnings=tuple(warnings),
        notes=tuple(notes),
        method=job.method,
        citation="; made real by ".join(METHODS[m].citation for m in behind(job.method, job.realise)),
        target=target_text(job, figure),
        reached=share,
        architecture=network.architecture.name,
        data=_images(data),
        before=Size(before.macs, before.params, _bytes(folder / "base.onnx")),
        after=Size(after.macs, after.params, _bytes(done.onnx)),
        scores=scores,
        steps=tuple(run.log.steps),
        widths=_widths(run, space, done.plan),
        latency=latency,
        parity=finite_json(done.parity.to_json()),
        guard={
            "error": done.guard.error,
            "where": done.guard.where,
            "observed": done.guard.observed,
            "tolerance": done.guard.tolerance,
        },
        search=finite_json(search.to_json(), str),
        seconds={k: round(v, 2) for k, v in run.clock.seconds.items()},
        digests={
            "network": network.digest,
            "model": done.digest,
            "plan": done.plan.digest,
            "topology": topology.digest,
            **(data.digests if data is not None else {}),
            **{path.name: identify(path).sha256 for path in (folder / "base.onnx", done.onnx) if path.exists()},
        },
        environment=finite_json(capture(threads=job.threads).to_json(), str),
        job=finite_json(job.to_json(figure), str),
        command=run.command,
        certificate=certificate,
        task=task.name,
        figure=figure,
        image=tuple(network.shape),
        change=change,
        branches=_branches(topology, done.plan),
        sensitivity=_sensitivity(space, done.plan),
        made_by=made_by(),
        finalists=search.finalists,
    )


def _branches(topology: Topology, plan: Plan) -> tuple[BranchSpan, ...]:
    """The branches beside shortcuts that hold a layer, in forward order."""
    held = [(b, tuple(x.name for x in topology.layers if b.holds(x.name))) for b in topology.branches]
    return tuple(BranchSpan(b.name, layers, left_out=b.name in plan.branches) for b, layers in held if layers)


def _sensitivity(space: Space, plan: Plan) -> tuple[Sensitivity, ...]:
    """From the curves that the search stood on: nothing is measured anew."""
    lateness, gone = space.statistics.importance.get("obs", {}), gone_keys(space.topology, plan.branches)
    rows = []
    for group in (g.id for g in space.topology.groups if g.id in space.statistics.curves):
        curve = space.statistics.curves[group]
        errors = np.append(0.0, np.cumsum(np.asarray(curve)[np.argsort(lateness[group], kind="stable")]))
        size = len(curve)
        kept = len(plan.cuts[group].keep) if group in plan.cuts else size
        left_out = all(m.key in gone for m in space.topology.by_id[group].members)
        rows.append(Sensitivity(group, float(errors[size // 2]), None if left_out else float(errors[size - kept])))
    return tuple(rows)


def target_text(job: Job, figure: Figure | None) -> str:
    """What was asked for, as people read it."""
    if job.target == "max_drop":
        step = "points" if figure is None else figure.step
        step = "point" if step == "points" and job.value == 1 else step
        return f"max drop <= {job.value:g} {step}".rstrip()
    return f"{job.target} <= {job.value:g}"


def _images(data: Data | None) -> str:
    """What the images are, as people read it."""
    if data is None:
        return "none: synthetic inputs"
    background = data.validation.target_kind == "boxes"  # it is a class of detectors, and of no object
    classes = len(data.classes) - background
    return f"{data.name} ({plural(classes, 'class')})" if classes > 0 else data.name


def _scoring(run: Run, certificate: Certificate | None) -> Scoring:
    """What the report's words need to know about scores."""
    data, task = run.data, run.task
    wanted = "labels" if "classes" in task.targets else "targets"
    missing = "no data was given" if data is None else f"the images have no {wanted}"
    chance = task.chance(len(data.classes) if data is not None else 0)
    return Scoring(
        task=task.name,
        figure=task.figure,
        missing=missing,
        chance=chance,
        bounded=certificate.figure if certificate is not None else None,
    )


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _widths(run: Run, space: Space, plan: Plan) -> tuple[Width, ...]:
    topology, job = space.topology, run.job
    _, frozen = prunable(topology, job.ignore, job.realise)
    searched = {x.name for g in space.groups for x in topology.writers(g)}
    changed = sizes_after(topology, plan)
    rows = []
    for name, (before, after) in widths(topology, plan).items():
        layer = topology.by_layer[name]
        gone = next((b for b in plan.branches if topology.by_branch[b].holds(name)), "")
        note = "" if name in searched or layer.depthwise else frozen.get(name, "")
        if before != after and after % job.round_to:
            note = f"not a multiple of {job.round_to}"
        if gone:
            note = f"left out with {gone}" if gone != name else "left out"
        weight = topology.tensors[layer.weight]
        kept = changed.get(layer.weight, weight.shape)
        macs = weight.sites * math.prod(weight.shape), weight.sites * math.prod(kept)
        written = weight.sites if layer.kind != "conv_transpose" else 0  # there sites are places of the input
        kind = "depthwise" if layer.depthwise else layer.kind
        rows.append(
            Width(
                layer=name,
                before=before,
                after=after,
                note=note,
                kind=kind,
                macs_before=macs[0],
                macs_after=macs[1],
                activations_before=written * before,
                activations_after=written * after,
            )
        )
    return tuple(rows)
