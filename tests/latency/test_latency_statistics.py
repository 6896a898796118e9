from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.latency.statistics import (
    FEWEST_CALM,
    Interval,
    LatencyVerdict,
    bootstrap_median,
    decide,
    percentiles,
    settled,
    speedup,
    undisturbed,
    why_stop,
)

times = st.lists(st.floats(1e-4, 10.0), min_size=3, max_size=60)


def paired(seed: int, rounds: int, ratio: float, noise: float = 0.02, memory: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms on a noisy host: a drift they share, and noise of their own that may have a memory."""
    rng = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, rounds)))
    own = rng.normal(0, noise, (2, rounds))
    for i in range(1, rounds):
        own[:, i] += memory * own[:, i - 1]
    return drift * np.exp(own[0]) * ratio, drift * np.exp(own[1])


@given(times, st.floats(1e-3, 1e3), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_units_do_not_matter(base: list[float], unit: float, seed: int) -> None:
    other = np.asarray(base[::-1])
    one = speedup(base, other, np.random.default_rng(seed))
    two = speedup(np.asarray(base) * unit, other * unit, np.random.default_rng(seed))
    assert (two.ratio, two.low, two.high) == pytest.approx((one.ratio, one.low, one.high))


@given(times, st.floats(0.2, 5.0), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_candidate_k_times_faster_says_k(base: list[float], k: float, seed: int) -> None:
    """Whatever the host does to both: drift shared by a round cancels entirely."""
    found = speedup(base, np.asarray(base) / k, np.random.default_rng(seed))
    assert (found.ratio, found.low, found.high) == pytest.approx((k, k, k))


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_against_b_is_the_inverse_of_b_against_a(seed: int) -> None:
    a, b = paired(seed, 41, 1.1)
    forth, back = speedup(a, b, np.random.default_rng(seed)), speedup(b, a, np.random.default_rng(seed))
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert (forth.low, forth.high) == pytest.approx((1 / back.high, 1 / back.low), rel=1e-6)


@pytest.mark.parametrize(("memory", "coverage"), [(0.0, 0.9), (0.4, 0.85)])
@pytest.mark.parametrize("rounds", [30, 120])
def test_the_interval_covers_the_truth(rounds: int, memory: float, coverage: float) -> None:
    """Over 200 simulated hosts the interval holds the truth as often as its docstring says, and not by being huge."""
    found = [speedup(*paired(seed, rounds, 1.3, memory=memory), np.random.default_rng(seed)) for seed in range(200)]
    assert np.mean([interval.low <= 1.3 <= interval.high for interval in found]) >= coverage
    assert np.median([interval.half_width for interval in found]) < 0.02 * 3 * 2 / math.sqrt(rounds)


def test_the_same_file_is_rarely_called_different() -> None:
    verdicts = []
    for seed in range(200):
        base, candidate = paired(seed, 60, 1.0)
        again = base * np.exp(np.random.default_rng(seed).normal(0, 0.03, 60))
        rng = np.random.default_rng(seed)
        verdicts.append(decide(speedup(base, candidate, rng), speedup(base, again, rng), 60))
    assert verdicts.count(LatencyVerdict.DIFFERENT) <= 4


def test_five_percent_are_found() -> None:
    for seed in range(50):
        base, slower = paired(seed, 60, 1 / 1.05)
        again = base * np.exp(np.random.default_rng(seed).normal(0, 0.02, 60))
        rng = np.random.default_rng(seed)
        found = speedup(base, slower, rng)
        assert decide(found, speedup(base, again, rng), 60) is LatencyVerdict.DIFFERENT and found.ratio < 1


def test_rounds_that_waited_do_not_count_where_others_are() -> None:
    """Waiting lengthens CPU time at random; the ratio of the calm rounds is as true, and sharper."""
    halves = []
    for seed in range(20):
        base, candidate = paired(seed, 120, 1.3, noise=0.01)
        rng = np.random.default_rng([seed, 1])
        waits = rng.random((2, 120)) < 0.4
        pairs = zip(waits, (base, candidate), strict=True)
        cpu = [np.where(wait, times * np.exp(rng.normal(0.2, 0.2, 120)), times) for wait, times in pairs]
        wall = [np.where(wait, 3 * times, 1.01 * times) for wait, times in zip(waits, cpu, strict=True)]
        calm = undisturbed(list(zip(wall, cpu, strict=True)))
        assert np.array_equal(calm, ~(waits[0] | waits[1]))
        every, some = (speedup(cpu[0][rows], cpu[1][rows], np.random.default_rng(seed)) for rows in (slice(None), calm))
        assert some.low < 1.3 * 1.01 and some.high > 1.3 / 1.01
        halves.append(some.half_width / every.half_width)
    assert np.median(halves) < 0.8


@given(st.integers(0, 200), st.floats(0.0, 1.0), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_too_few_calm_rounds_are_no_reason_to_drop_any(rounds: int, share: float, seed: int) -> None:
    waits = np.random.default_rng(seed).random(rounds) < share
    cpu = np.ones(rounds)
    calm = undisturbed([(np.where(waits, 2.0, 1.0), cpu), (cpu, cpu)])
    assert calm.sum() == (rounds if (~waits).sum() < FEWEST_CALM else (~waits).sum())


QUIET = Interval(1.0, 0.998, 1.002)


@pytest.mark.parametrize(
    ("interval", "control", "rounds", "verdict"),
    [
        (Interval(1.0, 0.99, 1.01), QUIET, 30, LatencyVerdict.SAME),
        (Interval(1.01, 1.005, 1.015), QUIET, 30, LatencyVerdict.SAME),  # real, but nobody deploys for it
        (Interval(1.05, 1.03, 1.07), QUIET, 30, LatencyVerdict.DIFFERENT),
        (Interval(0.95, 0.93, 0.97), QUIET, 30, LatencyVerdict.DIFFERENT),
        (Interval(1.05, 0.99, 1.11), QUIET, 30, LatencyVerdict.INCONCLUSIVE),
        (Interval(1.05, 1.03, 1.07), Interval(1.03, 0.99, 1.06), 30, LatencyVerdict.INCONCLUSIVE),  # within what A/A shows
        (Interval(1.05, 1.03, 1.07), Interval(0.97, 0.93, 1.01), 30, LatencyVerdict.INCONCLUSIVE),
        (Interval(1.5, 1.4, 1.6), QUIET, 9, LatencyVerdict.INCONCLUSIVE),
    ],
)
def test_three_verdicts(interval: Interval, control: Interval, rounds: int, verdict: LatencyVerdict) -> None:
    assert decide(interval, control, rounds) is verdict


def test_a_series_with_memory_gets_a_wider_interval_than_its_shuffle() -> None:
    wider = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.cumsum(rng.normal(0, 0.01, 200))
        low, high = bootstrap_median(values, np.random.default_rng(0))
        shuffled_low, shuffled_high = bootstrap_median(rng.permutation(values), np.random.default_rng(0))
        wider += high - low > shuffled_high - shuffled_low
    assert wider >= 18


def test_the_99th_percentile_needs_a_thousand_samples() -> None:
    samples = np.arange(1, 1001) / 1000
    assert percentiles(list(samples[:-1])).p99 is None
    found = percentiles(list(samples))
    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx((0.5005, 0.9001, 0.95005, 0.99001), abs=1e-4)


def test_warm_up_ends_when_two_windows_agree() -> None:
    assert not settled([1.0] * 9)
    assert settled([9.0] * 5 + [1.0] * 10)
    assert not settled([1.1] * 5 + [1.0] * 5)
    assert settled([1.0, 1.0, 5.0, 1.0, 1.0] * 2)  # one outlier is not a trend


def test_the_stop_rule() -> None:
    rule = {"precision": 0.01, "min_rounds": 30, "budget_seconds": 5.0}
    assert why_stop(0.009, 30, 1.0, **rule) == "precision"
    assert why_stop(0.009, 29, 1.0, **rule) is None
    assert why_stop(0.011, 30, 1.0, **rule) is None
    assert why_stop(0.011, 3, 5.0, **rule) == "budget"
