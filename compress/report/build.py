"""From a finished run to its report: the verdict, the red flags, the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core import environment
from compress.core.cost import count, sizes_after
from compress.core.events import Clock
from compress.core.plan import Plan, widths
from compress.core.statistics import Certificate, images_needed
from compress.core.topology import Topology
from compress.data import Data
from compress.latency.measurement import identify
from compress.latency.protocol import LatencyResult
from compress.pipeline.job import Job
from compress.pipeline.realisation import Network, Realised
from compress.report.formatting import machine_of
from compress.report.model import Latency, Measured, Report, Size, Width
from compress.search.base import Space
from compress.search.methods import METHODS, behind
from compress.search.stages import prunable
from compress.search.widths import NARROW


def build(
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    topology: Topology,
    space: Space,
    accuracy: Sequence[Measured],
    done: Realised,
    search: Mapping[str, Any],
    clock: Clock,
    command: str,
    certificate: Certificate | None = None,
) -> Report:
    """One frozen report of everything that was measured."""
    before, after = (count(topology, plan, table=space.table) for plan in (Plan(), done.plan))
    latency = tuple(latency_of(r) for r in done.latency)
    share = space.target.share(after.share_of(before))
    warnings = [*_flags(data, accuracy, latency), *_missed(job, accuracy, certificate), *done.warnings]
    notes = [
        *network.warnings,
        *(data.warnings if data is not None else ()),
        *search.get("notes", ()),
        *done.notes,
    ]
    notes.append(f"{job.target}: {search['chosen']}")
    if data is not None and certificate is None and job.target != "max_drop":
        notes.append("no certificate: the run used every image that it may look at; more images without labels would give one")
    if job.realise == "csgd" and job.recover != Job().recover:
        notes.append(f"recover {job.recover} had no effect: nothing is recovered after the trim of C-SGD")
    narrow = [g for g in space.groups if any(len(o) < NARROW for o in topology.by_id[g].orbits())]
    if narrow and job.round_to > 1:
        notes.append(
            f"{len(narrow)} groups have fewer than {NARROW} channels and are exempt from alignment: {', '.join(narrow[:4])}"
        )
    return Report(
        name=folder.name,
        verdict=_verdict(latency, accuracy, before.macs / max(after.macs, 1), certificate),
        warnings=tuple(warnings),
        notes=tuple(notes),
        method=job.method,
        citation="; made real by ".join(METHODS[m].citation for m in behind(job.method, job.realise)),
        target=f"max drop <= {100 * job.value:g} points" if job.target == "max_drop" else f"{job.target} <= {job.value:g}",
        reached=share,
        architecture=network.architecture.name,
        data=f"{data.name} ({len(data.classes)} classes)" if data is not None else "none: synthetic inputs",
        before=Size(before.macs, before.params, _bytes(folder / "base.onnx")),
        after=Size(after.macs, after.params, _bytes(done.onnx)),
        accuracy=tuple(accuracy),
        widths=_widths(topology, space, done, job),
        latency=latency,
        parity=_plain(done.parity.to_json()),
        guard={
            "error": done.guard.error,
            "where": done.guard.where,
            "observed": done.guard.observed,
            "tolerance": done.guard.tolerance,
        },
        search=_plain(dict(search)),
        seconds={k: round(v, 2) for k, v in clock.seconds.items()},
        digests={
            "network": network.digest,
            "model": done.digest,
            "plan": done.plan.digest,
            "topology": topology.digest,
            **(data.digests if data is not None else {}),
            **{path.name: identify(path).sha256 for path in (folder / "base.onnx", done.onnx) if path.exists()},
        },
        environment=_plain(environment.capture(threads=job.threads).to_json()),
        job=_plain(job.to_json()),
        command=command,
        certificate=certificate,
        image=tuple(network.preprocessing.shape),
    )


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plain(value: Any) -> Any:
    """JSON without infinities: they become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def latency_of(result: LatencyResult, name: str = "pruned") -> Latency:
    """Base against one arm, as a report keeps it."""
    ratio, interval, control = result.ratios[name], result.ratios[name].decisive, result.control.decisive
    base, pruned = result.arm("base").latency, result.arm(name).latency
    return Latency(
        runtime=result.runtime + (" without copies" if result.settings.transfer == "device" else ""),
        batch=result.settings.batch,
        threads=result.environment.threads or 0,
        base_p50=base.p50,
        pruned_p50=pruned.p50,
        base_p90=base.p90,
        pruned_p90=pruned.p90,
        speedup=interval.ratio,
        low=interval.low,
        high=interval.high,
        verdict=ratio.verdict.value,
        clock=ratio.decided_by,
        control=control.ratio,
        control_low=control.low,
        control_high=control.high,
        rounds=result.rounds,
        flags=result.flags,
    )


def _flags(data: Data | None, accuracy: Sequence[Measured], latency: Sequence[Latency]) -> list[str]:
    flags = []
    if not accuracy:
        why = "no data was given" if data is None else "the images have no labels"
        flags.append(f"accuracy was not measured: {why}; the outputs were only compared with the unpruned network's")
    elif data is not None:
        flags += _destroyed(accuracy, 1 / len(data.classes))
    return [*flags, *speed_flags(latency)]


def _destroyed(accuracy: Sequence[Measured], chance: float) -> list[str]:
    """A network that lost most of what it knew beyond chance."""
    split = accuracy[-1].split
    base, final = (next((a.top1 for a in row if a.split == split), 0.0) for row in (accuracy, accuracy[::-1]))
    if final - chance >= (base - chance) / 2:
        return []
    fall = f"{100 * base:.1f} % -> {100 * final:.1f} % ({split} images, chance is {100 * chance:.3g} %)"
    return [f"the pruned network is of no use as it is: {fall}; --recover reconstruct, train it (--epochs), or cut less"]


def speed_flags(latency: Sequence[Latency]) -> list[str]:
    """What is red about measurements: not faster, or not to be trusted."""
    flags = []
    for found in latency:
        where = machine_of(found)
        if found.high <= 1.0:
            flags.append(f"{where}: slower than the unpruned network ({found.speedup:.2f}x)")
        elif found.verdict != "different" or found.low <= 1.0:
            flags.append(f"{where}: not measurably faster ({found.speedup:.2f}x, {found.verdict})")
        flags += [f"{where}: {flag}" for flag in found.flags]
    return flags


def _missed(job: Job, accuracy: Sequence[Measured], certificate: Certificate | None) -> list[str]:
    """A drop beyond what was allowed, in the final figures; without labels, one that cannot be excluded."""
    test = {a.when: a.top1 for a in accuracy if a.split == "test"}
    if job.target != "max_drop":
        return []
    if not {"base", "final"} <= set(test):
        if certificate is None:
            allowed = f"{100 * job.value:g} points"
            return [f"nothing certifies that the accuracy dropped by at most {allowed}: no image was left to ask"]
        if certificate.bound <= job.value:
            return []
        few = images_needed(job.value, certificate.confidence)
        why = f"; so few images cannot say less, at least {few} are needed" if certificate.images < few else ""
        return [
            f"without labels a drop of up to {100 * certificate.bound:.2f} points cannot be excluded, "
            f"{100 * job.value:g} were allowed{why}"
        ]
    drop = test["base"] - test["final"]
    return (
        [f"the test accuracy dropped by {100 * drop:.2f} points, {100 * job.value:g} were allowed"] if drop > job.value else []
    )


def verdict_of(report: Report) -> str:
    """The sentence again, from what the report holds now."""
    return _verdict(report.latency, report.accuracy, report.speedup_macs, report.certificate)


def _verdict(latency: Sequence[Latency], accuracy: Sequence[Measured], promised: float, certificate: Certificate | None) -> str:
    """One sentence for somebody who decides."""
    if not latency:
        speed = f"{promised:.2f}x fewer MACs (latency not measured)"
    else:
        first = latency[0]
        word = (
            "faster"
            if first.low > 1 and first.verdict == "different"
            else "slower"
            if first.high <= 1
            else "not measurably faster"
        )
        interval = f"(95 % interval {first.low:.2f} to {first.high:.2f})"
        speed = f"{first.speedup:.2f}x the speed on {machine_of(first)} {interval}: {word}"
        speed += f", for {promised:.2f}x fewer MACs"
    test = {a.when: a for a in accuracy if a.split == "test"}
    if "base" in test and "final" in test:
        drop = 100 * (test["final"].top1 - test["base"].top1)
        return (
            f"{speed}; test accuracy {100 * test['base'].top1:.2f} % -> {100 * test['final'].top1:.2f} % ({drop:+.2f} points)"
        )
    if certificate is not None:
        most = f"{100 * certificate.bound:.2f} points at most with {100 * certificate.confidence:.0f} % confidence"
        return f"{speed}; accuracy not measured, certified to have dropped by {most}"
    return f"{speed}; accuracy not measured"


def _widths(topology: Topology, space: Space, done: Realised, job: Job) -> tuple[Width, ...]:
    _, frozen = prunable(topology, job.ignore, job.realise)
    searched = {x.name for g in space.groups for x in topology.writers(g)}
    changed = sizes_after(topology, done.plan)
    rows = []
    for name, (before, after) in widths(topology, done.plan).items():
        layer = topology.by_layer[name]
        note = "" if name in searched or layer.depthwise else frozen.get(name, "")
        if before != after and after % job.round_to:
            note = f"not a multiple of {job.round_to}"
        weight = topology.tensors[layer.weight]
        kept = changed.get(layer.weight, weight.shape)
        macs = weight.sites * math.prod(weight.shape), weight.sites * math.prod(kept)
        written = weight.sites if layer.kind != "conv_transpose" else 0  # there sites are places of the input
        kind = "depthwise" if layer.depthwise else layer.kind
        rows.append(Width(name, before, after, note, kind, macs[0], macs[1], written * before, written * after))
    return tuple(rows)
