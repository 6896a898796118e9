"""From requests to scores: stages on cached inputs, finalists as whole cut networks with batch norms re-estimated."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from compress.core import ERROR, Figure, Plan, Topology, wilson
from compress.coupling import NotTraceable, symbolic_graph
from compress.evaluation.freed_memory import give_back
from compress.evaluation.output_error import output_error, outputs_of, relative
from compress.evaluation.stage_runner import StageRunner, cutout, values_at
from compress.networks import channels_last, in_batches
from compress.recovery import Compensation, Moments, reconstruct, reestimate
from compress.search import Ask, Fidelity, Recovery, Score, Stage
from compress.signature import first_tensor
from compress.surgery import cut, replaced, silence
from compress.tasks import Classification, Task, first_of

Metric = Literal["accuracy", "score", "agreement", "output"]
"""Errors: of the task's figure, which classification calls accuracy; how much answers differ from the unpruned network's, which
bounds the figure's loss without targets; relative squared error of the outputs."""

_BATCH = 64
CACHE = 1 << 30
"""Bytes that a stage's cached inputs and outputs may take; a stage that needs more sees fewer images."""


@dataclass(frozen=True)
class Material:
    """The images an evaluation may see; none of them is from the test split.

    Attributes:
        calibration: normalised images, (n, c, h, w): batch norms, stages' inputs.
        judged: images that full scores are taken on.
        batches: the same with their targets, as the task takes them, where the metric wants targets.
        metric: what a full score is.
        task: what the network is for.
    """

    calibration: Tensor
    judged: Tensor
    batches: Sequence[Any] | None
    metric: Metric
    task: Task = field(default_factory=Classification)

    @property
    def counted(self) -> Figure:
        """What a full score counts."""
        by_task = self.metric in ("score", "agreement")
        return self.task.figure.lost if by_task and self.task.figure is not None else ERROR

    @property
    def scored(self) -> bool:
        """Whether a full score is the task's figure."""
        return self.metric in ("accuracy", "score")


class Evaluator:
    """Scores plans.

    Args:
        model: the unpruned network, eval mode.
        topology: its topology.
        stages: what ``STAGE`` requests count in.
        material: images.
        statistics_images: calibration images that batch norms are re-estimated on for a full score.
        moments: of the unpruned network, for requests of ``compensated`` networks; without them batch norms are all.
        solve_images: calibration images that ``reconstructed`` networks are solved on; 0 solves nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        topology: Topology,
        stages: Sequence[Stage],
        material: Material,
        statistics_images: int = 128,
        moments: Moments | None = None,
        solve_images: int = 0,
    ) -> None:
        self.model = channels_last(copy.deepcopy(model).eval())
        self.topology = topology
        self.stages = tuple(stages)
        self.material = material
        self.statistics_images = min(statistics_images, len(material.calibration))
        self.solve_images = min(solve_images, len(material.calibration))
        self.compensation = None if moments is None else Compensation(self.model.state_dict(), topology, moments)
        few = 2 if material.metric == "score" else len(material.judged)  # dense answers of many images fill the memory
        self.wanted = logits(self.model, material.judged[:few])
        self.outputs = outputs_of(self.model, material.judged) if material.metric == "output" else (self.wanted,)
        self.base = 0.0  # the unpruned network's value; of classification nobody asks
        if material.metric == "score":
            self.base = material.task.scored(self.model, material.batches or ()).value
        self.fallback = ""
        self.graph: fx.Graph | None = None
        try:
            graph = symbolic_graph(self.model)
            for stage in stages:
                cutout(graph, topology, stage.groups)
            _same(self.model, graph, material.judged[:2], self.wanted[:2])
            self.graph = graph
        except NotTraceable as error:  # whole forwards, and as many again for the statistics
            self.fallback = error.message
            self.stages = tuple(replace(stage, fraction=2.0, tail=2.0) for stage in stages)
        self._per_image: dict[tuple[int, bool], int] = {}
        self._runner: tuple[tuple[int, bool, str, int, Recovery], StageRunner] | None = None

    def __call__(self, ask: Ask, lead: Plan | None = None) -> list[Score]:
        """Scores every plan of a request.

        Args:
            ask: the request, or a part of one.
            lead: the plan whose cuts outside the asked stage surround all of them; by default the request's first.
        """
        give_back()
        if ask.fidelity is not Fidelity.FULL and self.graph is None:
            return [Score(self.whole_error(plan, ask.images, ask.recovery)) for plan in ask.plans]
        if ask.fidelity is not Fidelity.FULL:
            runner = self._stage(ask, lead or ask.plans[0])
            return [Score(runner.error(plan, ask.images)) for plan in ask.plans]
        return [Score(self.full(plan, ask.images, ask.recovery)) for plan in ask.plans]

    def price(self, ask: Ask) -> float:
        """Image-forwards that one plan of a request costs, at the most."""
        if ask.fidelity is not Fidelity.FULL:
            return min(ask.images, len(self.material.calibration)) * self.stages[ask.stage].part(ask.fidelity)
        judged = min(ask.images or len(self.material.judged), len(self.material.judged))
        if ask.recovery == "reconstructed" and self.solve_images:  # both networks run, and solving takes about as long
            return float(judged + 3 * self.solve_images)
        return float(judged + min(self.statistics_images, judged))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is quickly made again: graphs and caches stay behind."""
        return {**self.__dict__, "graph": None, "_runner": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.graph = None if self.fallback else symbolic_graph(self.model)

    def _stage(self, ask: Ask, lead: Plan) -> StageRunner:
        """The runner for this stage in these surroundings; the last one is kept."""
        stage = self.stages[ask.stage]
        others = tuple(b for b in lead.branches if b not in stage.branches)
        before = Plan({g: c for g, c in lead.cuts.items() if g not in stage.groups}, branches=others)
        images = min(ask.images, len(self.material.calibration))
        known = self._runner
        to_end = ask.fidelity is Fidelity.TAIL
        key = (ask.stage, to_end, before.digest, images, ask.recovery)
        if known is not None and known[0] == key:
            return known[1]
        assert self.graph is not None
        self._runner = None  # frees the caches before the next ones are filled
        part = cutout(self.graph, self.topology, self.stages[ask.stage].groups, to_end)
        compensation = None if ask.recovery == "bn" else self.compensation
        recovery: Recovery = "bn" if compensation is None else "compensated"
        surrounded = self._surrounded(before, recovery) if before else self.model
        shown = self._calibration(self._fitting(ask.stage, images, to_end))
        runner = StageRunner(
            self.model,
            self.graph,
            self.topology,
            part,
            before,
            shown,
            surrounded=surrounded,
            compensation=compensation,
        )
        self._runner = (key, runner)
        return runner

    def _surrounded(self, before: Plan, recovery: Recovery) -> nn.Module:
        """What a stage stands in: cut, but for the branches that are gone: they run and give zeros, as the graph expects."""
        cuts = Plan(before.cuts, before.inputs)
        if not before.branches:
            return self.small(cuts, self.statistics_images, recovery)
        model = self.model if recovery == "bn" or self.compensation is None else replaced(self.model, self.compensation(cuts))
        around = cut(model, self.topology, cuts)
        silence(around, dict.fromkeys(n for b in before.branches for n in self.topology.by_branch[b].silenced))
        return reestimate(around, self._statistics(self.statistics_images))

    def small(self, plan: Plan, images: int, recovery: Recovery) -> nn.Module:
        """The cut network, recovered; batch norms are re-estimated on as many images as will be judged."""
        model = self.model
        if recovery == "reconstructed" and self.solve_images:
            solve = in_batches(self._calibration(self.solve_images))
            return reconstruct(model, cut(model, self.topology, plan), self.topology, plan, solve).model.eval()
        if recovery != "bn" and self.compensation is not None:
            model = replaced(model, self.compensation(plan))
        return reestimate(cut(model, self.topology, plan), self._statistics(images))

    def _fitting(self, stage: int, images: int, to_end: bool) -> int:
        """As many of the images as the stage's cached inputs and outputs may take memory for."""
        assert self.graph is not None
        if (stage, to_end) not in self._per_image:
            part = cutout(self.graph, self.topology, self.stages[stage].groups, to_end)
            values = values_at(self.model, self.graph, self._calibration(1), (*part.inputs, *part.outputs))
            self._per_image[stage, to_end] = max(1, sum(t.numel() * t.element_size() for t in values if isinstance(t, Tensor)))
        return max(2, min(images, CACHE // self._per_image[stage, to_end]))

    def whole_error(self, plan: Plan, images: int, recovery: Recovery = "bn") -> float:
        """What a stage request falls back to: the outputs' relative error of the whole cut network."""
        few = self.material.judged[:images]
        small = self.small(plan, len(few), recovery)
        if self.material.metric == "score":
            return output_error(outputs_of(self.model, few), outputs_of(small, few))
        if self.material.metric != "output":
            return relative(self.wanted[: len(few)], logits(small, few))
        return output_error([t[: len(few)] for t in self.outputs], outputs_of(small, few))

    def full(self, plan: Plan, images: int = 0, recovery: Recovery = "bn") -> float:
        """The real thing: cut, re-solve if wanted, re-estimate, run; on so many images, or on all."""
        judged = len(self.material.judged[: images or None])
        return self.judge(self.small(plan, judged, recovery), judged).error

    def judge(self, small: nn.Module, images: int = 0, *, interval: bool = False) -> Score:
        """What a small network is worth on so many of the judged images, or on all, with its interval where there is one.

        A task with a measure of its own for searches gives its interval only where it is wanted: that costs a second look.
        """
        judged, task = self.material.judged[: images or None], self.material.task
        small = small.eval()
        if self.material.metric == "output":
            return Score(output_error([t[: len(judged)] for t in self.outputs], outputs_of(small, judged)))
        if self.material.scored:
            assert self.material.batches is not None
            return self._scored(small, list(first_of(self.material.batches, len(judged))), interval)
        error = self._change(small, judged)
        exact = task.names_one_label and math.isfinite(error)
        return Score(error, wilson(round(error * len(judged)), len(judged)) if exact else None)

    def _scored(self, small: nn.Module, batches: Sequence[Any], interval: bool) -> Score:
        """By the task's figure, or by its own measure for searches."""
        task, figure = self.material.task, self.material.task.figure
        own = None
        if type(task).error is not Task.error or figure is None:
            own = task.error(small, batches, self.base)
            if figure is None or not interval or not math.isfinite(own):
                return Score(own)
        found = task.scored(small, batches)
        error, *ends = (figure.error(float(x), self.base) for x in (found.value, found.low, found.high))
        error = error if own is None else own
        ends = [*ends, error]  # its own measure may be rounded otherwise
        return Score(error, (min(ends), max(ends)) if all(map(math.isfinite, ends)) else None)

    @property
    def base_error(self) -> float:
        """The unpruned network's own score."""
        if not self.material.scored:
            return 0.0
        return self.material.task.error(self.model, self.material.batches or (), self.base)

    def _change(self, small: nn.Module, judged: Tensor) -> float:
        """How much the answers differ from the unpruned network's; NaN where one is not finite."""
        task, found = self.material.task, []
        with torch.no_grad():
            for images in torch.split(judged, _BATCH):
                shown = images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images
                raw, before = small(shown), self.model(shown)
                if not all(bool(t.isfinite().all()) for t in task.outputs(raw).values()):
                    return float("nan")
                change = task.change(raw, before)
                assert change is not None
                found.append(change)
        changes = torch.cat(found)
        if task.names_one_label:
            return 1.0 - float((changes == 0).float().mean())
        mean = float(changes.double().mean())
        return mean**0.5 if task.root else mean

    def _statistics(self, most: int) -> list[Tensor]:
        return in_batches(self._calibration(min(self.statistics_images, most)))

    def _calibration(self, count: int) -> Tensor:
        images = self.material.calibration[:count]
        return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def _same(model: nn.Module, graph: fx.Graph, images: Tensor, wanted: Tensor) -> None:
    """Code that looks at None, or at attributes, may have been traced down another branch.

    Raises:
        NotTraceable: the graph computes something else than the network.
    """
    got = logits(fx.GraphModule(model, graph), images)
    if got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())):
        raise NotTraceable(f"no stage-wise search on {type(model).__name__}: its graph computes something else")


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """The network's first output for these images, (n, classes), in evaluation mode."""
    parts = []
    was = model.training
    model.eval()
    with torch.no_grad():
        for batch in torch.split(images, _BATCH):
            output = model(batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch)
            first = first_tensor(output)
            parts.append(first.flatten(1) if first.dim() > 1 else first[:, None])
    model.train(was)
    return torch.cat(parts)
