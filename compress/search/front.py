"""What a search ends with: points of error and cost that no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

import numpy as np

from compress.core import Cost, Plan
from compress.errors import ConfigError

T = TypeVar("T")


class Fidelity(StrEnum):
    """How much of the network answers a request."""

    STAGE = "stage"
    """The stage's sub-network on cached inputs: relative error of its output."""
    TAIL = "tail"
    """All of the network from the stage on, on cached inputs: relative error of the network's outputs."""
    FULL = "full"
    """The whole cut network, batch norms re-estimated: 1 - top-1, or the outputs' relative error without labels."""
    TRAINED = "trained"
    """The same after a short training."""


Recovery = Literal["bn", "compensated", "reconstructed"]
"""Batch norms re-estimated only; the readers re-solved before, from moments taken once; re-solved one after another on images.
Each is truer and dearer than the one before."""


@dataclass(frozen=True, slots=True)
class Point:
    """One realisable network.

    Attributes:
        plan: what to cut.
        error: the search's estimate, in the fidelity named.
        cost: counted.
        fidelity: where the error comes from.
    """

    plan: Plan
    error: float
    cost: Cost
    fidelity: Fidelity


Front = tuple[Point, ...]
"""Non-dominated points, cheapest first."""


def non_dominated(points: Sequence[Point], kind: str = "macs") -> Front:
    """The points that no other beats in both error and cost, cheapest first; NaN never survives, ties keep the first."""
    usable = [p for p in points if math.isfinite(p.error)]
    usable.sort(key=lambda p: (cost_of(p, kind), p.error, p.plan.digest))
    front: list[Point] = []
    for point in usable:
        if not front or point.error < front[-1].error:
            front.append(point)
    return tuple(front)


def thinned(row: Sequence[T], count: int) -> tuple[T, ...]:
    """At most so many of a row, spread evenly over it, both ends included."""
    return tuple(row[i] for i in sorted(set(np.linspace(0, len(row) - 1, count).round().astype(int).tolist())))


def cost_of(point: Point, kind: str) -> float:
    """The cost that a target speaks of; MACs for an accuracy.

    Raises:
        ConfigError: it is latency, and no table predicts it.
    """
    if kind == "latency":
        if point.cost.latency is None:
            raise ConfigError("the front's points have no predicted latency", hint="search with --latency, or give --table")
        return point.cost.latency
    return point.cost.params if kind == "params" else point.cost.macs


def knee(front: Front, kind: str = "macs") -> int:
    """Index of the point farthest below the line between the ends (axes scaled to [0, 1]); without one the most accurate."""
    cost = np.array([cost_of(p, kind) for p in front], dtype=float)
    error = np.array([p.error for p in front])
    x = (cost - cost[0]) / max(cost[-1] - cost[0], 1e-12)
    y = (error - error[-1]) / max(error[0] - error[-1], 1e-12)
    below = 1 - x - y
    return int(np.argmax(below)) if below.max() > 1e-9 else len(front) - 1
