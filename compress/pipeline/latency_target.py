"""From a predicted latency to a measured one: before anything is trained, the chosen plan is clocked and the target corrected.

A table predicts within some per cent; a run promises less than that. So the winner's file, its widths cut but nothing
recovered, since weights do not matter to time, runs in turn with the unpruned one; where it misses the target, the next trial
asks the table for what would have hit.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.core import Cut, GroupId, Plan, canonical, count, plural, sizes_after, slow_layers
from compress.latency import LatencyVerdict, SizedNetworks, block_of, relative_times
from compress.pipeline.latency_tables import networks_of
from compress.pipeline.preparation import Prepared
from compress.pipeline.realisation import Realised
from compress.pipeline.run import Run, runtime_for
from compress.pipeline.search_summary import LatencyTrial, LatencyTrials
from compress.search import (
    Front,
    Point,
    Space,
    Target,
    Uniform,
    Widths,
    fill,
    meet_widths,
    nearest,
    orbits,
    plan_of,
    ranked,
    widths_of,
)
from compress.workers import alone

TRIALS = 4
"""Plans that are clocked at the most."""
WITHIN = 0.03
"""How far from the target, relative, a finished network's measured latency may be."""
CLOSE = 0.015
"""The same for a trial, which is measured for seconds only: closer, so that the final figure has room."""
_WINDOW = 0.03
_SECONDS = 6.0


def measured_target(run: Run, prepared: Prepared, front: Front, plan: Plan) -> LatencyTrials | None:
    """For a target of latency: the plan whose measured latency is nearest to it, and what was clocked on the way."""
    space = prepared.space
    if space.target.kind != "latency" or space.table is None:
        return None
    with run.clock.phase("trials", "the chosen widths clocked before anything is recovered"):
        source = networks_of(run.network, space.topology, run.job)
        trials = latency_trials(space, front, plan, clocking(source, run.job.seed))
    return LatencyTrials(trials, space.table.error)


def judge_latency(run: Run, space: Space, done: Realised, tried: LatencyTrials | None) -> None:
    """Notes what the measured latency says about the prediction and the target; where nothing was won, what would help."""
    found = done.latency[0].ratios["pruned"] if done.latency else None
    if tried is not None:
        last, off = tried.best, tried.table_error
        said = f"latency of the base's: {last.predicted:.3f} predicted by the table, {last.measured:.3f} measured"
        run.note(
            f"{said} before recovery, after {plural(len(tried.trials), 'plan')}; the table's error on "
            f"{plural(off.networks, 'network')} that it was not fitted to: "
            f"median {100 * off.median:.1f} %, worst {100 * off.worst:.1f} %"
        )
        reached = 1 / found.decisive.ratio if found is not None else last.measured
        if abs(reached / run.job.value - 1) > WITHIN:
            told = run.warn if reached > run.job.value else run.note  # less than was wanted is no fault
            told(f"the measured latency is {reached:.3f} of the unpruned network's, {run.job.value:g} was wanted")
    if found is not None and done.plan and (found.verdict is LatencyVerdict.SAME or found.decisive.high <= 1):
        block = space.table.block if space.table is not None else block_of(runtime_for(run.job))
        run.warn(f"not faster than the unpruned network: {proposal(space, done.plan, block)}")


def latency_trials(
    space: Space,
    front: Front,
    first: Plan,
    clock_one: Callable[[Plan], float],
    *,
    trials: int = TRIALS,
    within: float = CLOSE,
) -> tuple[LatencyTrial, ...]:
    """Clocks a plan, and others until one is within the tolerance of the target.

    A plan that is faster than asked for is left for a more accurate one only: for another point of the front with a smaller
    error, or for itself with wider layers.

    Args:
        space: with its table and a target of latency.
        front: of the search, for another plan.
        first: the chosen one.
        clock_one: measures a plan's latency over the unpruned network's.
        trials: at the most.
        within: the tolerance, relative.

    Returns:
        The last one is to be taken: of those that are fast enough the nearest to the target, or of all.
    """
    target, taken = space.target.value, list[LatencyTrial]()
    plan, asked, error = first, target, next((p.error for p in front if p.plan == first), math.inf)
    while True:
        trial = LatencyTrial(plan, asked, space.share(plan), clock_one(plan))
        taken.append(trial)
        if abs(trial.measured / target - 1) <= within or len(taken) == trials:
            break
        asked = trial.predicted * target / trial.measured
        tried, below = [s.plan for s in taken], error if trial.measured < target else math.inf
        point = _near(space, [p for p in front if p.error < below and p.plan not in tried], asked)
        plan, error = (towards(space, plan, asked), error) if point is None else (point.plan, point.error)
        if plan in tried:
            break
    return tuple(sorted(taken, key=lambda s: (s.measured <= target * (1 + within), -abs(s.measured / target - 1))))


def _near(space: Space, points: Sequence[Point], asked: float) -> Point | None:
    """The most accurate one whose share is just below what is asked for."""
    near = [p for p in points if asked * (1 - _WINDOW) <= space.share(p.plan) <= asked]
    return min(near, key=lambda p: p.error, default=None)


def towards(space: Space, plan: Plan, budget: float) -> Plan:
    """The plan with all its widths scaled until the budget is met, then filled up; kept channels stay before others come.

    The branches that it leaves out stay out.
    """
    have = widths_of(space, plan)
    sizes = {g: tuple(len(o) for o in orbits(space.topology.by_id[g])) for g in have}
    most = max((n / max(h, 1) for g in have for h, n in zip(have[g], sizes[g], strict=True)), default=1.0)

    def at(ratio: float) -> dict[GroupId, tuple[int, ...]]:
        return {
            g: tuple(nearest(min(ratio * h, n), n, space.round_to) for h, n in zip(have[g], sizes[g], strict=True))
            for g in have
        }

    def share_of(widths: Widths) -> float:
        return space.share(plan_of(space, widths, branches=plan.branches))

    ratio = meet_widths(lambda r: at(r * most), share_of, budget) * most
    widths = fill(space, at(ratio), budget, list(reversed(space.groups)), plan.branches)
    return _adapted(space, plan, widths)


def _adapted(space: Space, plan: Plan, widths: Widths) -> Plan:
    """The plan at other widths: what it keeps goes last, what it dropped comes back by rank."""
    cuts = {}
    for group_id, kept in widths.items():
        group = space.topology.by_id[group_id]
        if sum(kept) == group.size:
            continue
        cut_ = plan.cuts.get(group_id)
        keep = set(range(group.size)) if cut_ is None else set(cut_.keep)
        order = [[int(c) for c in o] for o in ranked(group, space.statistics.importance[space.ranking][group_id])]
        first = [[c for c in o if c in keep] + [c for c in o if c not in keep] for o in order]
        cuts[group_id] = Cut(tuple(sorted(c for o, n in zip(first, kept, strict=True) for c in o[:n])))
    return canonical(space.topology, replace(plan, cuts=cuts))


def clocking(source: SizedNetworks, seed: int) -> Callable[[Plan], float]:
    """Measures a plan's latency over the unpruned network's: the network with the plan applied, in turn with the whole one."""

    def clock_one(plan: Plan) -> float:
        with tempfile.TemporaryDirectory(prefix="compress-latency-") as name:
            base, pruned = (Path(name) / f"{part}{source.suffix}" for part in ("base", "pruned"))
            source.write(Plan(), base)
            source.write(plan, pruned)
            with alone():
                return relative_times(base, {"pruned": pruned}, source.runtime, _SECONDS, seed)["pruned"]

    return clock_one


def proposal(space: Space, plan: Plan, block: int) -> str:
    """What would help a network that is not faster: an alignment, or a lower target, by the table or by the kernels' rules."""
    slow = slow_layers(space.topology, sizes_after(space.topology, plan), block)
    whole = slow_layers(space.topology, {}, block)
    said = ""
    if len(slow) > len(whole):
        said = f"{len(slow)} convolutions lost ONNX Runtime's fast kernel at these widths ({', '.join(slow[:3])}, ...)"
    if space.table is None:
        help_ = "--round-to auto chooses widths by measured latency, --latency 0.7 searches for it"
        return f"{said}; {help_}" if said else help_
    macs = count(space.topology, plan).share_of(count(space.topology)).macs
    found = []
    for step in (4, 8, 16, 32):
        aligned = replace(space, round_to=step, cost=replace(space.cost, target=Target("macs", macs)))
        same = Uniform(space.ranking).plan(aligned, macs)
        latency = count(space.topology, same, table=space.table).latency
        if latency is not None and np.isfinite(latency):
            found.append((latency, step))
    if not found:
        return said or "a lower target"
    latency, step = min(found)
    help_ = f"--round-to {step} at the same share of MACs is predicted at {latency:.2f} of the unpruned latency"
    if latency >= 1:
        help_ = f"no alignment makes {macs:.2f} of the MACs faster; --latency 0.7 asks for what is"
    return f"{said}; {help_}" if said else help_
