"""One run, as a story: trace, score channels, search, pick, cut, prove, recover, export, clock, report."""

from __future__ import annotations

from pathlib import Path

from compress.core import Clock, Listen, Warned, ignore, this_process
from compress.data import Data, examined
from compress.errors import ConfigError
from compress.networks import Network
from compress.pipeline.announcing import announce_folder
from compress.pipeline.conclusion import Result, conclude, finished
from compress.pipeline.csgd import csgd_images
from compress.pipeline.deciding import decided
from compress.pipeline.followers import among_processes, follow
from compress.pipeline.job import Job
from compress.pipeline.latency_target import judge_latency
from compress.pipeline.module_files import check_torch_runtimes
from compress.pipeline.own_training import with_loop
from compress.pipeline.realisation import realise
from compress.pipeline.run import Run, loop_for, with_task
from compress.pipeline.run_folder import as_held, claim
from compress.pipeline.worker_choice import with_workers
from compress.recovery import OwnLoop


def prune(
    network: Network,
    data: Data | None,
    job: Job,
    folder: str | Path,
    *,
    train: OwnLoop | None = None,
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
        train: the user's own training loop, ``(model, teacher, data, budget, hooks) -> model``, see docs/own-loop.md; by
            default ours. It has to be given again to go on, or to :func:`compress.pick` from the run.
        fresh: forget an earlier run.
        command: how the user started this, for the report.
        listen: receives events.

    Started by torchrun or ``accelerate launch``, the first process does all that; the others train with it, and read the
    result from the folder at the end.

    Raises:
        CompressError: with what, where, and what to do next.
    """
    folder = Path(folder)
    network = with_task(network, data, listen)
    train = loop_for(network, train)
    job = with_loop(job, train, data)
    for note in examined(data) if data is not None else ():
        listen(Warned(note))
    check_torch_runtimes(network, job.runtimes)
    job = with_workers(network, data, as_held(folder, job, fresh), folder, fresh)
    run = Run(network=network, data=data, job=job, folder=folder, clock=Clock(listen), command=command, train=train)
    _check_training(run)
    with among_processes(run) as run:
        if not this_process().first:
            return follow(run)
        return _pruned(run, fresh)


def _pruned(run: Run, fresh: bool) -> Result:
    """The run itself, in the process that decides and writes."""
    network, folder = run.network, run.folder
    announce_folder(run)
    with claim(folder, run.job, run.identity, fresh, run.task.figure):
        if (ended := finished(network, folder)) is not None:
            return ended
        found = decided(run)
        run, prepared = found.run, found.prepared
        done = realise(run, prepared, found.plan, found.searched.trained)
        judge_latency(run, prepared.space, done, found.trials)
        return conclude(run, prepared, done, found.summary)


def _check_training(run: Run) -> None:
    """Training that the job wants needs images, and C-SGD enough of them; said before any work.

    Raises:
        ConfigError: there is nothing to train on.
        TrainError: filters cannot become equal on so few steps.
    """
    job, data = run.job, run.data
    if job.realise == "csgd":
        csgd_images(run)
    if job.stage_epochs and run.train is None and (data is None or data.train is None):
        raise ConfigError(
            "stage_epochs is training, and there are no training images",
            hint="add --data with training images, or leave it out",
        )
