"""When an evolution no longer pays: the hypervolume of its front has stopped to grow.

The hypervolume (Zitzler, Thiele: PPSN 1998) is what the field measures a front's progress by: the area that it dominates below
a reference point. Here the objectives are scaled to what the first generation spans, its worst values are the reference.
Everything follows from scores, so that a journal that is replayed stops at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compress.core import Floats

GAIN = 0.01
"""Growth of the hypervolume, relative to what it is, that counts as progress."""
_FEWEST = 3
"""Generations without progress that are waited for at the least."""


class Stopping:
    """Watches one evolution.

    Args:
        share: of the generations, without progress over which it ends; 0 never ends early.
        generations: that the budget buys.
    """

    def __init__(self, share: float, generations: int) -> None:
        self.patience = max(_FEWEST, math.ceil(share * generations)) if share > 0 else generations
        self.generations = generations
        self.reached: list[float] = []
        """The hypervolume after each generation."""
        self._scale: tuple[Floats, Floats] | None = None
        self._front: Floats | None = None

    def settled(self, objectives: Floats | Sequence[Sequence[float]]) -> bool:
        """Whether the evolution should end after a generation.

        Args:
            objectives: of the generation's candidates, (candidates, objectives), lower is better; rows that are not finite
                are not counted.
        """
        rows = np.asarray(objectives, dtype=float)
        self.reached.append(self._grown(rows[np.isfinite(rows).all(1)]))
        if len(self.reached) <= self.patience:
            return False
        now, then = self.reached[-1], self.reached[-1 - self.patience]
        return len(self.reached) < self.generations and now - then < GAIN * max(now, 1e-12)

    def _grown(self, rows: Floats) -> float:
        """The hypervolume with these candidates among the others."""
        from pymoo.indicators.hv import HV
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

        known = rows if self._front is None else np.vstack([self._front, rows])
        if len(known) == 0:
            return 0.0
        self._front = known[NonDominatedSorting().do(known, only_non_dominated_front=True)]
        if self._scale is None:
            self._scale = known.min(0), known.max(0)
        best, worst = self._scale
        scaled = (self._front - best) / np.where(worst > best, worst - best, 1.0)
        return float(HV(ref_point=np.ones(known.shape[1]))(scaled))

    def told(self, where: str = "") -> str:
        """What is said of an evolution that was ended."""
        done, place = len(self.reached), f" in {where}" if where else ""
        grown = f"over the last {self.patience} the front's hypervolume grew by less than {GAIN:.0%}"
        return f"ended{place} after {done} of {self.generations} generations: {grown}"
