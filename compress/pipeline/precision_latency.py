"""A precision clocked beside fp32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compress.core import capture, ignore
from compress.export import PrecisionLatency
from compress.latency import Settings, measure
from compress.runtime import OrtRuntime


def clocked(
    source: Path,
    target: Path,
    precision: str,
    *,
    batches: Sequence[int] = (1, 8),
    seconds: float = 10.0,
    runtime: OrtRuntime | None = None,
    image: tuple[int, int, int] | None = None,
    seed: int = 0,
    listen: Callable[[object], None] = ignore,
) -> tuple[PrecisionLatency, ...]:
    """The latency of a precision beside fp32, in turn, at each batch size.

    Args:
        source: the fp32 file.
        target: the other one.
        precision: its name.
        batches: images a call.
        seconds: of measuring, for each.
        runtime: where; one CPU thread by default.
        image: shape (c, h, w) for files that leave it open.
        seed: of inputs and order.
        listen: receives events.
    """
    runtime, rows = runtime or OrtRuntime(), []
    for batch in batches:
        settings = Settings(batch=batch, budget_seconds=seconds, seed=seed, image=image)
        result = measure(source, {precision: target}, runtime=runtime, settings=settings, listen=listen)
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


def machine() -> Mapping[str, object]:
    """What the latencies depend on."""
    return capture().to_json()
