"""Two networks judged on the same images: the images on which they differ decide, not the spread of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]
"""Per image: whether the answer was right."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of ours minus that of theirs, on the same images, averaged over the seeds.

    Attributes:
        mean: a fraction.
        low: lower end of the interval.
        high: upper end.
        images: how many were judged.
        seeds: runs of ours.
        confidence: of the interval.
    """

    mean: float
    low: float
    high: float
    images: int
    seeds: int
    confidence: float = 0.95

    @property
    def verdict(self) -> str:
        """``ahead``, ``behind`` or ``not distinguishable``."""
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "not distinguishable"


def difference(ours: Sequence[Right], theirs: Sequence[Right], confidence: float = 0.95) -> Difference:
    """How much more often ours are right.

    Each image gives one number, its share of right answers over our seeds minus that over theirs, and the images are the
    sample: the interval speaks of other images, for these very runs; the seeds' own spread stands beside it. One pseudo-image
    is won, one lost by halves and one tied (Agresti and Min, Statistics in Medicine 2005), or few images with no difference
    would pass for certainty.

    Args:
        ours: per seed, (images,).
        theirs: the same images in the same order; any number of seeds.
        confidence: of the interval.
    """
    gap = np.mean(np.stack(ours), axis=0) - np.mean(np.stack(theirs), axis=0)
    images = len(gap)
    padded = images + 2
    mean = float(gap.sum()) / padded
    variance = (float((gap**2).sum()) + 1.0) / padded - mean**2
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance / padded)
    seen = float(gap.mean())
    return Difference(seen, min(seen, mean - half), max(seen, mean + half), images, len(ours), confidence)
