"""Bounds on a latency, such as ``slower>2%``: held, failed, or not to be told from what was measured. Pure NumPy.

A bound is judged on an interval, never on one number: it *failed* where the whole interval lies in what it forbids, it is
*held* where none of it does, and everything else is *inconclusive*. The interval of a ratio is at least as wide as what the
base showed against itself on the same machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from compress.core import plural
from compress.errors import ConfigError
from compress.latency.result import ArmResult, LatencyResult
from compress.latency.statistics import FEWEST_ROUNDS, P99_FROM, Interval, bootstrap_quantile

RATIOS = {"slower": "%", "faster": "%", "speedup": "x"}
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
UNITS = {"%": 0.01, "x": 1.0, "×": 1.0, "": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
EXAMPLES = "slower>2%, faster<10%, speedup<1.5, p50>4ms, p99>5ms, throughput<200"
_SHAPE = re.compile(r"\s*([a-z]+\d*)\s*([<>])\s*(\d+(?:\.\d+)?)\s*(%|x|×|s|ms|us|µs|)\s*")


class Outcome(StrEnum):
    """What became of a bound."""

    HELD = "held"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Bound:
    """What must not be.

    Attributes:
        metric: ``slower``, ``faster``, ``speedup``, ``p50`` to ``p99`` or ``throughput``.
        above: whether it forbids more than the limit, rather than less.
        limit: a fraction, a ratio, seconds or images per second.
        text: as it was typed.
    """

    metric: str
    above: bool
    limit: float
    text: str

    @property
    def absolute(self) -> bool:
        """Whether it is about the new file's own time, rather than about a ratio."""
        return self.metric not in RATIOS


@dataclass(frozen=True, slots=True)
class Judged:
    """A bound with what was measured.

    Attributes:
        interval: low, value and high in the bound's own unit; None where nothing can be said, ``why`` tells.
    """

    bound: Bound
    outcome: Outcome
    interval: tuple[float, float, float] | None
    why: str = ""


def parse(text: str) -> Bound:
    """A bound as people type it.

    Raises:
        ConfigError: it is none; the hint shows some.
    """
    found = _SHAPE.fullmatch(text)
    known = (*RATIOS, *PERCENTILES, "throughput")
    if found is None or found[1] not in known:
        raise ConfigError(f"{text!r} is no bound: one of {', '.join(known)}, > or <, a number, a unit", hint=f"e.g. {EXAMPLES}")
    metric, sign, number, unit = found.groups()
    wanted = ("%",) if RATIOS.get(metric) == "%" else ("", "x", "×") if metric == "speedup" else ("s", "ms", "us", "µs")
    if metric == "throughput":
        wanted = ("",)
    if unit not in wanted:
        names = " or ".join(one or "no unit" for one in wanted)
        raise ConfigError(f"{text!r}: {metric} is given in {names}, not in {unit or 'a bare number'}", hint=f"e.g. {EXAMPLES}")
    return Bound(metric, sign == ">", float(number) * UNITS[unit], text.strip())


def judge(bound: Bound, ratio: Interval, floor: float, new: LatencyResult, arm: ArmResult, *, rationed: bool = False) -> Judged:
    """Whether what was measured breaks a bound.

    Args:
        bound: from :func:`parse`.
        ratio: the speed-up of the new file over the old one, by the clock that decides.
        floor: the ratio that the same file may show against itself, 1 or more.
        new: the measurement of the new file.
        arm: the new file in it.
        rationed: the times are those of a quota, so that nothing can be said.
    """
    if rationed:
        return Judged(bound, Outcome.INCONCLUSIVE, None, "the control group's quota is less than the threads in use")
    if new.rounds < FEWEST_ROUNDS:
        return Judged(
            bound, Outcome.INCONCLUSIVE, None, f"{plural(new.rounds, 'round')}, {FEWEST_ROUNDS} are wanted: raise --seconds"
        )
    if bound.metric == "p99" and len(arm.wall) < P99_FROM:
        why = f"a p99 needs {P99_FROM:,} samples, {len(arm.wall)} were taken: raise --seconds"
        return Judged(bound, Outcome.INCONCLUSIVE, None, why)
    low, value, high = _absolute(bound, new, arm) if bound.absolute else _relative(bound, ratio, floor)
    beyond = low > bound.limit if bound.above else high < bound.limit
    within = high <= bound.limit if bound.above else low >= bound.limit
    outcome = Outcome.FAILED if beyond else Outcome.HELD if within else Outcome.INCONCLUSIVE
    why = "" if beyond or within else "the interval holds the limit: raise --seconds, or measure on a quieter machine"
    return Judged(bound, outcome, (low, value, high), why)


def _relative(bound: Bound, ratio: Interval, floor: float) -> tuple[float, float, float]:
    low, high = min(ratio.low, ratio.ratio / floor), max(ratio.high, ratio.ratio * floor)
    if bound.metric == "slower":
        return 1 / high - 1, 1 / ratio.ratio - 1, 1 / low - 1
    less = 1.0 if bound.metric == "faster" else 0.0
    return low - less, ratio.ratio - less, high - less


def _absolute(bound: Bound, new: LatencyResult, arm: ArmResult) -> tuple[float, float, float]:
    wall = np.asarray(arm.wall, dtype=np.float64)
    share = PERCENTILES.get(bound.metric, 0.5)
    rng = np.random.default_rng([new.settings.seed, 3])
    low, high = np.exp(bootstrap_quantile(np.log(wall), share, rng))
    value = float(np.quantile(wall, share))
    if bound.metric != "throughput":
        return float(low), value, float(high)
    return new.settings.batch / float(high), new.settings.batch / value, new.settings.batch / float(low)
