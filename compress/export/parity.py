"""How far a file's answers are from its network's, and whether the comparison could have told."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from compress.core import finite_json
from compress.export.exporting import BATCHES
from compress.runtime import Array

_BEYOND = 20.0  # times the noise of an equally right evaluation, up to which a difference is no error
TELLS = 100.0  # least spread across inputs, in errors, for a comparison that means something


class ParityVerdict(StrEnum):
    """What a comparison says."""

    PASS = "pass"
    WARN = "warn"  # beyond float noise, still far below what a wrong weight does
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"  # different inputs give nearly the same output: any file would have passed


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the file's outputs are from the network's, as fractions of the outputs' scale (their largest magnitude).

    Attributes:
        error: the largest absolute difference over the scale, worst of the outputs; 4 to 6e-7 is float noise.
        spread: how far two different inputs' outputs lie apart (median over pairs) over the scale.
        discrimination: spread over error: below 100 the comparison could not have seen a fault.
        would_pass_at: the least tolerance, of one digit, that this error passes; infinite where none does.
    """

    verdict: ParityVerdict
    error: float
    spread: float
    discrimination: float
    batches: tuple[int, ...]
    tolerance: float
    would_pass_at: float
    message: str

    def to_json(self) -> dict[str, object]:
        """Plain data; what is not finite becomes null."""
        facts: dict[str, object] = finite_json(asdict(self) | {"verdict": str(self.verdict)})
        return facts


def deviation(
    name: str, wanted: Array, got: Array, distinct: Array, *, noise: Array | None = None, least: Array | float = 0.0
) -> tuple[str, float, float]:
    """(name, error, spread) of one output over all batches, in units of its scale; NaN where something is not finite.

    Args:
        name: of the output.
        wanted: one row an image.
        got: what is compared with it.
        distinct: rows of different images, between which the spread is taken.
        noise: how far an equally right evaluation is from ``wanted``. With it, each channel's error over its own scale
            counts, too, where it is beyond the channel's noise; boxes in pixels do not hide what is wrong with scores.
        least: a difference that is no error of a channel, however small its scale; broadcast to ``wanted``.
    """
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return name, float("nan"), float("nan")
    scale = float(np.abs(wanted).max(initial=0.0)) or float(np.abs(got).max(initial=0.0)) or 1.0
    rows = wanted[distinct] if len(wanted) > int(distinct.max(initial=0)) else wanted  # what has no row an image stays whole
    rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    apart = [float(np.abs(rows[i] - rows[j]).max(initial=0.0)) for i in range(len(rows)) for j in range(i)]
    error = float(np.abs(wanted - got).max(initial=0.0)) / scale
    if noise is not None:
        own, where = channel_error(wanted, got, noise, least)
        name, error = (f"{name}{where}", own) if own > error else (name, error)
    return name, error, float(np.median(apart)) / scale if apart else 0.0


def channel_error(wanted: Array, got: Array, noise: Array | None = None, least: Array | float = 0.0) -> tuple[float, str]:
    """The largest error of a channel over the channel's own scale, and which channel that is.

    Layouts differ, so that every index of every dimension behind the first is taken for a channel once. What is within
    the noise of its arithmetic, or within ``least``, is no error: a channel that is near zero has nothing but noise.
    """
    worst, where = 0.0, ""
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    difference, size = np.abs(wanted - got), np.maximum(np.abs(wanted), np.abs(got))
    allowed = np.broadcast_to(least, wanted.shape)
    for axis in range(1, wanted.ndim):
        others = tuple(d for d in range(wanted.ndim) if d != axis)
        off, scale = difference.max(axis=others, initial=0.0), size.max(axis=others, initial=0.0)
        floor = np.zeros_like(off) if noise is None else _BEYOND * noise.max(axis=others, initial=0.0)
        floor = np.maximum(floor, allowed.min(axis=others, initial=np.inf))
        errors = np.where(off > floor, off / np.where(scale > 0, scale, 1.0), 0.0)
        if errors.size and float(errors.max()) > worst:
            index = int(errors.argmax())
            worst, where = float(errors[index]), f"[{':, ' * axis}{index}{', :' * (wanted.ndim - axis - 1)}]"
    return worst, where


def judge(
    outputs: list[tuple[str, float, float]], *, batches: tuple[int, ...] = BATCHES, tolerance: float = 1e-5, warn: float = 1e-4
) -> Parity:
    """The verdict over (name, error, spread) of every output: the worst of them decides.

    A large error fails before anything else: it is wrong however little the outputs differ. Only then may a
    comparison be inconclusive.
    """
    for name, error, _ in outputs:
        if not np.isfinite(error):
            return failed(f"output {name!r} holds NaN or infinity", batches, tolerance)
    name, error, _ = max(outputs, key=lambda output: output[1])
    dull, _, spread = min(outputs, key=lambda output: _discrimination(output[1], output[2]))
    discrimination = min(_discrimination(error, spread) for _, error, spread in outputs)
    passes_at = _would_pass_at(error)
    facts = (
        f"error {error:.1e} of the output's scale (output {name!r}), tolerance {tolerance:.0e}, would pass at {passes_at:.0e}"
    )
    if error > warn:
        verdict, message = ParityVerdict.FAIL, f"the ONNX file computes something else: {facts}"
    elif discrimination < TELLS:
        verdict = ParityVerdict.INCONCLUSIVE
        message = (
            f"different images give nearly the same output {dull!r}: spread {spread:.1e} is {discrimination:.3g} times "
            f"the error, {TELLS:.0f} wanted, so that any file would pass; {facts}"
        )
    elif error > tolerance:
        verdict, message = ParityVerdict.WARN, f"beyond float noise: {facts}"
    else:
        verdict, message = ParityVerdict.PASS, facts
    return Parity(
        verdict=verdict,
        error=error,
        spread=spread,
        discrimination=discrimination,
        batches=batches,
        tolerance=tolerance,
        would_pass_at=passes_at,
        message=message,
    )


def _discrimination(error: float, spread: float) -> float:
    if spread == 0.0:
        return 0.0
    return spread / error if error > 0.0 else float("inf")


def _would_pass_at(error: float) -> float:
    """Rounded up to one digit: a tolerance a person would write."""
    if error <= 0.0:
        return 0.0
    digit = 10.0 ** np.floor(np.log10(error))
    return float(f"{np.ceil(error / digit - 1e-9) * digit:.0e}")


def failed(message: str, batches: tuple[int, ...], tolerance: float) -> Parity:
    """The verdict where there are no numbers to compare."""
    nan, infinite = float("nan"), float("inf")
    return Parity(
        verdict=ParityVerdict.FAIL,
        error=nan,
        spread=nan,
        discrimination=0.0,
        batches=batches,
        tolerance=tolerance,
        would_pass_at=infinite,
        message=f"the ONNX file computes something else: {message}",
    )
