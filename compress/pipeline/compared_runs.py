"""The runs of a comparison: one after another in this process, or side by side in processes of their own."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.core import Clock, Listen, Phase, Progressed, Warned, free_memory, ignore, make_folder, plural
from compress.data import Data
from compress.errors import CompressError, ConfigError
from compress.networks import Network, computing_with, identity
from compress.pipeline.compared_method import ComparedMethod, MethodComparison
from compress.pipeline.compared_run import RunFigures, compared_run
from compress.pipeline.external import ARM, ExternalPruner, prune_externally
from compress.pipeline.pruning import prune
from compress.pipeline.run import Run, loop_for, with_task
from compress.pipeline.worker_choice import footprint, images_of, kept_threads
from compress.report import ComparedRun, Report
from compress.workers import WorkEnded, check_memory, ray_kept, side_by_side

RunKey = tuple[str, int]
"""A method's name and a seed."""


@dataclass(frozen=True)
class ComparedRuns:
    """What all runs of a comparison stand on.

    Attributes:
        network: unpruned, with its task.
        data: images.
        wanted: methods, seeds, what they share.
        folder: a run folder per method and seed goes below it.
    """

    network: Network
    data: Data
    wanted: MethodComparison
    folder: Path

    @property
    def keys(self) -> tuple[RunKey, ...]:
        """In the table's order."""
        return tuple((e.name, s) for s in self.wanted.seeds for e in self.wanted.entries)

    def place(self, key: RunKey) -> Path:
        """A run's folder; made if needed."""
        return make_folder(self.folder / f"{key[0]}-seed-{key[1]}", hint="remove it, or choose another --out")

    def perform(self, key: RunKey, fresh: bool, listen: Listen) -> ComparedRun:
        """One method with one seed, ours or somebody else's; a finished one is only read.

        Raises:
            CompressError: as a run does.
        """
        one = next(e for e in self.wanted.entries if e.name == key[0])
        job, place = one.job(self.wanted.job, key[1]), self.place(key)
        with computing_with(self._threads(place, fresh)):
            run = Run(
                network=self.network,
                data=self.data,
                job=job,
                folder=place,
                clock=Clock(listen),
                train=loop_for(self.network, self.wanted.train),
            )
            return _performed(run, self.data, one, fresh)

    def _threads(self, place: Path, fresh: bool) -> int | None:
        """What a run computes with from its beginning to its end, where it may be one of several side by side."""
        if not self.wanted.spreads_runs:
            return None
        return self.wanted.job.score_threads or (None if fresh else kept_threads(place)) or 1

    def tried(self, key: RunKey, fresh: bool, listen: Listen) -> ComparedRun:
        """As :meth:`perform`; what ends one run only stands in its row.

        Raises:
            ConfigError: a setting does not fit a method, or a folder holds another protocol's run.
        """
        try:
            return self.perform(key, fresh, listen)
        except CompressError as error:
            return self.failed(key, error, listen)

    def failed(self, key: RunKey, error: Exception, listen: Listen) -> ComparedRun:
        """The row of a run that ended with an error.

        Raises:
            Exception: the error itself, where it ends the others, too.
        """
        if isinstance(error, ConfigError) or not isinstance(error, CompressError):
            raise error
        row = ComparedRun(method=key[0], seed=key[1], folder=self.place(key).name, failed=f"{error.message} ({error.hint})")
        listen(Warned(f"{_named(key)}: {row.failed}"))
        return row


def check_room(runs: ComparedRuns) -> None:
    """Whether the memory holds as many runs at a time as are wanted, each with the workers of its own.

    Raises:
        ConfigError: it does not; the number of workers that it holds is named.
    """
    count, workers = _side_by_side(runs), runs.wanted.job.workers
    if count > 1 and isinstance(workers, int):
        check_memory(workers, math.ceil(count * _bytes_of_a_run(runs, workers // count) / workers), free_memory())


def performed(runs: ComparedRuns, fresh: bool, listen: Listen) -> Iterator[tuple[RunKey, ComparedRun]]:
    """Every run with its row, as it ends.

    Raises:
        ConfigError: as :meth:`ComparedRuns.tried`.
    """
    count = _side_by_side(runs)
    if count > 1:
        yield from _spread(runs, count, fresh, listen)
        return
    with ray_kept(runs.wanted.job.ray):
        for number, key in enumerate(runs.keys, 1):
            listen(Phase(_named(key), f"run {number} of {len(runs.keys)}"))
            yield key, runs.tried(key, fresh, listen)


def _side_by_side(runs: ComparedRuns) -> int:
    """How many at a time."""
    wanted = runs.wanted
    return min(wanted.job.workers, len(runs.keys)) if wanted.spreads_runs and isinstance(wanted.job.workers, int) else 1


def _spread(runs: ComparedRuns, count: int, fresh: bool, listen: Listen) -> Iterator[tuple[RunKey, ComparedRun]]:
    """So many at a time; workers that are left share the runs' searches."""
    job = runs.wanted.job
    assert isinstance(job.workers, int)
    each = job.workers // count
    keys = [key for key in runs.keys if fresh or not _ended(runs.place(key))]
    wanted = replace(runs.wanted, job=replace(job, workers=each))
    recipe = RunRecipe(wanted, runs.folder, identity(runs.network, runs.data), fresh)
    listen(Phase("runs", f"{plural(len(runs.keys), 'run')}, {count} at a time, {each} of {job.workers} workers each"))
    done = 0
    with contextlib.closing(side_by_side(recipe, keys, count, listen)) as heard:
        for said in heard:
            if not isinstance(said, WorkEnded):
                listen(Progressed(done, len(keys), ", ".join(_named(keys[item]) for item in said)))
                continue
            done += 1
            key = keys[said.item]
            yield key, runs.tried(key, False, ignore) if said.error is None else runs.failed(key, said.error, listen)
    for key in runs.keys:
        if key not in keys:
            yield key, runs.tried(key, False, ignore)


def _ended(place: Path) -> bool:
    return any((place / name).exists() for name in ("report.json", ARM))


def _bytes_of_a_run(runs: ComparedRuns, workers: int) -> int:
    """What one run may fill at the most, with the workers of its own."""
    job, found = runs.wanted.job, footprint(runs.network)
    scoring = found.worker_bytes(images_of(job, runs.data))
    return scoring * (1 + workers if workers > 1 else 1) + found.training_bytes(job.batch)


@dataclass(frozen=True, slots=True)
class RunRecipe:
    """Opens network and images once in a process, and performs there the runs that it is given.

    Attributes:
        wanted: the comparison, with the workers of one run.
        folder: of the comparison.
        identity: of what was opened in the first process.
        fresh: forget earlier runs.
    """

    wanted: MethodComparison
    folder: Path
    identity: Mapping[str, str]
    fresh: bool

    def __call__(self) -> Any:
        """What performs a run.

        Raises:
            ConfigError: network or images are others here than in the first process.
        """
        assert self.wanted.reopen is not None
        with contextlib.redirect_stderr(io.StringIO()):  # the first process has told of it
            network, data = self.wanted.reopen()
        network = with_task(network, data, ignore)
        if data is None or identity(network, data) != self.identity:
            raise ConfigError(
                "network or images are others when they are opened a second time",
                hint="what opens them has to give the same every time; leave --workers out otherwise",
            )
        runs = ComparedRuns(network, data, self.wanted, self.folder)
        return partial(_told, runs, self.fresh)


def _told(runs: ComparedRuns, fresh: bool, key: RunKey, listen: Listen) -> None:
    """Performs a run; its warnings name it."""

    def hear(event: Any) -> None:
        if isinstance(event, Warned):
            listen(Warned(f"{_named(key)}: {event.text}"))

    runs.perform(key, fresh, hear)


def _named(key: RunKey) -> str:
    return f"{key[0]}, seed {key[1]}"


def _performed(run: Run, data: Data, one: ComparedMethod, fresh: bool) -> ComparedRun:
    if one.arm is not None:
        return prune_externally(run, data, ExternalPruner(one.name, one.origin or one.name, one.arm), fresh=fresh)
    report = prune(run.network, data, run.job, run.folder, train=run.train, fresh=fresh, listen=run.listen).report
    return _row(report, one.name, run.job.seed, run.folder)


def _row(report: Report, method: str, seed: int, folder: Path) -> ComparedRun:
    """What one of our own runs found."""
    figures = RunFigures(
        before=report.before,
        after=report.after,
        accuracy=report.scores,
        steps=report.steps,
        latency=report.latency,
        seconds=report.seconds,
    )
    forwards, requests = report.search.get("image_forwards", 0.0), report.search.get("requests", {})
    return replace(compared_run(method, seed, folder, figures), image_forwards=float(forwards), requests=requests)
