"""Everything that a search needs before it starts: groups, stages, images, importance, and whether the target can be met."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.core import (
    BranchId,
    GroupId,
    LatencyTable,
    LayerName,
    Listen,
    Measured,
    Table,
    Topology,
    Warned,
    count,
    derive,
    did_you_mean,
    near_chance,
    plural,
)
from compress.data import Data, Split
from compress.errors import ConfigError, DataError, ModelError, SearchError, TaskError
from compress.evaluation import (
    CRITERIA,
    Evaluator,
    Material,
    closed_form,
    kernels,
    matched_inputs,
    score_on,
)
from compress.networks import Network, preflight
from compress.pipeline.channel_statistics import as_taken, measure_branches, measure_channels, wanted_statistics
from compress.pipeline.inspection import reach, traced_with_agreement, try_export
from compress.pipeline.job import Job
from compress.pipeline.latency_tables import alignment, needed, table_for
from compress.pipeline.run import Run, measured
from compress.pipeline.statistics_store import store_of
from compress.pipeline.trial_batch import check_asked, try_batch
from compress.search import (
    METHODS,
    Ask,
    ChannelStatistics,
    CostModel,
    Fidelity,
    ReaderLoss,
    Space,
    make_stages,
    prunable,
    skippable,
)
from compress.tasks import first_of

_AFFORDABLE_MACS = 6e12
"""Multiply-accumulates of a default search: a training epoch of ResNet-20 on CIFAR-10, run as less efficient small batches."""
_FEWEST_FORWARDS = 5_000
_MOST_FORWARDS = 300_000
SYNTHETIC_IMAGES = 16
_SOLVE_IMAGES = 512
_FEWEST_CALIBRATION, _MOST_CALIBRATION = 256, 1024
_JUDGED_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """What a search stands on.

    Attributes:
        space: what a searcher may know, the topology in it.
        evaluator: scores plans.
        base: the unpruned network's score; empty without targets.
    """

    space: Space
    evaluator: Evaluator
    base: tuple[Measured, ...]

    @property
    def topology(self) -> Topology:
        """The unpruned network's."""
        return self.space.topology

    @property
    def material(self) -> Material:
        """The images of the search."""
        return self.evaluator.material

    @property
    def base_error(self) -> float:
        """The unpruned network's own score, in the metric of the search."""
        return self.evaluator.base_error


def prepare(run: Run, only: Collection[GroupId] = ()) -> Prepared:
    """Everything a search needs: groups, stages, importance, images; of some groups only, where they are named.

    Raises:
        SearchError: nothing can be cut, or the target cannot be reached.
        ConfigError: the job names what is not there.
        DataError: the unpruned network is near chance.
    """
    network, data, job, clock = run.network, run.data, run.job, run.clock
    if data is not None:
        _check_structure(network, data)
    preflight(network)
    if not only:
        check_asked(run.task, job, scored=run.scored)
        try_batch(run)
    if job.dynamic_size or not network.takes_images:
        with clock.phase("export", "tried before the search"):
            try_export(network, job)
    with clock.phase("trace", network.name):
        topology, agreement = traced_with_agreement(network, run.listen)
    if not only:  # a stage's network is part of one that was told of
        run.note(*agreement.sentences())
        for warning in agreement.warnings():
            run.warn(warning, now=True)
    groups, _ = prunable(topology, job.ignore, job.realise)
    if only:
        groups = tuple(g for g in groups if g in only)
    branches = skippable(topology, job.ignore)[0] if job.leaves_branches_out and not only else ()
    stages = make_stages(topology, groups, streams=job.streams, branches=branches)
    if not stages:
        raise SearchError(
            f"{network.name} has no group of channels that may be cut", hint="`compress inspect` says why, per layer"
        )
    ranking = METHODS[job.method].ranking if job.ranking == "auto" else job.ranking
    _check_criteria(job)
    table = table_for(run, topology) if needed(job) else None
    if job.auto_round:
        assert table is not None
        job = replace(job, round_to=alignment(topology, [g for s in stages for g in s.groups], table))
        run.listen(Warned(f"--round-to auto: widths in {job.round_to}s, by the latency table"))
    if not only:
        _check_target(topology, job, table, run.listen)
    budget = search_budget(job, count(topology).macs)
    with clock.phase("images", data.name if data is not None else "synthetic, matched to the batch norms"):
        material = _material(run, budget)
    base = _base_score(run)
    groups = tuple(g for s in stages for g in s.groups)
    asked = wanted_statistics(as_taken(job, len(groups), budget, material.metric), ranking)
    with clock.phase("importance", ", ".join(asked.criteria)):
        where = None if only else run.folder  # a stage's network is there once only
        store = store_of(where, network.model, material.calibration, {**run.identity, "topology": topology.digest})
        measured_channels = measure_channels(run, topology, groups, material.calibration, asked, store)
        seen, rows = measured_channels.inputs, dict[GroupId, Any]()
        found: Mapping[LayerName, ReaderLoss] = {}
        if METHODS[job.method].reader_losses:
            found, spent = closed_form(network.model, seen, topology, groups, material.calibration, budget)
            budget -= spent
        if METHODS[job.method].kernels:
            folded = bool(job.options.get("folded"))
            rows = {g: kernels(seen, topology, topology.by_id[g], folded=folded) for g in groups}
    solves = job.recover == "reconstruct"
    evaluator = Evaluator(
        network.model,
        topology,
        stages,
        material,
        moments=seen.moments if solves else None,
        solve_images=_SOLVE_IMAGES if solves else 0,
    )
    known: Mapping[BranchId, float] = {}
    if branches:
        with run.clock.phase("branches", f"the outputs without each of {len(branches)}"):
            known, spent = measure_branches(run, evaluator, branches, budget, store)
            budget -= spent
    full, solved = (int(evaluator.price(Ask(plans=(), fidelity=Fidelity.FULL, recovery=r))) for r in ("bn", "reconstructed"))
    space = Space(
        cost=CostModel(topology, run.goal, table),
        stages=tuple(replace(s, branches=tuple(b for b in s.branches if b in known)) for s in evaluator.stages),
        statistics=ChannelStatistics(
            importance=measured_channels.importance,
            kernels=rows,
            curves=measured_channels.curves,
            reader_losses=found,
            branch_errors=known,
        ),
        budget=budget,
        round_to=job.round_to,
        ranking=ranking,
        full_images=full,
        stage_images=len(material.calibration),
        solved_images=solved if solves else 0,
        stop_after=job.stop_after,
        metric=material.metric,
    )
    return Prepared(space, evaluator, base)


def search_budget(job: Job, macs: int) -> int:
    """Image-forwards that a search may spend: as told, or by the multiply-accumulates of one image."""
    return job.budget or int(min(_MOST_FORWARDS, max(_FEWEST_FORWARDS, _AFFORDABLE_MACS / max(macs, 1))))


def _check_structure(network: Network, data: Data) -> None:
    """A network of several inputs wants batches of their structure.

    Raises:
        ConfigError: the data has another one.
    """
    if network.signature is None or network.takes_images:
        return
    try:
        network.rows(next(iter(data.validation.batches(1, limit=1))))
    except (ModelError, DataError) as error:
        raise ConfigError(
            f"the network takes {network.signature.describe()}, images are one of these at the most",
            hint="give batches of this structure with compress.data_from, or leave --data out: the search then goes by the "
            "outputs on random inputs of the example's structure",
        ) from error


def _check_criteria(job: Job) -> None:
    """Every criterion that the job names has to be there.

    Raises:
        ConfigError: one is not.
    """
    named = {"ranking": () if job.ranking == "auto" else (job.ranking,)}
    for option in ("criterion", "seeds"):
        value = job.options.get(option, ())
        named[f"options.{option}"] = (value,) if isinstance(value, str) else tuple(value)
    for setting, names in named.items():
        for name in names:
            if name not in CRITERIA:
                raise ConfigError(
                    f"{setting}: {name!r} is no criterion",
                    hint=did_you_mean(name, CRITERIA, f"there are {', '.join(CRITERIA)}"),
                )


def _check_target(topology: Topology, job: Job, table: LatencyTable | None, listen: Listen) -> None:
    """Shows what can be reached before any work, and refuses what cannot.

    Raises:
        SearchError: the target is below the least; the nearest reachable one is named.
    """
    kinds = ("macs", "params") if table is None else ("macs", "params", "latency")
    least = {kind: reach(topology, job, kind, table=table) for kind in kinds}
    rows = []
    for kind, low in least.items():
        wanted = f"{job.value:.3f}" if job.target == kind else ""
        rows.append((kind, f"{low:.3f}", "1.000", wanted, "" if not wanted else ("yes" if job.value >= low else "no")))
    listen(Table("what can be reached (share kept)", ("", "least", "most", "wanted", "reachable?"), tuple(rows)))
    if job.target in least and job.value < least[job.target]:
        low = least[job.target]
        raise SearchError(
            f"--{job.target} {job.value:g} cannot be reached: with widths in {job.round_to}s at least {low:.3f} of the "
            f"{job.target} are left",
            hint=f"the nearest reachable target is --{job.target} {np.ceil(low * 1000) / 1000:.3f}; "
            "a smaller --round-to reaches lower",
        )


def _material(run: Run, budget: int) -> Material:
    """The images of the search: for a full score 1/60 of the budget, but as many as labels need to tell anything.

    Raises:
        ConfigError: a drop in accuracy is to be kept, and there are no images to see it on.
    """
    network, data, job, task = run.network, run.data, run.job, run.task
    if data is None and job.target == "max_drop":
        raise ConfigError("--max-drop needs images to see the drop on", hint="add --data, or give --macs or --params")
    if data is None:
        made = matched_inputs(network.model, network.shape, SYNTHETIC_IMAGES, seed=derive(job.seed, "synthetic"))
        missing = "nothing is scored" if task.figure is None else f"{task.figure.short} is not measured"
        run.listen(Warned(f"no data: {missing}; inputs are {made.reason}"))
        return Material(calibration=made.images, judged=made.images, batches=None, metric="output", task=task)
    most = max(task.images_that_tell if run.scored else 32, min(2048, budget // 60))
    calibration = shown_of(network, data.calibration, calibration_count(job, data))
    judged, batches = _first(network, data.validation, most)
    if run.scored and len(judged) >= task.images_that_tell:
        metric: Any = "accuracy" if task.name == "classification" else "score"
        return Material(calibration=calibration, judged=judged, batches=batches, metric=metric, task=task)
    bounds = job.target == "max_drop" and task.bounded == task.figure
    metric = "agreement" if bounds else "output"
    return Material(calibration=calibration, judged=judged, batches=None, metric=metric, task=task)


def holding_out(run: Run, prepared: Prepared) -> Run:
    """The run with images on which its recoveries are compared where there are no labels.

    They are those that the search judged on, which the certificate leaves out; without data, inputs of another seed than
    those that recoveries are solved on.
    """
    if run.scored or run.held_out is not None:
        return run
    if run.data is not None:
        return replace(run, held_out=prepared.material.judged)
    network, seed = run.network, derive(run.job.seed, "held out")
    return replace(run, held_out=matched_inputs(network.model, network.shape, SYNTHETIC_IMAGES, seed=seed).images)


def calibration_count(job: Job, data: Data) -> int:
    """How many calibration images a run uses: as told, or as many as hold a million pixels, between 256 and 1,024."""
    pixels = math.prod(data.preprocessing.size)
    wanted = job.calibration or min(_MOST_CALIBRATION, max(_FEWEST_CALIBRATION, _MOST_CALIBRATION * 1024 // pixels))
    return min(wanted, len(data.calibration))


def shown_of(network: Network, split: Split, count: int) -> Tensor:
    """What the network is shown of a split's first images, as rows where it takes more than one tensor."""
    if network.takes_images:
        return split.images(count)
    return torch.cat([network.rows(batch) for batch in first_of(split.batches(_JUDGED_BATCH), count)])


def _first(network: Network, split: Any, count: int) -> tuple[Tensor, Sequence[Any]]:
    """The first images of a split as rows, and as batches with their targets: 64 a batch where both are tensors."""
    batches = list(split.batches(_JUDGED_BATCH, limit=count))
    rows = torch.cat([network.rows(batch) for batch in batches])
    pairs = [b for b in batches if isinstance(b, tuple | list) and len(b) == 2 and all(isinstance(t, Tensor) for t in b)]
    if len(pairs) == len(batches):  # damaged images leave gaps, and how many are judged at once rounds
        whole = (torch.cat([b[0] for b in pairs]), torch.cat([b[1] for b in pairs]))
        batches = list(zip(*(torch.split(t, _JUDGED_BATCH) for t in whole), strict=True))
    return rows, batches


_OPPOSITE = (
    "its answers are the opposite of the labels: the first class folder in alphabetical order is 0, the second 1; "
    "--labels FILE with lines of `folder label` says otherwise"
)


def _base_score(run: Run) -> tuple[Measured, ...]:
    """The unpruned network's score; near chance means that something is fed wrongly.

    Raises:
        DataError: it is near chance.
        TaskError: it is no number.
    """
    data, job, task = run.data, run.job, run.task
    if data is None or not run.scored:
        return ()
    figure = task.figure
    assert figure is not None
    with run.clock.phase(f"base {figure.short}", f"{len(data.validation)} validation images"):
        found = measured(score_on(run.network.model, data.validation, task), "base", "validation")
    if not math.isfinite(found.value):
        raise TaskError(
            f"the unpruned network's {figure.name} is {found.value} on {plural(found.images, 'image')} of {data.name}",
            hint="check score(), the targets, and how the images are prepared: --mean, --std, --size",
        )
    chance = task.chance(len(data.classes)) if task.names_one_label else None
    if chance and not job.accept_chance and near_chance(found.value, found.images, round(1 / chance)):
        raise DataError(
            f"the unpruned network has {100 * found.value:.1f} % accuracy on {plural(found.images, 'image')} of {data.name}, "
            f"near chance for {round(1 / chance)} classes: wrong normalisation or labels?",
            hint=_OPPOSITE
            if found.value < 0.25 and task.name == "binary"
            else "check --mean, --std, --size and --labels; --accept-chance goes on all the same",
        )
    return (found,)
