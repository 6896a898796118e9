"""MACs against measured latency over the networks of a front: what a ranking by MACs is worth on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from compress.core import plural
from compress.latency import LatencyResult
from compress.report.candidates import FrontLatency, FrontPoint


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation; None where a side is constant or there are fewer than three points."""
    from scipy.stats import spearmanr

    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(spearmanr(x, y).statistic)


def slower_with_less(points: Sequence[FrontPoint]) -> tuple[tuple[int, int], ...]:
    """(fewer MACs, more MACs) by index: pairs of which the first is slower all the same, their intervals apart.

    Of every network only the pair with the fastest one is told that has more MACs.
    """
    found = []
    for few in points:
        faster = [p for p in points if p.macs > few.macs and p.high < few.low]
        if faster:
            found.append((few.index, min(faster, key=lambda p: p.latency).index))
    return tuple(found)


def front_latency(result: LatencyResult, shares: Sequence[tuple[int, str, float, float]]) -> FrontLatency:
    """What one comparison says about a front.

    Args:
        result: of the front's files against the base, all in the same rounds.
        shares: per file: index on the front, name of the arm, share of the MACs, share of the activations.
    """
    points = []
    for index, arm, macs, activations in shares:
        ratio = result.ratios[arm].decisive
        points.append(
            FrontPoint(
                index=index, macs=macs, activations=activations, latency=1 / ratio.ratio, low=1 / ratio.high, high=1 / ratio.low
            )
        )
    latency = [p.latency for p in points]
    return FrontLatency(
        runtime=result.runtime,
        batch=result.settings.batch,
        threads=result.environment.threads or 0,
        rounds=result.rounds,
        points=tuple(points),
        by_macs=spearman([p.macs for p in points], latency),
        by_activations=spearman([p.activations for p in points], latency),
        slower=slower_with_less(points),
        flags=result.flags,
    )


def told(found: FrontLatency) -> str:
    """The correlation and the exceptions as a sentence."""
    if found.by_macs is None:
        return f"{plural(len(found.points), 'network')} clocked: too few, or too alike, to correlate."
    text = f"Over {plural(len(found.points), 'network')} the rank correlation (Spearman) of measured latency with MACs is "
    text += f"{found.by_macs:.2f}"
    if found.by_activations is not None:
        text += f", with activations {found.by_activations:.2f}"
    if not found.slower:
        return f"{text}; none with fewer MACs is certainly slower than one with more."
    pairs = ", ".join(f"{few} than {many}" for few, many in found.slower)
    return f"{text}; fewer MACs and slower all the same: point {pairs}."
