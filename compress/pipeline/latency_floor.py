"""Before a latency table is measured: what the narrowest networks take: a target out of all reach is told in seconds."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress.core import Plan, Topology, canonical
from compress.errors import SearchError
from compress.latency import SizedNetworks, relative_times
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.search import make_stages, plan_at, prunable, skippable

_RATIOS = (0.0, 0.125, 0.25)
"""Shares of the channels: the narrowest network need not be the fastest, since kernels hold channels in blocks."""
_SECONDS = 2.0
"""Of measuring them all."""
_CLEAR = 0.8
"""A target below so much of the fastest one's time is out of reach; nearer ones are the table's to judge."""


def check_floor(run: Run, source: SizedNetworks) -> None:
    """Clocks the narrowest networks that the job allows, its branches left out, where a latency is wanted.

    Args:
        run: with the target.
        source: the unpruned network at any widths.

    Raises:
        SearchError: the target is far below what they take.
    """
    if run.job.target != "latency":
        return
    plans = narrow_plans(source.topology, run.job)
    with run.clock.phase("least latency", f"{len(plans)} narrow networks"):
        refuse_below(run.job.value, _clocked(source, plans, run.job.seed))


def refuse_below(value: float, ratios: Sequence[float]) -> None:
    """Whether a share of the latency is clearly below all that narrow networks were measured at.

    Raises:
        SearchError: it is.
    """
    least = min(ratios)
    if value < _CLEAR * least:
        raise SearchError(
            f"--latency {value:g} cannot be reached: the narrowest networks that may be made of this one were measured, and "
            f"the fastest of them takes {least:.3f} of its time",
            hint=f"ask for --latency {min(0.99, math.ceil(110 * least) / 100):.2f} or more; what is left is what no width "
            "changes, and --macs does not ask for it",
        )


def narrow_plans(topology: Topology, job: Job) -> tuple[Plan, ...]:
    """Networks at the least widths and a little above them, without the branches that may go."""
    groups, _ = prunable(topology, job.ignore, job.realise)
    chosen = [g for s in make_stages(topology, groups, streams=job.streams) for g in s.groups]
    gone = job.leaving(skippable(topology, job.ignore)[0])
    plans = (plan_at(topology, chosen, ratio, 1 if job.auto_round else job.round_to) for ratio in _RATIOS)
    return tuple(dict.fromkeys(canonical(topology, replace(p, branches=gone)) for p in plans))


def _clocked(source: SizedNetworks, plans: Sequence[Plan], seed: int) -> list[float]:
    """Each network's time over the unpruned one's."""
    with tempfile.TemporaryDirectory(prefix="compress-least-") as name:
        folder = Path(name)
        base = folder / f"base{source.suffix}"
        source.write(Plan(), base)
        files = {plan.digest: folder / f"{plan.digest}{source.suffix}" for plan in plans}
        for plan in plans:
            source.write(plan, files[plan.digest])
        found = relative_times(base, files, source.runtime, _SECONDS, seed)
        for path in (base, *files.values()):
            source.forget(path)
    return [found[plan.digest] for plan in plans]
