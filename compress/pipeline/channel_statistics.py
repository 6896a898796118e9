"""What a search has to know of single channels, and no more: the criteria that its method looks at, measured once and kept.

Importance is what a run measures before it searches. Each criterion is a record of its own, compensated elimination one a
group, second moments one a layer (``compress.pipeline.statistics_store``): what a killed run has measured it does not measure
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compress.core import BranchId, Floats, GroupId, Indices, LayerName, Progressed, Topology, count, derive
from compress.evaluation import (
    CRITERIA,
    CriterionInputs,
    Evaluator,
    branch_errors,
    elimination_importance,
    gather,
    importance,
    obs_curve,
)
from compress.networks import state_digest
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.pipeline.statistics_store import StatisticsStore, WantedTensors
from compress.recovery import Gram, Moments, collect, moment_columns, moment_readers, moment_rows
from compress.search import METHODS, Auto, Case, NamesCriteria

_GRADIENT_IMAGES = 128
_BATCH = 32
_AT_ONCE = 1 << 30
"""Bytes of second moments that are summed up at once; a network with more takes several passes over the images."""
_BACKWARD = 3
"""Forward passes that a pass with gradients costs."""


@dataclass(frozen=True)
class WantedStatistics:
    """What a method asks for.

    Attributes:
        criteria: to be computed, in the order of ``CRITERIA``.
        moments: whether second moments are taken.
    """

    criteria: tuple[str, ...]
    moments: bool

    @property
    def elimination(self) -> bool:
        """Whether channels are eliminated with compensation, which needs the moments."""
        return self.moments and "obs" in self.criteria


def wanted_statistics(job: Job, ranking: str) -> WantedStatistics:
    """What the job's method, its options and the baselines beside it look at; everything where the method does not say.

    Args:
        job: the job.
        ranking: the criterion by which widths keep channels.
    """
    method = METHODS[job.method]
    searcher = method.make(**job.options)
    named = searcher.criteria if isinstance(searcher, NamesCriteria) else tuple(CRITERIA)
    criteria = tuple(name for name in CRITERIA if name in {ranking, "l1", *named})
    stands_on = "obs" in (ranking, job.options.get("criterion")) or method.moments
    compensates = method.reader_losses or (method.moments and job.recover == "reconstruct")
    return WantedStatistics(criteria, stands_on and ("obs" in criteria or compensates))


def as_taken(job: Job, groups: int, budget: int, metric: str) -> Job:
    """The job with the method that ``auto`` takes at the most, so that no more is measured for it; other jobs as they are.

    Args:
        job: the job.
        groups: channel groups that may be cut.
        budget: image-forwards before any of them is spent: the search has as many or fewer, and then takes no more than this.
        metric: what a full score is.
    """
    if job.method != "auto":
        return job
    case = Case(groups=groups, budget=budget, target=job.target, value=job.value, metric=metric)
    return replace(job, method=Auto(**job.options).choose(case).method, options={})


@dataclass(frozen=True)
class ChannelsMeasured:
    """What was found.

    Attributes:
        importance: criterion -> group -> importance, shape (channels,).
        curves: see ``ChannelStatistics``.
        inputs: weights, and moments where they were taken; what else can be computed from them.
    """

    importance: dict[str, dict[GroupId, Floats]]
    curves: dict[GroupId, Floats]
    inputs: CriterionInputs


def measure_branches(
    run: Run, evaluator: Evaluator, branches: Sequence[BranchId], budget: int, store: StatisticsStore
) -> tuple[Mapping[BranchId, float], int]:
    """``compress.evaluation.branch_errors``, branch by branch from the store or measured now."""
    about = {"judged": state_digest({"judged": evaluator.material.judged}), "metric": evaluator.material.metric}
    done = 0

    def kept(name: BranchId, images: int, measure: Callable[[], float]) -> float:
        nonlocal done
        record = {**about, "branch": name, "images": images}
        found = store.get("branch", record, {"error": (torch.float64, ())})
        if found is None:
            found = {"error": torch.tensor(measure(), dtype=torch.float64)}
            store.put("branch", record, found)
        done += 1
        run.listen(Progressed(done, len(branches), name))
        return float(found["error"])

    return branch_errors(evaluator, branches, budget, kept)


class ChannelMeasurement:
    """One run's: what is known, what is missing, and how far it is."""

    def __init__(
        self,
        run: Run,
        topology: Topology,
        groups: Sequence[GroupId],
        calibration: Tensor,
        wanted: WantedStatistics,
        store: StatisticsStore,
    ) -> None:
        self.run, self.topology, self.groups, self.wanted, self.store = run, topology, groups, wanted, store
        self.calibration, self.seed = calibration, derive(run.job.seed, "random criterion")
        self.plain = self._kept_criteria([n for n in wanted.criteria if n != "obs" or not wanted.elimination])
        self.grams, self.skipped = self._kept_moments() if wanted.moments else ({}, {})
        self.orders = self._kept_orders() if wanted.elimination else {}
        macs = float(count(topology).macs)
        wide = {x.name: moment_columns(topology, x) for x in topology.layers}
        self.missing = [n for n in wanted.criteria if n not in self.plain and (n != "obs" or not wanted.elimination)]
        shown = calibration[:_GRADIENT_IMAGES] if "taylor" in self.missing else calibration[:0]
        self.gradients = torch.split(shown, _BATCH) if len(shown) else ()
        waiting = [n for n in moment_readers(topology) if n not in self.grams and n not in self.skipped]
        self.passes = _passes(waiting if wanted.moments else [], wide, topology)
        self.prices = {
            g: sum(float(wide[x.name]) ** 3 for x in topology.readers(g)) + 1
            for g in (groups if wanted.elimination else ())
            if g not in self.orders
        }
        squares = sum(float(wide[n]) ** 2 * moment_rows(wide[n]) for part in self.passes for n in part)
        self.done, self.per_image = 0.0, macs + squares / max(len(calibration) * len(self.passes), 1)
        self.total = _BACKWARD * macs * len(shown) + self.per_image * len(calibration) * len(self.passes)
        self.total += sum(self.prices.values()) + macs * len(self.missing)

    def all_wanted(self) -> ChannelsMeasured:
        """Everything that is wanted of these groups; what the store has is not computed."""
        inputs, known = self.importance()
        if self.wanted.moments:
            inputs = replace(inputs, moments=self.moments())
        curves: dict[GroupId, Floats] = {}
        if self.wanted.elimination:
            known["obs"], curves = self.elimination(inputs)
        return ChannelsMeasured({name: known[name] for name in self.wanted.criteria}, curves, inputs)

    def importance(self) -> tuple[CriterionInputs, dict[str, dict[GroupId, Floats]]]:
        """The criteria but elimination; gradients are taken only where one of them is missing that needs them."""
        model, known, macs = self.run.network.model, dict(self.plain), float(count(self.topology).macs)

        def watched() -> Iterator[Tensor]:
            for images in self.gradients:
                yield images
                self._advance(_BACKWARD * macs * len(images), "gradients")

        inputs = gather(model, watched(), seed=self.seed, task=self.run.task)
        for name in self.missing:
            known |= importance(inputs, self.topology, self.groups, [name])
            self.store.put(f"importance-{name}", self._about, {str(g): torch.from_numpy(v) for g, v in known[name].items()})
            self._advance(macs, name)
        return replace(inputs, gradients={}), known

    def moments(self) -> Moments:
        """The second moments of every dense reader; each pass is kept before the next begins."""
        grams, skipped, batches = dict(self.grams), dict(self.skipped), torch.split(self.calibration, _BATCH)
        for part in self.passes:
            found = collect(
                self.run.network.model,
                self.topology,
                batches,
                only=part,
                after=lambda images: self._advance(self.per_image * images, "moments"),
            )
            for name, why in found.skipped.items():
                skipped[name] = why
                self.store.put("no-moments", name, {"why": torch.frombuffer(bytearray(why.encode()), dtype=torch.uint8)})
            for name, gram in found.layers.items():
                self.store.put("moments", name, _tensors(gram))
                grams[name] = self._kept_gram(name) or gram  # in memory that the system may take back
        order = [n for n in moment_readers(self.topology) if n in grams]
        return Moments({n: grams[n] for n in order}, skipped, len(self.calibration))

    def elimination(self, inputs: CriterionInputs) -> tuple[dict[GroupId, Floats], dict[GroupId, Floats]]:
        """The ``obs`` importance of each group's channels, and what removing each of them adds."""
        lateness, curves = dict[GroupId, Floats](), dict[GroupId, Floats]()
        for group in self.groups:
            if group not in self.orders:
                order, errors = obs_curve(inputs, self.topology, self.topology.by_id[group])
                self.orders[group] = order, errors
                self.store.put("obs", group, {"order": torch.from_numpy(order), "errors": torch.from_numpy(errors)})
                self._advance(self.prices[group], f"obs of {group}")
            lateness[group], curves[group] = elimination_importance(*self.orders[group])
        return lateness, curves

    # ---- what is kept ----------------------------------------------------------------------------------------------------

    @property
    def _about(self) -> dict[str, Any]:
        return {"groups": list(self.groups), "seed": self.seed}

    def _kept_criteria(self, names: Sequence[str]) -> dict[str, dict[GroupId, Floats]]:
        shapes: WantedTensors = {str(g): (torch.float64, (self.topology.by_id[g].size,)) for g in self.groups}
        found = {name: self.store.get(f"importance-{name}", self._about, shapes) for name in names}
        return {n: {g: rows[str(g)].numpy() for g in self.groups} for n, rows in found.items() if rows is not None}

    def _kept_moments(self) -> tuple[dict[LayerName, Gram], dict[LayerName, str]]:
        grams, skipped = dict[LayerName, Gram](), dict[LayerName, str]()
        for name in moment_readers(self.topology):
            gram = self._kept_gram(name)
            why = None if gram is not None else self.store.get("no-moments", name, {"why": (torch.uint8, (-1,))})
            if gram is not None:
                grams[name] = gram
            elif why is not None:
                skipped[name] = bytes(why["why"].tolist()).decode(errors="replace")
        return grams, skipped

    def _kept_gram(self, name: LayerName) -> Gram | None:
        layer = self.topology.by_layer[name]
        chosen = moment_columns(self.topology, layer)
        size = (layer.cardinality, chosen, chosen)
        for dtype in (torch.float64, torch.float32):
            wanted: WantedTensors = {
                "covariance": (dtype, size),
                "mean": (dtype, size[:2]),
                "columns": (torch.int64, (chosen,)),
                "rows": (torch.int64, ()),
                "note": (torch.uint8, (-1,)),
            }
            found = self.store.get("moments", name, wanted)
            if found is not None:
                note = bytes(found["note"].tolist()).decode(errors="replace")
                return Gram(
                    covariance=found["covariance"],
                    mean=found["mean"],
                    columns=found["columns"],
                    rows=int(found["rows"]),
                    note=note,
                )
        return None

    def _kept_orders(self) -> dict[GroupId, tuple[Indices, Floats]]:
        found = {}
        for group in self.groups:
            size = self.topology.by_id[group].size
            shapes: WantedTensors = {"order": (torch.int64, (size,)), "errors": (torch.float64, (size + 1,))}
            kept = self.store.get("obs", group, shapes)
            if kept is not None and sorted(kept["order"].tolist()) == list(range(size)):
                found[group] = kept["order"].numpy(), kept["errors"].numpy()
        return found

    def _advance(self, price: float, note: str) -> None:
        self.done += price
        self.run.listen(Progressed(min(self.done, self.total), self.total, note))


def _tensors(gram: Gram) -> dict[str, Tensor]:
    note = (
        torch.frombuffer(bytearray(gram.note.encode()), dtype=torch.uint8) if gram.note else torch.zeros(0, dtype=torch.uint8)
    )
    return {
        "covariance": gram.covariance,
        "mean": gram.mean,
        "columns": gram.columns,
        "rows": torch.tensor(gram.rows),
        "note": note,
    }


def _passes(names: Sequence[LayerName], wide: Mapping[LayerName, int], topology: Topology) -> list[list[LayerName]]:
    """The layers in runs whose moments are summed up at once."""
    passes: list[list[LayerName]] = []
    held = 0
    for name in names:
        size = topology.by_layer[name].cardinality * wide[name] ** 2 * 8
        if not passes or held + size > _AT_ONCE:
            passes.append([])
            held = 0
        passes[-1].append(name)
        held += size
    return passes
