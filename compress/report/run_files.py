"""What lies beside a report in its folder and belongs on its page: raw samples, the front, what other machines measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compress.core import read_text
from compress.errors import CompressError
from compress.export import Precisions
from compress.latency import LARGEST, LatencyResult, Measurement

LATENCY, FRONT, IMPORTED, PROFILE, PRECISION = (
    "latency.json", "front.json", "imported", "profile.json", "precision.json"
)  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RawComparison:
    """One comparison with its raw samples.

    Attributes:
        result: all of it.
        machine: the processor or card, where it is not the run's own machine.
    """

    result: LatencyResult
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Timed:
    """A layer, or all kernels of one operator that have no weight, before and after.

    Attributes:
        name: the torch module, or the operator in brackets.
        before: seconds with profiling on: a share of the others', no latency; None where the file has none.
        after: the same of the pruned file.
        binds: what keeps it from being faster now: ``compute``, ``memory``, ``launch``, ``layout``, ``alignment``.
        why: with its numbers.
    """

    name: str
    before: float | None
    after: float | None
    binds: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Where the time goes and why.

    Attributes:
        rows: in the order in which they run.
        summary: what happened, in sentences.
        runtime: what ran them.
    """

    rows: tuple[Timed, ...]
    summary: tuple[str, ...] = ()
    runtime: str = "ort-cpu"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything but the report itself; whatever is missing is left out of the page.

    Attributes:
        latency: every comparison, those of other machines last.
        front: the search's front as ``front.json`` holds it.
        times: per layer, from the profiles of both files.
        precisions: other precisions of the pruned network, proven and clocked.
        damaged: one sentence per file that could not be read.
    """

    latency: tuple[RawComparison, ...] = ()
    front: Mapping[str, Any] | None = None
    times: LayerTimes | None = None
    precisions: Precisions | None = None
    damaged: tuple[str, ...] = ()


def read(folder: Path) -> RunFiles:
    """What a run's folder holds.

    A damaged file costs its part of the page, never the page.
    """
    damaged: list[str] = []

    def part(name: str, make: Callable[[Any], _T]) -> _T | None:
        path = folder / name
        try:
            return make(json.loads(read_text(path, most=LARGEST)))
        except FileNotFoundError:
            return None
        except CompressError as error:
            damaged.append(f"{name}: {error.message}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damaged.append(f"{name} cannot be read: {type(error).__name__}")
        return None

    clocked = part(LATENCY, lambda facts: [RawComparison(LatencyResult.from_json(each)) for each in facts]) or []
    for path in sorted((folder / IMPORTED).glob("*.json")):
        found = part(f"{IMPORTED}/{path.name}", Measurement.from_json)
        clocked += [RawComparison(result, machine_name(result)) for result in (found.results if found is not None else ())]
    front, times, precisions = part(FRONT, _front), part(PROFILE, _times), part(PRECISION, Precisions.from_json)
    return RunFiles(latency=tuple(clocked), front=front, times=times, precisions=precisions, damaged=tuple(damaged))


def _times(facts: Any) -> LayerTimes | None:
    if not facts:
        return None
    old, new = ({str(layer["name"]): layer for layer in facts[name]["layers"]} for name in ("base", "pruned"))
    rows = []
    for name in dict.fromkeys((*old, *new)):
        before, after = (float(side[name]["seconds"]) if name in side else None for side in (old, new))
        last = new.get(name, old.get(name, {}))
        rows.append(Timed(name=name, before=before, after=after, binds=str(last["binds"]), why=str(last["why"])))
    summary = tuple(map(str, facts["summary"]))
    # Earlier versions began with a total of the profiler's, a second speed-up beside the measured one.
    summary = () if any(" in kernels: " in said for said in summary[:1]) else summary
    return LayerTimes(tuple(rows), summary, str(facts["pruned"].get("runtime", "ort-cpu")))


def machine_name(result: LatencyResult) -> str:
    """The card, where one did the work; else the processor."""
    gpus, on_gpu = result.environment.gpus, any(name in result.runtime for name in ("cuda", "tensorrt"))
    return gpus[0].name if on_gpu and gpus else result.environment.cpu


def _front(facts: Any) -> Mapping[str, Any]:
    points = [{name: float(p[name]) for name in ("macs_share", "params_share", "error")} for p in facts["points"]]
    chosen = int(facts["chosen"])
    if not 0 <= chosen < len(points):
        raise ValueError("the chosen point is not on the front")
    return {"points": points, "chosen": chosen, "knee": int(facts["knee"])}
