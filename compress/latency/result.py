"""What a latency comparison is asked and what it answers: plain data, raw samples included."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from compress.core import Environment, GpuState
from compress.errors import ConfigError
from compress.latency.statistics import Interval, LatencyVerdict, Percentiles
from compress.runtime import Transfer

ClockKind = Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. One thread or many is the runtime's matter.

    Attributes:
        batch: images per run; 1 is the single-stream scenario, more the offline one.
        budget_seconds: time for the rounds; loading and warming up come on top.
        loads: the files are loaded anew at least this many times, because where a session's memory happens to lie is worth
            up to 1 % for as long as the session lives.
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
    loads: int = 3
    min_sample_seconds: float = 1e-3
    seed: int = 0
    transfer: Transfer = "e2e"
    image: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "budget_seconds", "precision", "min_rounds", "loads", "min_sample_seconds"):
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
        load_seconds: reading and optimising the file, the first time.
        first_run_seconds: the first run after that.
        wall: seconds per run, one a round, each the mean over ``inner_repeats`` runs; percentiles are over these.
        cpu: CPU seconds per run in the same rounds: the measuring thread's, or the whole process's with more threads.
        images_per_second: batch over the median wall time.
        fallback: why something else ran than was asked for; empty when nothing fell back.
        parity: what came of comparing the file with the network it was made from; empty where the file does not tell.
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
    parity: str = ""


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
    verdict: LatencyVerdict
    decided_by: ClockKind
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
        plain: dict[str, Any] = json.loads(json.dumps(facts))  # lists for tuples, words for verdicts
        return plain

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> LatencyResult:
        """What :meth:`to_json` wrote, on this machine or another.

        Raises:
            ConfigError: something is missing or of another kind; measure again with this version.
        """
        try:
            return LatencyResult(
                arms=tuple(_arm(arm) for arm in facts["arms"]),
                ratios={str(name): _ratio(ratio) for name, ratio in facts["ratios"].items()},
                control=_ratio(facts["control"]),
                rounds=int(facts["rounds"]),
                seconds=float(facts["seconds"]),
                stopped_by=str(facts["stopped_by"]),
                runtime=str(facts["runtime"]),
                environment=Environment.from_json(facts["environment"]),
                flags=tuple(map(str, facts["flags"])),
                settings=_settings(facts["settings"]),
                gpu=_states(facts["gpu"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"this is no latency measurement that this version can read: {type(error).__name__}: {error}",
                hint="measure again with: compress bench ... --out FILE.json",
            ) from error


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """An arm is loaded and its time has settled."""

    arm: str
    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuringProgress:
    """The rounds so far; ``half_width`` is the widest interval's, None before the first look."""

    rounds: int
    elapsed: float
    budget: float
    half_width: float | None


Event = WarmedUp | MeasuringProgress


def _arm(facts: Mapping[str, Any]) -> ArmResult:
    latency = facts["latency"]
    p99 = None if latency["p99"] is None else float(latency["p99"])
    wall, cpu = (tuple(map(float, facts[clock])) for clock in ("wall", "cpu"))
    if not len(wall) == len(cpu) > 0 or not all(0 < value < math.inf for value in (*wall, *cpu)):
        raise ValueError(f"the samples of {facts['name']!r} are no positive times of both clocks")
    return ArmResult(
        name=str(facts["name"]),
        load_seconds=float(facts["load_seconds"]),
        first_run_seconds=float(facts["first_run_seconds"]),
        wall=wall,
        cpu=cpu,
        inner_repeats=int(facts["inner_repeats"]),
        latency=Percentiles(float(latency["p50"]), float(latency["p90"]), float(latency["p95"]), p99),
        images_per_second=float(facts["images_per_second"]),
        providers=tuple(map(str, facts["providers"])),
        placement={str(name): int(count) for name, count in facts["placement"].items()},
        options={str(name): str(value) for name, value in facts["options"].items()},
        fallback=str(facts["fallback"]),
        parity=str(facts["parity"]),
    )


def _ratio(facts: Mapping[str, Any]) -> Ratio:
    numbers = ("speedup", "low", "high", "cpu_speedup", "cpu_low", "cpu_high", "floor")
    decided_by: ClockKind = "cpu" if facts["decided_by"] == "cpu" else "wall"
    named: Any = {name: float(facts[name]) for name in numbers}
    return Ratio(**named, verdict=LatencyVerdict(facts["verdict"]), decided_by=decided_by)


def _settings(facts: Mapping[str, Any]) -> Settings:
    image = facts["image"]
    return Settings(**{**facts, "image": None if image is None else tuple(map(int, image))})


def _states(facts: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[tuple[GpuState, ...], tuple[GpuState, ...]]:
    before, after = (tuple(GpuState(**state) for state in states) for states in facts)
    return before, after
