"""What a run found out, as one frozen object; every rendering reads this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compress.core import ERROR, TOP1, Certificate, Difference, Figure, MadeBy, Measured, Step
from compress.report.candidates import Finalists, FrontLatency

SCHEMA = "compress-report-2"


@dataclass(frozen=True, slots=True)
class Size:
    """What a network takes.

    Attributes:
        macs: multiply-accumulates of one image.
        params: learned numbers.
        onnx_bytes: size of the ONNX file, 0 where none was written.
    """

    macs: int
    params: int
    onnx_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Width:
    """A layer before and after.

    Attributes:
        layer: its module's name.
        before: output channels.
        after: output channels.
        note: why it was left alone or not aligned.
        kind: ``conv``, ``depthwise``, ``conv_transpose`` or ``linear``; empty where unknown.
        macs_before: multiply-accumulates of one image.
        macs_after: the same of the pruned layer.
        activations_before: numbers that one image makes it write; 0 where unknown.
        activations_after: the same of the pruned layer.
    """

    layer: str
    before: int
    after: int
    note: str = ""
    kind: str = ""
    macs_before: int = 0
    macs_after: int = 0
    activations_before: int = 0
    activations_after: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Base against pruned, measured in turn.

    Attributes:
        runtime: e.g. ``ort-cpu``.
        batch: images a call.
        threads: intra-op threads.
        base_p50: seconds per batch.
        pruned_p50: seconds per batch.
        base_p90: seconds per batch.
        pruned_p90: seconds per batch.
        speedup: base over pruned, by the clock that decides.
        low: lower end of its 95 % interval.
        high: upper end.
        verdict: ``same``, ``different`` or ``inconclusive``.
        clock: ``wall`` or ``cpu``: which one decided.
        control: base against itself, the A/A control.
        control_low: lower end of its interval.
        control_high: upper end.
        rounds: paired rounds.
        flags: what makes the figures doubtful.
        machine: the processor or card, where it is not the run's own machine; its figures were imported.
        file: the pruned network's file, where that is not ``model.onnx``: another precision of it.
        base_decisive: median seconds per batch by the clock that decides; 0 in reports that do not hold it.
        pruned_decisive: the same of the pruned network.
    """

    runtime: str
    batch: int
    threads: int
    base_p50: float
    pruned_p50: float
    base_p90: float
    pruned_p90: float
    speedup: float
    low: float
    high: float
    verdict: str
    clock: str
    control: float
    control_low: float
    control_high: float
    rounds: int
    flags: tuple[str, ...] = ()
    machine: str = ""
    file: str = ""
    base_decisive: float = 0.0
    pruned_decisive: float = 0.0

    @property
    def typical(self) -> tuple[float, float]:
        """Before and after, as the clock that decides has them; the wall's where an older report knows no other."""
        known = self.base_decisive > 0 and self.pruned_decisive > 0
        return (self.base_decisive, self.pruned_decisive) if known else (self.base_p50, self.pruned_p50)

    @property
    def typical_clock(self) -> str:
        """The clock of :attr:`typical`: ``wall`` or ``cpu``."""
        return self.clock if self.base_decisive > 0 and self.pruned_decisive > 0 else "wall"


@dataclass(frozen=True, slots=True)
class BranchSpan:
    """What is added to an identity shortcut, by the layers in it.

    Attributes:
        name: its id, as ``Plan.branches`` has it.
        layers: in forward order; one at least.
        left_out: it is gone.
    """

    name: str
    layers: tuple[str, ...]
    left_out: bool = False

    @property
    def first(self) -> str:
        """Its first layer."""
        return self.layers[0]

    @property
    def last(self) -> str:
        """Its last one."""
        return self.layers[-1]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What cutting one group of channels alone does to the layers that read it, re-solved by least squares, in closed form.

    Attributes:
        layer: the first that makes the channels.
        halved: relative error of its readers' outputs when half of the channels are gone, those that go first.
        chosen: the same with as many as the plan removes; None where the plan leaves the group out altogether.
    """

    layer: str
    halved: float
    chosen: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A run.

    Attributes:
        name: of the run.
        verdict: one sentence for somebody who decides.
        warnings: red flags, most serious first.
        notes: what else a reader should know.
        method: name of the method.
        citation: where it comes from.
        target: what was asked for, e.g. ``macs <= 0.5``.
        reached: the share that was reached.
        architecture: the network.
        data: the images, or how they were made.
        before: size of the unpruned network.
        after: size of the pruned one.
        scores: what the task's figure was, in the order measured.
        widths: per layer.
        latency: per runtime.
        parity: verdict and figures of the ONNX file against torch.
        guard: the guard's error, place and tolerance.
        search: image-forwards spent and allowed, requests, points on the front.
        seconds: phase -> wall time; of searching and training over all sittings, of the rest in the last one.
        digests: what identifies inputs and outputs.
        environment: the machine and the versions.
        job: the resolved job.
        command: how to run it again.
        front_latency: MACs against latency over the front, where ``compress bench RUN --front`` measured it.
        image: shape (c, h, w) of one input; empty where unknown.
        certificate: how much can have been lost, shown without labels; None where nothing bounds it or no image was left.
        task: what the network is for.
        figure: what it is scored by; None where nothing scores it.
        steps: judged networks from the cut to the result, those too that were taken back.
        change: the test figure of the pruned network minus that of the unpruned one, on the same images, with its interval;
            None where they were not judged image by image.
        branches: beside the network's shortcuts, in forward order.
        sensitivity: of every group of channels, in forward order; empty where the method takes no moments.
        made_by: the library that wrote the report, and when; None in older ones.
        finalists: the last choice by short trainings; None where there was none.
    """

    name: str
    verdict: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    method: str
    citation: str
    target: str
    reached: float
    architecture: str
    data: str
    before: Size
    after: Size
    scores: tuple[Measured, ...]
    widths: tuple[Width, ...]
    latency: tuple[Latency, ...]
    parity: Mapping[str, Any]
    guard: Mapping[str, Any]
    search: Mapping[str, Any]
    seconds: Mapping[str, float]
    digests: Mapping[str, str]
    environment: Mapping[str, Any]
    job: Mapping[str, Any]
    command: str = ""
    certificate: Certificate | None = None
    front_latency: FrontLatency | None = None
    image: tuple[int, ...] = ()
    task: str = "classification"
    figure: Figure | None = TOP1
    steps: tuple[Step, ...] = ()
    change: Difference | None = None
    branches: tuple[BranchSpan, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    made_by: MadeBy | None = None
    finalists: Finalists | None = None
    schema: str = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as ``report.schema.json`` describes it; :func:`~compress.report.schema.validate` reads it."""
        return asdict(self)

    @property
    def scored_by(self) -> Figure:
        """The figure that its scores are of."""
        return self.figure or TOP1

    @property
    def errors(self) -> Figure:
        """What the errors of the search's front are counted in."""
        by_task = self.search.get("metric") in ("score", "agreement")
        return self.figure.lost if by_task and self.figure is not None else ERROR

    @property
    def speedup_macs(self) -> float:
        """What the MACs promise."""
        return self.before.macs / max(self.after.macs, 1)

    @property
    def refused(self) -> frozenset[str]:
        """Steps that were taken back."""
        return frozenset(s.when for s in self.steps if not s.kept)

    def measured(self, when: str, split: str) -> Measured | None:
        """One score, if it was measured."""
        return next((a for a in self.scores if a.when == when and a.split == split), None)
