"""Whether a run's files are the ones that its report tells of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from compress.core import Plan, read_json
from compress.errors import CompressError, ConfigError
from compress.export import read_precisions
from compress.latency import identify
from compress.networks import file_state_digest
from compress.report.model import Report
from compress.report.store import JSON, read_report

PLAN, MODEL, PRECISIONS = "plan.json", "model.safetensors", "precision.json"


def verified(folder: Path) -> Report | None:
    """The report of a run whose files are still those that it tells of; None where the run has no report yet.

    Every command that takes a run's folder asks this before it uses a file of it. Files that are not there are not missed here:
    who needs one says so.

    Raises:
        ConfigError: a file has another digest than the report says, or the report is damaged.
    """
    if not (folder / JSON).exists():
        return None
    report = read_report(folder)
    for name, wanted, found in _digests(folder, report):
        if wanted != found:
            raise ConfigError(
                f"{folder / name} is not the file of this run: it has digest {found[:16]}, the report tells of {wanted[:16]}",
                hint="copy the run again from where it was made, or start over with --fresh",
            )
    return report


def _digests(folder: Path, report: Report) -> Iterator[tuple[str, str, str]]:
    """Name, wanted and found digest of every file that is there and that is told of."""
    for name, wanted in report.digests.items():
        if name.endswith(".onnx") and Path(name).name == name and (folder / name).is_file():
            yield name, wanted, identify(folder / name).sha256
    wanted = report.digests.get("plan", "")
    if wanted and (folder / PLAN).is_file():
        yield PLAN, wanted, Plan.from_json(read_json(folder / PLAN, hint="start over with --fresh")).digest
    wanted = report.digests.get("model", "")
    if wanted and (folder / MODEL).is_file():
        try:
            yield MODEL, wanted, file_state_digest(folder / MODEL)
        except CompressError as error:
            raise ConfigError(error.message, hint="start over with --fresh") from error
    try:
        held = read_precisions(folder / PRECISIONS) if (folder / PRECISIONS).is_file() else None
    except CompressError:
        held = None  # a record that cannot be read says nothing; who shows it says so
    for one in held.entries if held is not None else ():
        if one.sha256 and Path(one.file).name == one.file and (folder / one.file).is_file():
            yield one.file, one.sha256, identify(folder / one.file).sha256
