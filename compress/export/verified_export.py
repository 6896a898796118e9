"""An ONNX file that was compared with its network, or none at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from torch import Tensor, nn

from compress.coupling import value_branches
from compress.errors import CompressError, ExportError, ParityError
from compress.export.exporting import Exported, Exporter, beside, export, ways
from compress.export.file_comparison import at_other_values, compare, compare_at
from compress.export.other_size import other_size
from compress.export.other_values import OtherValues
from compress.export.parity import Parity, ParityVerdict


def export_verified(
    model: nn.Module,
    images: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    exporter: Exporter = "auto",
    opset: int = 20,
    dynamic_size: bool = False,
    tolerances: tuple[float, float] = (1e-5, 1e-4),
) -> tuple[Exported, Parity]:
    """Write an ONNX file that has been compared with the network, or none at all.

    With ``auto``, the older exporter also gets its turn when the first one's file runs but computes something else.

    Args:
        model: in evaluation mode; it is copied, never changed.
        images: shape (n, c, h, w), pre-processed; real ones if there are any, 8 or more different ones.
        path: the final name; it appears only after the comparison. An inconclusive one keeps the file: the verdict says so.
            It is inconclusive, too, where the network's code asks for values and the file differs on inputs of another scale.
        metadata: provenance, readable through ``session.get_modelmeta()``.
        dynamic_size: the file takes other heights and widths, too, and is compared at another size as well.
        tolerances: errors up to which it passes, and up to which it passes with a warning.

    Raises:
        ParityError: the file computed something else; nothing is left behind.
        ExportError: no file could be written.
    """
    failures: list[CompressError] = []
    tolerance, warn = tolerances
    other = other_size(model, images) if dynamic_size else None
    lines = value_branches(model, images[:1])
    with beside(path) as folder:
        for choice in ways(model, exporter):
            aside = folder / f"{choice}.onnx"
            try:
                written = export(
                    model, images[:2], aside, metadata=metadata, exporter=choice, opset=opset, dynamic_size=dynamic_size
                )
                parity = compare(aside, model, images, tolerance=tolerance, warn=warn)
                if other is not None and parity.verdict is not ParityVerdict.FAIL:
                    parity = _worse(parity, compare_at(aside, model, other, tolerances))
                if lines and parity.verdict is not ParityVerdict.FAIL:
                    parity = _told(parity, at_other_values(aside, model, images, lines, tolerances))
            except ExportError as error:
                failures.append(error)
                continue
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
                value_branches=lines,
            ), parity
    kind = ParityError if any(isinstance(error, ParityError) for error in failures) else ExportError
    raise kind("; ".join(error.message for error in failures), hint=failures[-1].hint) from failures[-1]


def _told(parity: Parity, values: OtherValues) -> Parity:
    """The comparison with what was found on other values: a file that differs there proves nothing for these."""
    verdict = ParityVerdict.INCONCLUSIVE if values.differs else parity.verdict
    return replace(parity, verdict=verdict, message=f"{values.sentence()}; on the inputs themselves: {parity.message}")


def _worse(one: Parity, two: Parity) -> Parity:
    """The comparison with the worse verdict, which speaks for both sizes."""
    order = (ParityVerdict.PASS, ParityVerdict.WARN, ParityVerdict.INCONCLUSIVE, ParityVerdict.FAIL)
    worse, other = (two, one) if order.index(two.verdict) > order.index(one.verdict) else (one, two)
    return replace(worse, batches=one.batches, message=f"{worse.message}; {other.message}")


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
