"""The default: closed forms, or the evolution where it was measured to pay.

Ours. Where ``smoea`` and ``obs`` were run on the same images at the same share (benchmarks/README.md, the accuracy grid: half
of the MACs, no training), the evolution took five times as long on ResNet-20 for 0.2 points less, and twice as long on
ResNet-56 for 1.2 points more, all branches staying. Where branches may go, it found nothing that closed forms did not (What
SMOEA's evolution is worth, there). So it is taken where a case is at least as large as that one in every respect, and closed
forms are elsewhere: nothing says that it pays there, and ``--method smoea`` asks for it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import PositiveInt

from compress.core import Plan, plural
from compress.search.base import Search, Told
from compress.search.obs import Allocated
from compress.search.options import Fraction
from compress.search.smoea import Smoea
from compress.search.space import Space

_EVIDENCE = "benchmarks/README.md, the accuracy grid"


@dataclass(frozen=True, slots=True)
class Case:
    """What the decision goes by.

    Attributes:
        groups: channel groups that may be cut.
        budget: image-forwards of the search.
        target: ``macs``, ``params``, ``latency`` or ``max_drop``.
        value: of the target, a share but for ``max_drop``.
        metric: what a full score is: ``accuracy``, ``score``, ``agreement`` or ``output``.
        branches: that may be left out.
    """

    groups: int
    budget: int
    target: str
    value: float
    metric: str
    branches: int = 0

    @staticmethod
    def of(space: Space) -> Case:
        """The case of a space."""
        return Case(
            groups=len(space.groups),
            budget=space.budget,
            target=space.target.kind,
            value=space.target.value,
            metric=space.metric,
            branches=len(space.branches),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A method and why.

    Attributes:
        method: its name.
        why: a sentence for the report.
    """

    method: str
    why: str


@dataclass(frozen=True, slots=True)
class Auto:
    """Closed forms (``obs``), or the evolution (``smoea``) where it was measured to pay.

    Attributes:
        groups: channel groups from which on the evolution is taken. Cost: minutes instead of seconds where it is lower.
        budget: image-forwards of the search from which on it is. Cost: the same.
        share: the largest share of the MACs to be kept at which it is. Cost: the same where it is higher.
    """

    groups: PositiveInt = 28
    budget: PositiveInt = 40_000
    share: Fraction = 0.5

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it may look at besides the run's ranking."""
        return tuple(dict.fromkeys((*Smoea().criteria, *Allocated().criteria)))

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """That of the method that is taken, with its defaults; says which and why."""
        taken = self.choose(Case.of(space))
        yield Told(notes=(taken.why,))
        searcher = Smoea() if taken.method == "smoea" else Allocated()
        return (yield from searcher.search(space, rng))

    def plan(self, space: Space, budget: float) -> Plan:
        """The closed form of one budget, nothing scored."""
        return Allocated().plan(space, budget)

    def choose(self, case: Case) -> Choice:
        """Which method, and why: a pure decision."""
        lacking = [what for what, there in self._wanted(case).items() if not there]
        if lacking:
            return Choice(
                "obs", f"auto took obs (closed forms): {lacking[0]} ({_EVIDENCE}); --method smoea runs it all the same"
            )
        seen = (
            f"{plural(case.groups, 'channel group')}, {case.budget:,} image-forwards and labels, for {case.value:g} of the MACs"
        )
        return Choice(
            "smoea", f"auto took smoea (an evolution): it was measured to pay in a case like this one: {seen} ({_EVIDENCE})"
        )

    def _wanted(self, case: Case) -> Mapping[str, bool]:
        """What is said where the case lacks it -> whether it is there."""
        paid = "an evolution was measured to pay"
        return {
            f"{paid} for a share of the MACs only, the target is {case.target}": case.target == "macs",
            f"{paid} only where labels judge it, here the score is the {case.metric}": case.metric == "accuracy",
            f"{paid} from {self.groups} channel groups on, this network has {case.groups}": case.groups >= self.groups,
            f"{paid} from {self.budget:,} image-forwards on, here are {case.budget:,}": case.budget >= self.budget,
            f"{paid} up to {self.share:g} of the MACs, here {case.value:g} is to be kept": case.value <= self.share,
            f"{paid} where every branch stays, here {case.branches} may go": case.branches == 0,
        }
