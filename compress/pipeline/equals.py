"""Where errors cannot tell plans apart, time or size decides; and a network that is slower than the plainest one says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from compress.core import LatencyTable, Plan, count, estimated, plural
from compress.latency import block_of
from compress.pipeline.latency_tables import known_table
from compress.pipeline.preparation import Prepared
from compress.pipeline.run import Run, runtime_for
from compress.search import CostModel, Fidelity, Point, Space, Target, Uniform, reachable, whole_streams

_DEVIATIONS = 1.96
"""Of the difference of two shares of images: within so many, it may be none."""
_RELATIVE = 0.02
"""Errors of outputs that differ by less are taken for equal."""
_FASTER = 0.97
"""What a plan has to take of another's predicted time to be preferred to it, or to be spoken of."""
_LARGER = 0.97
"""What another plan has to have of a plan's MACs for that to be preferred."""


def predictor(run: Run, prepared: Prepared) -> LatencyTable:
    """The run's table, one that was measured here before, or an estimate without any measurement."""
    space = prepared.space
    if space.table is not None:
        return space.table
    found = known_table(space.topology, run.job) if run.job.runtimes[:1] == ("cpu",) else None
    return found or estimated(space.topology, block_of(runtime_for(replace(run.job, runtimes=("cpu",)))))


@dataclass(frozen=True, slots=True)
class Resolution:
    """What errors on so many images can tell.

    Attributes:
        images: that were judged.
        shares: whether errors are shares of these images, and not distances of outputs.
    """

    images: int
    shares: bool

    def apart(self, error: float, least: float) -> bool:
        """Whether two errors on the same images differ beyond chance; which images they have in common is not known."""
        if not math.isfinite(error):
            return True
        if not self.shares:
            return error > least * (1 + _RELATIVE)
        spread = math.sqrt((error * (1 - error) + least * (1 - least)) / self.images)
        return error - least > _DEVIATIONS * spread


def fastest_of_equals(
    space: Space, seen: Resolution, table: LatencyTable, judged: Mapping[Plan, float], best: Point
) -> tuple[Point, str]:
    """The plan to take, and what is said of it: of all that are no worse than the best as far as can be told, the fastest.

    Args:
        space: of the search.
        seen: what its images can tell.
        table: predicts times.
        judged: every plan that was scored on all images, recovered as the best one was -> its error.
        best: the most accurate plan within the budget.
    """
    here = _time(space, table, best.plan)
    equal = {plan: _time(space, table, plan) for plan in _equals(space, seen, judged, best)}
    if not equal:
        return best, ""
    first = min(equal, key=lambda plan: (equal[plan], judged[plan], plan.digest))
    if equal[first] > _FASTER * here:
        return best, ""
    said = (
        f"the fastest of {plural(len(equal), 'plan')} whose errors cannot be told apart on {plural(seen.images, 'image')}: "
        f"{equal[first]:.3f} of the unpruned network's time, {_by(table)}; the plan with the least error takes {here:.3f}"
    )
    return space.point(first, judged[first], best.fidelity), said


def largest_of_equals(space: Space, seen: Resolution, judged: Mapping[Plan, float], best: Point) -> tuple[Point, str]:
    """The same among plans that are equally fast: the one that computes most, since it learns most in the training to come."""
    macs = CostModel(space.topology, Target("macs"))
    equal, here = {plan: macs.share(plan) for plan in _equals(space, seen, judged, best)}, macs.share(best.plan)
    if not equal:
        return best, ""
    first = max(equal, key=lambda plan: (equal[plan], -judged[plan], plan.digest))
    if here > _LARGER * equal[first]:
        return best, ""
    said = (
        f"the largest of {plural(len(equal), 'plan')} whose errors cannot be told apart on {plural(seen.images, 'image')}: "
        f"{100 * equal[first]:.1f} % of the MACs; the plan with the least error keeps {100 * here:.1f} %"
    )
    return space.point(first, judged[first], best.fidelity), said


def _equals(space: Space, seen: Resolution, judged: Mapping[Plan, float], best: Point) -> list[Plan]:
    """What is within the budget, and no worse than the best as far as can be told; nothing where a stage alone was judged."""
    if best.fidelity not in (Fidelity.FULL, Fidelity.TRAINED):
        return []
    within = [plan for plan in judged if not plan.inputs and space.share(plan) <= space.target.value + 1e-9]
    return [plan for plan in within if not seen.apart(judged[plan], best.error)]


def slower_than_plain(space: Space, table: LatencyTable, plan: Plan) -> str:
    """What to say of a plan that takes longer than equal shares of every group by l1, streams whole, at its MACs."""
    inner = whole_streams(space)
    share = CostModel(space.topology, Target("macs")).share(plan)
    if inner is None or not plan or "l1" not in space.statistics.importance:
        return ""
    inner = replace(inner, cost=CostModel(space.topology, Target("macs", min(max(share, 1e-9), 1.0))))
    if reachable(inner.cost, inner.groups, inner.round_to) > share:
        return ""
    plain = Uniform("l1").plan(inner, share)
    ours, theirs = (_time(space, table, p) for p in (plan, plain))
    if theirs > _FASTER * ours:
        return ""
    return (
        f"slower than the plainest network of as many MACs: {ours:.3f} of the unpruned network's time, equal shares of every "
        f"group with whole streams take {theirs:.3f} ({_by(table)}); ask for time with --latency {theirs:.2f}, or take that "
        "network with --method uniform --no-streams"
    )


def _time(space: Space, table: LatencyTable, plan: Plan) -> float:
    return count(space.topology, plan, table=table).latency or 0.0


def _by(table: LatencyTable) -> str:
    return "estimated from padded widths" if table.seconds == 0 else "predicted by the latency table"
