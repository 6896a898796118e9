"""An ONNX file beside the network that it was made from, on the same inputs: of the size it was written at, and of others."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import plural
from compress.errors import CompressError, ExportError, ModelError
from compress.export.exporting import BATCHES
from compress.export.other_size import OtherSize
from compress.export.other_values import SCALES, OtherValues
from compress.export.parity import Parity, channel_error, deviation, failed, judge
from compress.export.probabilities import probabilities
from compress.runtime import Array, EagerSession, Feed, OrtRuntime, Session, inputs_of
from compress.signature import signature_of

_PROBABILITY = 5e-7  # what a runtime's own sigmoid or softmax is off by, however small the number is
_HALF = 1e-3  # tolerances above it are for half precision


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
            return failed(problem, batches, tolerance)
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
        behind_the_point = {name: _PROBABILITY * there for name, there in probabilities(path).items()}
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
        return f"the file has {plural(len(got), 'output')}, the network {len(wanted)}"
    for (name, expected), found in zip(wanted.items(), got, strict=True):
        if expected.shape != found.shape:
            return f"output {name!r} has shape {list(found.shape)} in the file and {list(expected.shape)} in the network"
    return ""


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
        return failed(f"at {other.size}, {problem}", (count,), tolerance)
    pairs = zip(other.wanted.items(), got, strict=True)
    outputs = [deviation(n, _rowed(w), _rowed(g), np.arange(count)) for (n, w), g in pairs]
    found = judge(outputs, batches=(count,), tolerance=tolerance, warn=warn)
    return replace(found, message=f"at {other.size}: {found.message}")


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
