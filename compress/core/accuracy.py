"""What a network scored: right answers counted, and any figure as a report keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.statistics import wilson


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many images a network names right.

    Attributes:
        correct: images whose highest logit is their label's.
        total: images.
        correct5: images with their label among the five highest; None where there are no more than five classes.
    """

    correct: int
    total: int
    correct5: int | None = None

    @property
    def top1(self) -> float:
        """The fraction named right."""
        return self.correct / self.total

    @property
    def top5(self) -> float | None:
        """The fraction with the label among the five highest."""
        return None if self.correct5 is None else self.correct5 / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true fraction lies, at 95 % confidence."""
        return wilson(self.correct, self.total)

    def measured(self, when: str, split: str) -> Measured:
        """The same as a report keeps it; see :class:`Measured` for the words."""
        low, high = self.interval
        return Measured(when=when, split=split, value=self.top1, low=low, high=high, images=self.total)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figure of one network on one split.

    Attributes:
        when: ``base``, ``C-SGD``, ``averaged``, ``cut``, ``batch norm``, ``reconstructed``, ``fine-tuned``.
        split: ``validation`` or ``test``.
        value: a fraction where the figure is a share, else in its unit.
        low: lower end of the 95 % interval.
        high: its upper end.
        images: how many were judged.
    """

    when: str
    split: str
    value: float
    low: float
    high: float
    images: int
