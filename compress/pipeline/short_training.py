"""What a plan is worth after a few steps of the run's own training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from torch import nn

from compress.core import Plan
from compress.data import Split
from compress.errors import TrainError
from compress.evaluation import Evaluator
from compress.pipeline.run import Run
from compress.pipeline.steps import rate_for, schedule_for
from compress.recovery import Schedule, apart, fit
from compress.search import Ask, Fidelity, Recovery, Score
from compress.surgery import cut

_STUDENT = 3
"""Image-forwards that one trained image costs a small network: forward, and backward twice that."""


@dataclass(frozen=True)
class FirstBatches:
    """The first so many batches of a split, in whatever order they are wanted."""

    split: Split
    count: int
    batch: int

    @property
    def digest(self) -> str:
        """Of the split and the number."""
        return f"{self.split.digest}-{self.count}"

    def __len__(self) -> int:
        return min(self.count * self.batch, len(self.split))

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[Any]:
        """The split's own batches, the first ones of that order."""
        few = len(self) if limit is None else min(limit, len(self))
        yield from islice(self.split.batches(batch_size, shuffle_seed=shuffle_seed, augment=augment, limit=few), self.count)


@dataclass
class ShortTraining:
    """Scores plans after a whole training of so many steps, from the network as it is recovered without any.

    All plans see the same images in the same order, and are judged on the images that judged the search: of the validation
    split, never of the test split.

    Attributes:
        run: how it trains, and how plans are recovered.
        evaluator: recovers and judges.
        images: to train on.
        starts: recovered networks of the plans of the last request.
    """

    run: Run
    evaluator: Evaluator
    images: Split
    starts: dict[Plan, nn.Module] = field(default_factory=dict)

    def __call__(self, ask: Ask) -> list[Score]:
        """Scores every plan of a request."""
        self.starts = {plan: model for plan, model in self.starts.items() if plan in ask.plans}
        return [self._score(plan, ask.steps) for plan in ask.plans]

    def price(self, ask: Ask) -> float:
        """Image-forwards of one plan at the most: its recovery, forward, backward and the teacher of an image, judging."""
        schedule = self.schedule(ask.steps)
        each = _STUDENT + (schedule.distill > 0)
        return ask.steps * schedule.batch * each + self.evaluator.price(self._untrained)

    def schedule(self, steps: int) -> Schedule:
        """One pass over as many images as there are steps for, warm-up and all."""
        return replace(schedule_for(self.run, self.images), epochs=1, lr=rate_for(self.run.job, steps))

    @property
    def context(self) -> str:
        """What a score depends on besides plan, steps and what every score of the run depends on."""
        return f"{sorted(self.schedule(1).to_json().items())} {self.run.job.recover} {self.images.digest}"

    @property
    def _untrained(self) -> Ask:
        recovery: Recovery = "reconstructed" if self.run.job.recover == "reconstruct" else "bn"
        return Ask(plans=(), fidelity=Fidelity.FULL, recovery=recovery)

    def _score(self, plan: Plan, steps: int) -> Score:
        """NaN where the training came to nothing."""
        if plan not in self.starts:
            self.starts[plan] = self._start(plan)
        schedule = self.schedule(steps)
        teacher = self.run.network.model if schedule.distill else None
        try:
            with apart():
                trained = fit(self.starts[plan], FirstBatches(self.images, steps, schedule.batch), schedule, teacher=teacher)
        except TrainError as error:
            self.run.note(f"a finalist came to nothing: {error.message}")
            return Score(math.nan)
        return self.evaluator.judge(trained, interval=True)

    def _start(self, plan: Plan) -> nn.Module:
        evaluator = self.evaluator
        if self.run.job.recover == "none":
            return cut(self.run.network.model, evaluator.topology, plan)
        return evaluator.small(plan, len(evaluator.material.calibration), self._untrained.recovery)
