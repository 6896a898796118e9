"""One run as a row of a comparison, whoever pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.core import Measured, Step, read_json
from compress.errors import ConfigError
from compress.report import ComparedRun, Latency, Size


@dataclass(frozen=True)
class RunFigures:
    """What a run of any pruner measures.

    Attributes:
        before: the unpruned network's size.
        after: the pruned one's.
        accuracy: after each step.
        steps: which of them were taken back.
        latency: per runtime.
        seconds: phase -> wall time.
    """

    before: Size
    after: Size
    accuracy: Sequence[Measured]
    steps: Sequence[Step]
    latency: tuple[Latency, ...]
    seconds: Mapping[str, float]


def compared_run(method: str, seed: int, folder: Path, found: RunFigures) -> ComparedRun:
    """The row; what only our own searches tell is added by who knows it.

    Args:
        method: as it is named in the table.
        seed: of the run.
        folder: of the run.
        found: by the run.
    """
    return ComparedRun(
        method=method,
        seed=seed,
        folder=folder.name,
        macs=found.after.macs / max(found.before.macs, 1),
        params=found.after.params / max(found.before.params, 1),
        validation=_going_on(found),
        latency=found.latency,
        search_seconds=found.seconds.get("importance", 0.0) + found.seconds.get("search", 0.0),
        seconds=dict(found.seconds),
    )


def _going_on(found: RunFigures) -> dict[str, float]:
    """After each step the validation accuracy of the network that went on: of one that was taken back, the one before."""
    refused = {s.when for s in found.steps if not s.kept}
    result: dict[str, float] = {}
    last = 0.0
    for measured in found.accuracy:
        if measured.split == "validation" and measured.when != "base":
            last = last if measured.when in refused else measured.value
            result[measured.when] = last
    return result


def read_row(path: Path) -> ComparedRun:
    """The row that a run of somebody else's pruner keeps in its folder.

    Raises:
        ConfigError: it is damaged.
    """
    kept = read_json(path, hint="start over with --fresh")
    try:
        latency = tuple(Latency(**{**x, "flags": tuple(x["flags"])}) for x in kept["latency"])
        return ComparedRun(**{**kept, "latency": latency})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="start over with --fresh") from error
