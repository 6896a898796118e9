"""Inputs of another scale, for networks whose code asks a tensor for its value: an exporter writes one branch into the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compress.coupling import asks_for_values

SCALES = {"255": 255.0, "1/255": 1 / 255}
"""What inputs are multiplied with: raw pixels are 255 times what networks are usually fed."""


@dataclass(frozen=True)
class OtherValues:
    """What a file does on inputs of other scales.

    Attributes:
        errors: by scale, as a fraction of the outputs' scale; scales at which nothing can be told are left out.
        lines: where the network's code asks for a value.
        warn: the error above which the file computes something else.
    """

    errors: Mapping[str, float]
    lines: tuple[str, ...]
    warn: float

    @property
    def differs(self) -> bool:
        """Whether the file computes something else at one of the scales."""
        return any(error > self.warn for error in self.errors.values())

    def sentence(self) -> str:
        """What a person must know."""
        told = [f"{error:.1e} of the outputs' scale on inputs times {scale}" for scale, error in self.errors.items()]
        if self.differs:
            found = f"the file differs from the network by {' and by '.join(told)}"
        else:
            found = f"the file agrees with the network up to {' and '.join(told)}" if told else "other values were not compared"
        return f"{asks_for_values(self.lines)}; {found}"
