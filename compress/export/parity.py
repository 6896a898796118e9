"""Whether an ONNX file computes what the network computes, and whether the comparison could have told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compress.core import finite_json
from compress.errors import CompressError, ExportError, ParityError
from compress.export.exporting import BATCHES, ORDER, Exported, Exporter, beside, export
from compress.runtime import Array, EagerSession, OrtRuntime, Session

TELLS = 100.0  # least spread across inputs, in errors, for a comparison that means something


class ParityVerdict(StrEnum):
    """What a comparison says."""

    PASS = "pass"
    WARN = "warn"  # beyond float noise, still far below what a wrong weight does
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"  # different inputs give nearly the same output: any file would have passed


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the file's outputs are from the network's, as fractions of the logits' scale (their largest magnitude).

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


def compare(
    path: Path,
    model: nn.Module | Path,
    images: Tensor,
    *,
    batches: tuple[int, ...] = BATCHES,
    tolerance: float = 1e-5,
    warn: float = 1e-4,
) -> Parity:
    """Run the file on ONNX Runtime's CPU and the network in torch on the same images, every output of them.

    Args:
        path: an ONNX file.
        model: what it was made from: a network in evaluation mode, on any device, or another ONNX file.
        images: shape (n, c, h, w), pre-processed; real ones if there are any, 8 or more different ones.
        batches: batch sizes to try, each on its own images as long as there are enough.
        tolerance: the error up to which it passes.
        warn: the error up to which it passes with a warning.

    Raises:
        ModelError: the file cannot be loaded or run, or the network is in training mode.
    """
    if len(images) == 0:
        raise ExportError(
            "no images to compare on, at least 2 different ones are wanted", hint="pass a batch of calibration images"
        )
    pairs: list[tuple[dict[str, Array], tuple[Array, ...]]] = []
    used: list[Array] = []
    with OrtRuntime(threads=None).load(path) as session, _opened(model) as reference:
        for batch in batches:
            start = sum(len(rows) for rows in used)
            rows = np.arange(start, start + batch) % len(images)
            used.append(rows)
            array = np.ascontiguousarray(images[torch.from_numpy(rows)].detach().cpu().numpy())
            pairs.append((dict(enumerate_names(session.output_names, reference.run(array))), session.run(array)))
    if problem := next((found for wanted, got in pairs if (found := _shapes(wanted, got))), ""):
        return _failed(problem, batches, tolerance)
    distinct = np.unique(np.concatenate(used), return_index=True)[1]
    outputs = [
        deviation(
            name,
            np.concatenate([wanted[name] for wanted, _ in pairs]),
            np.concatenate([got[index] for _, got in pairs]),
            distinct,
        )
        for index, name in enumerate(pairs[0][0])
    ]
    return judge(outputs, batches=batches, tolerance=tolerance, warn=warn)


def _opened(model: nn.Module | Path) -> AbstractContextManager[Session]:
    """A network, or another file, to compare with."""
    return OrtRuntime(threads=None).load(model) if isinstance(model, Path) else nullcontext(EagerSession(model))


def enumerate_names(names: tuple[str, ...], arrays: tuple[Array, ...]) -> list[tuple[str, Array]]:
    """The network's arrays under the file's names; a number where the file has fewer outputs."""
    return [(names[index] if index < len(names) else f"#{index}", array) for index, array in enumerate(arrays)]


def _shapes(wanted: Mapping[str, Array], got: tuple[Array, ...]) -> str:
    if len(wanted) != len(got):
        return f"the file has {len(got)} outputs, the network {len(wanted)}"
    for (name, expected), found in zip(wanted.items(), got, strict=True):
        if expected.shape != found.shape:
            return f"output {name!r} has shape {list(found.shape)} in the file and {list(expected.shape)} in the network"
    return ""


def deviation(name: str, wanted: Array, got: Array, distinct: Array) -> tuple[str, float, float]:
    """(name, error, spread) of one output over all batches, in units of its scale; NaN where something is not finite.

    Args:
        name: of the output.
        wanted: one row an image.
        got: what is compared with it.
        distinct: rows of different images, between which the spread is taken.
    """
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return name, float("nan"), float("nan")
    scale = float(np.abs(wanted).max(initial=0.0)) or float(np.abs(got).max(initial=0.0)) or 1.0
    rows = wanted[distinct].reshape(len(distinct), -1)
    apart = [float(np.abs(rows[i] - rows[j]).max(initial=0.0)) for i in range(len(rows)) for j in range(i)]
    return name, float(np.abs(wanted - got).max(initial=0.0)) / scale, float(np.median(apart)) / scale if apart else 0.0


def judge(
    outputs: list[tuple[str, float, float]], *, batches: tuple[int, ...] = BATCHES, tolerance: float = 1e-5, warn: float = 1e-4
) -> Parity:
    """The verdict over (name, error, spread) of every output: the worst of them decides.

    A large error fails before anything else: it is wrong however little the outputs differ. Only then may a
    comparison be inconclusive.
    """
    for name, error, _ in outputs:
        if not np.isfinite(error):
            return _failed(f"output {name!r} holds NaN or infinity", batches, tolerance)
    name, error, _ = max(outputs, key=lambda output: output[1])
    dull, _, spread = min(outputs, key=lambda output: _discrimination(output[1], output[2]))
    discrimination = min(_discrimination(error, spread) for _, error, spread in outputs)
    passes_at = _would_pass_at(error)
    facts = (
        f"error {error:.1e} of the logits' scale (output {name!r}), tolerance {tolerance:.0e}, would pass at {passes_at:.0e}"
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


def _failed(message: str, batches: tuple[int, ...], tolerance: float) -> Parity:
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


def export_verified(
    model: nn.Module,
    images: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    exporter: Exporter = "auto",
    opset: int = 20,
    tolerance: float = 1e-5,
    warn: float = 1e-4,
) -> tuple[Exported, Parity]:
    """Write an ONNX file that has been compared with the network, or none at all.

    With ``auto``, the older exporter also gets its turn when the first one's file runs but computes something else.

    Args:
        model: in evaluation mode; it is copied, never changed.
        images: shape (n, c, h, w), pre-processed; real ones if there are any, 8 or more different ones.
        path: the final name; it appears only after the comparison. An inconclusive one keeps the file: the verdict says so.
        metadata: provenance, readable through ``session.get_modelmeta()``.

    Raises:
        ParityError: the file computed something else; nothing is left behind.
        ExportError: no file could be written.
    """
    failures: list[CompressError] = []
    with beside(path) as folder:
        for choice in ORDER[exporter]:
            aside = folder / f"{choice}.onnx"
            try:
                written = export(model, images[:2], aside, metadata=metadata, exporter=choice, opset=opset)
            except ExportError as error:
                failures.append(error)
                continue
            parity = compare(aside, model, images, tolerance=tolerance, warn=warn)
            if parity.verdict is ParityVerdict.FAIL:
                hint = "try the other exporter (--exporter legacy or dynamo), and compress doctor for versions"
                failures.append(ParityError(f"{choice} exporter: {parity.message}", hint=hint))
                continue
            try:
                _tell(aside, parity)
                aside.replace(path)
            except OSError as error:
                raise ExportError(f"cannot write {path}: {error.strerror}", hint="remove what has that name") from error
            _sync(path.parent)
            return replace(
                written,
                path=path,
                bytes=path.stat().st_size,
                warnings=tuple(error.message for error in failures) + written.warnings,
            ), parity
    kind = ParityError if any(isinstance(error, ParityError) for error in failures) else ExportError
    raise kind("; ".join(error.message for error in failures), hint=failures[-1].hint) from failures[-1]


def _tell(path: Path, parity: Parity) -> None:
    """The file carries what it was found to be: who clocks it elsewhere has no network to compare it with."""
    proto = onnx.load(path)
    proto.metadata_props.add(key="parity", value=str(parity.verdict))
    proto.metadata_props.add(key="parity_error", value=f"{parity.error:.1e}")
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _sync(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
