"""What is known about a network's precisions: plain data, kept as ``precision.json`` beside the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.core import TOP1, Figure, read_text
from compress.errors import ExportError

SCHEMA = "compress-precisions-2"
FIRST = "compress-precisions-1"
_RENAMED = {"top1": "score", "top1_low": "score_low", "top1_high": "score_high", "fp32_top1": "fp32_score"}
"""What the first version, which knew one task, called the scores."""


@dataclass(frozen=True, slots=True)
class PrecisionLatency:
    """A precision against fp32 at one batch size, measured in turn.

    Attributes:
        runtime: e.g. ``ort-cpu``.
        batch: images a call.
        threads: intra-op threads; 0 where the library decides.
        p50: seconds per batch.
        fp32_p50: seconds per batch of the fp32 file in the same rounds.
        speedup: fp32 over this, by the clock that decides; below 1 is slower.
        low: lower end of its 95 % interval.
        high: upper end.
        verdict: ``same``, ``different`` or ``inconclusive``.
        clock: ``wall`` or ``cpu``: which one decided.
        rounds: paired rounds.
        flags: what makes the figures doubtful.
    """

    runtime: str
    batch: int
    threads: int
    p50: float
    fp32_p50: float
    speedup: float
    low: float
    high: float
    verdict: str
    clock: str
    rounds: int
    flags: tuple[str, ...] = ()

    @property
    def direction(self) -> str:
        """``faster``, ``slower``, ``same`` or ``inconclusive``."""
        if self.verdict != "different":
            return self.verdict
        return "faster" if self.speedup > 1 else "slower"


@dataclass(frozen=True, slots=True)
class Precision:
    """One file of the network.

    Attributes:
        precision: ``fp16`` or ``int8``.
        file: its name, beside the record.
        bytes: its size.
        sha256: of the file; empty in records of earlier versions.
        rule: what it had to pass.
        verdict: ``pass``, ``warn`` or ``inconclusive``; a file that fails is not written.
        message: the comparison with fp32 in words.
        error: largest deviation over the outputs' scale (fp16).
        cosine: mean over images of the cosine between its logits and fp32's (int8).
        agreement: share of the images on which it answers as fp32 does.
        score: the figure on the test images; None where nothing was measured.
        score_low: lower end of its 95 % interval.
        score_high: upper end.
        fp32_score: of the fp32 file on the same images.
        drop: by how much it is worse than fp32's, a fraction or in the figure's unit.
        drop_low: lower end of its interval, paired by image.
        drop_high: upper end.
        images: test images.
        layers: with weights, that could be in 8 bits.
        in_fp32: those that stayed in fp32 because they cost too much.
        calibration_images: images that the ranges were measured on.
        calibration_digest: of their pixels.
        latency: beside fp32, per batch size.
        notes: what else a reader should know.
        figure: what the scores are of.
    """

    precision: str
    file: str = ""
    bytes: int = 0
    rule: str = ""
    verdict: str = ""
    message: str = ""
    error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    fp32_score: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    images: int = 0
    layers: int = 0
    in_fp32: tuple[str, ...] = ()
    calibration_images: int = 0
    calibration_digest: str = ""
    latency: tuple[PrecisionLatency, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    figure: Figure = TOP1


@dataclass(frozen=True, slots=True)
class Precisions:
    """All precisions of one fp32 file.

    Attributes:
        source: the fp32 file's name, beside the record.
        source_digest: of its bytes: a record of another file is none of this one.
        source_bytes: its size.
        entries: by name.
        environment: the machine that clocked the last one.
    """

    source: str
    source_digest: str
    source_bytes: int
    entries: tuple[Precision, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def grid(self) -> dict[tuple[str, int], PrecisionLatency]:
        """(precision, batch) -> latency beside fp32: what a table or a plot shows."""
        return {(entry.precision, row.batch): row for entry in self.entries for row in entry.latency}

    def with_entry(self, entry: Precision) -> Precisions:
        """The record with this precision in place of an earlier one."""
        others = [e for e in self.entries if e.precision != entry.precision]
        entries = tuple(sorted([*others, entry], key=lambda e: e.precision))
        return Precisions(
            source=self.source,
            source_digest=self.source_digest,
            source_bytes=self.source_bytes,
            entries=entries,
            environment=self.environment,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Precisions:
        """Reads what :meth:`to_json` wrote."""
        entries = tuple(
            Precision(
                **{
                    **{_RENAMED.get(k, k): v for k, v in e.items()},
                    "figure": Figure(**e["figure"]) if "figure" in e else TOP1,
                    "in_fp32": tuple(e["in_fp32"]),
                    "notes": tuple(e["notes"]),
                    "latency": tuple(PrecisionLatency(**{**row, "flags": tuple(row["flags"])}) for row in e["latency"]),
                }
            )
            for e in data["entries"]
        )
        return Precisions(**{**data, "entries": entries, "schema": SCHEMA})


def read_precisions(path: Path) -> Precisions | None:
    """A record, or None where there is none.

    Raises:
        ExportError: it is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        data = json.loads(read_text(path))
        if data.get("schema") not in (FIRST, SCHEMA):
            raise ValueError(f"schema {data.get('schema')!r}, {SCHEMA!r} is wanted")
        return Precisions.from_json(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ExportError(f"{path} is no record of precisions: {error}", hint="remove it and export again") from error
