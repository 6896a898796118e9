"""Everything that a search needs before it starts: groups, stages, images, importance, and whether the target can be met."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compress.core import (
    BranchId,
    Floats,
    GroupId,
    LatencyTable,
    LayerName,
    Measured,
    Topology,
    Warned,
    count,
    derive,
)
from compress.data import Data, Split
from compress.errors import ConfigError, SearchError
from compress.evaluation import (
    CriterionInputs,
    Evaluator,
    Material,
    closed_form,
    kernels,
    matched_inputs,
)
from compress.networks import Network, preflight
from compress.pipeline.channel_statistics import ChannelMeasurement, as_taken, measure_branches, wanted_statistics
from compress.pipeline.inspection import traced_with_agreement, try_export
from compress.pipeline.job import Job
from compress.pipeline.latency_tables import alignment, needed, table_for
from compress.pipeline.run import Run
from compress.pipeline.search_checks import base_score, check_criteria, check_structure, check_target
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
    Stage,
    make_stages,
    prunable,
    skippable,
)
from compress.tasks import first_of

_AFFORDABLE_MACS = 6e12
"""Multiply-accumulates of a default search: a training epoch of ResNet-20 on CIFAR-10, run as less efficient small batches."""
_FEWEST_FORWARDS, _FEWEST_SYNTHETIC = 5_000, 1_000
"""However large the network is: on images, and on synthetic inputs, whose scores tell plans apart less well."""
_MOST_FORWARDS = 300_000
SYNTHETIC_IMAGES = 16
MOST_JUDGED = 2048
"""Images that a search judges on, where labels do not need more to tell anything."""
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
    network, data, clock = run.network, run.data, run.clock
    _try_out(run, part=bool(only))
    topology = _traced(run, part=bool(only))
    stages, branches = _stages(run, topology, only)
    groups = tuple(g for s in stages for g in s.groups)
    check_criteria(run.job)
    table = table_for(run, topology) if needed(run.job) else None
    job = _aligned(run, topology, groups, table)
    if not only:
        check_target(topology, job, table, run.listen)
    budget = search_budget(job, count(topology).macs, images=data is not None)
    with clock.phase("images", data.name if data is not None else "synthetic, matched to the batch norms"):
        material = _material(run, budget)
    base = base_score(run)
    asked = wanted_statistics(as_taken(job, len(groups), budget, material.metric), _ranking(job))
    with clock.phase("importance", ", ".join(asked.criteria)):
        where = None if only else run.folder  # a stage's network is there once only
        store = store_of(where, network.model, material.calibration, {**run.identity, "topology": topology.digest})
        channels = ChannelMeasurement(run, topology, groups, material.calibration, asked, store).all_wanted()
        rows, losses, spent = _for_the_method(run, topology, groups, channels.inputs, material, budget)
        budget -= spent
    solves = job.recover == "reconstruct"
    evaluator = Evaluator(
        network.model,
        topology,
        stages,
        material,
        moments=channels.inputs.moments if solves else None,
        solve_images=_SOLVE_IMAGES if solves else 0,
    )
    weighed = METHODS[job.method].branches  # elsewhere they go as the job says, whatever that does
    known: Mapping[BranchId, float] = {} if weighed else dict.fromkeys(branches, 0.0)
    if branches and weighed:
        with clock.phase("branches", f"the outputs without each of {len(branches)}"):
            known, spent = measure_branches(run, evaluator, branches, budget, store)
            budget -= spent
    full, solved = (int(evaluator.price(Ask(plans=(), fidelity=Fidelity.FULL, recovery=r))) for r in ("bn", "reconstructed"))
    space = Space(
        cost=CostModel(topology, run.goal, table),
        stages=tuple(replace(s, branches=tuple(b for b in s.branches if b in known)) for s in evaluator.stages),
        statistics=ChannelStatistics(
            importance=channels.importance,
            kernels=rows,
            curves=channels.curves,
            reader_losses=losses,
            branch_errors=known,
        ),
        budget=budget,
        round_to=job.round_to,
        ranking=_ranking(job),
        full_images=full,
        stage_images=len(material.calibration),
        solved_images=solved if solves else 0,
        stop_after=job.stop_after,
        metric=material.metric,
    )
    return Prepared(space, evaluator, base)


def _try_out(run: Run, *, part: bool) -> None:
    """Whatever is sure to fail later fails now; a part of a network that was tried is not tried again.

    Raises:
        CompressError: of the kind that it would be later.
    """
    network, job = run.network, run.job
    if run.data is not None:
        check_structure(network, run.data)
    preflight(network)
    if not part:
        check_asked(run)
        try_batch(run)
    if job.dynamic_size or not network.takes_images:
        with run.clock.phase("export", "tried before the search"):
            try_export(network, job)


def _traced(run: Run, *, part: bool) -> Topology:
    """The network's groups of channels; how they were found is told, unless it is part of a network that was told of."""
    with run.clock.phase("trace", run.network.name):
        topology, agreement = traced_with_agreement(run.network, run.listen)
    if not part:
        run.note(*agreement.sentences())
        for warning in agreement.warnings():
            run.warn(warning, now=True)
    return topology


def _stages(run: Run, topology: Topology, only: Collection[GroupId]) -> tuple[tuple[Stage, ...], tuple[BranchId, ...]]:
    """What the job lets go, stage by stage, and the branches among it.

    Raises:
        SearchError: nothing.
    """
    job = run.job
    groups, _ = prunable(topology, job.ignore, job.realise)
    if only:
        groups = tuple(g for g in groups if g in only)
    branches = () if only else job.leaving(skippable(topology, job.ignore)[0])
    stages = make_stages(topology, groups, streams=job.streams, branches=branches)
    if not stages:
        raise SearchError(
            f"{run.network.name} has no group of channels that may be cut{_why_not(topology)}",
            hint="`compress inspect` says why, per layer",
        )
    return stages, branches


def _why_not(topology: Topology) -> str:
    """What keeps most of the layers, where it is not the user who left them out."""
    reasons = Counter(topology.frozen.values()).most_common(1)
    return f": {reasons[0][0]}" if reasons and not topology.groups else ""


def _aligned(run: Run, topology: Topology, groups: Sequence[GroupId], table: LatencyTable | None) -> Job:
    """The job with the alignment of widths that it leaves to the latency table."""
    if not run.job.auto_round:
        return run.job
    assert table is not None
    job = replace(run.job, round_to=alignment(topology, groups, table))
    run.listen(Warned(f"--round-to auto: widths in {job.round_to}s, by the latency table"))
    return job


def _ranking(job: Job) -> str:
    """The criterion that channels are ranked by."""
    return METHODS[job.method].ranking if job.ranking == "auto" else job.ranking


def _for_the_method(
    run: Run, topology: Topology, groups: Sequence[GroupId], inputs: CriterionInputs, material: Material, budget: int
) -> tuple[dict[GroupId, Floats], Mapping[LayerName, ReaderLoss], int]:
    """What this method alone looks at: kernels by group, losses by reading layer, and the image-forwards that they took."""
    method, model = METHODS[run.job.method], run.network.model
    losses: Mapping[LayerName, ReaderLoss] = {}
    rows, spent = dict[GroupId, Floats](), 0
    if method.reader_losses:
        losses, spent = closed_form(model, inputs, topology, groups, material.calibration, budget)
    if method.kernels:
        folded = bool(run.job.options.get("folded"))
        rows = {g: kernels(inputs, topology, topology.by_id[g], folded=folded) for g in groups}
    return rows, losses, spent


def search_budget(job: Job, macs: int, *, images: bool) -> int:
    """Image-forwards that a search may spend: as told, or by the multiply-accumulates of one image.

    Args:
        job: of the run.
        macs: of one image.
        images: the search scores on images, not on synthetic inputs.
    """
    fewest = _FEWEST_FORWARDS if images else _FEWEST_SYNTHETIC
    return job.budget or int(min(_MOST_FORWARDS, max(fewest, _AFFORDABLE_MACS / max(macs, 1))))


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
    most = max(task.images_that_tell if run.scored else 32, min(MOST_JUDGED, budget // 60))
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
