"""One run, as a story: trace, score channels, search, pick, cut, prove, recover, export, clock, report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.core import Clock, Listen, Warned, ignore, write_json
from compress.data import Data, examined
from compress.errors import ConfigError
from compress.networks import Network
from compress.pipeline.conclusion import Result, conclude, finished
from compress.pipeline.csgd import csgd_images, with_clusters
from compress.pipeline.front import choose, save_front
from compress.pipeline.input_selection import may_select, settled
from compress.pipeline.job import Job
from compress.pipeline.latency_target import judge_latency, measured_target
from compress.pipeline.preparation import Prepared, prepare
from compress.pipeline.realisation import realise
from compress.pipeline.run import Run
from compress.pipeline.run_folder import claim
from compress.pipeline.search_summary import SearchSummary
from compress.pipeline.searching import Searched, search
from compress.pipeline.stagewise import progressive
from compress.search import Point


def prune(
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    *,
    fresh: bool = False,
    command: str = "",
    listen: Listen = ignore,
) -> Result:
    """Searches which channels can go, removes them, recovers, exports, proves and clocks.

    Args:
        network: from :func:`compress.network_from` or :func:`compress.network_of`.
        data: images; None uses synthetic ones and measures no accuracy.
        job: what to do.
        folder: the run's; the same call goes on where a killed one stopped.
        fresh: forget an earlier run.
        command: how the user started this, for the report.
        listen: receives events.

    Raises:
        CompressError: with what, where, and what to do next.
    """
    _check_training(job, data)
    for note in examined(data) if data is not None else ():
        listen(Warned(note))
    run = Run(network=network, data=data, job=job, folder=folder, clock=Clock(listen), command=command)
    with claim(folder, job, run.identity, fresh):
        if (ended := finished(network, folder)) is not None:
            return ended
        prepared = prepare(run)
        run = replace(run, job=replace(job, round_to=prepared.space.round_to))
        prepared = replace(prepared, space=may_select(run, prepared.space))
        found = progressive(run, prepared) if job.stage_epochs else search(run, prepared)
        front, notes = settled(run, prepared.space, found.front)
        found = replace(found, front=front, effort=found.effort.noting(*notes))
        chosen, why = _chosen(run, prepared, found)
        tried = measured_target(run, prepared, front, chosen.plan)
        plan = with_clusters(run, prepared.space, chosen.plan if tried is None else tried.best.plan)
        write_json(folder / "plan.json", plan.to_json())
        save_front(folder, front, chosen, prepared.space)
        done = realise(run, prepared, plan, found.trained)
        judge_latency(run, prepared.space, done, tried)
        summary = SearchSummary(
            points=len(front), chosen=why, fallback=prepared.evaluator.fallback, effort=found.effort, latency=tried
        )
        return conclude(run, prepared, done, summary)


def _check_training(job: Job, data: Data | None) -> None:
    """Training that the job wants needs images, and C-SGD enough of them; said before any work.

    Raises:
        ConfigError: there is nothing to train on.
        TrainError: filters cannot become equal on so few steps.
    """
    if job.realise == "csgd":
        csgd_images(job, data)
    if job.stage_epochs and (data is None or data.train is None):
        raise ConfigError(
            "stage_epochs is training, and there are no training images",
            hint="add --data with training images, or leave it out",
        )


def _chosen(run: Run, prepared: Prepared, found: Searched) -> tuple[Point, str]:
    """The point of the front that the target asks for, and why."""
    space, material = prepared.space, prepared.material
    judged = len(material.judged) if material.metric == "agreement" else 0
    chosen, why = choose(found.front, space.target, space.share, prepared.base_error, judged)
    if run.job.stage_epochs:
        why = f"cut and trained stage by stage; the stages left {space.share(chosen.plan):.3f}"
    return chosen, why
