"""One run, as a story: trace, score channels, search, pick, cut, prove, recover, export, clock, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.core import Clock, Listen, Plan, derive, ignore, write_json
from compress.data import Data
from compress.errors import ConfigError, SearchError
from compress.evaluation import Evaluator
from compress.latency import LatencyVerdict, block_of
from compress.networks import Network, identity
from compress.pipeline.conclusion import FINISHED, Result, conclude, finished
from compress.pipeline.csgd import drawable, ready_to_draw
from compress.pipeline.front import choose, save_front
from compress.pipeline.input_selection import may_select, settled
from compress.pipeline.job import Job
from compress.pipeline.latency_tables import runtime_of, source_of
from compress.pipeline.latency_target import WITHIN, aimed, clocking, proposal
from compress.pipeline.preparation import prepare
from compress.pipeline.realisation import Realised, realise
from compress.pipeline.run_folder import claim
from compress.pipeline.stagewise import progressive
from compress.runtime import OrtRuntime
from compress.search import METHODS, Asked, Front, Journal, Space, Told, drive

_ABOVE = 1.05
"""Times its budget: what a search may spend without a word."""


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
    if job.realise == "csgd":
        ready_to_draw(job, data)
    if job.stage_epochs and (data is None or data.train is None):
        raise ConfigError(
            "stage_epochs is training, and there are no training images",
            hint="add --data with training images, or leave it out",
        )
    with claim(folder, job, identity(network, data), fresh):
        if all((folder / name).exists() for name in FINISHED):
            return finished(network, folder)
        clock = Clock(listen)
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        job = replace(job, round_to=space.round_to)
        space = may_select(network, space, job, folder, clock, listen)
        trained = None
        if job.stage_epochs:
            front, spent, trained = _by_stages(network, data, space, job, folder, clock, listen)
        else:
            front, spent = _search(space, evaluator, network, data, job, folder, clock, listen)
        front, notes = settled(network, space, front, job, folder, clock, listen)
        spent["notes"] += notes
        material = evaluator.material
        judged = len(material.judged) if material.metric == "agreement" else 0
        chosen, why = choose(front, space.target, space.share, _base_error(evaluator), judged)
        if job.stage_epochs:
            why = f"cut and trained stage by stage; the stages left {space.share(chosen.plan):.3f}"
        plan, shots = _aim(network, space, front, chosen.plan, job, clock)
        plan = drawable(network.model, space, plan, job)
        write_json(folder / "plan.json", plan.to_json())
        save_front(folder, front, chosen, topology, space)
        done = realise(network, topology, plan, material, data, job, folder, clock=clock, listen=listen, trained=trained)
        done = _timed(done, space, job, shots)
        search = {**spent, "points": len(front), "chosen": why, "fallback": evaluator.fallback, **shots}
        return conclude(network, data, job, folder, topology, space, base, done, material, search, clock, command)


# ---- the chapters ----------------------------------------------------------------------------------------------------


def _search(
    space: Space,
    evaluator: Evaluator,
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    clock: Clock,
    listen: Listen,
) -> tuple[Front, dict[str, Any]]:
    """Drives the searcher over the journal."""
    context = json.dumps(
        {
            **identity(network, data),
            "job": {k: v for k, v in job.to_json().items() if k in ("seed", "calibration", "ignore", "streams")},
            "images": [len(evaluator.material.calibration), len(evaluator.material.judged), evaluator.material.metric],
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        sort_keys=True,
    )
    searcher = METHODS[job.method].make(**job.options)
    rng = np.random.default_rng(derive(job.seed, "search"))
    requests: dict[str, dict[str, float]] = {}
    told: list[Told] = []

    def note(event: Asked) -> None:
        row = requests.setdefault(event.fidelity, {"requests": 0, "plans": 0, "evaluated": 0})
        row["requests"] += 1
        row["plans"] += event.asked
        row["evaluated"] += event.distinct
        clock.add("search", event.earlier)
        row["spent"] = event.spent
        listen(event)

    with clock.phase("search", f"{job.method}, {space.budget} image-forwards"):
        front = drive(
            searcher.search(space, rng),
            evaluator,
            Journal(folder / "journal.jsonl", context),
            price=evaluator.price,
            budget=space.budget,
            listen=note,
            tell=told.append,
        )
    if not front:
        raise SearchError("no candidate could be scored", hint="give more or other images with --data")
    spent = max((row.pop("spent") for row in requests.values()), default=0.0)
    told += [_overspent(space, job.method, spent)] if spent > _ABOVE * space.budget else []
    judged = {"metric": evaluator.material.metric, "judged_images": len(evaluator.material.judged)}
    own = {name: value for t in told for name, value in t.figures.items()}
    notes = [note for t in told for note in t.notes]
    return front, {"budget": space.budget, "image_forwards": spent, "requests": requests, **judged, **own, "notes": notes}


def _overspent(space: Space, method: str, spent: float) -> Told:
    least = f"the least that {method} needs with these options"
    return Told({}, (f"the search spent {spent:,.0f} image-forwards, {space.budget:,} were allowed: {least}",))


def _by_stages(
    network: Network, data: Data | None, space: Space, job: Job, folder: Path, clock: Clock, listen: Listen
) -> tuple[Front, dict[str, Any], nn.Module]:
    """Searching, cutting and training stage after stage."""
    assert data is not None

    def search(part: Space, evaluator: Evaluator, current: Network) -> tuple[Front, dict[str, Any]]:
        return _search(part, evaluator, current, data, job, folder, clock, listen)

    done = progressive(network, data, space, job, folder, search, clock, listen)
    return done.front, done.spent, done.model


def _aim(network: Network, space: Space, front: Front, plan: Plan, job: Job, clock: Clock) -> tuple[Plan, dict[str, Any]]:
    """For a target of latency: the plan whose measured latency is nearest to it, and what was clocked on the way."""
    if space.target.kind != "latency" or space.table is None:
        return plan, {}
    with clock.phase("aim", "the chosen widths clocked before anything is recovered"):
        source = source_of(network, space.topology, job)
        shots = aimed(space, front, plan, clocking(source, runtime_of(job), job.seed))
    told = [{"asked": s.asked, "predicted": s.predicted, "measured": s.measured} for s in shots]
    return shots[-1].plan, {"shots": told, "table_error": asdict(space.table.error)}


def _timed(done: Realised, space: Space, job: Job, shots: Mapping[str, Any]) -> Realised:
    """What the measured latency says about the prediction and the target; and, where nothing was won, what would help."""
    notes, warnings = list(done.notes), list(done.warnings)
    found = done.latency[0].ratios["pruned"] if done.latency else None
    if shots and space.table is not None:
        last, off = shots["shots"][-1], space.table.error
        aim = f"latency of the base's: {last['predicted']:.3f} predicted by the table, {last['measured']:.3f} measured"
        notes.append(
            f"{aim} before recovery, after {len(shots['shots'])} plans; the table's error on {off.networks} networks "
            f"that it was not fitted to: median {100 * off.median:.1f} %, worst {100 * off.worst:.1f} %"
        )
        reached = 1 / found.decisive.ratio if found is not None else last["measured"]
        if abs(reached / job.value - 1) > WITHIN:
            warnings.append(f"the measured latency is {reached:.3f} of the unpruned network's, {job.value:g} was wanted")
    if found is not None and done.plan and (found.verdict is LatencyVerdict.SAME or found.decisive.high <= 1):
        block = space.table.block if space.table is not None else block_of(OrtRuntime("cpu", threads=job.threads))
        warnings.append(f"not faster than the unpruned network: {proposal(space, done.plan, block)}")
    return replace(done, notes=tuple(notes), warnings=tuple(warnings))


def _base_error(evaluator: Evaluator) -> float:
    """The unpruned network's own score, in the metric of the search."""
    if evaluator.material.metric != "accuracy":
        return 0.0
    assert evaluator.material.labels is not None
    return 1.0 - float((evaluator.wanted.argmax(dim=1) == evaluator.material.labels).float().mean())
