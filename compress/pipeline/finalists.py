"""The last choice of a search: some plans of the target are trained for a few steps, and the best of them is taken."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.core import Plan, count, plural
from compress.evaluation import Evaluator
from compress.pipeline.preparation import Prepared
from compress.pipeline.run import Run
from compress.pipeline.searching import Searched, score_context
from compress.pipeline.short_training import ShortTraining
from compress.pipeline.steps import FINALISTS, WORTH_FINALISTS, finalists_of, rounds_of
from compress.report import Finalist, Finalists, FinalistScore
from compress.search import (
    METHODS,
    Ask,
    Asked,
    Contender,
    Fidelity,
    Journal,
    Rated,
    Score,
    Told,
    contenders,
    drive,
    finals,
    halving,
)


@dataclass(frozen=True)
class ShortTrainings:
    """What they said.

    Attributes:
        last: the plans of the last round, the best first -> error.
        untrained: of every plan -> its error before.
        steps: of a training of the last round.
        told: for the report; nobody has won yet.
    """

    last: Mapping[Plan, float]
    untrained: Mapping[Plan, float]
    steps: int
    told: Finalists

    def won(self, plan: Plan, why: str) -> Finalists:
        """The report's part, with the plan that was taken."""
        rows = tuple(replace(row, won=row.plan == plan.digest) for row in self.told.rows)
        return replace(self.told, rows=rows, why=why)


def why_none(run: Run) -> str:
    """Why no plan is trained before the choice; empty where some are."""
    job, task = run.job, run.task
    images = run.data.train if run.data is not None else None
    if job.finalists == 0 or job.epochs == 0:
        return "not wanted"
    if images is None:
        return "there are no training images"
    short = not finalists_of(job, len(images))
    reasons = {
        f"{job.method} has no others to choose from": not METHODS[job.method].finalists,
        "C-SGD trains in its own way": job.realise == "csgd",
        "stages are trained one after another": job.stage_epochs > 0,
        "no size is wanted that they could share": job.target == "max_drop",
        f"the training is your own, and the task {task.name} has no loss": run.train is not None and not task.has("loss"),
        f"a training of fewer than {WORTH_FINALISTS} epochs has none unless --finalists {FINALISTS} asks for them": short,
        f"half of an epoch of {plural(len(images), 'image')} is too short": not rounds_of(run, images),
    }
    return next((why for why, holds in reasons.items() if holds), "")


def train_finalists(run: Run, prepared: Prepared, searched: Searched, chosen: Plan) -> ShortTrainings | None:
    """Trains plans that meet the target, ever fewer for ever more steps; None where there are not two.

    Every score stands in the run's journal before it is used: a run that is killed in here goes on where it stopped.

    Args:
        run: with training images, and no reason against it (:func:`why_none`).
        prepared: its judged images judge; they are of the validation split.
        searched: the search's scores.
        chosen: what would be taken without.
    """
    assert run.data is not None and run.data.train is not None
    rounds, context = rounds_of(run, run.data.train), score_context(run, prepared)
    found = contenders(prepared.space, chosen, searched.judged, rounds[0].plans)
    if len(found) < 2:
        return None
    rounds = halving(len(found), sum(r.plans * r.steps for r in rounds))
    found = found[: rounds[0].plans]
    training, file, spent = ShortTraining(run, prepared.evaluator, run.data.train), run.folder / "journal.jsonl", 0.0

    def hear(event: Asked) -> None:
        nonlocal spent
        spent = event.spent
        run.clock.add("finalists", event.earlier)
        run.listen(event)

    with run.clock.phase("finalists", ", ".join(f"{plural(r.plans, 'plan')} of {plural(r.steps, 'step')}" for r in rounds)):
        new = [c.plan for c in found if c.plan not in searched.judged]
        ask = Ask(plans=new, fidelity=Fidelity.FULL, recovery=prepared.space.recovery)
        untrained = dict(searched.judged) | dict(
            zip(new, _errors(ask, prepared.evaluator, Journal(file, context)), strict=True)
        )
        rated = drive(
            finals([c.plan for c in found], rounds),
            training,
            Journal(file, f"{context} {training.context}"),
            price=training.price,
            budget=sum(r.plans * training.price(Ask(plans=(), fidelity=Fidelity.TRAINED, steps=r.steps)) for r in rounds),
            listen=hear,
        )
    errors = {plan: score.error for plan, score in rated[-1].scores}
    last = {plan: errors[plan] for plan in rated[-1].best(len(errors))}
    return ShortTrainings(
        last=last, untrained=untrained, steps=rated[-1].steps, told=_told(prepared, found, untrained, rated, spent)
    )


def _errors(ask: Ask, evaluator: Evaluator, journal: Journal) -> list[float]:
    """Of whole untrained networks, journalled."""

    def once() -> Generator[Ask | Told, Sequence[Score], list[float]]:
        scores = yield ask
        return [s.error for s in scores]

    return drive(once(), evaluator, journal, price=evaluator.price) if ask.plans else []


def _told(
    prepared: Prepared, found: Sequence[Contender], untrained: Mapping[Plan, float], rated: Sequence[Rated], spent: float
) -> Finalists:
    """All that the report shows."""
    space, rows = prepared.space, []
    for one in found:
        share = count(space.topology, one.plan, table=space.table).share_of(space.cost.whole)
        scores = [(r.steps, score) for r in rated for plan, score in r.scores if plan == one.plan]
        rows.append(
            Finalist(
                name=one.name,
                plan=one.plan.digest,
                macs=share.macs,
                latency=share.latency,
                untrained=_finite(untrained[one.plan]),
                scores=tuple(FinalistScore(n, _finite(s.error), *(s.interval or (None, None))) for n, s in scores),
            )
        )
    steps = sum(r.steps * len(r.scores) for r in rated)
    return Finalists(rows=tuple(rows), steps=steps, image_forwards=spent, images=len(prepared.material.judged))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
