"""Load that arrives when it arrives: schedules, latencies from the scheduled time, and the search for the highest rate."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ConfigError, ServingError
from compress.serving import load_test
from compress.serving.load_test import Scenario, sustained
from compress.serving.traffic import Connect, Send, Times, Traffic, allowed, highest, offer, poisson


def served_by(answer: Callable[[int], None]) -> Connect:
    @contextmanager
    def connect() -> Iterator[Send]:
        yield answer

    return connect


def one_at_a_time(seconds: float) -> Connect:
    """A server with one worker."""
    worker = threading.Lock()

    def answer(_: int) -> None:
        with worker:
            time.sleep(seconds)

    return served_by(answer)


@given(st.floats(0.1, 1e4), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_arrivals(rate: float, count: int, seed: int) -> None:
    times = poisson(rate, count, np.random.default_rng(seed))
    assert times.shape == (count,)
    assert (np.diff(times) >= 0).all()
    np.testing.assert_array_equal(times, poisson(rate, count, np.random.default_rng(seed)))


def test_arrivals_are_poisson() -> None:
    """Mean and variance of the gaps are those of the exponential distribution: 1/rate and 1/rate²."""
    gaps = np.diff(poisson(50.0, 20_000, np.random.default_rng(0)))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)


def test_a_stall_counts_for_everybody_who_was_to_be_served_meanwhile() -> None:
    """Coordinated omission: a client that waits for its answer would see one slow request of 40."""

    def answer(index: int) -> None:
        if index == 10:
            time.sleep(0.2)

    schedule = np.arange(1, 41) * 0.005
    traffic = offer(served_by(answer), schedule, connections=1)
    waited = traffic.latencies[10:]
    expected = 0.2 - (schedule[10:] - schedule[10])
    assert (waited >= expected - 1e-3).all()
    assert traffic.late(0.05) >= 29
    assert not traffic.keeps(0.99, 0.05)
    assert traffic.keeps(0.99, 0.5) or traffic.latencies.max() > 0.5  # a machine may stall as well


def test_failures_are_infinitely_late_and_told() -> None:
    def answer(index: int) -> None:
        if index % 2:
            raise ServingError("no", hint="x")

    traffic = offer(served_by(answer), np.arange(1, 11) * 1e-3, connections=3)
    assert np.isinf(traffic.latencies).sum() == 5
    assert traffic.failures == ("no",)
    assert not traffic.keeps(0.5001, math.inf) or traffic.late(1e9) == 5


def test_a_lost_stream_stops_early() -> None:
    traffic = offer(one_at_a_time(0.02), np.arange(1, 1001) * 1e-3, connections=4, bound=0.05, quantile=0.99)
    assert len(traffic.latencies) < 100
    assert not traffic.keeps(0.99, 0.05)


def test_connections_that_do_not_open() -> None:
    @contextmanager
    def connect() -> Iterator[Send]:
        raise ServingError("closed", hint="x")
        yield

    with pytest.raises(ServingError, match="closed"):
        offer(connect, np.array([0.1]), connections=2)
    with pytest.raises(ConfigError, match="connections"):
        offer(connect, np.array([0.1]), connections=0)


@pytest.mark.parametrize(("count", "late"), [(99, 0), (100, 1), (300, 3), (999, 9), (1000, 10)])
def test_how_many_may_be_late(count: int, late: int) -> None:
    assert allowed(count, 0.99) == late


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e3), st.floats(1.01, 1.5))
def test_the_search_finds_the_threshold_from_anywhere(truth: float, off: float, step: float) -> None:
    asked: list[float] = []

    def passes(rate: float) -> bool:
        asked.append(rate)
        return rate <= truth

    found = highest(passes, truth * off, step=step, most=200)
    assert truth / step * (1 - 1e-6) <= found <= truth
    assert found in asked


def test_where_nothing_passes() -> None:
    asked: list[float] = []
    assert highest(lambda rate: bool(asked.append(rate)), 10.0, step=1.1, least=1.0) == 0.0
    assert min(asked) >= 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"bound": 0}, "bound"), ({"requests": 50}, "100"), ({"quantile": 1.0}, "quantile"), ({"step": 1.0}, "step")],
)
def test_scenarios_that_mean_nothing(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Scenario(**{"bound": 0.05, **options})  # type: ignore[arg-type]


def queue(connect: Connect, schedule: Times, *, connections: int, bound: float, quantile: float) -> Traffic:
    """One worker of known speed, in exact arithmetic instead of seconds: Lindley's recursion."""
    del connections
    place = np.arange(len(schedule)) * SPEEDS[connect]
    latencies = np.maximum.accumulate(schedule - place) + place + SPEEDS[connect] - schedule
    late = np.flatnonzero(latencies > bound)
    lost = late[allowed(len(schedule), quantile) :][:1]
    decided = latencies[: int(lost[0]) + 1] if len(lost) else latencies
    return Traffic(len(schedule) / float(schedule[-1]), decided, (), len(schedule), 0.0)


SPEEDS: dict[Connect, float] = {}


@pytest.fixture
def in_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of known speed: nothing depends on this machine's clock."""
    monkeypatch.setattr(load_test, "offer", queue)
    monkeypatch.setattr(load_test, "_probe", lambda arm: SPEEDS[arm.connect])


@pytest.mark.usefixtures("in_queue")
def test_a_whole_measurement() -> None:
    """Twice the speed at the same bound in services is twice the rate."""
    arms = {"slow": one_at_a_time(0.002), "fast": one_at_a_time(0.001), "tight": one_at_a_time(0.002)}
    SPEEDS.update(zip(arms.values(), (0.02, 0.01, 0.02), strict=True))
    result = sustained(arms, Scenario(2.0, rounds=10, requests=300, confirm=1000))
    slow = result.arms[0]
    assert result.ratios["fast"].ratio == pytest.approx(2.0, rel=0.04)
    assert result.ratios["tight"].ratio == pytest.approx(1.0, rel=0.04)
    assert 0.9 / 0.02 <= slow.typical <= 1.15 / 0.02  # the bound is 100 services wide: nearly all of the capacity is usable
    assert slow.confirmed.p99 <= 2.0
    assert result.flags == ()
    json.dumps(result.to_json())


@pytest.mark.usefixtures("in_queue")
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """The same server twice is the same: 95 % of the intervals say so; of 100, 88 or fewer would be one chance in 200."""
    arms = {"one": one_at_a_time(0.002)}
    SPEEDS.update(dict.fromkeys(arms.values(), 0.02))
    held = 0
    for seed in range(100):
        control = sustained(arms, Scenario(2.0, rounds=10, requests=300, confirm=1000, control=True, seed=seed)).control
        assert control is not None
        held += control.low <= 1.0 <= control.high
    assert held >= 89


def test_a_rate_that_no_long_trial_confirms_is_told_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short trials are kept, long ones never."""

    def moody(connect: Connect, schedule: Times, **_: object) -> Traffic:
        lost = len(schedule) >= 1000 or schedule[-1] < len(schedule) / 50
        latencies = np.full(len(schedule), 1.0 if lost else 0.001)
        return Traffic(50.0, latencies, (), len(schedule), 0.0)

    monkeypatch.setattr(load_test, "offer", moody)
    arm = sustained({"only": one_at_a_time(0.002)}, Scenario(0.1, rounds=2, requests=300)).to_json()["arms"][0]
    assert arm["typical"] > 0
    assert (arm["confirmed"]["rate"], arm["confirmed"]["p99"]) == (0.0, None)


def test_one_round_has_no_interval() -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        sustained({"a": one_at_a_time(0.001), "b": one_at_a_time(0.001)}, Scenario(1.0, rounds=1))


def test_a_tighter_bound_costs_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"only": one_at_a_time(0.002)}
    SPEEDS.update(zip(arms.values(), (0.02,), strict=True))
    monkeypatch.setattr(load_test, "offer", queue)
    rates = [sustained(arms, Scenario(bound, rounds=5)).arms[0].confirmed.rate for bound in (0.05, 0.1, 0.4)]
    assert 0 < rates[0] < rates[1] < rates[2] < 50


def test_a_bound_that_nobody_keeps() -> None:
    with pytest.raises(ServingError, match=r"does not keep 0\.5 ms: alone it takes"):
        sustained({"slow": one_at_a_time(0.002)}, Scenario(0.0005, requests=100, rounds=1, connections=1))
