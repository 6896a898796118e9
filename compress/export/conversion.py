"""The same network in fewer bits: converted, judged by a rule of its own, and written down.

- fp16 is compared like fp32, with a tolerance of 5e-3 of the outputs' scale.
- int8 must point the same way (cosine of the logits above 0.99) and keep the accuracy; layers that cost too much of it stay
  in fp32, and the record names them. Which they are is decided on validation images; the test images are read once, after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor

from compress.core import Clock, Figure, Listen, difference, ignore, plural, wilson
from compress.data import Data, Split
from compress.errors import ConfigError, DataError, ExportError, ParityError
from compress.export.canonical import canonicalise
from compress.export.exporting import beside
from compress.export.file_comparison import compare
from compress.export.fp16 import NO_GAIN, halve
from compress.export.int8 import RANKED_ON, QuantisedLayer, Quantiser, digest_of, fewest
from compress.export.judging import OUTPUT_ERROR, FileJudge, paired_loss
from compress.export.parity import ParityVerdict
from compress.export.precision import Precision
from compress.runtime import Array, OrtRuntime, keeps_external_weights, onnx_bytes, read_onnx
from compress.tasks import Classification, Task

__all__ = ["Options", "convert"]

FP16_TOLERANCE = 5e-3
LEAST_COSINE = 0.99
LARGEST_ERROR = 0.05
"""Of the outputs, where no figure is known: a twentieth of the variance that they have."""
TELLS = 10.0  # outputs of different images must lie this many times farther apart than the conversion moves them
_JUDGED = 2000  # validation images at most: every set of layers is judged on them again
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        max_drop: what int8 may lose, a fraction of accuracy or of the task's figure; layers go back to fp32 until it is kept.
        calibration: images that the ranges are measured on.
        narrow: int8 weights in 7 bits; None decides by this machine's processor.
        task: what the network is for; a task whose figure is no share has its ``max_drop`` in the figure's unit.
    """

    max_drop: float = 0.005
    calibration: int = 256
    narrow: bool | None = None
    task: Task = field(default_factory=Classification)

    def __post_init__(self) -> None:
        if self.calibration < 1:
            raise ConfigError(f"--calibration-images {self.calibration}, 1 or more is wanted", hint="leave it at 256")


def convert(
    source: Path,
    target: Path,
    precision: str,
    data: Data | None,
    *,
    inputs: Tensor | Sequence[Tensor],
    options: Options | None = None,
    listen: Listen = ignore,
) -> Precision:
    """Writes a float32 file in another precision, judged, or no file.

    Args:
        source: the float32 ONNX file, itself proven.
        target: the final name.
        precision: ``fp16`` or ``int8``.
        data: images; int8 needs them, and accuracy is measured where they have labels.
        inputs: pre-processed images (or what stands for them) to compare fp16 on; one tensor for each of several inputs.
        options: how to convert.
        listen: receives events.

    Raises:
        ParityError: the file would compute something else, or no layer bears 8 bits.
        DataError: int8 without images.
        ExportError: the conversion fails.
    """
    options, clock = options or Options(), Clock(listen)
    with beside(target) as folder:
        aside = folder / target.name
        if keeps_external_weights(source):  # what converts them wants one file
            whole = folder / f"whole-{source.name}"
            whole.write_bytes(onnx_bytes(source))
            source = whole
        if precision == "fp16":
            with clock.phase("fp16", "and compare with fp32"):
                found = _fp16(source, aside, inputs, _provenance(source))
        else:
            found = _int8(source, aside, folder, data, options, clock, listen)
        if data is not None:
            with clock.phase(_told(options, data.test).short, f"{precision} and fp32 on the test images, once"):
                if options.task.logit_per_class:
                    found = _with_accuracy(found, source, aside, data, options.max_drop)
                else:
                    found = _with_score(found, source, aside, data, options)
        digest = hashlib.sha256(aside.read_bytes()).hexdigest()
        found = replace(found, file=target.name, bytes=aside.stat().st_size, sha256=digest)
        try:
            aside.replace(target)
        except OSError as error:
            raise ExportError(f"cannot write {target}: {error.strerror}", hint="choose another --out") from error
    return found


def _provenance(source: Path) -> dict[str, str]:
    held = {prop.key: prop.value for prop in read_onnx(source, weights=False).metadata_props}
    return held | {"fp32 file": file_digest(source)}


def file_digest(path: Path) -> str:
    """Identifies what a file computes, shortened: its provenance may differ."""
    model = read_onnx(path)
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:16]


def _fp16(source: Path, aside: Path, inputs: Tensor | Sequence[Tensor], metadata: Mapping[str, str]) -> Precision:
    notes = halve(source, aside, {**metadata, "precision": "fp16"})
    parity = compare(aside, source, inputs, tolerance=FP16_TOLERANCE, warn=FP16_TOLERANCE)
    if parity.verdict is ParityVerdict.FAIL:
        raise ParityError(f"fp16: {parity.message}", hint="stay at fp32: the network's numbers do not fit into half precision")
    return Precision(
        precision="fp16",
        rule=f"error <= {FP16_TOLERANCE:g}",
        verdict=parity.verdict,
        message=parity.message,
        error=parity.error,
        notes=(NO_GAIN, *notes),
    )


def _int8(
    source: Path, aside: Path, folder: Path, data: Data | None, options: Options, clock: Clock, listen: Listen
) -> Precision:
    if data is None:
        raise DataError("int8 needs real images to measure the activations' ranges on", hint="add --data FOLDER")
    images = data.calibration.images(options.calibration)
    with clock.phase("int8", f"ranges of {plural(len(images), 'image')}, per channel"):
        quantiser = Quantiser.of(source, images, folder, narrow=options.narrow)
        quantiser.write(aside)
        drop_of, wanted, outputs_of = _judged_by(source, data.validation, options)
    told, allowed = _told(options, data.validation), _allowed(options, data.validation)

    def drop(left: Sequence[QuantisedLayer]) -> float:
        quantiser.write(aside, left=left)
        return drop_of(aside)

    left: Sequence[QuantisedLayer] = ()
    lost = drop(left)
    most = f"{allowed * told.scale:g}"
    if lost > allowed:
        losing = told.difference(lost)
        with clock.phase("sensitivity", f"int8 loses {losing}: which of {plural(len(quantiser.layers), 'layer')} it is"):
            order = quantiser.ranked(wanted[:RANKED_ON], data.validation.images(RANKED_ON))
        with clock.phase("back to fp32", f"as few layers as keep the drop within {most} {told.step}"):
            found = fewest(order, lambda tried: drop(tried) <= allowed)
        if found is None:
            raise ParityError(
                f"int8 loses {losing} and no layer can be left in it, {most} are allowed",
                hint="allow more with --max-int8-drop, calibrate on more images, or use --precision fp16",
            )
        left, lost = found, drop(found)
    verdict, message, cosine = _same_direction(wanted, outputs_of(aside))
    names = tuple(layer.name for layer in quantiser.layers if layer in left)
    facts = {
        "precision": "int8",
        "int8 calibration": f"{plural(len(images), 'image')}, digest {digest_of(images)}",
        "int8 layers in fp32": json.dumps(names),
        "int8 weight bits": "7" if quantiser.narrow else "8",
    }
    _finish(aside, _provenance(source) | facts)
    if verdict is ParityVerdict.FAIL:
        raise ParityError(f"int8: {message}", hint="calibrate on more images (--calibration-images), or use --precision fp16")
    rule = f"cosine > {LEAST_COSINE:g} and a drop <= {most} {told.step}".rstrip()
    moves = "drops" if told.higher else "rises"
    message += f"; {_kept_by(options, data.validation)} {moves} by {told.difference(lost)}"
    message += f" on {plural(len(wanted), 'validation image')}"
    return Precision(
        precision="int8",
        rule=rule,
        verdict=verdict,
        message=message,
        cosine=cosine,
        layers=len(quantiser.layers),
        in_fp32=names,
        calibration_images=len(images),
        calibration_digest=digest_of(images),
        notes=("weights in 7 bits: this processor's 8-bit products saturate",) if quantiser.narrow else (),
    )


def _told(options: Options, split: Split) -> Figure:
    """What a loss is told in."""
    return Figure("accuracy", share=True) if options.task.logit_per_class else FileJudge(options.task, split).figure


def _kept_by(options: Options, split: Split) -> str:
    """What int8 has to keep, in a sentence."""
    if options.task.logit_per_class:
        return "accuracy" if split.labelled else "agreement with fp32"
    return FileJudge(options.task, split).figure.name


def _allowed(options: Options, split: Split) -> float:
    """How much of it may be lost."""
    if options.task.logit_per_class or FileJudge(options.task, split).figure != OUTPUT_ERROR:
        return options.max_drop
    return LARGEST_ERROR


def _judged_by(source: Path, split: Split, options: Options) -> tuple[Callable[[Path], float], Array, Callable[[Path], Array]]:
    """What a file loses; the fp32 file's outputs, (n, numbers); and another file's."""
    if options.task.logit_per_class:
        wanted, labels = _logits(source, split, _JUDGED)
        return (
            lambda path: _drop(wanted, _logits(path, split, _JUDGED)[0], labels),
            wanted,
            (lambda path: _logits(path, split, _JUDGED)[0]),
        )
    judge = FileJudge(options.task, split, _JUDGED)
    base = judge.score(source) if judge.scored else None
    return lambda path: judge.loss(source, path, base), judge.outputs(source), judge.outputs


def _finish(aside: Path, metadata: Mapping[str, str]) -> None:
    """Canonical form, as every file of ours has it; the quantiser's notes go, provenance stays."""
    model = onnx.load(str(aside))
    canonicalise(model, name=model.graph.name, metadata=metadata)
    aside.write_bytes(model.SerializeToString(deterministic=True))


def _same_direction(wanted: Array, got: Array) -> tuple[ParityVerdict, str, float]:
    """Whether every image's logits point where they did, by the mean cosine, and whether that could have told."""
    cosine = float(np.mean(_cosines(wanted, got)))
    others = float(np.mean(_cosines(wanted, np.roll(wanted, 1, axis=0)))) if len(wanted) > 1 else 1.0
    facts = f"cosine {cosine:.5f} with fp32's outputs, {LEAST_COSINE:g} wanted; {others:.3f} between different images"
    if not cosine > LEAST_COSINE:  # NaN too
        return ParityVerdict.FAIL, f"int8 computes something else: {facts}", cosine
    if 1 - others < TELLS * (1 - cosine):
        return (
            ParityVerdict.INCONCLUSIVE,
            f"different images give nearly the same outputs, so that any file would pass: {facts}",
            cosine,
        )
    return ParityVerdict.PASS, facts, cosine


def _cosines(a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64).reshape(len(a), -1), b.astype(np.float64).reshape(len(b), -1)
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)  # type: ignore[no-any-return]


def _drop(wanted: Array, got: Array, labels: Array | None) -> float:
    """Accuracy lost; without labels, answers changed, which bounds it."""
    if not np.isfinite(got).all():
        return 1.0
    if labels is None:
        return float(np.mean(wanted.argmax(1) != got.argmax(1)))
    return float(np.mean(wanted.argmax(1) == labels) - np.mean(got.argmax(1) == labels))


def _logits(path: Path, split: Split, limit: int | None = None) -> tuple[Array, Array | None]:
    """The logits (n, classes) of a split's images, and their labels where there are any."""
    rows, labels = [], []
    with OrtRuntime(threads=None).load(path) as session:
        for images, known in split.batches(_BATCH, limit=limit):
            logits = session.run(np.ascontiguousarray(images.numpy()))[0]
            rows.append(logits.reshape(len(logits), -1))
            labels.append(known.numpy())
    return np.concatenate(rows), np.concatenate(labels) if split.labelled else None


def _with_score(found: Precision, source: Path, aside: Path, data: Data, options: Options) -> Precision:
    """The task's figure of both files on the test images, and the loss with its interval; without targets what bounds it."""
    task, judge = options.task, FileJudge(options.task, data.test)
    if not judge.scored:
        changes = judge.changes(source, aside)
        agreement = float(np.mean(changes == 0)) if task.names_one_label else None
        return replace(found, agreement=agreement, images=len(changes))
    before, after = judge.score(source), judge.score(aside)
    gap = paired_loss(task, before, after)
    found = replace(
        found, score=after.value, score_low=after.low, score_high=after.high, fp32_score=before.value, figure=judge.figure,
        drop=gap.mean, drop_low=gap.low, drop_high=gap.high, images=after.images,
    )  # fmt: skip
    if found.precision == "int8" and gap.mean > options.max_drop and found.verdict is ParityVerdict.PASS:
        most = f"{options.max_drop * judge.figure.scale:g}"
        note = f"{judge.figure.difference(gap.mean)} are lost on the test images, more than the {most} kept on validation"
        return replace(found, verdict=ParityVerdict.WARN, notes=(*found.notes, note))
    return found


def _with_accuracy(found: Precision, source: Path, aside: Path, data: Data, max_drop: float) -> Precision:
    """Top-1 of both files on the test images, and the drop with its interval, paired by image."""
    wanted, labels = _logits(source, data.test)
    got, _ = _logits(aside, data.test)
    agreement = float(np.mean(wanted.argmax(1) == got.argmax(1)))
    if labels is None:
        return replace(found, agreement=agreement, images=len(got))
    before, after = wanted.argmax(1) == labels, got.argmax(1) == labels
    gap = difference([before], [after])
    low, high = wilson(int(after.sum()), len(after))
    found = replace(
        found, score=float(after.mean()), score_low=low, score_high=high, fp32_score=float(before.mean()), agreement=agreement,
        drop=gap.mean, drop_low=gap.low, drop_high=gap.high, images=len(got),
    )  # fmt: skip
    if found.precision == "int8" and gap.mean > max_drop and found.verdict is ParityVerdict.PASS:
        note = f"{100 * gap.mean:.2f} points are lost on the test images, more than the {100 * max_drop:g} kept on validation"
        return replace(found, verdict=ParityVerdict.WARN, notes=(*found.notes, note))
    return found
