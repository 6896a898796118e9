"""What paired samples say: ratios with intervals, percentiles, verdicts, and when to stop. Pure NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
SAME_WITHIN = 0.02  # a difference nobody deploys for
WAITED = 1.15  # wall over CPU time from which a sample waited
FEWEST_CALM = 30  # rounds without waiting, from which only those count
FEWEST_ROUNDS = 10  # below, an interval from resampling means little
P99_FROM = 1_000  # samples
CONFIDENCE = 0.95
RESAMPLES = 1_000


class LatencyVerdict(StrEnum):
    """What a comparison of two files says."""

    SAME = "same"
    DIFFERENT = "different"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio with its 95 % confidence interval."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval of the ratio's logarithm: 0.01 is about 1 %."""
        return (math.log(self.high) - math.log(self.low)) / 2

    @property
    def reach(self) -> float:
        """The largest deviation from 1, as a logarithm, that the interval allows."""
        return max(abs(math.log(self.low)), abs(math.log(self.high)))


def speedup(base: Sequence[float] | Samples, candidate: Sequence[float] | Samples, rng: np.random.Generator) -> Interval:
    """How many times faster the candidate is, from the rounds that hold a sample of both.

    exp(median log(base_i / candidate_i)): what slows a whole round down cancels. The interval is a percentile interval over
    a circular block bootstrap, whose blocks of about n^(1/3) rounds keep the noise's memory of itself.

    Args:
        base: seconds, one per round.
        candidate: seconds in the same rounds.
        rng: draws the blocks.
    """
    logs = np.log(np.asarray(base, dtype=np.float64)) - np.log(np.asarray(candidate, dtype=np.float64))
    low, high = bootstrap_median(logs, rng)
    return Interval(math.exp(float(np.median(logs))), math.exp(low), math.exp(high))


def undisturbed(arms: Sequence[tuple[Sequence[float], Sequence[float]]]) -> NDArray[np.bool_]:
    """The rounds whose samples all ran without waiting for the processor; all rounds where there are too few of those.

    Who has to wait finds its caches emptied, so even CPU time is longer then, by a fifth and at random. On short runs beside
    other work a third of the rounds escape, and their ratios scatter four to six times less; on long runs hardly any do.

    Args:
        arms: (wall, cpu) seconds of each arm, one per round.
    """
    waited = [np.asarray(wall) > WAITED * np.asarray(cpu) for wall, cpu in arms]
    calm: NDArray[np.bool_] = ~np.logical_or.reduce(waited)
    return calm if calm.sum() >= FEWEST_CALM else np.ones_like(calm)


def bootstrap_median(values: Samples, rng: np.random.Generator) -> tuple[float, float]:
    """The confidence interval of the median of a series whose neighbours may resemble each other.

    Nominally 95 %; on simulated hosts, 30 to 120 rounds, 92 to 93 % where rounds are independent and 87 to 91 % where a
    round's noise carries 0.4 of the last one's.
    """
    return bootstrap_quantile(values, 0.5, rng)


def bootstrap_quantile(values: Samples, share: float, rng: np.random.Generator) -> tuple[float, float]:
    """The confidence interval of a quantile, by a circular block bootstrap.

    Blocks spread their resamples too little when there are few of them: the interval is widened by sqrt(n / (n - block)).

    Args:
        values: a series whose neighbours may resemble each other.
        share: which quantile; 0.5 is the median.
        rng: draws the blocks.
    """
    count = len(values)
    block = max(1, math.ceil(count ** (1 / 3)))
    starts = rng.integers(count, size=(RESAMPLES, math.ceil(count / block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :count] % count
    found = np.quantile(values[rows], share, axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    middle, wider = float(np.quantile(values, share)), math.sqrt(count / max(1, count - block))
    return middle - (middle - float(low)) * wider, middle + (float(high) - middle) * wider


def decide(interval: Interval, control: Interval, rounds: int) -> LatencyVerdict:
    """The verdict on one comparison, given what the file compared with itself showed on the same machine.

    *Same*: the whole interval lies within 2 % of 1. *Different*: it excludes 1, and the ratio lies farther from 1 than the
    control's interval reaches (the A/A floor). Everything else is *inconclusive*.
    """
    if rounds < FEWEST_ROUNDS:
        return LatencyVerdict.INCONCLUSIVE
    if interval.reach <= math.log1p(SAME_WITHIN):
        return LatencyVerdict.SAME
    excludes_one = not interval.low <= 1.0 <= interval.high
    if excludes_one and abs(math.log(interval.ratio)) > control.reach:
        return LatencyVerdict.DIFFERENT
    return LatencyVerdict.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that a share of the samples stays under; the 99th needs 1,000 samples to mean anything."""

    p50: float
    p90: float
    p95: float
    p99: float | None


def percentiles(samples: Sequence[float]) -> Percentiles:
    """Order statistics of samples in seconds."""
    p50, p90, p95, p99 = (float(value) for value in np.quantile(np.asarray(samples, dtype=np.float64), [0.5, 0.9, 0.95, 0.99]))
    return Percentiles(p50, p90, p95, p99 if len(samples) >= P99_FROM else None)


def settled(samples: Sequence[float], *, window: int = 5, within: float = 0.02) -> bool:
    """Whether the last two windows of warm-up runs have the same median, up to ``within``."""
    if len(samples) < 2 * window:
        return False
    before, now = float(np.median(samples[-2 * window : -window])), float(np.median(samples[-window:]))
    return abs(math.log(now / before)) <= within


def why_stop(
    half_width: float, rounds: int, elapsed: float, *, precision: float, min_rounds: int, budget_seconds: float
) -> Literal["precision", "budget"] | None:
    """The reason to stop after this round: precise enough, or out of time; None to go on."""
    if rounds >= min_rounds and half_width <= precision:
        return "precision"
    return "budget" if elapsed >= budget_seconds else None
