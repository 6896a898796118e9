"""Plans that need no search, beside which SMOEA judges what its evolution found: near the target, and along its front.

Ours, as ``obs`` and ``uniform``, whose plans they are.
"""

from __future__ import annotations

import numpy as np

from compress.core import Plan
from compress.search.depth import depths
from compress.search.obs import Allocated, plan_for
from compress.search.space import Space
from compress.search.stages import whole_streams
from compress.search.uniform import Uniform
from compress.search.widths import reachable


def closed_forms(space: Space) -> list[Plan]:
    """Plans close below the target that need no search, and even widths by l1.

    Where branches may go they are those that ``obs`` chooses from; else, as in earlier versions' runs, which go on as they
    began: widths evenly or by marginal error, with the residual streams or without. The last one is the baseline itself: judged
    beside the first rival, so that the search is not behind it.
    """
    value, plans = space.target.value, list[Plan]()
    plain = [Uniform("l1").plan(space, value)] if "l1" in space.statistics.importance else []
    if space.branches:
        return [*(p for p in Allocated().choice(space) if p not in plain), *plain]
    for part in (s for s in (space, whole_streams(space)) if s is not None):
        if reachable(part.cost, part.groups, part.round_to) <= value:
            plans += [Uniform(part.ranking).plan(part, value), plan_for(part, value, part.ranking)]
    return [*plans, *plain]


def closed_forms_elsewhere(space: Space, most: int) -> list[Plan]:
    """Closed forms at other shares than the target's, where branches may go: evenly above it, and below it down to its half.

    At each share the widths that ``obs`` makes, and the same behind as many branches as that share asks for; fewer where
    neither comes so low.
    """
    value, above, below = space.target.value, (most // 2 + 1) // 2, most // 2 // 2
    plans = list[Plan]()
    for share in (*_between(value, 1.0, above), *_between(value / 2, value, below)):
        made = [Allocated().plan(part, share) for part in (space, *(space.without(row) for row in depths(space, share)[-1:]))]
        plans += [p for p in made if p and space.share(p) <= share + 1e-9]
    return list(dict.fromkeys(plans))


def _between(low: float, high: float, count: int) -> list[float]:
    """So many numbers, evenly, both ends left out."""
    return [float(x) for x in np.linspace(low, high, count + 2)[1:-1]]
