"""A step of a recovery, judged: whether the network that it made goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One network on the way from the cut to the result.

    Attributes:
        when: after which step; see :class:`~compress.core.accuracy.Measured`.
        score: on the validation images, in the report's figure; without labels the error of the outputs, lower is better.
        kept: whether the network goes on; a recovery that made it worse is taken back.
    """

    when: str
    score: float
    kept: bool = True
