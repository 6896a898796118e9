"""What leaving out each branch alone does to a network's outputs: the searches' first word about depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from compress.core import BranchId, Plan
from compress.evaluation.evaluator import Evaluator

_PART, _FEWEST, _MOST = 10, 8, 64
"""At most a tenth of the budget's image-forwards; so many images for each branch at least, and at most."""


BranchKnown = Callable[[BranchId, int, Callable[[], float]], float]
"""From a branch, a number of images and the measurement to the error: for who knows it already."""


def _measured(name: BranchId, images: int, measure: Callable[[], float]) -> float:
    return measure()


def branch_errors(
    evaluator: Evaluator, branches: Sequence[BranchId], budget: int, kept: BranchKnown = _measured
) -> tuple[Mapping[BranchId, float], int]:
    """The outputs' relative squared error without each branch, batch norms re-estimated, and the image-forwards it took.

    Branches whose error is no number are left out: nothing is known of them. Where the budget is too small to see enough images
    without each, nothing is measured and no branch may go.

    Args:
        evaluator: of the unpruned network.
        branches: that may go.
        budget: image-forwards that there are for the whole search.
        kept: by default measures every branch.
    """
    images = min(_MOST, budget // _PART // max(2 * len(branches), 1), len(evaluator.material.judged))
    if not branches or images < min(_FEWEST, len(evaluator.material.judged)):
        return {}, 0
    found = {n: kept(n, images, partial(evaluator.whole_error, Plan(branches=(n,)), images)) for n in branches}
    return {name: error for name, error in found.items() if math.isfinite(error)}, 2 * images * len(branches)
