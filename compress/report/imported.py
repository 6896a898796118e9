"""Measurements from other machines, taken into a run: only of the very files that the run made."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from compress.core import make_folder, write
from compress.errors import ConfigError
from compress.latency import Measurement, identify, read_measurement
from compress.report import store
from compress.report.formatting import machine_of, speed_in_words
from compress.report.model import Latency, Report
from compress.report.run_files import IMPORTED, machine_name
from compress.report.verdict import latency_of, speed_flags, verdict_of
from compress.report.verification import verified

BASE, MODEL = "base.onnx", "model.onnx"


def take_in(folder: Path, file: Path) -> tuple[str, ...]:
    """Puts a measurement beside a run's own and writes the report again.

    Args:
        folder: of the run.
        file: what a bench kit wrote.

    Returns:
        One sentence per comparison.

    Raises:
        ConfigError: it is no measurement, or one of other files than the run's.
    """
    report, found = verified(folder) or store.read_report(folder), read_measurement(file)
    names = _names(folder, report, found, file)
    added = tuple(_latencies(found, names))
    if not added:
        raise ConfigError(f"{file} compares nothing with {folder / BASE}", hint=f"compress bench-kit {folder} --out kit.zip")
    text = file.read_bytes()
    place = folder / IMPORTED
    make_folder(place, hint="remove it, and import again")
    write(place / f"{hashlib.sha256(text).hexdigest()[:16]}.json", text)
    new = {_key(x) for x in added}
    latency = (*(x for x in report.latency if _key(x) not in new), *added)
    flags = tuple(dict.fromkeys([*report.warnings, *speed_flags(added)]))
    notes = tuple(dict.fromkeys([*report.notes, *(f"not measured on the other machine: {s}" for s in found.skipped)]))
    report = replace(report, latency=latency, warnings=flags, notes=notes)
    store.write_report(replace(report, verdict=verdict_of(report)), folder)
    return tuple(f"{machine_of(x)}, batch {x.batch}: {speed_in_words(x)}" for x in added)


def _names(folder: Path, report: Report, found: Measurement, file: Path) -> dict[str, str]:
    """Arm -> which of the run's files it was, by digest: of the file, or of the tensors of one that torch measured."""
    known = {report.digests[name]: name for name in (BASE, MODEL) if name in report.digests}
    known |= {identify(path).sha256: path.name for path in sorted(folder.glob("*.onnx"))}
    known |= {report.digests[name]: file for name, file in (("network", BASE), ("model", MODEL)) if name in report.digests}
    names = {}
    for arm, facts in found.files.items():
        digest = facts.tensors or facts.sha256
        if digest not in known:
            kind, hint = "SHA-256", f"make the kit of this run: compress bench-kit {folder} --out kit.zip"
            if facts.tensors:
                kind, hint = "tensors", f"measure this run: compress bench {folder} --runtime torch-cuda --out result.json"
            raise ConfigError(
                f"{file}: {arm} was measured with a file of {kind} {digest[:16]}..., which {folder} does not have", hint=hint
            )
        names[arm] = known[digest]
    if names.get("base") != BASE:
        raise ConfigError(
            f"{file}: the base was {names.get('base')}, {BASE} is wanted", hint=f"compress bench-kit {folder} --out kit.zip"
        )
    return names


def _latencies(found: Measurement, names: dict[str, str]) -> list[Latency]:
    made = []
    for result in found.results:
        for arm in result.ratios:
            file = "" if names[arm] == MODEL else names[arm]
            made.append(replace(latency_of(result, arm), machine=machine_name(result), file=file))
    return made


def _key(x: Latency) -> tuple[object, ...]:
    return x.machine, x.runtime, x.batch, x.threads, x.file
