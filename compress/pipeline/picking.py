"""Another point of a run's front made real, without a new search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from compress.core import Clock, Listen, Plan, count, ignore, make_folder, read_json, this_process, write_json
from compress.data import Data
from compress.errors import ConfigError, SearchError
from compress.networks import Network, identity
from compress.pipeline.announcing import announce_folder
from compress.pipeline.conclusion import Result, conclude, finished
from compress.pipeline.csgd import with_clusters
from compress.pipeline.followers import among_processes, follow
from compress.pipeline.front import PointAsked, PointWanted, read_front
from compress.pipeline.inspection import traced
from compress.pipeline.job import Job, make_job, stored_values
from compress.pipeline.own_training import with_loop
from compress.pipeline.preparation import Prepared, prepare
from compress.pipeline.realisation import realise
from compress.pipeline.run import Run, loop_for, with_task
from compress.pipeline.run_folder import claim
from compress.pipeline.search_summary import SearchSummary
from compress.recovery import OwnLoop
from compress.report import verified
from compress.search import METHODS, Front, Planner

_AGAIN = "run `compress prune ... --out` there first"


def pick(
    network: Network,
    data: Data | None,
    folder: str | Path,
    *,
    epochs: int | None = None,
    train: OwnLoop | None = None,
    out: str | Path | None = None,
    listen: Listen = ignore,
    **asked: Unpack[PointAsked],
) -> Result:
    """Makes another point of a run's front real, without a new search.

    Methods that have a plan for every budget (``obs``, whose elimination is nested, ``uniform``, ``global``) make one for the
    very share that is wanted where the front has none near it.

    Args:
        network: the run's unpruned network.
        data: the run's images.
        folder: the run's folder.
        epochs: fine-tuning, where it is to differ from the run's: 0 leaves the network as it is recovered without training.
        train: the user's own training loop, which has to be named again where the run was trained by one.
        out: the new folder; by default ``<folder>/picks/`` and the point's index or the share.
        listen: receives events.
        asked: one of ``index``: of the point in ``front.json``; ``by``: ``knee``; ``macs``: the most accurate point that keeps
            at most this share of the MACs; ``params``: the same for parameters; ``latency``: the same for predicted latency,
            where the run searched for it.

    Raises:
        ConfigError: the folder is no finished search, or no such point is there.
    """
    folder, out = Path(folder), None if out is None else Path(out)
    network = with_task(network, data, listen)
    train = loop_for(network, train)
    job, front = _searched(network, data, folder)
    wanted = PointWanted.of(asked)
    if (predicted := asked.get("latency")) is not None and any(p.cost.latency is None for p in front):
        raise ConfigError(
            f"{folder} was searched without a latency table: nothing predicts its points' latency",
            hint=f"search with `compress prune --latency {predicted:g}`, or measure them: compress bench {folder} --front",
        )
    flags = [f"--{name}={value}" for name, value in {**wanted.flags(), "epochs": epochs}.items() if value is not None]
    run = Run(
        network=network,
        data=data,
        job=with_loop(
            job if epochs is None else replace(job, epochs=epochs, finalists=job.finalists if epochs else 0), train, data
        ),
        folder=folder,
        clock=Clock(listen),
        command=shlex.join(["compress", "pick", str(folder), *flags]),
        train=train,
    )
    with among_processes(run) as run:
        if not this_process().first:
            return follow(run)
        return _picked(run, front, wanted, epochs, out)


def _picked(run: Run, front: Front, wanted: PointWanted, epochs: int | None, out: Path | None) -> Result:
    """The point itself, in the process that decides and writes."""
    network, folder = run.network, run.folder
    run, taken = _taken(run, front, wanted)
    place = out
    if place is None:
        kept = make_folder(folder / "picks", hint="remove it, or choose another folder with --out")
        place = kept / (taken.name if epochs is None else f"{taken.name}-epochs-{epochs}")
        make_folder(place, hint="remove it, or choose another folder with --out")
    run = replace(run, folder=place)
    announce_folder(run)
    with claim(place, run.job, {**run.identity, "point": taken.plan.digest}, fresh=False, figure=run.task.figure):
        if (ended := finished(network, place)) is not None:
            return ended
        prepared = taken.prepared
        plan = with_clusters(run, prepared.space, taken.plan)
        write_json(place / "plan.json", plan.to_json())
        done = realise(run, prepared, plan)
        summary = SearchSummary(points=len(front), chosen=taken.why, fallback=prepared.evaluator.fallback)
        return conclude(run, prepared, done, summary)


def _searched(network: Network, data: Data | None, folder: Path) -> tuple[Job, Front]:
    """What a run was to do, and the front that it found.

    Raises:
        ConfigError: the folder is no finished search of this network, or there are weights for its own plan only.
    """
    verified(folder)
    held = read_json(folder / "job.json", hint=_AGAIN)
    if not (folder / "front.json").exists():
        raise ConfigError(
            f"the search in {folder} has not ended", hint="give its `compress prune` command again: it goes on where it stopped"
        )
    front = read_front(folder, _AGAIN)
    if not isinstance(held.get("job"), dict):
        raise ConfigError(f"{folder / 'job.json'} is no job of compress", hint=_AGAIN)
    job = make_job(flags=stored_values(held["job"]))
    if job.stage_epochs:
        raise ConfigError(
            f"{folder} was pruned and trained stage by stage: there are weights for its own plan only",
            hint="run `compress prune` with the other target, or leave stage_epochs out",
        )
    _same(folder, held.get("identity"), identity(network, data))
    return job, front


@dataclass(frozen=True)
class _Taken:
    """A plan that was picked.

    Attributes:
        prepared: what it is realised with.
        plan: what to cut.
        name: of its folder.
        why: for the report.
    """

    prepared: Prepared
    plan: Plan
    name: str
    why: str


def _taken(run: Run, front: Front, wanted: PointWanted) -> tuple[Run, _Taken]:
    """The plan that is asked for: of the front, or made for the very share by a searcher that can.

    Raises:
        ConfigError: the front has no such point.
        SearchError: the searcher cannot make one.
    """
    job, whole, share = run.job, count(traced(run.network)), wanted.share
    searcher = METHODS[job.method].make(**job.options)
    if share is None or not isinstance(searcher, Planner) or wanted.near(front, whole):
        number = wanted.among(front, whole, job.target)
        return run, _Taken(prepare(run), front[number].plan, str(number), f"point {number} of {run.folder.name}")
    run = replace(run, job=replace(job, target=share.kind, value=share.value))  # type: ignore[arg-type]
    prepared = prepare(run)
    plan, left = searcher.plan(prepared.space, share.value), prepared.space.share
    if left(plan) > share.value + 1e-9:
        kept = f"with these options {job.method} keeps {left(plan):.3f} of the {share.kind}"
        raise SearchError(f"{kept}, {share.value:g} was wanted", hint="run it again without them and with this target")
    why = f"made for {share.kind} {share.value:g} from the run's ranking, without a search"
    return run, _Taken(prepared, plan, f"{share.kind}-{share.value:g}", why)


def _same(folder: Path, held: object, now: Mapping[str, str]) -> None:
    """Refuses another network, other images or another preprocessing than a run's, and says which it is."""
    was = held if isinstance(held, Mapping) else {}
    differ = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    if not differ:
        return
    name = next((n for n in ("network", "architecture", "task", "preprocessing") if n in differ), differ[0])
    what, cure = {
        "network": ("another network", "give the unpruned network of that run: --model FILE"),
        "architecture": ("a network of another architecture", "give the unpruned network of that run: --model FILE"),
        "task": ("another task", "say what the network is for as that run was told: --task NAME"),
        "preprocessing": ("another preprocessing", "give the files of that run, with the same --size, --mean and --std"),
    }.get(name, ("other images", "give the images of that run: --data SOURCE"))
    raise ConfigError(
        f"{folder} was searched with {what}: {name} was {str(was.get(name))[:80]}, it is {str(now.get(name))[:80]}", hint=cure
    )
