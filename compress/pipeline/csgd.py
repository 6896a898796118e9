"""Centripetal SGD instead of recovery: filters are trained until they are equal, and the trim changes nothing.

Ding, Ding, Guo, Han: CVPR 2019 (``compress.recovery.centripetal_sgd``). Nothing is recovered or fine-tuned after the trim.
"""

from __future__ import annotations

from torch import Tensor, nn

from compress.core import Plan, plural
from compress.errors import ConfigError, GuardError
from compress.evaluation import CriterionInputs, logits
from compress.evaluation import kernels as kernels_of
from compress.pipeline.announcing import announce_equal
from compress.pipeline.own_training import train_by_loop
from compress.pipeline.preparation import Prepared
from compress.pipeline.run import Run
from compress.pipeline.steps import guarded_cut, resuming, schedule_for
from compress.recovery import (
    PAPER_EPS,
    CentripetalResult,
    LabelledImages,
    Schedule,
    Tied,
    steps_per_epoch,
    strength,
    tied_slices,
    train_centripetal,
    train_equal,
)
from compress.search import METHODS, Space, clusters_at, widths_of
from compress.surgery import Verified
from compress.tasks import Task

_TRIM_TOLERANCE = 1e-4


def csgd_images(run: Run) -> LabelledImages:
    """The images of Centripetal SGD, before any work: they must be there, and suffice to make filters equal.

    Raises:
        ConfigError: there is nothing to train on.
        TrainError: the schedule is too short or eps too weak; the hint says what would do.
    """
    data = run.data
    if data is None or data.train is None:
        raise ConfigError(
            "C-SGD is training, and there are no training images",
            hint="add --data with training images, or use --realise cut with another method",
        )
    schedule = schedule_for(run, data.train)
    strength(schedule, steps_per_epoch(len(data.train), schedule), run.job.eps)
    return data.train


def with_clusters(run: Run, space: Space, plan: Plan) -> Plan:
    """The plan as it is; or, for C-SGD, clusters of filters at its widths."""
    if run.job.realise == "cut" or METHODS[run.job.method].clusters:
        return plan
    criterion_inputs = CriterionInputs(run.network.model.state_dict())
    kernels = {g: kernels_of(criterion_inputs, space.topology, space.topology.by_id[g]) for g in plan.cuts}
    wanted = {g: kept for g, kept in widths_of(space, plan).items() if g in plan.cuts}
    return clusters_at(space.topology, kernels, wanted)


def train_and_trim(run: Run, prepared: Prepared, plan: Plan) -> tuple[nn.Module, Verified]:
    """Centripetal SGD instead of recovery: clusters are made equal first, so the trim itself changes nothing.

    Raises:
        GuardError: the trim changed an output.
    """
    clock = run.clock
    topology, material = prepared.topology, prepared.material
    images = csgd_images(run)
    schedule = schedule_for(run, images)
    with clock.phase("C-SGD", f"{plural(schedule.epochs, 'epoch')} towards equal filters"):
        equal = _equal(run, plan, tied_slices(topology, plan), images, schedule)
        run.judge(equal.trained, "C-SGD")
        run.judge(equal.averaged, "averaged")
    with clock.phase("trim", "and prove that it changes nothing"):
        small, guard = guarded_cut(equal.averaged, topology, plan, material.calibration)
        run.judge(small, "cut")
        outputs = [logits(m, material.judged) for m in (equal.trained, equal.averaged, small)]
    averaging, trim = _changes(run.task, *outputs[:2]), _changes(run.task, *outputs[1:])
    if not trim[1] <= _TRIM_TOLERANCE:
        raise GuardError(
            f"the trim changed the outputs by {trim[1]:.1e} of the largest, at most {_TRIM_TOLERANCE:.0e} is wanted",
            hint="channels that should be equal are treated differently somewhere; please report the network",
        )
    found = equal.strength
    raised = f" (raised from the paper's {PAPER_EPS:g}: the training is short)" if found.raised else ""
    run.note(
        f"C-SGD: eps {found.eps:.2g} in kernels, {found.vector_eps:.2g} in vectors{raised}; deviations shrink by "
        f"exp(-{found.kernels:.0f}) and exp(-{found.vectors:.0f}); the largest was {equal.before:.2g} of its tensor, then "
        f"{equal.after:.1e}",
        f"averaging the clusters exactly changed {averaging[0]}the outputs by {averaging[1]:.1e}",
        f"the trim changed {trim[0]}the outputs by {trim[1]:.1e}; nothing is recovered after it",
    )
    return small, guard


def _equal(run: Run, plan: Plan, tied: tuple[Tied, ...], images: LabelledImages, schedule: Schedule) -> CentripetalResult:
    """The network with equal filters, trained by ours or by the user's own loop."""
    model, job = run.network.model, run.job
    if run.train is not None:
        pull = strength(schedule, steps_per_epoch(len(images), schedule), job.eps)
        return train_equal(model, tied, pull, lambda rewrite: train_by_loop(run, model, schedule.epochs, rewrite, "csgd"))
    announce_equal(run, plan, schedule)
    return train_centripetal(
        model,
        tied,
        images,
        schedule,
        eps=job.eps,
        teacher=model if schedule.distill else None,
        state_dir=run.folder / "csgd",
        listen=resuming(run.clock, "C-SGD"),
    )


def _changes(task: Task, wanted: Tensor, got: Tensor) -> tuple[str, float]:
    """How many predictions differ, where the task names some, and the largest change over the largest output."""
    said = ""
    if task.names_one_label:
        before, after = task.decisions(wanted), task.decisions(got)
        assert before is not None and after is not None
        said = f"{int((before != after).sum())} of {plural(len(wanted), 'prediction')}, "
    return said, float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30))
