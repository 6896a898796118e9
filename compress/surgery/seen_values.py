"""How far two networks' numbers at one place are apart: against their spread across inputs, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_SAMPLES, OUTPUTS = 1 << 15, 1 << 21
"""Numbers that are compared, of one input: of a layer, and of an output, where every one may be a channel."""
_BLIND, _NOISE = 1e-9, 1e-12
_ROUNDING, _BEYOND = 1e-15, 100.0
"""What float64 leaves of the largest number; how many times the noise that was seen a difference may be."""


@dataclass(frozen=True, slots=True)
class SeenValues:
    """A tensor somewhere in a network.

    Attributes:
        values: (inputs, numbers), float64, thinned.
        shape: of one input's part, before it was thinned.
        step: every how manyth number is kept.
    """

    values: Tensor
    shape: tuple[int, ...]
    step: int

    def slices(self) -> Iterator[tuple[Tensor, int]]:
        """For every dimension, which of its indices each number has, and how many there are."""
        places = torch.arange(0, math.prod(self.shape), self.step)
        inner = 1
        for size in reversed(self.shape):
            yield (places // inner) % size, size
            inner *= size


def worst_error(
    wanted: Mapping[str, SeenValues], got: Mapping[str, SeenValues], again: Mapping[str, SeenValues]
) -> tuple[float, str]:
    """The largest error of all places, and where."""
    worst: float = 0.0
    where: str = "output"
    for place, expected in wanted.items():
        found, noise = got.get(place), again.get(place)
        deviation = channel_error(expected, found, None if noise is None else (noise.values - expected.values).abs())
        if not deviation <= worst:
            worst, where = deviation, place
    return worst, where


def channel_error(expected: SeenValues, got: SeenValues | None, noise: Tensor | None = None) -> float:
    """The largest :func:`relative_error` of the whole and of any channel; every dimension's indices are channels once.

    Args:
        expected: of the uncut network.
        got: of the cut one.
        noise: how far rounding alone moves each number; differences of some of it are none.
    """
    if got is None or got.shape != expected.shape or not bool(torch.isfinite(got.values).all()):
        return float("inf")
    whole = relative_error(expected.values, got.values)
    if not expected.values.numel() or (not math.isfinite(whole) and noise is None):
        return whole
    difference = (expected.values - got.values).abs()
    spread = (expected.values - expected.values.mean(dim=0, keepdim=True)).abs()
    size, worst = expected.values.abs(), 0.0
    least = _ROUNDING * float(size.max())
    for index, count in expected.slices():
        off, told, scale = (_largest(t, index, count) for t in (difference, spread, size))
        floor = (_NOISE * scale).clamp_min(least)
        if noise is not None:
            floor = torch.maximum(floor, _BEYOND * _largest(noise, index, count))
        blind = told <= _BLIND * scale
        errors = torch.where(blind, torch.inf, off / told.clamp_min(torch.finfo(torch.float64).tiny))
        worst = max(worst, float(torch.where(off > floor, errors, 0.0).max()))
    return worst if expected.shape else whole


def _largest(numbers: Tensor, index: Tensor, count: int) -> Tensor:
    """The largest of all inputs' numbers at each index of a dimension."""
    flat = numbers.amax(dim=0)
    return torch.zeros(count, dtype=flat.dtype).scatter_reduce_(0, index.to(flat.device), flat.cpu(), "amax")


def relative_error(expected: Tensor, got: Tensor | None) -> float:
    """Largest difference over the largest deviation from the mean over inputs; infinite where shapes or NaNs differ."""
    if got is None or expected.shape != got.shape or not bool(torch.isfinite(got).all()):
        return float("inf")
    difference = float((expected - got).abs().max()) if expected.numel() else 0.0
    if difference == 0.0:
        return 0.0
    spread = float((expected - expected.mean(dim=0, keepdim=True)).abs().max())
    if spread <= _BLIND * float(expected.abs().max()):  # float64 itself is as coarse: nothing can be told here
        return 0.0 if difference <= _NOISE * float(expected.abs().max()) else float("inf")
    return difference / spread


def thin(tensor: Tensor, most: int = _SAMPLES) -> SeenValues:
    """What has no dimension, or no row an input (a loss, a table), is one row of one number or more."""
    whole = tensor.detach().double().cpu()
    rows = whole if whole.dim() > 1 or (whole.dim() == 1 and len(whole)) else whole.reshape(1, -1)
    shape = tuple(rows.shape[1:])
    flat = rows.reshape(len(rows), math.prod(shape))
    step = max(1, flat.shape[1] // most) | 1
    return SeenValues(flat[:, ::step].clone(), shape, step)
