"""Another point of a run's front made real, without a new search."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from compress.core import Clock, Listen, count, ignore, read_json, write_json
from compress.data import Data
from compress.errors import ConfigError, SearchError
from compress.networks import Network, identity
from compress.pipeline.conclusion import FINISHED, Result, conclude, finished
from compress.pipeline.csgd import drawable
from compress.pipeline.front import near, read_front, share_wanted, which
from compress.pipeline.inspection import traced
from compress.pipeline.job import make_job
from compress.pipeline.preparation import prepare
from compress.pipeline.realisation import realise
from compress.pipeline.run_folder import claim
from compress.search import METHODS, Planner


def pick(
    network: Network,
    data: Data | None,
    folder: Path,
    *,
    index: int | None = None,
    by: str | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    epochs: int | None = None,
    out: Path | None = None,
    listen: Listen = ignore,
) -> Result:
    """Makes another point of a run's front real, without a new search.

    Methods that have a plan for every budget (``obs``, whose elimination is nested, ``uniform``, ``global``) make one for the
    very share that is wanted where the front has none near it.

    Args:
        network: the run's unpruned network.
        data: the run's images.
        folder: the run's folder.
        index: of the point in ``front.json``.
        by: ``knee``.
        macs: the most accurate point that keeps at most this share of the MACs.
        params: the same for parameters.
        latency: the same for predicted latency, where the run searched for it.
        epochs: fine-tuning, where it is to differ from the run's: 0 leaves the network as it is recovered without training.
        out: the new folder; by default ``<folder>/picks/`` and the point's index or the share.
        listen: receives events.

    Raises:
        ConfigError: the folder is no finished search, or no such point is there.
    """
    again = "run `compress prune ... --out` there first"
    held = read_json(folder / "job.json", hint=again)
    if not (folder / "front.json").exists():
        raise ConfigError(
            f"the search in {folder} has not ended", hint="give its `compress prune` command again: it goes on where it stopped"
        )
    front = read_front(folder, again)
    if not isinstance(held.get("job"), dict):
        raise ConfigError(f"{folder / 'job.json'} is no job of compress", hint=again)
    job = make_job(flags={k: tuple(v) if isinstance(v, list) else v for k, v in held["job"].items()})
    if job.stage_epochs:
        raise ConfigError(
            f"{folder} was pruned and trained stage by stage: there are weights for its own plan only",
            hint="run `compress prune` with the other target, or leave stage_epochs out",
        )
    if held.get("identity") != identity(network, data):
        raise ConfigError(
            f"{folder} was searched with another network, other images or another preprocessing",
            hint="give the files of that run, or search again",
        )
    clock = Clock(listen)
    job = job if epochs is None else replace(job, epochs=epochs)
    whole, searcher = count(traced(network)), METHODS[job.method].make(**job.options)
    wanted = share_wanted(index, by, macs, params, latency)
    if latency is not None and any(p.cost.latency is None for p in front):
        raise ConfigError(
            f"{folder} was searched without a latency table: nothing predicts its points' latency",
            hint=f"search with `compress prune --latency {latency:g}`, or measure them: compress bench {folder} --front",
        )
    if wanted is not None and isinstance(searcher, Planner) and not near(front, whole, wanted):
        job = replace(job, target=wanted.kind, value=wanted.value)  # type: ignore[arg-type]
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        plan, name = searcher.plan(space, wanted.value), f"{wanted.kind}-{wanted.value:g}"
        if space.share(plan) > wanted.value + 1e-9:
            kept = f"with these options {job.method} keeps {space.share(plan):.3f} of the {wanted.kind}"
            raise SearchError(f"{kept}, {wanted.value:g} was wanted", hint="run it again without them and with this target")
        why = f"made for {wanted.kind} {wanted.value:g} from the run's ranking, without a search"
    else:
        number = which(front, whole, job.target, index, by, wanted)
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        plan, name = front[number].plan, str(number)
        why = f"point {number} of {folder.name}"
    out = out or folder / "picks" / (name if epochs is None else f"{name}-epochs-{epochs}")
    with claim(out, job, {**identity(network, data), "point": plan.digest}, fresh=False):
        if all((out / name).exists() for name in FINISHED):
            return finished(network, out)
        plan = drawable(network.model, space, plan, job)
        write_json(out / "plan.json", plan.to_json())
        done = realise(network, topology, plan, evaluator.material, data, job, out, clock=clock, listen=listen)
        search = {"points": len(front), "chosen": why, "fallback": evaluator.fallback}
        asked = {"index": index, "by": by, "macs": macs, "params": params, "latency": latency, "epochs": epochs}
        flags = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        told = shlex.join(["compress", "pick", str(folder), *flags])
        return conclude(network, data, job, out, topology, space, base, done, evaluator.material, search, clock, told)
