"""Progressive pruning: a stage is searched, cut, recovered and trained before the next one is looked at.

SMOEA's own order (Li, Sun, Huang, Chen; arXiv 2211.01957): convolution layers are pruned group by group, a few epochs of
training after each. Every later stage is searched on the network that training left, in its statistics and with its moments.
Ours: the controller that hands each stage its share of the target, and that any searcher of widths may do the searching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.core import Clock, Listen, Plan
from compress.data import Data
from compress.evaluation import Evaluator
from compress.networks import Network, state_digest
from compress.pipeline.front import choose
from compress.pipeline.job import Job
from compress.pipeline.preparation import prepare
from compress.pipeline.steps import Workbench, finetune, guarded_cut, recovered
from compress.search import Fidelity, Front, Space, controller

Searched = Callable[[Space, Evaluator, Network], tuple[Front, dict[str, Any]]]


@dataclass(frozen=True)
class Progress:
    """A network that was pruned stage by stage.

    Attributes:
        model: cut, and trained after every stage.
        front: one point, what was cut in all: the only plan whose weights there are.
        spent: what the searches cost, added up, and what was found after every stage.
    """

    model: nn.Module
    front: Front
    spent: dict[str, Any]


def progressive(
    network: Network, data: Data, space: Space, job: Job, folder: Path, search: Searched, clock: Clock, listen: Listen
) -> Progress:
    """Prunes front to back.

    Args:
        network: unpruned; it is the teacher of every training.
        data: with training images.
        space: of the unpruned network; its stages are gone through in their order.
        job: with ``stage_epochs``.
        folder: the run's; a killed run goes on in the stage, and the epoch, where it stopped.
        search: drives the job's searcher over one stage.
        clock: collects wall times.
        listen: receives events.
    """
    plan, current = Plan(), network
    spent: list[dict[str, Any]] = []
    notes: list[str] = []
    error = 0.0
    trains = replace(job, epochs=job.stage_epochs)
    for number, stage in enumerate(space.stages):
        target = controller(space, number, plan) / space.share(plan)
        if target >= 1:
            continue
        budget = max(100, space.budget // len(space.stages))
        own = replace(job, value=target, round_to=space.round_to, budget=budget, accept_chance=True)
        topology, part, evaluator, _ = prepare(current, data, own, clock, listen, stage.groups)
        front, told = search(part, evaluator, current)
        spent.append(told)
        point, _ = choose(front, part.target, part.share, 0.0)
        error = point.error
        plan = Plan({**plan.cuts, **point.plan.cuts})
        bench, images = Workbench(data, trains, folder, clock), evaluator.material.calibration
        small, _ = guarded_cut(current.model, topology, point.plan, images)
        small = recovered(bench, current.model, small, topology, point.plan, images)
        small = finetune(bench, network.model, small, state=f"stage-{number}")
        current = replace(current, model=small, digest=state_digest(small.state_dict()))
        seen = ", ".join(
            f"{100 * a.top1:.2f} % {a.when}" for a in bench.log.accuracy if a.when in ("reconstructed", "fine-tuned")
        )
        notes.append(f"{stage.name}: {space.share(plan):.3f} of the {job.target} left; validation {seen}")
    return Progress(current.model, (space.point(plan, error, Fidelity.FULL),), _added(spent, notes))


def _added(spent: Sequence[dict[str, Any]], notes: Sequence[str]) -> dict[str, Any]:
    """The stages' searches as one."""
    requests: dict[str, dict[str, float]] = {}
    for told in spent:
        for fidelity, row in told["requests"].items():
            into = requests.setdefault(fidelity, dict.fromkeys(row, 0))
            for name, value in row.items():
                into[name] += value
    last = spent[-1] if spent else {}
    total = {k: sum(told[k] for told in spent) for k in ("budget", "image_forwards")}
    return {**last, **total, "requests": requests, "notes": [*(n for t in spent for n in t["notes"]), *notes]}
