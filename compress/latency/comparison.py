"""An old measurement or file against a new one: which sitting is comparable with which, and by what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.core import Environment, plural
from compress.errors import ConfigError
from compress.latency.bounds import Bound, Judged, judge
from compress.latency.intervals import between
from compress.latency.measurement import Measurement, identify
from compress.latency.protocol import BASE, rationed
from compress.latency.result import LatencyResult
from compress.latency.statistics import Interval


@dataclass(frozen=True, slots=True)
class Side:
    """One file in a measurement.

    Attributes:
        arm: under which name it was measured.
    """

    measurement: Measurement
    arm: str

    @property
    def sha256(self) -> str:
        """Which bytes it is."""
        return self.measurement.files[self.arm].sha256


@dataclass(frozen=True, slots=True)
class Compared:
    """The new file against the old one on one runtime, batch and transfer.

    Attributes:
        ratio: speed-up of the new file; above 1 is faster.
        floor: what the same file may show against itself.
        paired: both were measured in the same rounds; otherwise each was against the same base in its own sitting.
    """

    result: LatencyResult
    ratio: Interval
    floor: float
    paired: bool
    bounds: tuple[Judged, ...]


def side(measurement: Measurement, arm: str | None, name: str) -> Side:
    """The file that a measurement is about: the named one, the only candidate, or the base where there is no other.

    Raises:
        ConfigError: it has several and none is named, or none of that name.
    """
    there = [*measurement.files]
    others = [one for one in there if one != BASE]
    if arm is None and len(others) > 1:
        raise ConfigError(
            f"{name} measured {plural(len(others), 'file')}: {', '.join(others)}", hint=f"say which one: --arm {others[0]}"
        )
    wanted = arm if arm is not None else (others or [BASE])[0]
    if wanted not in there:
        raise ConfigError(f"{name} measured no {wanted!r} but {', '.join(there)}", hint="name one of them with --arm")
    return Side(measurement, wanted)


def find(sha256: str, name: str, folders: Iterable[Path], given: Sequence[Path] = ()) -> Path | None:
    """The file with these bytes: one that is given, or one of that name in a folder; None where there is none."""
    places = [*given, *(folder / Path(name).name for folder in dict.fromkeys(folders))]
    return next((path for path in places if path.is_file() and identify(path).sha256 == sha256), None)


def compare(old: Side, new: Side, bounds: Sequence[Bound], *, force: bool = False) -> tuple[Compared, ...]:
    """The new side against the old one wherever both were measured alike.

    Args:
        old: from :func:`side`; the same measurement as the new one where both ran in the same rounds.
        new: likewise.
        bounds: judged on every runtime and batch.
        force: compare sittings on machines that differ.

    Raises:
        ConfigError: the sittings share no base, no runtime and batch, or were on different machines.
    """
    paired = old.measurement is new.measurement
    if not paired and old.measurement.files[BASE].sha256 != new.measurement.files[BASE].sha256:
        raise ConfigError(
            "the two measurements have different bases: times of two sittings drift and cannot be compared without one",
            hint="give the .onnx files themselves, or measure both against the same base",
        )
    found = list(_cells(old, new, bounds, force=force, paired=paired))
    if not found:
        raise ConfigError(
            f"no runtime and batch was measured in both: {_listed(old)} and {_listed(new)}", hint="measure both alike"
        )
    return tuple(found)


def _cells(old: Side, new: Side, bounds: Sequence[Bound], *, force: bool, paired: bool) -> Iterator[Compared]:
    earlier = {_key(result): result for result in old.measurement.results}
    for result in new.measurement.results:
        before = earlier.get(_key(result))
        if before is None:
            continue
        if not force and (difference := _differs(before.environment, result.environment)):
            raise ConfigError(
                f"the two measurements are of different machines or versions: {difference}",
                hint="measure both on one machine, or compare all the same with --force",
            )
        ratio = between(_speedup(before, old.arm), _speedup(result, new.arm))
        floors = {before.control.floor, result.control.floor} if paired else (before.control.floor, result.control.floor)
        floor = math.exp(math.hypot(*(math.log(one) for one in floors)))
        quota = any(rationed(one.environment, one.control.decided_by) for one in (before, result))
        arm = result.arm(new.arm)
        judged = tuple(judge(bound, ratio, floor, result, arm, rationed=quota) for bound in bounds)
        yield Compared(result=result, ratio=ratio, floor=floor, paired=paired, bounds=judged)


def _speedup(result: LatencyResult, arm: str) -> Interval:
    return Interval(1.0, 1.0, 1.0) if arm == BASE else result.ratios[arm].decisive


def _key(result: LatencyResult) -> tuple[str, int, str, int | None]:
    return result.runtime, result.settings.batch, result.settings.transfer, result.environment.threads


def _listed(one: Side) -> str:
    return ", ".join(f"{result.runtime} at batch {result.settings.batch}" for result in one.measurement.results)


def _differs(one: Environment, other: Environment) -> str:
    """What is not the same, of what makes a machine's identity."""
    if one.digest == other.digest:
        return ""
    before, after = one.to_json(), other.to_json()
    names = [name for name in before if name not in {"load", "digest"} and before[name] != after[name]]
    return "; ".join(f"{name} {before[name]} and {after[name]}" for name in names)
