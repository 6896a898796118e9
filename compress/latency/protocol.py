"""Comparing the latency of files on a machine that other work shares.

Which clock decides. On one CPU thread a run is pure computation: it waits for nothing, so on a core of its own its wall
time *is* its thread-CPU time, and whatever wall time exceeds it by belongs to the neighbours. There the verdict comes from
thread-CPU time: the same file twice gives 0.995 to 0.999 where wall time gives 0.98 to 1.02. With more threads, or on
a GPU, CPU time counts work that overlaps or leaves work out, and wall time decides. Both are always reported, and the
headline ``speedup`` is wall time, because that is what a user waits for.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress import environment
from compress.environment import Environment, GpuState
from compress.errors import ConfigError, ModelError
from compress.latency.statistics import (
    FEWEST_ROUNDS,
    SAME_WITHIN,
    Interval,
    Percentiles,
    Verdict,
    decide,
    percentiles,
    settled,
    speedup,
    why_stop,
)
from compress.runtime.base import Array, Runtime, Session, Transfer

Clock = Literal["cpu", "wall"]
BASE, CONTROL = "base", "base again"
WARM_UP_SHARE = 0.2  # of the budget at most, over all arms
CONTENDED = 1.05  # wall over CPU time from which the neighbours show
CHECK_EVERY = 1.15  # growth of the round count between two looks at the interval: looking costs time


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. One thread or many is the runtime's matter.

    Attributes:
        batch: images per run; 1 is the single-stream scenario, more the offline one.
        budget_seconds: time for the rounds; loading and warming up come on top.
        precision: half width of the log-ratio's interval at which to stop early; 0.01 is 1 %.
        min_rounds: rounds before stopping early; 1,000 gives a p99.
        min_sample_seconds: runs are repeated inside a sample until it lasts this long.
        transfer: on a GPU, ``device`` leaves the copies out. The CPU has none.
        image: shape (c, h, w) for files that leave it open.
    """

    batch: int = 1
    budget_seconds: float = 20.0
    precision: float = 0.01
    min_rounds: int = 30
    min_sample_seconds: float = 1e-3
    seed: int = 0
    transfer: Transfer = "e2e"
    image: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "budget_seconds", "precision", "min_rounds", "min_sample_seconds"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"{name} is {value}, more than 0 is wanted", hint=f"leave {name} at its default")

    @property
    def scenario(self) -> str:
        """MLPerf's name for it."""
        return "single stream" if self.batch == 1 else "offline"


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One file's samples.

    Attributes:
        wall: seconds per run, one a round, each the mean over ``inner_repeats`` runs; percentiles are over these.
        cpu: CPU seconds per run in the same rounds: the measuring thread's, or the whole process's with more threads.
        images_per_second: batch over the median wall time.
        fallback: why something else ran than was asked for; empty when nothing fell back.
    """

    name: str
    load_seconds: float
    first_run_seconds: float
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    inner_repeats: int
    latency: Percentiles
    images_per_second: float
    providers: tuple[str, ...]
    placement: Mapping[str, int]
    options: Mapping[str, str]
    fallback: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster than the base; above 1 is faster. ``low`` and ``high`` are 95 % bounds.

    Attributes:
        decided_by: the clock the verdict comes from.
        floor: the ratio up to which the file compared with itself may deviate on this machine, by that clock.
    """

    speedup: float
    low: float
    high: float
    cpu_speedup: float
    cpu_low: float
    cpu_high: float
    verdict: Verdict
    decided_by: Clock
    floor: float

    @property
    def decisive(self) -> Interval:
        """The interval of the clock that decides."""
        if self.decided_by == "cpu":
            return Interval(self.cpu_speedup, self.cpu_low, self.cpu_high)
        return Interval(self.speedup, self.low, self.high)


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """A whole comparison, raw samples included.

    Attributes:
        ratios: each candidate against the base.
        control: the base against itself, as a second session.
        stopped_by: ``precision`` or ``budget``.
        flags: what a reader must know before trusting it; empty on a quiet machine.
        gpu: clocks, temperature and throttling before and after.
    """

    arms: tuple[ArmResult, ...]
    ratios: Mapping[str, Ratio]
    control: Ratio
    rounds: int
    seconds: float
    stopped_by: str
    runtime: str
    environment: Environment
    flags: tuple[str, ...]
    settings: Settings
    gpu: tuple[tuple[GpuState, ...], tuple[GpuState, ...]] = ((), ())

    def arm(self, name: str) -> ArmResult:
        """The arm of that name: ``base``, ``base again`` or a candidate."""
        return next(arm for arm in self.arms if arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain data with every raw sample."""
        facts = {
            "scenario": self.settings.scenario,
            "settings": asdict(self.settings),
            "runtime": self.runtime,
            "environment": self.environment.to_json(),
            "arms": [asdict(arm) for arm in self.arms],
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "control": asdict(self.control),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "stopped_by": self.stopped_by,
            "flags": list(self.flags),
            "gpu": [[asdict(state) for state in states] for states in self.gpu],
        }
        plain: dict[str, Any] = _plain(facts)
        return plain


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """An arm is loaded and its time has settled."""

    arm: str
    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The rounds so far; ``half_width`` is the widest interval's, None before the first look."""

    rounds: int
    elapsed: float
    budget: float
    half_width: float | None


Event = WarmedUp | Progress


@dataclass(slots=True)
class _Arm:
    """One loaded file while it is being measured."""

    name: str
    session: Session
    run: Callable[[], object]
    load_seconds: float
    first_run_seconds: float = 0.0
    settled: bool = False
    typical: float = 0.0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


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
    go on until every ratio's interval is narrow enough or the budget is spent.

    Args:
        base: an ONNX file, or an open session.
        candidates: name -> file or session.
        runtime: opens the files.
        settings: how long and how precisely.
        listen: receives :class:`WarmedUp` and :class:`Progress`.

    Raises:
        ModelError: a file cannot be loaded, or its input does not fit the base's or the batch; export it with a dynamic batch.
        RuntimeUnavailable: the runtime insists on a device that is not there.
        ConfigError: a candidate has a reserved name.
    """
    settings = settings or Settings()
    if reserved := {BASE, CONTROL} & set(candidates):
        raise ConfigError(f"a candidate is called {reserved.pop()!r}, which is the base's name here", hint="rename it")
    throttled_before, gpu_before = environment.throttled(), environment.gpu_state()
    with ExitStack() as stack:
        arms = [
            _load(stack, name, source, runtime, settings)
            for name, source in ((BASE, base), (CONTROL, base), *candidates.items())
        ]
        clock = _clock(arms)
        threads = runtime.threads
        here = environment.capture(threads=threads)
        for arm in arms:
            _warm_up(arm, clock, settings.budget_seconds * WARM_UP_SHARE / len(arms), listen)
        repeats = max(1, math.ceil(settings.min_sample_seconds / min(arm.typical for arm in arms)))
        rounds, seconds, stopped_by = _rounds(arms, clock, repeats, settings, listen)
        results = tuple(_result(arm, repeats, settings) for arm in arms)
        control, ratios = _ratios(arms, clock, settings)
    flags = (*_flags(arms, control, clock, rounds, here), *_throttling(throttled_before))
    return LatencyResult(
        results, ratios, control, rounds, seconds, stopped_by, runtime.name, here, flags, settings,
        (gpu_before, environment.gpu_state()),
    )  # fmt: skip


def _load(stack: ExitStack, name: str, source: Path | Session, runtime: Runtime, settings: Settings) -> _Arm:
    started = time.perf_counter()
    session = stack.enter_context(runtime.load(source)) if isinstance(source, Path) else source
    took = time.perf_counter() - started if isinstance(source, Path) else 0.0
    call = session.prepare(_input(session, name, settings), settings.transfer)
    started = time.perf_counter()
    session.run(_input(session, name, settings))  # checked: a wrong shape is told in words
    return _Arm(name, session, call, took, first_run_seconds=time.perf_counter() - started)


def _input(session: Session, name: str, settings: Settings) -> Array:
    """Normal noise, the same numbers for every arm."""
    first, *rest = session.input_shape
    if first not in (None, settings.batch):
        raise ModelError(
            f"{name} was exported for a batch of {first}, {settings.batch} is wanted",
            hint=f"measure with --batch {first}, or export it with a dynamic batch",
        )
    image = [have if have is not None else want for have, want in zip(rest, settings.image or [None] * len(rest), strict=False)]
    if len(image) != len(rest) or None in image:
        raise ConfigError(
            f"{name} leaves its input size open: {['any' if size is None else size for size in session.input_shape]}",
            hint="give the image's size, e.g. --image 3,224,224",
        )
    if settings.image is not None and tuple(image) != settings.image:
        raise ModelError(
            f"{name} takes images of {image}, {list(settings.image)} is wanted", hint="export both from the same example"
        )
    noise = np.random.default_rng(settings.seed).standard_normal((settings.batch, *(int(size or 1) for size in image)))
    integer = np.issubdtype(session.input_dtype, np.integer)
    return np.ascontiguousarray((np.abs(noise) * 40).clip(0, 127) if integer else noise).astype(session.input_dtype)


def _clock(arms: list[_Arm]) -> Clock:
    """Which clock decides: see the module's first lines."""
    alone = all(arm.session.options.get("threads") == "1" for arm in arms)
    on_cpu = all(arm.session.providers[0] in {"CPUExecutionProvider", "torch-cpu"} for arm in arms)
    fine = time.get_clock_info("thread_time").resolution <= 1e-6  # 15 ms on some systems
    return "cpu" if alone and on_cpu and fine else "wall"


def _cpu_timer(clock: Clock) -> Callable[[], float]:
    return time.thread_time if clock == "cpu" else time.process_time


def _warm_up(arm: _Arm, clock: Clock, most_seconds: float, listen: Callable[[Event], None]) -> None:
    """Run until the median settles: first runs allocate, and clocks rise."""
    timer = time.thread_time if clock == "cpu" else time.perf_counter
    started, times = time.perf_counter(), list[float]()
    while not (arm.settled or (len(times) >= 3 and time.perf_counter() - started > most_seconds)):
        before = timer()
        arm.run()
        times.append(max(timer() - before, 1e-9))
        arm.settled = settled(times)
    arm.typical = float(np.median(times[-5:]))
    listen(WarmedUp(arm.name, len(times), time.perf_counter() - started))


def _rounds(
    arms: list[_Arm], clock: Clock, repeats: int, settings: Settings, listen: Callable[[Event], None]
) -> tuple[int, float, str]:
    order = np.random.default_rng([settings.seed, 1])
    cpu_timer, rounds, next_look, started = _cpu_timer(clock), 0, settings.min_rounds, time.perf_counter()
    with _no_garbage_collection():
        while True:
            for index in order.permutation(len(arms)):
                _sample(arms[index], repeats, cpu_timer)
            rounds += 1
            half_width, elapsed = math.inf, time.perf_counter() - started
            if rounds >= next_look:
                half_width = _widest(arms, clock, settings)
                next_look = math.ceil(rounds * CHECK_EVERY)
            limits = (settings.precision, settings.min_rounds, settings.budget_seconds)
            reason = why_stop(half_width, rounds, elapsed, precision=limits[0], min_rounds=limits[1], budget_seconds=limits[2])
            listen(Progress(rounds, elapsed, settings.budget_seconds, None if math.isinf(half_width) else half_width))
            if reason is not None:
                return rounds, elapsed, reason


def _sample(arm: _Arm, repeats: int, cpu_timer: Callable[[], float]) -> None:
    run = arm.run
    wall, cpu = time.perf_counter(), cpu_timer()
    for _ in range(repeats):
        run()
    cpu, wall = cpu_timer() - cpu, time.perf_counter() - wall
    arm.wall.append(wall / repeats)
    arm.cpu.append(max(cpu, 1e-9) / repeats)


def _samples(arm: _Arm, clock: Clock) -> list[float]:
    return arm.cpu if clock == "cpu" else arm.wall


def _interval(base: _Arm, other: _Arm, clock: Clock, settings: Settings) -> Interval:
    return speedup(_samples(base, clock), _samples(other, clock), np.random.default_rng([settings.seed, 2]))


def _widest(arms: list[_Arm], clock: Clock, settings: Settings) -> float:
    return max(_interval(arms[0], other, clock, settings).half_width for other in arms[1:])


def _ratios(arms: list[_Arm], clock: Clock, settings: Settings) -> tuple[Ratio, dict[str, Ratio]]:
    """The control's ratio, and each candidate's judged by it. The control is no candidate: its own verdict only describes."""
    intervals = {
        arm.name: (_interval(arms[0], arm, "wall", settings), _interval(arms[0], arm, "cpu", settings)) for arm in arms[1:]
    }
    control = intervals[CONTROL][clock == "cpu"]
    quiet = Interval(1.0, 1.0, 1.0)

    def ratio(name: str) -> Ratio:
        wall, cpu = intervals[name]
        decisive = cpu if clock == "cpu" else wall
        verdict = decide(decisive, quiet if name == CONTROL else control, len(arms[0].wall))
        floor = math.exp(control.reach)
        return Ratio(wall.ratio, wall.low, wall.high, cpu.ratio, cpu.low, cpu.high, verdict, clock, floor)

    return ratio(CONTROL), {arm.name: ratio(arm.name) for arm in arms[2:]}


def _result(arm: _Arm, repeats: int, settings: Settings) -> ArmResult:
    latency = percentiles(arm.wall)
    return ArmResult(
        arm.name, arm.load_seconds, arm.first_run_seconds, tuple(arm.wall), tuple(arm.cpu), repeats, latency,
        settings.batch / latency.p50, arm.session.providers, arm.session.placement, arm.session.options, arm.session.fallback,
    )  # fmt: skip


def _flags(arms: list[_Arm], control: Ratio, clock: Clock, rounds: int, here: Environment) -> Iterator[str]:
    for message in dict.fromkeys(arm.session.fallback for arm in arms if arm.session.fallback):
        yield f"fallback: {message}"
    if control.decisive.reach > math.log1p(SAME_WITHIN):
        yield f"noisy: the base compared with itself deviates by up to {control.floor - 1:.1%}, 2 % is wanted"
    if clock == "cpu":
        waiting = float(np.median([w / c for arm in arms for w, c in zip(arm.wall, arm.cpu, strict=True)]))
        if waiting > CONTENDED:
            yield f"contended: wall time is {waiting:.2f} times CPU time, other work holds the processor"
    if rounds < FEWEST_ROUNDS:
        yield f"few rounds: {rounds}, {FEWEST_ROUNDS} are wanted; raise the budget"
    for arm in arms:
        if not arm.settled:
            yield f"unsettled: {arm.name} was still changing when the warm-up's time was over"
    if here.quota is not None and here.quota < (here.threads or here.affinity):
        yield f"quota: the control group grants {here.quota:g} processors, less than the threads in use"


def _throttling(before: int) -> Iterator[str]:
    if (times := environment.throttled() - before) > 0:
        yield f"throttled: the control group stopped the process {times} times while it was measured"


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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Verdict) else value
