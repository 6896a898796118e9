"""What stages that are searched one after the other share: the budget between them, and their fronts as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from compress.core import Plan, canonical
from compress.search.front import Fidelity, Front, Point
from compress.search.space import Space
from compress.search.widths import meet, plan_of, reachable, scaled


def controller(space: Space, number: int, before: Plan) -> float:
    """The share of the whole that should be left after this stage.

    One ratio for this and all later stages is found that meets the target after what was already cut; the stage gets the
    share that this ratio leaves it, so that greedy stages still arrive at the target. None gets less than the target itself,
    which is what the last one gets: few aligned widths follow one ratio, and what they overshoot would be thrown away.
    """
    later = [g for s in space.stages[number:] for g in s.groups]
    own = space.stages[number].groups

    def with_ratio(ratio: float, groups: Sequence[str]) -> float:
        plan = plan_of(space, scaled(space, ratio, [g for g in later if g in groups]))
        return space.share(Plan({**before.cuts, **plan.cuts}, branches=before.branches))

    ratio = meet(partial(with_ratio, groups=later), space.target.value)
    return max(with_ratio(ratio, own), space.target.value)


def combine(
    space: Space, fronts: Sequence[Front], inherited: Sequence[float], weights: Sequence[float], bins: int = 160
) -> list[Point]:
    """The stages' fronts as one: a knapsack over the cost with additive, weighted errors.

    Each stage contributes one of its points; what a stage inherited from the stages before it is not counted twice.
    """
    goal = 1.0 - reachable(space.cost, space.groups, space.round_to)
    best: dict[int, tuple[float, Plan]] = {0: (0.0, Plan())}
    for stage, front, base, weight in zip(space.stages, fronts, inherited, weights, strict=True):
        options = []
        for point in front:
            own = stage.own(point.plan)
            options.append((weight * max(point.error - base, 0.0), 1.0 - space.share(own), own))
        options.append((0.0, 0.0, Plan()))
        grown: dict[int, tuple[float, Plan]] = {}
        for spent, (error, plan) in best.items():
            for more, saved, own in options:
                place = spent + round(saved / max(goal, 1e-9) * bins)
                total = error + more
                if place not in grown or total < grown[place][0]:
                    both = Plan({**plan.cuts, **own.cuts}, branches=(*plan.branches, *own.branches))
                    grown[place] = (total, canonical(space.topology, both))
        best = grown
    return [space.point(plan, error, Fidelity.STAGE) for error, plan in best.values()]
