"""What a task is scored by, and a score: plain data that searching, reports and torch's side share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Figure:
    """What a network is scored by.

    Attributes:
        name: as the field writes it: ``top-1 accuracy``, ``mIoU``, ``mAP50``, ``PSNR``, ``MAE``.
        unit: of its values; empty where they have none.
        higher: more is better.
        share: a fraction in [0, 1], rendered as percent; its differences are percentage points.
    """

    name: str
    unit: str = ""
    higher: bool = True
    share: bool = False

    def worse(self, before: float, after: float) -> float:
        """By how much ``after`` is worse than ``before``; below 0 where it is better. A fraction, or in the figure's unit."""
        return before - after if self.higher else after - before

    def error(self, value: float, base: float) -> float:
        """The search's objective, lower is better, linear in the value.

        Of a share its complement; of anything else how much worse it is than the unpruned network's ``base``, in its unit.
        """
        if self.share:
            return 1.0 - value if self.higher else value
        return self.worse(base, value)

    @property
    def lost(self) -> Figure:
        """What a search's error counts where it is this figure's: of a share an error, else how much worse it is."""
        return ERROR if self.share else Figure(f"{self.name} {'lost' if self.higher else 'added'}", self.unit, higher=False)

    @property
    def step(self) -> str:
        """What a difference is counted in, as people say it: ``points``, ``dB``, ``px``; empty without a unit."""
        return "points" if self.share else self.unit

    def difference(self, value: float, places: int = 2) -> str:
        """A difference as people read it: ``1.20 points``, ``0.31 px``."""
        if not math.isfinite(value):
            return "–"
        number = f"{100 * value:.{places}f}" if self.share else _digits(value)
        return f"{number} {self.step}".rstrip()

    def signed(self, value: float, places: int = 2) -> str:
        """A difference with its sign: ``+0.031 px``, ``-1.20 points``."""
        if not math.isfinite(value):
            return "–"
        return ("+" if value >= 0 else "-") + self.difference(abs(value), places)

    def signed_range(self, low: float, high: float, places: int = 2) -> str:
        """Two differences as an interval, the unit said elsewhere: ``-0.61 to +1.17``."""
        unit = f" {self.step}" if self.step else ""
        return " to ".join(self.signed(value, places).removesuffix(unit) for value in (low, high))

    def range(self, low: float, high: float, places: int = 1) -> str:
        """Two values as an interval, the unit said elsewhere: ``90.1 to 92.5``; with digits enough to see that it is one."""
        said = [self.number(value, places) for value in (low, high)]
        if said[0] == said[1] and 0 < (width := abs(high - low) * self.scale) < math.inf:
            digits = min(6, max(0, -math.floor(math.log10(width))))
            said = [f"{self.scale * value:.{digits}f}" for value in (low, high)]
        return " to ".join(said)

    def number(self, value: float, places: int = 2) -> str:
        """A value below a heading that says what is counted; three digits where it is no share."""
        return f"{100 * value:.{places}f}" if self.share else _digits(value)

    @property
    def heading(self) -> str:
        """With what its numbers are counted in, for a column or an axis: ``mIoU, %``, ``MAE, px``."""
        counted = "%" if self.share else self.unit
        return f"{self.name}, {counted}" if counted else self.name

    @property
    def scale(self) -> float:
        """What a value is multiplied by in a column or on an axis of that heading."""
        return 100.0 if self.share else 1.0

    @property
    def short(self) -> str:
        """In a sentence that speaks of one figure only: top-1 accuracy is the accuracy."""
        return self.name.removeprefix("top-1 ")

    @property
    def worsened(self) -> str:
        """What happened to it when it got worse."""
        return "dropped" if self.higher else "risen"

    def text(self, value: float, places: int = 2) -> str:
        """A value as people read it: ``96.70 %``, ``0.331 px``."""
        if not math.isfinite(value):
            return "–"
        return f"{100 * value:.{places}f} %" if self.share else f"{_digits(value)} {self.unit}".rstrip()


def _digits(value: float) -> str:
    """Three significant digits, at most four places."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "–"
    places = min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{places}f}"


ERROR = Figure("error", higher=False, share=True)
"""Of a search, where it is a fraction."""
TOP1 = Figure("top-1 accuracy", share=True)
"""Classification's."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A figure of one network on some images.

    Attributes:
        value: a fraction where the figure is a share, else in its unit.
        low: lower end of the 95 % interval.
        high: its upper end.
        images: how many were judged.
        per_image: (images, k) numbers in the images' order that the value is computed from (``Task.pooled``), for comparisons
            in pairs and intervals; None where it is computed from nothing of the kind.
    """

    value: float
    low: float
    high: float
    images: int
    per_image: NDArray[np.float64] | None = None
