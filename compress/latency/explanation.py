"""Why the layers of a file take the time they take, and what became of each of them in another file.

A layer is set against the best that any layer of the compared files reached on this machine: its share of the best rate of
multiply-accumulates, and of the best rate of memory traffic. What it comes closer to is what binds it. Before that:

* *layout*: it only changes how numbers lie in memory, between kernels that want them differently;
* *alignment*: a channel count that does not fit the kernel's block cost it the fast kernel, or it computes channels of padding;
* *launch*: it takes hardly longer than the shortest kernel, whatever it does; on a card, the device waits for the host to
  launch it for longer than it works (:mod:`compress.latency.launches`).

Pure functions on a :class:`~compress.latency.profiling.Profile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import onnx

from compress.core import plural
from compress.latency.launches import launch_bound, said_of_launches
from compress.latency.layer_shapes import LayerShape, widths
from compress.latency.profiling import KernelTime, Profile

Binds = Literal["compute", "memory", "launch", "layout", "alignment"]
PADDED = 0.15  # share of computed padding from which it is what binds
LAUNCH = 3.0  # times the shortest kernel
SAID = 0.03  # of what the MACs did not promise, from which a cause is named
TIMED_WELL = 10e-6  # seconds: events are written in whole microseconds
_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvTranspose"})


@dataclass(frozen=True, slots=True)
class LayerTiming:
    """A module with its kernels, or all kernels of one operator that have no weight.

    Attributes:
        name: the torch module, or the operator with how many there are.
        share: of the file's kernel time.
        macs: multiply-accumulates of the real channels.
        padding: multiply-accumulates of padding, as a share of the real ones.
        activations: numbers that it makes, padding included.
        compute, traffic: achieved rates, of real multiply-accumulates and of bytes, each counted once.
        blocked: it runs in the kernels that hold channels in blocks.
        cause: the rule that decided, the same words for every layer of its kind.
        why: with this layer's numbers.
        alone: seconds of its kernels without any wait for a launch, on a card.
    """

    name: str
    op: str
    seconds: float
    share: float
    widths: LayerShape | None
    macs: int
    padding: float
    activations: int
    compute: float
    traffic: float
    blocked: bool
    binds: Binds
    cause: str = ""
    why: str = ""
    alone: float | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """A file, layer by layer.

    Attributes:
        best_compute, best_traffic: the best rates of any layer of the files that are compared.
        block: channels that the fast kernels hold together.
    """

    file: str
    profile: Profile
    layers: tuple[LayerTiming, ...]
    best_compute: float
    best_traffic: float
    block: int

    @property
    def seconds(self) -> float:
        """All kernels together: shares of this are meaningful, as a latency it is too short or too long."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def macs(self) -> int:
        """Of the real channels, over the batch."""
        return sum(layer.macs for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        facts = self.profile
        return {
            "file": self.file,
            "runtime": facts.runtime,
            "batch": facts.batch,
            "image": list(facts.image),
            "runs": facts.runs,
            "kernel_seconds": self.seconds,
            "macs": self.macs,
            "host_only": facts.host_only,
            "fallback": facts.fallback,
            "best_compute": self.best_compute,
            "best_traffic": self.best_traffic,
            "block": self.block,
            "environment": facts.environment.to_json(),
            "layers": [asdict(layer) for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class Change:
    """One layer before and after.

    Attributes:
        before, after: None where the file has no such layer.
        excess: seconds that it takes beyond its old time scaled by its multiply-accumulates: what the MACs did not promise.
    """

    name: str
    before: LayerTiming | None
    after: LayerTiming | None
    excess: float


def explain(profiles: Sequence[tuple[Profile, onnx.GraphProto | Mapping[str, LayerShape]]]) -> tuple[Explained, ...]:
    """Layers of files that are to be compared, by one yardstick.

    Args:
        profiles: a profile with its file's graph (:func:`compress.latency.profiling.read_graph`) or its layers' shapes.
    """
    rows = [_merged(profile, held if isinstance(held, Mapping) else widths(held)) for profile, held in profiles]
    well = [row for file in rows for row in file if row.seconds >= TIMED_WELL]
    best_compute = max((row.compute for row in well), default=0.0)
    best_traffic = max((row.traffic for row in well), default=0.0)
    shortest = min((k.seconds for profile, _ in profiles for k in profile.kernels if k.seconds > 0), default=0.0)
    explained = []
    for (profile, _), file in zip(profiles, rows, strict=True):
        size, on_cpu = block(profile), profile.runtime == "ort-cpu" or bool(profile.fallback)
        fast = on_cpu and any(row.blocked for other in rows for row in other)
        judge = _judge(best_compute, best_traffic, shortest, size if fast else 1)
        explained.append(
            Explained(
                file=profile.file,
                profile=profile,
                layers=tuple(judge(row) for row in file),
                best_compute=best_compute,
                best_traffic=best_traffic,
                block=size,
            )
        )
    return tuple(explained)


def changes(before: Explained, after: Explained) -> tuple[Change, ...]:
    """Layer by layer, in the order of the first file; what only the second has comes last."""
    old, new = ({layer.name: layer for layer in file.layers} for file in (before, after))
    found = []
    for name in dict.fromkeys((*old, *new)):
        one, other = old.get(name), new.get(name)
        promised = one.seconds * (other.macs / one.macs) if one and other and one.macs else one.seconds if one else 0.0
        found.append(Change(name, one, other, (other.seconds if other else 0.0) - (promised if other else 0.0)))
    return tuple(found)


def summarise(before: Explained, after: Explained) -> tuple[str, ...]:
    """What happened, in sentences: the ratio, what the MACs promised, and what took the rest, largest first."""
    promised = before.seconds * after.macs / before.macs if before.macs else before.seconds
    total = after.seconds - promised
    lines = [
        f"{_ms(before.seconds)} → {_ms(after.seconds)} in kernels: {before.seconds / after.seconds:.2f}x the speed for "
        f"{before.macs / max(after.macs, 1):.2f}x fewer MACs; in proportion to them it would be {_ms(promised)}"
    ]
    for cause, group, extra in _causes(before, after):
        if total > 0 and extra > SAID * total:
            lines.append(f"{_ms(extra)} of the {_ms(total)} beyond that: {cause} ({plural(len(group), 'row')}{_rates(group)})")
    return tuple(lines)


def outweighed(before: Explained, after: Explained) -> tuple[str, ...]:
    """What took the time that the multiply-accumulates did not promise, as shares of it, largest first.

    For where a latency stands beside it: a total of the profiler's times would be a second speed-up, and not the measured one.
    """
    causes = _causes(before, after)
    total = sum(extra for _, _, extra in causes if extra > 0)
    if total <= SAID * after.seconds:
        slow = before.macs > 0 and after.seconds > (1 + SAID) * before.seconds * after.macs / before.macs
        rest = "; those that are left took longer for each MAC before the cut, too, than those that are gone" if slow else ""
        return (f"no layer takes longer than its own MACs promise{rest}",)
    lines = []
    for cause, group, extra in causes:
        if extra > SAID * total:
            lines.append(
                f"{100 * extra / total:.0f} % of the time beyond what the MACs promise: {cause} ({plural(len(group), 'row')}"
                f"{_rates(group)})"
            )
    return tuple(lines)


def _causes(before: Explained, after: Explained) -> list[tuple[str, list[Change], float]]:
    """(cause, what it binds, seconds beyond the promise), most first."""
    groups: dict[str, list[Change]] = {}
    for change in changes(before, after):
        if change.after is not None:
            groups.setdefault(f"{change.after.binds}, {change.after.cause}", []).append(change)
    found = [(cause, group, sum(change.excess for change in group)) for cause, group in groups.items()]
    return sorted(found, key=lambda row: -row[2])


def _rates(group: Sequence[Change]) -> str:
    """Achieved multiply-accumulates before and after, over the group's time."""
    both = [(change.before, change.after) for change in group if change.before and change.after and change.before.macs]
    if not both:
        return ""
    rates = [sum(layer.macs for layer in side) / sum(layer.seconds for layer in side) / 1e9 for side in zip(*both, strict=True)]
    return f", {rates[0]:.1f} → {rates[1]:.1f} GMAC/s"


def block(profile: Profile) -> int:
    """Channels that ONNX Runtime's CPU kernels hold together on the machine of the profile."""
    flags = set(profile.environment.flags)
    return 16 if "avx512f" in flags or not flags & {"avx", "avx2"} else 8


def _merged(profile: Profile, held: Mapping[str, LayerShape]) -> list[LayerTiming]:
    """Kernels by module; those without a weight by operator."""
    together: dict[str, list[KernelTime]] = {}
    for kernel in profile.kernels:
        together.setdefault(kernel.module or f"({kernel.op})", []).append(kernel)
    return [_row(name, kernels, held.get(name), profile.batch) for name, kernels in together.items()]


def _row(name: str, kernels: Sequence[KernelTime], held: LayerShape | None, batch: int) -> LayerTiming:
    seconds = sum(k.seconds for k in kernels)
    main = max(kernels, key=lambda k: (k.macs, k.seconds))
    computed = sum(k.macs for k in kernels)
    macs = computed
    if held is not None and (computed or main.op in _CONVOLUTIONS):
        places = main.inputs[0] if main.op == "ConvTranspose" else main.output
        images = math.prod(places[2:]) * batch if main.op in _CONVOLUTIONS else computed // max(held.weights, 1)
        macs = held.weights * images
    weights = sum(k.weights for k in kernels)
    if held is not None:  # a packed weight is not among what a linear kernel tells
        weights = max(weights, held.weights * held.itemsize)
    traffic = sum(k.read + k.written for k in kernels) + weights
    return LayerTiming(
        name=name,
        op=main.op,
        seconds=seconds,
        share=sum(k.share for k in kernels),
        widths=held,
        macs=macs,
        padding=max(0.0, computed / macs - 1) if macs else 0.0,
        activations=sum(k.activations for k in kernels),
        compute=macs / seconds if seconds > 0 else 0.0,
        traffic=traffic / seconds if seconds > 0 else 0.0,
        blocked=main.blocked,
        binds="layout" if main.layout else "memory",
        why=f"{plural(len(kernels), 'kernel')}" if len(kernels) > 1 else "",
        alone=None if any(k.alone is None for k in kernels) else sum(k.alone or 0.0 for k in kernels),
    )


def _judge(best_compute: float, best_traffic: float, shortest: float, size: int) -> Callable[[LayerTiming], LayerTiming]:
    def judged(row: LayerTiming) -> LayerTiming:
        compute = row.compute / best_compute if best_compute else 0.0
        traffic = row.traffic / best_traffic if best_traffic else 0.0
        reached = f"{compute:.0%} of the best compute rate here, {traffic:.0%} of the best memory rate"
        if row.alone is not None and launch_bound(row.seconds, row.alone):
            said = said_of_launches(row.seconds, row.alone)
            return _said(row, "launch", "launch-bound: its time follows launches, not widths", said)
        if row.binds == "layout":
            return _said(row, "layout", "moves numbers between kernels that want them differently", row.why)
        kind, which = _lost(row, size)
        if kind:
            return _said(row, "alignment", f"{kind} lost the blocked kernel", f"{which}; {reached}")
        if row.padding >= PADDED:
            return _said(row, "alignment", "channels of padding", f"{row.padding:.0%} more than its own; {reached}")
        if row.seconds < LAUNCH * shortest:
            return _said(row, "launch", "hardly longer than the shortest kernel", f"{shortest * 1e6:.0f} µs")
        if not row.macs and not row.traffic:
            return _said(row, "launch", "what runs between modules: sums, means, calls of Python", "")
        if compute >= traffic:
            return _said(row, "compute", "closer to the best compute rate", reached)
        return _said(row, "memory", "closer to the best memory rate", reached)

    return judged


def _lost(row: LayerTiming, size: int) -> tuple[str, str]:
    """Which channel count cost a convolution the kernel that holds channels in blocks; empty where none did."""
    held = row.widths
    if size == 1 or row.blocked or row.op not in _CONVOLUTIONS or held is None:
        return "", ""
    if held.depthwise:
        return (
            ("a depthwise layer", f"{plural(held.outputs, 'channel')}, no multiple of {size}")
            if held.outputs % size
            else ("", "")
        )
    if held.inputs % 4:
        return "a dense layer", f"reads {plural(held.inputs, 'channel')}, no multiple of 4"
    return (
        ("a dense layer", f"makes {plural(held.outputs, 'channel')}, no multiple of {size}")
        if held.outputs % size
        else ("", "")
    )


def _said(row: LayerTiming, binds: Binds, cause: str, why: str) -> LayerTiming:
    return replace(row, binds=binds, cause=cause, why=why)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
