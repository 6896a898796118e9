"""The search of a run: the method's searcher, driven over the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.core import Plan, derive
from compress.errors import SearchError
from compress.pipeline.preparation import Prepared
from compress.pipeline.run import Run
from compress.pipeline.scoring import RunWorkers, scoring
from compress.pipeline.search_summary import Found, RequestCount, SearchEffort
from compress.search import METHODS, Ask, Asked, Fidelity, Front, Journal, Origin, Recovery, Search, Told, drive

_TRUEST: tuple[Recovery, ...] = ("reconstructed", "compensated", "bn")
_ABOVE = 1.05
"""Times its budget: what a search may spend without a word."""


@dataclass(frozen=True)
class Searched:
    """What a search leaves.

    Attributes:
        front: non-dominated networks.
        effort: what they cost.
        trained: the network, where it was cut and trained already on the way.
        judged: every plan that was scored on all images, with the truest recovery that any was -> its error.
        origins: what found each plan that was scored as a whole network, and when.
    """

    front: Front
    effort: SearchEffort
    trained: nn.Module | None = None
    judged: Mapping[Plan, float] = field(default_factory=dict)
    origins: Mapping[Plan, Found] = field(default_factory=dict)

    def found(self, plan: Plan) -> Found | None:
        """What found a plan, and when; selections of inputs may have been given up since. None of what no search found."""
        found = self.origins.get(plan)
        same = (o for p, o in self.origins.items() if p.cuts == plan.cuts and p.branches == plan.branches)
        return found if found is not None else next(same, None)


def search(run: Run, prepared: Prepared, workers: RunWorkers | None = None) -> Searched:
    """Drives the job's searcher, over workers where there are some; what the journal holds is not evaluated again.

    Raises:
        SearchError: nothing could be scored.
    """
    space, evaluator, job = prepared.space, prepared.evaluator, run.job
    searcher = METHODS[job.method].make(**job.options)
    rng = np.random.default_rng(derive(job.seed, "search"))
    requests: dict[str, RequestCount] = {}
    told: list[Told] = []
    heard = _Heard()

    def count(event: Asked) -> None:
        requests[event.fidelity] = requests.get(event.fidelity, RequestCount()) + RequestCount(1, event.asked, event.distinct)
        heard.spent = event.spent
        run.clock.add("search", event.earlier)
        run.listen(replace(event, stages=len(space.stages), counted=prepared.material.counted))

    shared = "" if workers is None else f", workers: {workers.told}"
    journal = Journal(run.folder / "journal.jsonl", score_context(run, prepared, workers))
    with (
        run.clock.phase("search", f"{job.method}, {space.budget:,} image-forwards{shared}"),
        scoring(run, evaluator, workers) as evaluate,
    ):
        front = drive(
            _noting(searcher.search(space, rng), heard),
            evaluate,
            journal,
            price=evaluator.price,
            budget=space.budget,
            listen=count,
            tell=told.append,
        )
    if not front:
        raise SearchError("no candidate could be scored", hint="give more or other images with --data")
    effort = SearchEffort(
        budget=space.budget,
        image_forwards=heard.spent,
        requests=requests,
        metric=prepared.material.metric,
        judged_images=len(prepared.material.judged),
        figures={name: value for t in told for name, value in t.figures.items()},
        notes=tuple(note for t in told for note in t.notes),
        ended=tuple(t.ended for t in told if t.ended),
    )
    if heard.spent > _ABOVE * space.budget:
        least = f"the least that {job.method} needs with these options"
        effort = effort.noting(f"the search spent {heard.spent:,.0f} image-forwards, {space.budget:,} were allowed: {least}")
    truest = next((heard.judged[r] for r in _TRUEST if r in heard.judged), {})
    by = {plan: origin for t in told for plan, origin in t.origins.items()}
    origins = {plan: Found(by.get(plan, Origin.CLOSED_FORM), when) for plan, when in heard.first.items()}
    return Searched(front=front, effort=effort, judged=truest, origins=origins)


@dataclass
class _Heard:
    """What a search's requests tell.

    Attributes:
        judged: errors of whole networks on all images, by what was done to them before.
        first: whole network -> image-forwards that were spent when it had its first score.
        spent: image-forwards so far.
    """

    judged: dict[Recovery, dict[Plan, float]] = field(default_factory=dict)
    first: dict[Plan, float] = field(default_factory=dict)
    spent: float = 0.0


def _noting(search: Search, heard: _Heard) -> Search:
    """The same search; what it hears of whole networks on all images is written down, by what was done to them before."""
    scores: Any = None
    while True:
        try:
            asked = search.send(scores)
        except StopIteration as ended:
            front: Front = ended.value
            return front
        scores = yield asked
        if not isinstance(asked, Ask) or asked.fidelity is not Fidelity.FULL:
            continue
        heard.first = {**dict.fromkeys(asked.plans, heard.spent), **heard.first}
        if not asked.images:
            found = zip(asked.plans, scores, strict=True)
            heard.judged.setdefault(asked.recovery, {}).update((plan, score.error) for plan, score in found)


def score_context(run: Run, prepared: Prepared, workers: RunWorkers | None = None) -> str:
    """Everything that a score depends on besides plan and fidelity: a journal's scores hold within it only."""
    elsewhere = None if workers is None else workers.instructions
    material = prepared.material
    return json.dumps(
        {
            **run.identity,
            "job": {k: v for k, v in run.job.to_json().items() if k in ("seed", "calibration", "ignore", "streams")},
            "images": [len(material.calibration), len(material.judged), material.metric],
            **_computed_by(run.job.score_threads),
            **({} if elsewhere is None else {"instructions": elsewhere}),
        },
        sort_keys=True,
    )


def _computed_by(threads: int | None) -> dict[str, str | int]:
    """What rounds a score: another torch, or another number of threads, adds in another order.

    What scores stand on is computed with torch's own number of threads, which is told where the scores have another one.
    """
    own = torch.get_num_threads()
    by: dict[str, str | int] = {"torch": torch.__version__, "threads": threads or own}
    return by if threads in (None, own) else {**by, "prepared": own}
