"""Comparing the latency of files on a machine that other work shares.

Which clock decides. On one CPU thread a run is pure computation: it waits for nothing, so on a core of its own its wall
time *is* its thread-CPU time, and whatever wall time exceeds it by belongs to the neighbours. There the verdict comes from
thread-CPU time: the same file twice gives 0.995 to 0.999 where wall time gives 0.98 to 1.02. With more threads, or on
a GPU, CPU time counts work that overlaps or leaves work out, and wall time decides. CPU time is taken from the rounds in which
neither sample had to wait, where there are enough of them. Both clocks are always reported, and the
headline ``speedup`` is wall time, because that is what a user waits for.

Percentiles are over samples; where runs are shorter than a millisecond a sample is the mean of several, which hides
outliers shorter than itself: ``inner_repeats`` says so.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from compress.core import Environment, GpuState, capture, gpu_state, throttled
from compress.errors import ConfigError, ModelError
from compress.latency.arms import Arm
from compress.latency.result import ArmResult, ClockKind, Event, LatencyResult, MeasuringProgress, Ratio, Settings, WarmedUp
from compress.latency.statistics import (
    FEWEST_ROUNDS,
    SAME_WITHIN,
    Interval,
    LatencyVerdict,
    decide,
    speedup,
    undisturbed,
    why_stop,
)
from compress.runtime import Runtime, Session

__all__ = ["ArmResult", "Event", "LatencyResult", "MeasuringProgress", "Ratio", "Settings", "WarmedUp", "measure"]

BASE, CONTROL = "base", "base again"
WARM_UP_SHARE = 0.2  # of the budget at most, over all arms and loads
LEAST_WARM_UP = 0.25  # seconds that every arm may take to settle
CONTENDED = 1.05  # wall over CPU time from which the neighbours show
CONTAMINATED = 0.1  # share of samples that waited longer than they ran, from which it is said
DRIFTED = 0.1  # of the base's median between the first and the last third of the rounds
LOAD_GROWTH = 1.5  # rounds grow by this between one load and the next, once there were enough loads
THROTTLED = {0x4: "power", 0x8: "hardware slowdown", 0x20: "temperature", 0x40: "hardware temperature", 0x80: "power brake"}
"""NVML's clock event reasons."""
CPU_PROVIDERS = frozenset({"CPUExecutionProvider", "torch-cpu"})


def measure(
    base: Path | Session,
    candidates: Mapping[str, Path | Session],
    *,
    runtime: Runtime,
    settings: Settings | None = None,
    listen: Callable[[Event], None] = lambda event: None,
) -> LatencyResult:
    """Compare the latency of files with a base, interleaved, with the base as its own control.

    Every round runs the base, the base again and each candidate once, in random order, on the same input bytes. Rounds
    go on until every ratio's interval is narrow enough or the budget is spent; the files are loaded anew in between.

    Args:
        base: an ONNX file, or an open session, which is not loaded anew.
        candidates: name -> file or session.
        runtime: opens the files.
        settings: how long and how precisely.
        listen: receives :class:`WarmedUp` and :class:`MeasuringProgress`.

    Raises:
        ModelError: a file cannot be loaded, or its input does not fit the base's or the batch; export it with a dynamic batch.
        RuntimeUnavailable: the runtime insists on a device that is not there.
        ConfigError: a candidate has a reserved name.
    """
    settings = settings or Settings()
    if reserved := {BASE, CONTROL} & set(candidates):
        raise ConfigError(f"a candidate is called {reserved.pop()!r}, which is the base's name here", hint="rename it")
    here = capture(threads=runtime.threads)
    stops, gpu = throttled(), gpu_state()
    sources = ((BASE, base), (CONTROL, base), *candidates.items())
    run = _Rounds(
        arms=[Arm(name=name, source=source) for name, source in sources], runtime=runtime, settings=settings, listen=listen
    )
    while (stopped_by := run.load_and_measure()) is None:
        pass
    intervals = {name: run.intervals(name) for name in (CONTROL, *candidates)}
    control = _ratio(intervals[CONTROL], Interval(1.0, 1.0, 1.0), run)
    ratios = {name: _ratio(intervals[name], control.decisive, run) for name in candidates}
    if rationed(here, run.clock):
        control, *others = (replace(ratio, verdict=LatencyVerdict.INCONCLUSIVE) for ratio in (control, *ratios.values()))
        ratios = dict(zip(ratios, others, strict=True))
    after = gpu_state()
    return LatencyResult(
        arms=tuple(arm.result(run.repeats, settings) for arm in run.arms),
        ratios=ratios,
        control=control,
        rounds=run.rounds,
        seconds=run.elapsed,
        stopped_by=stopped_by,
        runtime=runtime.name,
        environment=here,
        flags=tuple(_flags(run, control, here, throttled() - stops, after)),
        settings=settings,
        gpu=(gpu, after),
    )


@dataclass(slots=True)
class _Rounds:
    """A comparison under way."""

    arms: list[Arm]
    runtime: Runtime
    settings: Settings
    listen: Callable[[Event], None]
    clock: ClockKind = "wall"
    repeats: int = 1
    rounds: int = 0
    loads: int = 0
    elapsed: float = 0.0  # seconds in rounds
    half_width: float | None = None
    order: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.order = np.random.default_rng([self.settings.seed, 1])

    def load_and_measure(self) -> Literal["precision", "budget"] | None:
        """Load every file, in random order, and do the rounds that one load gets; the reason to stop, or None to go on."""
        with ExitStack() as stack:
            for index in self._shuffled():
                self.arms[index].load(stack, self.runtime, self.settings)
            _same_shapes(self.arms)
            self.clock = _clock([arm.open for arm in self.arms])
            self._warm_up()
            self.loads += 1
            with _no_garbage_collection():
                return self._measure()

    def _warm_up(self) -> None:
        share = max(LEAST_WARM_UP, WARM_UP_SHARE * self.settings.budget_seconds / len(self.arms) / self.settings.loads)
        for index in self._shuffled():
            arm, started = self.arms[index], time.perf_counter()
            runs = arm.warm_up(self.clock, share)
            self.listen(WarmedUp(arm.name, runs, time.perf_counter() - started))
        if self.loads == 0:
            self.repeats = max(1, math.ceil(self.settings.min_sample_seconds / min(arm.typical for arm in self.arms)))

    def _measure(self) -> Literal["precision", "budget"] | None:
        until_rounds, until_seconds = self._share()
        before, started = self.elapsed, time.perf_counter()
        while True:
            for index in self._shuffled():
                self.arms[index].sample(self.repeats, self.clock)
            self.rounds += 1
            self.elapsed = before + time.perf_counter() - started
            done = self.rounds >= until_rounds or self.elapsed >= until_seconds
            if done:
                others = (arm.name for arm in self.arms[1:])
                self.half_width = max(self.intervals(name)[self.clock].half_width for name in others)
            budget = self.settings.budget_seconds
            self.listen(MeasuringProgress(self.rounds, self.elapsed, budget, self.half_width))
            if done:
                return why_stop(
                    self.half_width or 0.0,
                    self.rounds,
                    self.elapsed,
                    precision=self.settings.precision,
                    min_rounds=self.settings.min_rounds,
                    budget_seconds=budget,
                )

    def _share(self) -> tuple[float, float]:
        """Rounds and seconds, counted from the start, after which this load has had its part."""
        least, budget = self.settings.min_rounds, self.settings.budget_seconds
        if self.loads <= self.settings.loads:
            part = self.loads / self.settings.loads
            return math.ceil(least * part), budget * part
        return math.ceil(self.rounds * LOAD_GROWTH), budget

    def _shuffled(self) -> list[int]:
        return [int(index) for index in self.order.permutation(len(self.arms))]

    def intervals(self, name: str) -> dict[ClockKind, Interval]:
        """The base against an arm, by both clocks."""
        base, other = self.arms[0], next(arm for arm in self.arms[1:] if arm.name == name)
        alone = self.clock == "cpu"  # elsewhere CPU time is the whole process's, and waiting is part of the run
        calm = undisturbed([(arm.wall, arm.cpu) for arm in (base, other)]) if alone else slice(None)
        one, two = np.asarray(base.cpu)[calm], np.asarray(other.cpu)[calm]
        return {
            "cpu": speedup(one, two, np.random.default_rng([self.settings.seed, 2])),
            "wall": speedup(base.wall, other.wall, np.random.default_rng([self.settings.seed, 2])),
        }


def _same_shapes(arms: list[Arm]) -> None:
    """Speed on another image size is no comparison."""
    for arm in arms:
        if arm.shape != arms[0].shape:
            raise ModelError(
                f"{arm.name} takes images of {list(arm.shape[1:])}, the base {list(arms[0].shape[1:])}",
                hint="export both from the same example",
            )


def _clock(sessions: list[Session]) -> ClockKind:
    """Which clock decides: see the module's first lines."""
    alone = all(session.options.get("threads") == "1" for session in sessions)
    on_cpu = all(session.providers[0] in CPU_PROVIDERS for session in sessions)
    fine = time.get_clock_info("thread_time").resolution <= 1e-6  # 15 ms on some systems
    return "cpu" if alone and on_cpu and fine else "wall"


def _ratio(intervals: Mapping[ClockKind, Interval], control: Interval, run: _Rounds) -> Ratio:
    wall, cpu, decisive = intervals["wall"], intervals["cpu"], intervals[run.clock]
    return Ratio(
        speedup=wall.ratio,
        low=wall.low,
        high=wall.high,
        cpu_speedup=cpu.ratio,
        cpu_low=cpu.low,
        cpu_high=cpu.high,
        verdict=decide(decisive, control, run.rounds),
        decided_by=run.clock,
        floor=math.exp(control.reach),
    )


def _percent(share: float, places: int = 0) -> str:
    return f"{100 * share:.{places}f} %"


def _flags(run: _Rounds, control: Ratio, here: Environment, throttled: int, gpu: tuple[GpuState, ...]) -> Iterator[str]:
    """What a reader must know before trusting the figures."""
    for message in dict.fromkeys(arm.open.fallback for arm in run.arms if arm.open.fallback):
        yield f"fallback: {message}"
    if control.decisive.reach > math.log1p(SAME_WITHIN):
        yield f"noisy: the base against itself may be off by {_percent(math.expm1(control.decisive.reach), 1)}, 2 % is wanted"
    if run.clock == "cpu":
        waited = [wall > 2 * cpu for arm in run.arms for wall, cpu in zip(arm.wall, arm.cpu, strict=True)]
        if np.mean(waited) > CONTAMINATED:
            share = _percent(float(np.mean(waited)))
            yield f"contaminated: {share} of the samples waited for the processor longer than they ran"
        waiting = float(np.median([wall / cpu for arm in run.arms for wall, cpu in zip(arm.wall, arm.cpu, strict=True)]))
        if waiting > CONTENDED:
            yield f"contended: wall time is {waiting:.2f} times CPU time, other work holds the processor"
    if run.rounds < FEWEST_ROUNDS:
        yield f"few rounds: {run.rounds}, {FEWEST_ROUNDS} are wanted; raise the budget"
    if restless := [arm.name for arm in run.arms if not arm.settled]:
        yield f"unsettled: {', '.join(restless)} still changing when the warm-up's time was over"
    if (drift := _drift(run.arms[0].samples(run.clock))) > DRIFTED:
        yield f"drift: the base's own time changed by {_percent(drift)} meanwhile: ratios are paired, times are not"
    for arm in run.arms:
        if not arm.finite:
            yield f"not finite: {arm.name} answers NaN or infinity"
        if (parity := arm.open.metadata.get("parity", "")) not in {"", "pass"} and arm.name != CONTROL:
            yield f"parity {parity}: {arm.name} was not found to compute what its network computes"
    if here.quota is not None and here.quota < (here.threads or here.affinity):
        yield f"quota: the control group grants {here.quota:g} processors, less than the threads in use" + (
            "; wall time measures the quota and not the files, no verdict" if rationed(here, run.clock) else ""
        )
    for state in gpu:
        if held := _held_back(state):
            yield f"card held back: {held} at {state.sm_clock_mhz} MHz and {state.temperature_c} degrees when it was done"
    if throttled > 0:
        yield f"throttled: the control group stopped the process {throttled} times while it was measured"


def rationed(here: Environment, clock: ClockKind) -> bool:
    """Whether the times are the quota's: it stops the threads, and wall time goes on."""
    return clock == "wall" and here.quota is not None and here.quota < (here.threads or here.affinity)


def _held_back(state: GpuState) -> str:
    """Why a card does not run as fast as it could, by the driver's bits; idling and settings of its user are no reasons."""
    try:
        bits = int(state.throttle_reasons, 16)
    except ValueError:
        return ""
    return ", ".join(name for bit, name in THROTTLED.items() if bits & bit)


def _drift(samples: list[float]) -> float:
    """How far the median of the last third is from that of the first."""
    third = len(samples) // 3
    if third < FEWEST_ROUNDS:
        return 0.0
    return math.expm1(abs(math.log(float(np.median(samples[-third:])) / float(np.median(samples[:third])))))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector strikes one arm at random."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
