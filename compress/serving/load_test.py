"""MLPerf's server scenario: the highest rate of Poisson arrivals at which the 99th percentile stays under a bound.

One search for that rate rests on few late requests and on whatever else the machine did meanwhile. It is therefore
repeated in rounds, every arm once a round in random order, so that what slows a round down slows all of its arms; the ratio
of two arms comes from the rounds that hold both, as everywhere in this project. The rates are confirmed by longer trials.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compress.core import Listen, finite_json, ignore, plural
from compress.errors import ConfigError, ServingError
from compress.latency import P99_FROM, Interval, mean_ratio
from compress.runtime import Array
from compress.serving.client import Client
from compress.serving.traffic import Connect, Send, Traffic, highest, offer, poisson
from compress.serving.v2_protocol import DATATYPES

_PROBES = 8
_STEPS_DOWN = 12
_SLOWEST = 64  # times slower than the first guess: not tried any more
LASTS = 20  # bounds that a trial lasts at least: in a shorter one a queue does not grow long enough to be seen
LATE_CLIENT = 0.1  # share of the bound that the client itself may be late by before its figures are doubtful


@dataclass(frozen=True, slots=True)
class Scenario:
    """How to measure.

    Attributes:
        bound: seconds within which ``quantile`` of the requests must be answered.
        requests: of one trial in a search, at least; at 300, 3 may be late.
        rounds: searches of every arm.
        confirm: requests of the trial that confirms a rate; a 99th percentile wants 1,000.
        connections: most requests under way.
        step: ratio of neighbouring rates; what a search can tell apart.
        batch: images of one request.
        control: the first arm takes part twice: what the machine alone makes of the same model (A/A).
    """

    bound: float
    quantile: float = 0.99
    requests: int = 300
    rounds: int = 5
    confirm: int = P99_FROM
    connections: int = 32
    step: float = 1.04
    batch: int = 1
    control: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bound", "requests", "rounds", "confirm", "connections", "batch"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"{name} is {value}, more than 0 is wanted", hint=f"leave --{name} at its default")
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile is {self.quantile}, between 0 and 1 is wanted", hint="0.99 is usual")
        if not 1 < self.step <= 2:
            raise ConfigError(f"step is {self.step}, above 1 and up to 2 is wanted", hint="1.04 is usual")
        if math.floor(self.requests * (1 - self.quantile) + 1e-9) < 1:
            fewest = math.ceil(1 / (1 - self.quantile) - 1e-9)
            raise ConfigError(
                f"of {self.requests} requests none may be late for {self.quantile:.2%}: {fewest} or more are wanted",
                hint=f"--requests {fewest}",
            )


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A long trial at one rate; times in seconds.

    Attributes:
        rate: requests a second that were scheduled; the highest tried at which the bound held. 0 where none did.
        failed: requests without an answer.
    """

    rate: float
    requests: int
    p50: float
    p90: float
    p99: float
    failed: int


@dataclass(frozen=True, slots=True)
class Sustained:
    """One arm.

    Attributes:
        rates: highest rate in every round.
        typical: their median.
        unloaded: median seconds of requests one after the other.
    """

    name: str
    rates: tuple[float, ...]
    typical: float
    unloaded: float
    confirmed: Confirmed


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The whole comparison.

    Attributes:
        ratios: rate of each further arm over the first one's, with a 95 % interval.
        control: the first arm over itself; None without a control.
        flags: what a reader must know before trusting it.
    """

    scenario: Scenario
    arms: tuple[Sustained, ...]
    ratios: Mapping[str, Interval]
    control: Interval | None
    seconds: float
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; what was not reached is null."""
        plain: dict[str, Any] = finite_json(asdict(self))
        return plain


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial has ended; round 0 confirms."""

    arm: str
    round: int
    rounds: int
    rate: float
    kept: bool


@dataclass(slots=True)
class _Arm:
    name: str
    connect: Connect
    unloaded: float = 0.0
    rates: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    failures: set[str] = field(default_factory=set)

    @property
    def guess(self) -> float:
        return statistics.median(self.rates) if self.rates else 0.6 / self.unloaded


def sustained(arms: Mapping[str, Connect], scenario: Scenario, *, listen: Listen = ignore) -> LoadResult:
    """Measure what each arm sustains.

    Args:
        arms: name -> how to connect; the first one is what the others are compared with.
        scenario: how.
        listen: receives a :class:`Tried` after every trial.

    Raises:
        ServingError: an arm does not answer, or not even alone within the bound.
        ConfigError: arms are to be compared over a single round; take more.
    """
    started, rng = time.monotonic(), np.random.default_rng(scenario.seed)
    field_ = [_Arm(name=name, connect=connect) for name, connect in arms.items()]
    if scenario.control:
        field_.append(_Arm(name=f"{field_[0].name} again", connect=field_[0].connect))
    if len(field_) > 1 and scenario.rounds < 2:
        raise ConfigError(
            f"{scenario.rounds} round, 2 or more are wanted for an interval", hint="leave --rounds at its default"
        )
    for arm in field_:
        arm.unloaded = _probe(arm)
        if arm.unloaded > scenario.bound:
            raise _never(arm, scenario)
    for number in range(1, scenario.rounds + 1):
        for index in rng.permutation(len(field_)):
            arm = field_[index]

            def passes(rate: float, arm: _Arm = arm, number: int = number) -> bool:
                kept = _try(arm, rate, scenario.requests, scenario, rng).keeps(scenario.quantile, scenario.bound)
                listen(Tried(arm=arm.name, round=number, rounds=scenario.rounds, rate=rate, kept=kept))
                return kept

            jitter = scenario.step ** float(rng.uniform(-0.5, 0.5))
            guess = arm.guess * jitter
            arm.rates.append(highest(passes, guess, step=scenario.step, least=guess / _SLOWEST))
            if arm.rates[-1] == 0.0:
                raise _never(arm, scenario)
    found = tuple(_summary(arm, scenario, rng, listen) for arm in field_)
    again = found[-1] if scenario.control else None
    compared = found[1:-1] if scenario.control else found[1:]
    ratios = {arm.name: mean_ratio(arm.rates, found[0].rates) for arm in compared}
    control = None if again is None else mean_ratio(again.rates, found[0].rates)
    return LoadResult(
        scenario=scenario,
        arms=found,
        ratios=ratios,
        control=control,
        seconds=time.monotonic() - started,
        flags=tuple(_flags(field_, scenario)),
    )


def asking(url: str, model: str, *, batch: int = 1, timeout: float = 30.0, seed: int = 0) -> Connect:
    """Connections that ask a served model for a batch of noise, whose bytes differ from request to request.

    Raises:
        ServingError: the model is not served there, or leaves its input open.
    """
    with Client(url, timeout=timeout) as client:
        served = client.interface(model)
    inputs: list[dict[str, Array]] = []
    rng = np.random.default_rng(seed)
    for _ in range(4):
        inputs.append({})
        for port in served.inputs:
            if any(size < 1 for size in port.dims[1:]):
                raise ServingError(
                    f"{model} leaves its input {port.name!r} open: {list(port.dims)}", hint="serve it with fixed sizes"
                )
            noise = rng.standard_normal((batch, *port.dims[1:]))
            dtype = DATATYPES[port.kind]
            inputs[-1][port.name] = (
                (np.abs(noise) * 40).clip(0, 127).astype(dtype) if dtype.kind in "iu" else noise.astype(dtype)
            )

    @contextmanager
    def connect() -> Iterator[Send]:
        with Client(url, timeout=timeout) as client:
            client.ready(model)

            def send(index: int) -> None:
                client.infer(model, inputs[index % len(inputs)])

            yield send

    return connect


def _never(arm: _Arm, scenario: Scenario) -> ServingError:
    said = "".join(f"; it says: {text}" for text in sorted(arm.failures)[:1])
    return ServingError(
        f"{arm.name} does not keep {scenario.bound * 1e3:g} ms: alone it takes {arm.unloaded * 1e3:.3g} ms{said}",
        hint="give a wider --p99",
    )


def _probe(arm: _Arm) -> float:
    """Median seconds of requests one after the other: what the first search starts from."""
    times = []
    with arm.connect() as send:
        for index in range(_PROBES):
            before = time.perf_counter()
            send(index)
            times.append(time.perf_counter() - before)
    return statistics.median(times[_PROBES // 4 :])


def _try(arm: _Arm, rate: float, requests: int, scenario: Scenario, rng: np.random.Generator) -> Traffic:
    schedule = poisson(rate, max(requests, math.ceil(LASTS * scenario.bound * rate)), rng)
    traffic = offer(arm.connect, schedule, connections=scenario.connections, bound=scenario.bound, quantile=scenario.quantile)
    arm.lateness.append(traffic.lateness)
    arm.failures.update(traffic.failures)
    if np.isinf(traffic.latencies).all():  # a server that is gone needs no search for the rate at which it would answer
        said = "".join(f"; {text}" for text in sorted(traffic.failures)[:1])
        raise ServingError(
            f"{arm.name} answered none of {plural(len(traffic.latencies), 'request')} at {rate:.3g} a second{said}",
            hint="look into the server's log, or give it longer with --timeout",
        )
    return traffic


def _summary(arm: _Arm, scenario: Scenario, rng: np.random.Generator, listen: Listen) -> Sustained:
    typical = statistics.median(arm.rates)
    for down in range(_STEPS_DOWN):
        rate = typical / scenario.step**down
        traffic = _try(arm, rate, scenario.confirm, scenario, rng)
        kept = traffic.keeps(scenario.quantile, scenario.bound)
        listen(Tried(arm=arm.name, round=0, rounds=scenario.rounds, rate=rate, kept=kept))
        if kept:
            p50, p90, p99 = (float(q) for q in np.quantile(traffic.latencies, [0.5, 0.9, 0.99], method="inverted_cdf"))
            failed = int(np.isinf(traffic.latencies).sum())
            return Sustained(
                name=arm.name,
                rates=tuple(arm.rates),
                typical=typical,
                unloaded=arm.unloaded,
                confirmed=Confirmed(rate=rate, requests=traffic.scheduled, p50=p50, p90=p90, p99=p99, failed=failed),
            )
    none = Confirmed(rate=0.0, requests=scenario.confirm, p50=math.nan, p90=math.nan, p99=math.nan, failed=0)
    return Sustained(name=arm.name, rates=tuple(arm.rates), typical=typical, unloaded=arm.unloaded, confirmed=none)


def _flags(arms: list[_Arm], scenario: Scenario) -> Iterator[str]:
    for arm in arms:
        if arm.failures:
            yield f"{arm.name}: requests failed: {'; '.join(sorted(arm.failures)[:3])}"
        if (late := statistics.median(arm.lateness)) > LATE_CLIENT * scenario.bound:
            yield f"{arm.name}: the client itself sends {late * 1e3:.1f} ms late: it has too little of the machine"
    if scenario.confirm < P99_FROM:
        yield f"confirmed by {plural(scenario.confirm, 'request')}, a 99th percentile wants {P99_FROM:,}"
