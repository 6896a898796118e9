"""A precision clocked beside fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from compress.core import ignore
from compress.export import PrecisionLatency
from compress.latency import Settings, measure
from compress.runtime import OrtRuntime


def measure_precision(
    source: Path,
    target: Path,
    precision: str,
    *,
    batches: Sequence[int] = (1, 8),
    settings: Settings = Settings(),  # noqa: B008  # frozen
    runtime: OrtRuntime | None = None,
    listen: Callable[[object], None] = ignore,
) -> tuple[PrecisionLatency, ...]:
    """The latency of a precision beside fp32, in turn, at each batch size.

    Args:
        source: the fp32 file.
        target: the other one.
        precision: its name.
        batches: images a call.
        settings: how each batch size is measured.
        runtime: where; one CPU thread by default.
        listen: receives events.
    """
    runtime, rows = runtime or OrtRuntime(), []
    for batch in batches:
        at = replace(settings, batch=batch)
        result = measure(source, {precision: target}, runtime=runtime, settings=at, listen=listen)
        ratio = result.ratios[precision]
        rows.append(
            PrecisionLatency(
                runtime=result.runtime,
                batch=batch,
                threads=result.environment.threads or 0,
                p50=result.arm(precision).latency.p50,
                fp32_p50=result.arm("base").latency.p50,
                speedup=ratio.decisive.ratio,
                low=ratio.decisive.low,
                high=ratio.decisive.high,
                verdict=ratio.verdict.value,
                clock=ratio.decided_by,
                rounds=result.rounds,
                flags=result.flags,
            )
        )
    return tuple(rows)
