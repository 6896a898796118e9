"""Who scores a search's plans: this process, or workers beside it. The scores are the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.core import Warned, cores, free_memory, plural
from compress.evaluation import Evaluator, Stored, store
from compress.networks import computing_with, preflight
from compress.pipeline.run import Run
from compress.pipeline.worker_choice import footprint, images_of
from compress.search import Ask, Evaluate, Score
from compress.workers import SpreadEvaluation, WorkerProcesses, check_memory, refuse_unguarded


class RunWorkers:
    """The workers of one run, from before its preparation to the end of its searches.

    Args:
        run: with a number of workers.
        folder: of files that they read; nobody else's.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.stored = 0
        count = run.job.workers or 1
        for what, value in _sent(run).items():
            store(self.folder / f"{what}.pt", value, f"the {what}")
        self.processes = WorkerProcesses(count)
        for what in _sent(run):
            self.processes.load(self.recipe(f"{what}.pt"))
        self.processes.first_loaded()

    def recipe(self, name: str) -> Stored:
        """Reads a file of theirs."""
        return Stored(str(self.folder / name), self.run.job.score_threads or 1)

    def evaluate(self, evaluator: Evaluator) -> Evaluate:
        """The evaluator on all workers; it is sent to them when the first score is wanted."""
        spread: list[SpreadEvaluation] = []

        def scores(ask: Ask) -> Sequence[Score]:
            if not spread:
                self.stored += 1
                name = f"evaluator-{self.stored}.pt"
                store(self.folder / name, evaluator, "the network with its images")
                self.processes.load(self.recipe(name))
                spread.append(SpreadEvaluation(self.processes, self.run.listen))
            return spread[0](ask)

        return scores


@contextmanager
def run_workers(run: Run) -> Iterator[RunWorkers | None]:
    """The workers that a run asks for, None where it is one.

    What they are to be sent, and the memory that they may fill, is checked before anything else.

    Raises:
        ConfigError: the memory does not hold them, or what they need cannot be sent.
        WorkerError: they do not start.
    """
    count = run.job.workers or 1
    if count == 1:
        yield None
        return
    refuse_unguarded()
    preflight(run.network)
    check_memory(count, footprint(run.network).worker_bytes(images_of(run.job, run.data)), free_memory())
    threads = run.job.score_threads or 1
    if count * threads > (there := cores()):
        wanted = f"{plural(count, 'worker')} of {plural(threads, 'thread')} each"
        run.listen(Warned(f"{wanted} are more than {there} cores: they wait for each other"))
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".workers-", suffix=".tmp") as folder:
        workers: RunWorkers | None = None
        with run.clock.phase("workers", width_told(run)):
            workers = RunWorkers(run, Path(folder))
        try:
            yield workers
        finally:
            workers.processes.close()


def _sent(run: Run) -> dict[str, Any]:
    """What an evaluation will be made of, as far as it is the user's own."""
    found = {"network": run.network.model, "task": run.task}
    if run.data is not None and run.scored:
        found["data"] = next(iter(run.data.validation.batches(1, limit=1)))
    return found


def width_told(run: Run) -> str:
    """Who scores, for people."""
    threads = run.job.score_threads or 1
    return f"{run.job.workers or 1} of {threads} {'thread' if threads == 1 else 'threads'} each"


@contextmanager
def scoring(run: Run, evaluator: Evaluator, workers: RunWorkers | None) -> Iterator[Evaluate]:
    """Scores plans as the job says: on its workers, or here with its threads."""
    if workers is not None:
        yield workers.evaluate(evaluator)
        return
    with computing_with(run.job.score_threads):
        yield evaluator
