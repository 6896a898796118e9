"""Where the time of a run's two files goes, layer by layer and why: profiled once they have been clocked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.core import Clock
from compress.errors import CompressError
from compress.latency import explain, profile, read_graph, summarise
from compress.pipeline.job import Job
from compress.runtime import OrtRuntime

_SECONDS = 2.0
"""A file; the ten runs that are done at least may take longer."""


def profile_files(base: Path, pruned: Path, job: Job, clock: Clock) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The layers of base and pruned on the CPU as ``profile.json`` keeps them, and what has to be said about them.

    A GPU's kernels are not profiled: what ONNX Runtime writes down there is the time of handing them over.
    """
    if "cpu" not in job.runtimes or job.latency_seconds == 0:
        return {}, ()
    runtime, seconds = OrtRuntime(threads=job.threads), min(_SECONDS, job.latency_seconds)
    with clock.phase("profile", "time of every layer, before and after"):
        try:
            found = [(profile(path, runtime=runtime, seconds=seconds), read_graph(path)) for path in (base, pruned)]
            before, after = explain(found)
            return {"base": before.to_json(), "pruned": after.to_json(), "summary": list(summarise(before, after))}, ()
        except CompressError as error:
            return {}, (f"the layers were not profiled: {error.message}",)
