"""Whether an ONNX file computes what the network computes, and whether the comparison could have told."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compress.core import finite_json
from compress.coupling import value_branches
from compress.errors import CompressError, ExportError, ModelError, ParityError
from compress.export.exporting import BATCHES, Exported, Exporter, beside, export, ways
from compress.export.other_size import OtherSize, other_size
from compress.export.other_values import SCALES, OtherValues
from compress.export.probabilities import probabilities
from compress.runtime import Array, EagerSession, Feed, OrtRuntime, Session, inputs_of
from compress.signature import signature_of

_BEYOND = 20.0  # times the noise of an equally right evaluation, up to which a difference is no error
_PROBABILITY = 5e-7  # what a runtime's own sigmoid or softmax is off by, however small the number is
_HALF = 1e-3  # tolerances above it are for half precision
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


def compare(
    path: Path,
    model: nn.Module | Path,
    images: Tensor | Sequence[Tensor],
    *,
    batches: tuple[int, ...] = BATCHES,
    tolerance: float = 1e-5,
    warn: float = 1e-4,
) -> Parity:
    """Run the file on ONNX Runtime's CPU and the network in torch on the same images, every output of them.

    Args:
        path: an ONNX file.
        model: what it was made from: a network in evaluation mode, on any device, or another ONNX file.
        images: shape (n, c, h, w), pre-processed; real ones if there are any, 8 or more different ones. Rows, where the
            network takes rows; one tensor for each input, where a file of several is compared with another one.
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
    asked = _asked(model, images, batches)
    with OrtRuntime(threads=None).load(path) as session, _opened(model) as reference:
        got = [session.run(_ordered(one.inputs, session, model)) for one in asked]
        wanted = [dict(enumerate_names(session.output_names, reference.run(one.feed(model)))) for one in asked]
        if problem := next((found for one, two in zip(wanted, got, strict=True) if (found := _shapes(one, two))), ""):
            return _failed(problem, batches, tolerance)
        distinct = np.unique(np.concatenate([one.rows for one in asked]), return_index=True)[1]
        pairs = {
            name: (np.concatenate([_rowed(one[name]) for one in wanted]), np.concatenate([_rowed(two[i]) for two in got]))
            for i, name in enumerate(wanted[0])
        }
        noise: list[Array | None] = [None] * len(pairs)
        if any(channel_error(one, two)[0] > tolerance for one, two in pairs.values()):
            shaken = [reference.run(one.shaken(tolerance).feed(model)) for one in asked]
            others = [shaken, *_in_double(model, asked)]
            again = [[np.concatenate([_rowed(answer[i]) for answer in other]) for other in others] for i in range(len(pairs))]
            noise = [
                np.maximum.reduce([_apart(w, o) for o in all_]) for (w, _), all_ in zip(pairs.values(), again, strict=True)
            ]
        behind_the_point = dict.fromkeys(probabilities(path), _PROBABILITY)
        outputs = [
            deviation(n, *pair, distinct, noise=off, least=behind_the_point.get(n, 0.0))
            for (n, pair), off in zip(pairs.items(), noise, strict=True)
        ]
        rows = sum(batches)
    telling = [one.size and one.dtype != np.bool_ and len(one) == rows for one, _ in pairs.values()]
    if any(telling):  # truth values, losses, tables and what is empty differ little by nature: the others tell
        outputs = [(n, e, s if tells else float("inf")) for (n, e, s), tells in zip(outputs, telling, strict=True)]
    return judge(outputs, batches=batches, tolerance=tolerance, warn=warn)


@dataclass(frozen=True)
class _Asked:
    """One batch.

    Attributes:
        rows: numbers of its images.
        images: the images, or rows of a network that takes rows; None where the inputs are given one by one.
        inputs: what the file is given.
    """

    rows: Array
    images: Tensor | None
    inputs: tuple[Tensor, ...]

    def feed(self, model: nn.Module | Path) -> Feed:
        """What the reference is given."""
        return (
            _array(self.images)
            if isinstance(model, nn.Module) and self.images is not None
            else [_array(x) for x in self.inputs]
        )

    def shaken(self, tolerance: float) -> _Asked:
        """The same with each number off by a few roundings, so that every sum is rounded anew."""
        step = 2.0**-10 if tolerance > _HALF else 2.0**-20
        generator = torch.Generator().manual_seed(0)

        def off(x: Tensor) -> Tensor:
            return x if not x.is_floating_point() else x * (1 + step * (torch.rand(x.shape, generator=generator) * 2 - 1).to(x))

        return replace(self, images=None if self.images is None else off(self.images), inputs=tuple(map(off, self.inputs)))


def _asked(model: nn.Module | Path, images: Tensor | Sequence[Tensor], batches: tuple[int, ...]) -> list[_Asked]:
    """Batches, each of its own images as long as there are enough."""
    signature = signature_of(model) if isinstance(model, nn.Module) else None
    count = len(images) if isinstance(images, Tensor) else max((len(x) for x in images if x.dim()), default=1)
    found: list[_Asked] = []
    for batch in batches:
        start = sum(len(one.rows) for one in found)
        rows = np.arange(start, start + batch) % count
        taken = torch.from_numpy(rows)
        if isinstance(images, Tensor):
            part = images[taken].detach().cpu()
            found.append(_Asked(rows, part, (part,) if signature is None else signature.unpacked(part)))
        else:
            found.append(_Asked(rows, None, tuple(x[taken] if x.dim() and len(x) == count else x for x in images)))
    return found


def _ordered(inputs: tuple[Tensor, ...], session: Session, model: nn.Module | Path) -> Feed:
    """In the file's order, which may leave out what the network does not use."""
    signature = signature_of(model) if isinstance(model, nn.Module) else None
    if signature is None:
        return [_array(x) for x in inputs]
    given = dict(zip(signature.names, inputs, strict=True))
    return [_array(given[one.name]) for one in inputs_of(session)]


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _in_double(model: nn.Module | Path, asked: Sequence[_Asked]) -> list[list[tuple[Array, ...]]]:
    """A network's answers in double precision: how far its own are off; nothing of a file, or where code wants floats."""
    if isinstance(model, Path):
        return []
    try:
        session = EagerSession(copy.deepcopy(model).cpu().double())
        return [[session.run(_array(one.images.double())) for one in asked if one.images is not None]]
    except Exception:  # whatever the user's forward raises on other numbers than it knows
        return []


def _apart(one: Array, other: Array) -> Array:
    """How far two evaluations are apart, number by number."""
    return np.abs(one.astype(np.float64) - other.astype(np.float64))


def _rowed(array: Array) -> Array:
    """A scalar as one row."""
    return array if array.ndim else array[None]


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


def deviation(
    name: str, wanted: Array, got: Array, distinct: Array, *, noise: Array | None = None, least: float = 0.0
) -> tuple[str, float, float]:
    """(name, error, spread) of one output over all batches, in units of its scale; NaN where something is not finite.

    Args:
        name: of the output.
        wanted: one row an image.
        got: what is compared with it.
        distinct: rows of different images, between which the spread is taken.
        noise: how far an equally right evaluation is from ``wanted``. With it, each channel's error over its own scale
            counts, too, where it is beyond the channel's noise; boxes in pixels do not hide what is wrong with scores.
        least: a difference that is no error of a channel, however small its scale.
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


def channel_error(wanted: Array, got: Array, noise: Array | None = None, least: float = 0.0) -> tuple[float, str]:
    """The largest error of a channel over the channel's own scale, and which channel that is.

    Layouts differ, so that every index of every dimension behind the first is taken for a channel once. What is within
    the noise of its arithmetic, or within ``least``, is no error: a channel that is near zero has nothing but noise.
    """
    worst, where = 0.0, ""
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    difference, size = np.abs(wanted - got), np.maximum(np.abs(wanted), np.abs(got))
    for axis in range(1, wanted.ndim):
        others = tuple(d for d in range(wanted.ndim) if d != axis)
        off, scale = difference.max(axis=others, initial=0.0), size.max(axis=others, initial=0.0)
        floor = np.zeros_like(off) if noise is None else _BEYOND * noise.max(axis=others, initial=0.0)
        floor = np.maximum(floor, least)
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
            return _failed(f"output {name!r} holds NaN or infinity", batches, tolerance)
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


def at_other_values(
    path: Path, model: nn.Module, images: Tensor, lines: tuple[str, ...], tolerances: tuple[float, float]
) -> OtherValues:
    """The comparison on the inputs times 255 and by 255, for a network whose code asks for values at these lines.

    Only the difference counts: what the file does on such inputs is told, whatever the inputs' outputs are spread over.
    """
    errors: dict[str, float] = {}
    signature = signature_of(model)
    for scale, factor in SCALES.items() if signature is None or signature.plain else ():
        try:
            found = compare(path, model, images * factor, tolerance=tolerances[0], warn=tolerances[1])
        except CompressError:  # the network, or the file, does not run on them
            continue
        if math.isfinite(found.error):
            errors[scale] = found.error
    return OtherValues(errors, lines, tolerances[1])


def _told(parity: Parity, values: OtherValues) -> Parity:
    """The comparison with what was found on other values: a file that differs there proves nothing for these."""
    verdict = ParityVerdict.INCONCLUSIVE if values.differs else parity.verdict
    return replace(parity, verdict=verdict, message=f"{values.sentence()}; on the inputs themselves: {parity.message}")


def compare_at(path: Path, model: nn.Module, other: OtherSize, tolerances: tuple[float, float]) -> Parity:
    """The comparison on inputs of another size.

    Raises:
        ExportError: the file does not take them.
    """
    count, (tolerance, warn) = len(other.inputs[0]), tolerances
    with OrtRuntime(threads=None).load(path) as session:
        try:
            got = session.run(_ordered(other.inputs, session, model))
        except ModelError as error:
            raise ExportError(
                f"the file does not take {other.size}, which the network does: {error.message}",
                hint="leave --dynamic-size out, or try the other exporter",
            ) from error
    if problem := _shapes(other.wanted, got):
        return _failed(f"at {other.size}, {problem}", (count,), tolerance)
    pairs = zip(other.wanted.items(), got, strict=True)
    outputs = [deviation(n, _rowed(w), _rowed(g), np.arange(count)) for (n, w), g in pairs]
    found = judge(outputs, batches=(count,), tolerance=tolerance, warn=warn)
    return replace(found, message=f"at {other.size}: {found.message}")


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
