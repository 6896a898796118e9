"""Intervals of ratios beyond one sitting's rounds; a bench kit needs none of them, and has no SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compress.latency.statistics import CONFIDENCE, Interval


def mean_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """How many times larger ours are: the geometric mean over few independent rounds, with Student's interval.

    Args:
        ours: one number per round, two at least.
        theirs: in the same rounds.
    """
    from scipy.stats import t as student_t

    logs = np.log(np.asarray(ours, dtype=np.float64)) - np.log(np.asarray(theirs, dtype=np.float64))
    middle = float(logs.mean())
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def between(old: Interval, new: Interval) -> Interval:
    """The speed-up of the new file over the old one, where each was measured against the same base in its own sitting."""
    middle = math.log(new.ratio) - math.log(old.ratio)
    below = math.hypot(math.log(new.ratio) - math.log(new.low), math.log(old.high) - math.log(old.ratio))
    above = math.hypot(math.log(new.high) - math.log(new.ratio), math.log(old.ratio) - math.log(old.low))
    return Interval(math.exp(middle), math.exp(middle - below), math.exp(middle + above))
