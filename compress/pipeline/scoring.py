"""Who scores a search's plans: this process, processes beside it, or actors of a Ray cluster. The scores are the same."""

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
from compress.workers import (
    RayActors,
    RayWanted,
    SpreadEvaluation,
    Transport,
    WorkerProcesses,
    check_memory,
    refuse_unguarded,
)

_KIB = 1024


class RunWorkers:
    """The workers of one run, from before its preparation to the end of its searches.

    Args:
        run: with workers.
        folder: of files that they are made from; nobody else's.
        transport: to them.
        instructions: that they compute with, where scores of this process could be rounded otherwise.
    """

    def __init__(self, run: Run, folder: Path, transport: Transport, instructions: str | None) -> None:
        self.run, self.folder, self.transport, self.instructions = run, folder, transport, instructions
        self.files = self.file_bytes = self.requests = 0
        for what, value in _sent(run).items():
            self.send(what, value, f"the {what}")
        self.transport.first_loaded()

    @property
    def told(self) -> str:
        """Who scores, for people."""
        threads = f"{plural(_threads(self.run), 'thread')} each"
        where = "" if self.run.job.ray is None else f" on {self.run.job.ray.told}"
        return f"{self.transport.width} of {threads}{where}"

    def send(self, name: str, value: Any, what: str) -> None:
        """Gives every worker a value, by a file."""
        path = self.folder / f"{name}.pt"
        store(path, value, what, by_value=self.run.job.ray is not None)
        self.files, self.file_bytes = self.files + 1, self.file_bytes + path.stat().st_size
        self.transport.load(Stored(str(path), _threads(self.run)))

    def evaluate(self, evaluator: Evaluator) -> Evaluate:
        """The evaluator on all workers; it is sent to them when the first score is wanted."""
        spread: list[SpreadEvaluation] = []

        def scores(ask: Ask) -> Sequence[Score]:
            if not spread:
                self.send(f"evaluator-{self.files}", evaluator, "the network with its images")
                spread.append(SpreadEvaluation(self.transport, self.run.listen))
            self.requests += 1
            return spread[0](ask)

        return scores

    def note_moved(self) -> None:
        """Writes down what went to and fro."""
        if self.requests:
            each = self.transport.moved / self.requests / _KIB
            self.run.note(
                f"workers: {self.told}; {plural(self.requests, 'request')} moved {each:.1f} KiB each, plans and scores; "
                f"network and images, {self.file_bytes / _KIB**2:.1f} MiB, went once to each machine"
            )


@contextmanager
def run_workers(run: Run) -> Iterator[RunWorkers | None]:
    """The workers that a run asks for, None where it is one.

    What they are to be sent, and the memory that they may fill, is checked before anything else.

    Raises:
        ConfigError: the memory does not hold them, what they need cannot be sent, or a Ray cluster cannot be used.
        WorkerError: they do not start.
    """
    if run.job.workers in (None, 1):
        yield None
        return
    if run.job.ray is None:
        refuse_unguarded()
    preflight(run.network)
    each = footprint(run.network).worker_bytes(images_of(run.job, run.data))
    if isinstance(run.job.workers, int):
        _check_room(run, run.job.workers, each)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".workers-", suffix=".tmp") as folder:
        with run.clock.phase("workers", _wanted(run)):
            transport, instructions = _started(run, each)
            try:
                workers = RunWorkers(run, Path(folder), transport, instructions)
            except BaseException:
                transport.close()
                raise
        try:
            yield workers
        finally:
            transport.close()
        workers.note_moved()


def _check_room(run: Run, count: int, each: int) -> None:
    check_memory(count, each, free_memory())
    threads = _threads(run)
    if count * threads > (there := cores()):
        wanted = f"{plural(count, 'worker')} of {plural(threads, 'thread')} each"
        run.listen(Warned(f"{wanted} are more than {there} cores: they wait for each other"))


def _started(run: Run, each: int) -> tuple[Transport, str | None]:
    """The workers, and the instructions that they compute with, where those are not this machine's."""
    wanted: RayWanted | None = run.job.ray
    if wanted is None:
        assert isinstance(run.job.workers, int)
        return WorkerProcesses(run.job.workers), None
    actors = RayActors(wanted, threads=_threads(run), memory=each, listen=run.listen)
    if actors.unlike_here is not None:
        run.warn(
            f"the nodes of {wanted.told} compute with {actors.unlike_here}, other instructions than this machine's: the last "
            "digits of scores are theirs, and scores of this machine are not taken for them",
            now=True,
        )
    return actors, actors.unlike_here


def _threads(run: Run) -> int:
    return run.job.score_threads or 1


def _wanted(run: Run) -> str:
    threads = f"{plural(_threads(run), 'thread')} each"
    return f"{run.job.workers} of {threads}" if run.job.ray is None else f"{run.job.ray.told}, {threads}"


def _sent(run: Run) -> dict[str, Any]:
    """What an evaluation will be made of, as far as it is the user's own."""
    found = {"network": run.network.model, "task": run.task}
    if run.data is not None and run.scored:
        found["data"] = next(iter(run.data.validation.batches(1, limit=1)))
    return found


@contextmanager
def scoring(run: Run, evaluator: Evaluator, workers: RunWorkers | None) -> Iterator[Evaluate]:
    """Scores plans as the job says: on its workers, or here with its threads."""
    if workers is not None:
        yield workers.evaluate(evaluator)
        return
    with computing_with(run.job.score_threads):
        yield evaluator
