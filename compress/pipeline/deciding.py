"""The search alone: which channels go, decided and written down; nothing is recovered, trained or exported."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from compress.core import Clock, LatencyTable, Listen, Plan, Topology, Warned, ignore, plural, read_json, write_json
from compress.data import Data, examined
from compress.errors import ConfigError
from compress.networks import Network
from compress.pipeline.csgd import with_clusters
from compress.pipeline.equals import Resolution, fastest_of_equals, largest_of_equals, predictor, slower_than_plain
from compress.pipeline.finalists import train_finalists, why_none
from compress.pipeline.front import FRONT, choose, read_front, save_front
from compress.pipeline.input_selection import may_select, settled
from compress.pipeline.inspection import traced_with_agreement
from compress.pipeline.job import Job
from compress.pipeline.latency_target import measured_target
from compress.pipeline.preparation import Prepared, prepare
from compress.pipeline.run import Run, with_task
from compress.pipeline.run_folder import as_held, claim
from compress.pipeline.scoring import run_workers
from compress.pipeline.search_summary import Found, LatencyTrials, SearchSummary
from compress.pipeline.searching import Searched, search
from compress.pipeline.stagewise import progressive
from compress.pipeline.worker_choice import with_workers
from compress.report import Finalists
from compress.search import Fidelity, Front, Point

_PLAN = "plan.json"
_FRESH = "start over with fresh=True, or choose another folder"


@dataclass(frozen=True)
class Decision:
    """What a search decided.

    Attributes:
        plan: what to cut; ``compress.cut(network.model, topology, plan)`` does it.
        topology: of the unpruned network.
        front: every network that the search found worth offering, cheapest first; a point's ``plan`` is cut alike.
        why: why this plan was taken.
        found_by: what found it: a closed form, the neighbourhood of one, the evolution; empty of a plan that no search scored.
    """

    plan: Plan
    topology: Topology
    front: Front
    why: str
    found_by: str = ""


def decide(
    network: Network, data: Data | None, job: Job, folder: str | Path, *, fresh: bool = False, listen: Listen = ignore
) -> Decision:
    """The search of a run without the rest of it: for those who cut, recover and train by themselves.

    The folder receives ``plan.json``, ``front.json`` and the journal of scores. The same call goes on where a killed one
    stopped, and only reads where the search has ended; :func:`compress.prune` with the same job and folder takes the decision
    over without evaluating anything again.

    Args:
        network: from :func:`compress.network_from` or :func:`compress.network_of`.
        data: images; None searches on synthetic ones.
        job: method, target and budget; of what comes after the cut it only says how candidates are recovered to be judged.
        folder: the run's.
        fresh: forget an earlier run.
        listen: receives events.

    Raises:
        CompressError: with what, where, and what to do next. A job that trains stage by stage is a ConfigError: there is no
            decision without its training.
    """
    if job.stage_epochs:
        raise ConfigError(
            "stage_epochs is training between decisions, so that there is no decision without it",
            hint="leave stage_epochs out, or use compress.prune",
        )
    folder = Path(folder)
    network = with_task(network, data, listen)
    for note in examined(data) if data is not None else ():
        listen(Warned(note))
    job = with_workers(network, data, as_held(folder, job, fresh), folder, fresh)
    run = Run(network=network, data=data, job=job, folder=folder, clock=Clock(listen))
    with claim(folder, job, run.identity, fresh, run.task.figure):
        if (folder / _PLAN).exists() and (folder / FRONT).exists():  # written in this order, at the search's end
            plan = Plan.from_json(read_json(folder / _PLAN, hint=_FRESH))
            told = read_json(folder / FRONT, hint=_FRESH)
            topology, agreement = traced_with_agreement(network)
            for warning in agreement.warnings():
                listen(Warned(warning))
            return Decision(
                plan=plan,
                topology=topology,
                front=read_front(folder, _FRESH),
                why=str(told.get("why", "")),
                found_by=str(told.get("found_by", "")),
            )
        found = decided(run)
    return Decision(
        plan=found.plan,
        topology=found.prepared.topology,
        front=found.searched.front,
        why=found.why,
        found_by=_found_by(found.origin, found.finalists),
    )


@dataclass(frozen=True)
class Decided:
    """A decision and all that it rests on, for a run that goes on to make it real.

    Attributes:
        run: with the widths' alignment settled.
        prepared: what the search stood on.
        searched: what it left.
        plan: what to cut.
        why: why this plan was taken.
        origin: what found the plan, or the one whose widths were then brought to a measured latency; None of no search.
        trials: how a target of latency was met.
        finalists: the last choice by short trainings, where there was one.
    """

    run: Run
    prepared: Prepared
    searched: Searched
    plan: Plan
    why: str
    origin: Found | None
    trials: LatencyTrials | None
    finalists: Finalists | None = None

    @property
    def summary(self) -> SearchSummary:
        """For the report."""
        return SearchSummary(
            points=len(self.searched.front),
            chosen=self.why,
            fallback=self.prepared.evaluator.fallback,
            effort=self.searched.effort,
            latency=self.trials,
            found=self.origin,
            finalists=self.finalists,
        )


def decided(run: Run) -> Decided:
    """Searches, chooses the point that the target asks for, and writes plan and front into the run's folder.

    Raises:
        CompressError: nothing can be cut, or nothing could be scored.
    """
    with run_workers(run) as workers:
        prepared = prepare(run)
        run = replace(run, job=replace(run.job, round_to=prepared.space.round_to))
        prepared = replace(prepared, space=may_select(run, prepared.space))
        found = (progressive if run.job.stage_epochs else search)(run, prepared, workers)
    front, notes = settled(run, prepared.space, found.front)
    found = replace(found, front=front, effort=found.effort.noting(*notes))
    chosen, why = _chosen(run, prepared, found)
    table = predictor(run, prepared) if run.job.target in ("macs", "params") and run.job.realise == "cut" else None
    if table is not None and run.job.prefer_fast and not run.job.stage_epochs:
        chosen, faster = fastest_of_equals(prepared.space, _resolution(prepared), table, found.judged, chosen)
        why = faster or why
    chosen, why, finalists = _after_training(run, prepared, found, table, chosen, why)
    front = _with_point(front, chosen)
    found = replace(found, front=front)
    if table is not None and (slower := slower_than_plain(prepared.space, table, chosen.plan)):
        run.warn(slower)
    trials = measured_target(run, prepared, front, chosen.plan)
    plan = with_clusters(run, prepared.space, chosen.plan if trials is None else trials.best.plan)
    write_json(run.folder / _PLAN, plan.to_json())
    origin = found.found(plan) or found.found(chosen.plan)
    told = {"why": why, "found_by": _found_by(origin, finalists)}
    save_front(run.folder, front, chosen, prepared.space, told, prepared.material.counted)
    return Decided(
        run=run, prepared=prepared, searched=found, plan=plan, why=why, origin=origin, trials=trials, finalists=finalists
    )


def _found_by(origin: Found | None, finalists: Finalists | None) -> str:
    """In words; only the finalists' own closed forms are no search's."""
    won = [row.name for row in finalists.rows if row.won] if origin is None and finalists is not None else []
    return str(origin.by) if origin is not None else ", ".join(f"a closed form: {name}" for name in won)


def _after_training(
    run: Run, prepared: Prepared, found: Searched, table: LatencyTable | None, chosen: Point, why: str
) -> tuple[Point, str, Finalists | None]:
    """The choice, reconsidered after short trainings of some plans; the same where there are none."""
    space = prepared.space
    if reason := why_none(run):
        if run.job.finalists:
            run.note(f"no finalists were trained: {reason}")
        return chosen, why, None
    trained = train_finalists(run, prepared, found, chosen.plan)
    if trained is None:
        return chosen, why, None
    plan, error = next(iter(trained.last.items()))
    if math.isnan(error):
        return chosen, why, trained.won(chosen.plan, "no training came to anything: the choice before it stands")
    tried, steps = plural(len(trained.told.rows), "plan"), plural(trained.steps, "step")
    why = f"the best of {tried} after short trainings, the last ones of {steps}"
    best = space.point(plan, error, Fidelity.TRAINED)
    if table is not None and run.job.prefer_fast:
        best, faster = fastest_of_equals(space, _resolution(prepared), table, trained.last, best)
        why = f"after short trainings, {faster}" if faster else why
    if run.job.target == "latency" and run.job.prefer_large:
        best, larger = largest_of_equals(space, _resolution(prepared), trained.last, best)
        why = f"after short trainings, {larger}" if larger else why
    before = trained.untrained[best.plan]
    taken = space.point(best.plan, before, Fidelity.FULL) if math.isfinite(before) else best
    return taken, why, trained.won(best.plan, why)


def _resolution(prepared: Prepared) -> Resolution:
    return Resolution(len(prepared.material.judged), shares=prepared.material.metric in ("accuracy", "agreement"))


def _with_point(front: Front, point: Point) -> Front:
    """The front and a point that is as good as one of it."""
    return front if point in front else tuple(sorted((*front, point), key=lambda p: (p.cost.macs, p.error)))


def _chosen(run: Run, prepared: Prepared, found: Searched) -> tuple[Point, str]:
    """The point of the front that the target asks for, and why."""
    space, material = prepared.space, prepared.material
    judged = len(material.judged) if material.metric == "agreement" else 0
    base = prepared.base_error if space.target.kind == "max_drop" else 0.0
    chosen, why = choose(found.front, space.target, space.share, base, judged, run.task)
    if run.job.stage_epochs:
        why = f"cut and trained stage by stage; the stages left {space.share(chosen.plan):.3f}"
    return chosen, why
