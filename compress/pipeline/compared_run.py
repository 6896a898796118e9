"""One run as a row of a comparison, whoever pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.core import Measured, read_json
from compress.errors import ConfigError
from compress.report import ComparedRun, Latency, Size


@dataclass(frozen=True)
class RunFigures:
    """What a run of any pruner measures.

    Attributes:
        before: the unpruned network's size.
        after: the pruned one's.
        accuracy: after each step.
        latency: per runtime.
        seconds: phase -> wall time.
    """

    before: Size
    after: Size
    accuracy: Sequence[Measured]
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
        validation={a.when: a.value for a in found.accuracy if a.split == "validation" and a.when != "base"},
        latency=found.latency,
        search_seconds=found.seconds.get("importance", 0.0) + found.seconds.get("search", 0.0),
        seconds=dict(found.seconds),
    )


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
