"""Which plans are worth a short training, and who goes on: successive halving (Jamieson, Talwalkar, AISTATS 2016).

What a plan is worth before any training says little of what it is worth after it. So some plans that meet the same target are
trained for a few steps, the better half of them anew for twice as many, and so on until two are left. Every training is a whole
one, from the recovered network to a learning rate of 0, so that a score depends on its plan and the steps alone.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.core import GroupId, Plan, plural
from compress.search.base import Ask, Score, Told
from compress.search.depth import looks
from compress.search.front import Fidelity
from compress.search.obs import Allocated
from compress.search.space import Space
from compress.search.stages import whole_streams
from compress.search.uniform import Uniform

LEAST_STEPS = 4
"""Of a training: fewer tell nothing."""
LEAST_PLANS, MOST_PLANS = 2, 64
_LAST = 2


@dataclass(frozen=True, slots=True)
class Round:
    """One round of trainings.

    Attributes:
        plans: that are trained.
        steps: of each training.
    """

    plans: int
    steps: int


def halving(plans: int, steps: int) -> tuple[Round, ...]:
    """The rounds of so many plans within so many steps of all trainings together; fewer plans where they do not suffice.

    Each round trains half of the plans of the one before, for twice as many steps; the last one trains two. Empty where not
    even two plans can have :data:`LEAST_STEPS`.
    """
    for most in range(plans, LEAST_PLANS - 1, -1):
        counts = [most]
        while counts[-1] > _LAST:
            counts.append(max(_LAST, math.ceil(counts[-1] / 2)))
        first = steps // sum(count << number for number, count in enumerate(counts))
        if first >= LEAST_STEPS:
            return tuple(Round(count, first << number) for number, count in enumerate(counts))
    return ()


@dataclass(frozen=True, slots=True)
class Contender:
    """A plan that may be trained.

    Attributes:
        name: where it comes from.
        plan: what to cut.
    """

    name: str
    plan: Plan


def contenders(space: Space, chosen: Plan, judged: Mapping[Plan, float], most: int) -> tuple[Contender, ...]:
    """At most so many plans within the target: in turn one of the search's and a closed form, none twice.

    Args:
        space: of the search.
        chosen: what would be taken without any training; it is the first.
        judged: plans that the search scored on all images -> error.
        most: contenders.
    """
    ours, plain = _searched(space, chosen, judged), _closed(space)
    order = [c for pair in zip(ours, plain, strict=False) for c in pair]
    shorter = min(len(ours), len(plain))
    found: dict[Plan, Contender] = {}
    for one in [*order, *ours[shorter:], *plain[shorter:]]:
        if one.plan == chosen or space.share(one.plan) <= space.target.value + 1e-9:
            found.setdefault(one.plan, one)
    return tuple(found.values())[:most]


def _searched(space: Space, chosen: Plan, judged: Mapping[Plan, float]) -> list[Contender]:
    """What would be taken, and the search's best plans, of each set of branches the best one first."""
    within = [p for p in judged if not p.inputs and math.isfinite(judged[p]) and space.share(p) <= space.target.value + 1e-9]
    within.sort(key=lambda p: (judged[p], p.digest))
    depths: dict[frozenset[str], int] = {frozenset(chosen.branches): 1}
    ranks = {}
    for plan in within:
        key = frozenset(plan.branches)
        ranks[plan] = depths.get(key, 0)
        depths[key] = ranks[plan] + 1
    within.sort(key=lambda p: (ranks[p], judged[p], p.digest))
    return [Contender("taken without training", chosen), *(Contender(_named("found by the search", p), p) for p in within)]


def _closed(space: Space) -> list[Contender]:
    """Plans that need no search: whole streams first, since they are fast."""
    value, inner = space.target.value, whole_streams(space)
    obs = Allocated(criterion="obs" if "obs" in space.statistics.importance else space.ranking)
    l1 = Uniform("l1")
    found: list[Contender] = []
    if inner is not None:
        found.append(Contender("uniform l1, whole streams", l1.plan(inner, value)))
        found += [Contender("", obs.plan(part, value)) for part in looks(inner, value, 3)[-2:]]
        found.append(Contender("obs, whole streams", obs.plan(inner, value)))
    found += [Contender("", obs.plan(part, value)) for part in looks(space, value, 3)[1:2]]
    found += [Contender("obs", obs.plan(space, value)), Contender("uniform l1", l1.plan(space, value))]
    streams = set() if inner is None else set(space.groups) - set(inner.groups)
    return [c if c.name else replace(c, name=_named(_obs_on(c.plan, streams), c.plan)) for c in found]


def _obs_on(plan: Plan, streams: set[GroupId]) -> str:
    return "obs" if not streams or streams & set(plan.cuts) else "obs, whole streams"


def _named(text: str, plan: Plan) -> str:
    return f"{text}, {plural(len(plan.branches), 'branch')} out" if plan.branches else text


@dataclass(frozen=True, slots=True)
class Rated:
    """A round's outcome: (plan, its score), in the order of the round's plans."""

    steps: int
    scores: tuple[tuple[Plan, Score], ...]

    def best(self, plans: int) -> tuple[Plan, ...]:
        """So many plans, the lowest error first; what could not be scored comes last."""
        order = sorted(self.scores, key=lambda each: (not math.isfinite(each[1].error), each[1].error))
        return tuple(plan for plan, _ in order[:plans])


def finals(plans: Sequence[Plan], rounds: Sequence[Round]) -> Generator[Ask | Told, Sequence[Score], tuple[Rated, ...]]:
    """Trains the plans round by round; the same seed and batches for all, which is the evaluator's part.

    Args:
        plans: as many as the first round has.
        rounds: from :func:`halving`.
    """
    found: list[Rated] = []
    left = tuple(plans)
    for one in rounds:
        left = left[: one.plans] if not found else found[-1].best(one.plans)
        scores = yield Ask(plans=left, fidelity=Fidelity.TRAINED, steps=one.steps)
        found.append(Rated(one.steps, tuple(zip(left, scores, strict=True))))
    return tuple(found)
