"""What lies beside a report in its folder and belongs on its page: raw samples, the front, what other machines measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import CompressError
from compress.latency.document import Measurement
from compress.latency.result import LatencyResult

LATENCY, FRONT, IMPORTED = "latency.json", "front.json", "imported"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Clocked:
    """One comparison with its raw samples.

    Attributes:
        result: all of it.
        machine: the processor or card, where it is not the run's own machine.
    """

    result: LatencyResult
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything but the report itself; whatever is missing is left out of the page.

    Attributes:
        latency: every comparison, those of other machines last.
        front: the search's front as ``front.json`` holds it.
        damaged: one sentence per file that could not be read.
    """

    latency: tuple[Clocked, ...] = ()
    front: Mapping[str, Any] | None = None
    damaged: tuple[str, ...] = ()


def read(folder: Path) -> Evidence:
    """What a run's folder holds.

    A damaged file costs its part of the page, never the page.
    """
    damaged: list[str] = []

    def part(name: str, make: Callable[[Any], _T]) -> _T | None:
        path = folder / name
        try:
            return make(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except CompressError as error:
            damaged.append(f"{name}: {error.message}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damaged.append(f"{name} cannot be read: {type(error).__name__}")
        return None

    clocked = part(LATENCY, lambda facts: [Clocked(LatencyResult.from_json(each)) for each in facts]) or []
    for path in sorted((folder / IMPORTED).glob("*.json")):
        found = part(f"{IMPORTED}/{path.name}", Measurement.from_json)
        clocked += [Clocked(result, machine_name(result)) for result in (found.results if found is not None else ())]
    return Evidence(tuple(clocked), part(FRONT, _front), tuple(damaged))


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
