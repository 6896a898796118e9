"""Progressive pruning: a stage is searched, cut, recovered and trained before the next one is looked at.

SMOEA's own order (Li, Sun, Huang, Chen; arXiv 2211.01957): convolution layers are pruned group by group, a few epochs of
training after each. Every later stage is searched on the network that training left, in its statistics and with its moments.
Ours: the controller that hands each stage its share of the target, and that any searcher of widths may do the searching.
"""

from __future__ import annotations

from dataclasses import replace

from compress.core import Plan, compose
from compress.networks import state_digest
from compress.pipeline.front import choose
from compress.pipeline.preparation import Prepared, holding_out, prepare
from compress.pipeline.run import Log, Run
from compress.pipeline.scoring import RunWorkers
from compress.pipeline.search_summary import SearchEffort, added
from compress.pipeline.searching import Searched, search
from compress.pipeline.steps import finetune, guarded_cut, recovered
from compress.search import Fidelity, controller


def progressive(run: Run, prepared: Prepared, workers: RunWorkers | None = None) -> Searched:
    """Prunes front to back: one point, what was cut in all, because it is the only plan whose weights there are.

    Args:
        run: with training images and ``stage_epochs``; its unpruned network is the teacher of every training. A killed run
            goes on in the stage, and the epoch, where it stopped.
        prepared: of the unpruned network; its stages are gone through in their order.
    """
    space, job, current = prepared.space, run.job, run.network
    plan, error = Plan(), 0.0
    run = holding_out(run, prepared)
    efforts: list[SearchEffort] = []
    notes: list[str] = []
    for number, stage in enumerate(space.stages):
        target = controller(space, number, plan) / space.share(plan)
        if target >= 1:
            continue
        budget = max(100, space.budget // len(space.stages))
        own = replace(job, value=target, round_to=space.round_to, budget=budget, accept_chance=True)
        part = replace(run, network=current, job=own)
        ready = prepare(part, stage.groups)
        found = search(part, ready, workers)
        efforts.append(found.effort)
        point, _ = choose(found.front, ready.space.target, ready.space.share, 0.0)
        error = point.error
        plan = compose(space.topology, plan, point.plan)
        training = replace(run, job=replace(job, epochs=job.stage_epochs), log=Log())
        images = ready.material.calibration
        small, _ = guarded_cut(current.model, ready.topology, point.plan, images)
        training.judge(small, "cut")
        small = recovered(training, current.model, small, ready.topology, point.plan, images)
        small = finetune(training, small, state=f"stage-{number}", plan=plan)
        current = replace(current, model=small, digest=state_digest(small.state_dict()))
        notes.append(f"{stage.name}: {space.share(plan):.3f} of the {job.target} left; validation {_seen(training)}")
    metric, judged = prepared.material.metric, len(prepared.material.judged)
    nothing = SearchEffort(budget=0, image_forwards=0.0, requests={}, metric=metric, judged_images=judged)
    effort = added(efforts or [nothing])
    front = (space.point(plan, error, Fidelity.FULL),)
    return Searched(front=front, effort=effort.noting(*notes), trained=current.model)


def _seen(training: Run) -> str:
    """What a stage's recovery and training brought, and what of it was taken back."""
    steps = [s for s in training.log.steps if s.when in ("reconstructed", "fine-tuned")]
    return ", ".join(f"{training.told(s.score)} {s.when}{'' if s.kept else ' (taken back)'}" for s in steps)
