"""The arms of ``equal_latency.py``: each looks for its network of a wanted latency, measured on this CPU."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.core import BranchId, Plan, Topology
from compress.coupling import trace
from compress.data import Data
from compress.evaluation import gather, importance
from compress.export import export
from compress.latency import relative_times
from compress.networks import Network, in_batches
from compress.pipeline import Job, decide, make, make_job
from compress.pipeline.steps import FINALISTS
from compress.recovery import reconstruct, reestimate
from compress.runtime import OrtRuntime
from compress.search import ChannelStatistics, CostModel, Space, Target, Uniform, last_of_each, make_stages, prunable
from compress.surgery import cut

try:
    import fastnas_arm
    import torch_pruning_arm as others
except ImportError:  # as a module of the repository
    from benchmarks import fastnas_arm
    from benchmarks import torch_pruning_arm as others

WITHIN, CLOSE = 0.01, 0.004
"""What equal means; where looking for it stops."""
_SOLVED = 512
FASTNAS = "ModelOpt's FastNAS"


@dataclass(frozen=True)
class Budget:
    """How much is spent; ``--tiny`` spends next to nothing, to prove that everything runs.

    Attributes:
        seconds: of a latency while it is looked for.
        last: of the measurement of all arms in turn.
        networks: of the latency table that ours search with.
        forwards: of a search; None is a run's default.
        images: training images a pass; None is all of them.
        epochs: passes.
        trials: latencies that one arm may measure.
        scored: calibration images of each of FastNAS's scores, and half of the validation images.
    """

    seconds: float = 4.0
    last: float = 60.0
    networks: int = 60
    forwards: int | None = None
    images: int | None = None
    epochs: int = 1
    trials: int = 9
    scored: int = 250


@dataclass(frozen=True)
class Some:
    """Other images of the training split in every pass, so many of them."""

    split: Any
    most: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)

    @property
    def digest(self) -> str:
        """Of the split and the number."""
        return f"{self.split.digest}-{self.most}"

    def __len__(self) -> int:
        return min(self.most, len(self.split))

    def batches(self, batch_size: int, **how: Any) -> Any:
        """The first ones of the order that is wanted."""
        return self.split.batches(batch_size, **{**how, "limit": len(self)})


@dataclass(frozen=True)
class Bench:
    """What all arms share.

    Attributes:
        asked: what had to be asked of the latency table for a latency, by the latency and whether branches may go.
    """

    network: Network
    data: Data
    work: Path
    budget: Budget
    asked: dict[tuple[float, bool], float] = field(default_factory=dict)

    @cached_property
    def topology(self) -> Topology:
        """Of the unpruned network."""
        return trace(self.network.model, self.images[:2])

    @cached_property
    def images(self) -> Tensor:
        """Calibration images."""
        return self.data.calibration.images(_SOLVED)

    @cached_property
    def space(self) -> Space:
        """Of uniform l1: no residual stream is cut."""
        groups, _ = prunable(self.topology, ())
        stages = make_stages(self.topology, groups, streams=False) or make_stages(self.topology, groups)
        wanted = [g for s in stages for g in s.groups]
        seen = gather(self.network.model, in_batches(self.images[:64]), seed=0)
        statistics = ChannelStatistics(importance=importance(seen, self.topology, wanted))
        return Space(CostModel(self.topology, Target("macs")), stages, statistics, budget=1000, round_to=8)

    @cached_property
    def table(self) -> Path:
        """The latency table that ours search with; measured where it is not there."""
        path = self.work / "table.json"
        if not path.exists():
            how = {"networks": self.budget.networks, "seconds": self.budget.seconds / 2}
            make(self.network, self.topology, Job(), path, print, **how)
        return path

    @cached_property
    def base_file(self) -> Path:
        """The unpruned network's ONNX file."""
        path = self.work / "base.onnx"
        export(self.network.model, self.images[:1], path, exporter="legacy")
        return path

    def cut_of(self, how: Mapping[str, Any]) -> nn.Module:
        """A network made again from what an arm found, as it is after its cut."""
        if "share" in how:
            started = cut(self.network.model, self.topology, Plan(branches=tuple(how["blocks"])))
            return others.l1(started, in_batches(self.images), how["share"], 0, round_to=how["round_to"])
        return cut(self.network.model, self.topology, Plan.from_json(how["plan"]))

    def network_of(self, how: Mapping[str, Any]) -> nn.Module:
        """The same, recovered as its users would, not trained."""
        small, images = self.cut_of(how), in_batches(self.images)
        if "share" in how or how.get("settled"):
            return reestimate(small, images).eval()
        return reconstruct(self.network.model, small, self.topology, Plan.from_json(how["plan"]), images).model.eval()

    def latency(self, how: Mapping[str, Any]) -> float:
        """What an arm found, measured in turn with the unpruned network: its share."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.onnx"
            export(self.cut_of(how).eval(), self.images[:1], path, exporter="legacy")
            return relative_times(self.base_file, {"small": path}, OrtRuntime(), self.budget.seconds, 0)["small"]

    def blocks(self, number: int) -> tuple[BranchId, ...]:
        """So many identity blocks of each stage, as its users take them out: the last ones; () where a stage has fewer."""
        names = [branch.name for branch in self.topology.branches]
        gone = last_of_each(names, number)
        return gone if len(gone) == number * len(last_of_each(names, 1)) else ()


Found = dict[str, Any]
"""What makes a network again: ``plan``, where ``settled`` with re-estimated batch norms in place of the least squares; or
``share``, ``round_to`` and ``blocks`` of Torch-Pruning."""


def searched(bench: Bench, target: float, how_at: Callable[[float], Found]) -> Found | None:
    """The knob whose network's measured latency is nearest to the target: on the chord of what was measured so far."""
    low, high, best = (0.02, 0.2), (1.0, 1.0), (math.inf, None)
    for _ in range(bench.budget.trials):
        along = (target - low[1]) / max(1e-9, high[1] - low[1])
        knob = low[0] + min(0.85, max(0.15, along)) * (high[0] - low[0])
        try:
            how = how_at(knob)
            seen = bench.latency(how)
        except others.ModelError:  # so little cannot be reached
            low = (knob, low[1])
            continue
        if abs(seen / target - 1) < best[0]:
            best = (abs(seen / target - 1), {**how, "looked": seen})
        if best[0] <= CLOSE or high[0] - low[0] < 1e-3:
            break
        low, high = ((knob, seen), high) if seen < target else (low, (knob, seen))
    return best[1]


def uniform(bench: Bench, target: float, *, blocks: int = 0) -> Found | None:
    """Equal shares of every group by l1, streams whole, after equal numbers of blocks; None where there are no such blocks."""
    gone = bench.blocks(blocks) if blocks else ()
    if blocks and not gone:
        return None
    space = bench.space.without(gone)
    return searched(bench, target, lambda share: {"plan": Uniform("l1").plan(space, share).to_json()})


def torch_pruning(bench: Bench, target: float, *, round_to: int, blocks: int = 0) -> Found | None:
    """Torch-Pruning's l1; None where it has no such blocks, or no network that is so fast."""
    gone = bench.blocks(blocks) if blocks else ()
    if blocks and not gone:
        return None
    return searched(bench, target, lambda share: {"share": share, "round_to": round_to, "blocks": list(gone)})


def ours(bench: Bench, target: float, *, method: str, branches: bool = True, finalists: bool = False) -> Found | None:
    """As ``compress prune --latency`` decides; where a measurement misses by more than 1 %, asked anew, thrice at most.

    With finalists it decides by short trainings, half of an epoch in all, as it does wherever training images are there; the
    other arms are trained so much longer.
    """
    asked, best = bench.asked.get((target, branches), target), (math.inf, None)
    for number in range(3):
        flags = {
            "method": method,
            "target": "latency",
            "value": min(1.0, asked),
            "table": str(bench.table),
            "branches": branches,
            "budget": bench.budget.forwards,
            "finalists": FINALISTS if finalists else 0,
            "epochs": 1,
        }
        kind = f"{'' if branches else 'no-'}branches{'-finalists' if finalists else ''}"
        found = decide(bench.network, bench.data, make_job(flags=flags), bench.work / f"{target:g}-{method}-{kind}-{number}")
        how = {"plan": found.plan.to_json(), "why": found.why, "found_by": found.found_by, "trained": 0.5 if finalists else 0.0}
        seen = bench.latency(how)
        if abs(seen / target - 1) < best[0]:
            best = (abs(seen / target - 1), {**how, "looked": seen})
            bench.asked[target, branches] = asked  # the table's own error is every method's
        if best[0] <= WITHIN:
            break
        asked *= target / seen
    return best[1]


def by_params(bench: Bench, share: float, method: str) -> Found:
    """As ``compress prune --params`` decides, without finalists; the others are brought to its latency."""
    flags = {
        "method": method,
        "target": "params",
        "value": share,
        "budget": bench.budget.forwards,
        "finalists": 0,
        "epochs": 1,
    }
    found = decide(bench.network, bench.data, make_job(flags=flags), bench.work / f"params-{share:g}-{method}")
    how = {"plan": found.plan.to_json(), "why": found.why, "found_by": found.found_by, "trained": 0.0}
    return {**how, "looked": bench.latency(how)}


def fastnas(bench: Bench, target: float) -> Found | None:
    """ModelOpt's FastNAS: scored on validation images, batch norms calibrated; recovered as it is scored."""

    def score(model: nn.Module) -> float:  # in eval mode: another call of it would calibrate anew
        right = seen = 0
        device = next(model.parameters()).device
        with torch.no_grad():
            for pictures, labels in bench.data.validation.batches(250, limit=2 * bench.budget.scored):
                right += int((model(pictures.to(device)).argmax(1).cpu() == labels).sum())
                seen += len(labels)
        return right / seen

    def at(share: float) -> Found:
        images, kept = in_batches(bench.images[: bench.budget.scored]), bench.work / "fastnas.pth"
        plan = fastnas_arm.plan_at(bench.network.model, bench.topology, share, images=images, score=score, kept=kept)
        return {"plan": plan.to_json(), "settled": True}

    return searched(bench, target, at)


def practise(bench: Bench, target: float) -> Found | None:
    """Blocks by what each costs alone, in the features behind over the latency that it saves: the cheapest ones go."""
    whole, price = features(bench.network.model, bench.images), {}
    for branch in bench.topology.branches:
        how = {"plan": Plan(branches=(branch.name,)).to_json()}
        lost = float(
            ((features(bench.network_of(how), bench.images) - whole) ** 2).sum() / ((whole - whole.mean(0)) ** 2).sum()
        )
        price[branch.name] = lost / max(1e-6, 1 - bench.latency(how))
    cheapest, best = sorted(price, key=lambda name: price[name]), (math.inf, None)
    for number in range(1, len(cheapest) + 1):
        how = {"plan": Plan(branches=tuple(cheapest[:number])).to_json()}
        seen = bench.latency(how)
        if abs(seen / target - 1) < best[0]:
            best = (abs(seen / target - 1), {**how, "looked": seen})
        if seen <= target:
            break
    return best[1]


def features(model: nn.Module, images: Tensor) -> Tensor:
    """What the last linear layer reads."""
    seen: list[Tensor] = []
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for batch in in_batches(images):
            model(batch)
    hook.remove()
    return torch.cat(seen)


def arms() -> dict[str, Callable[[Bench, float], Found | None]]:
    """All of them by name."""
    found: dict[str, Callable[[Bench, float], Found | None]] = {"uniform l1": uniform}
    for blocks in (1, 2):
        found[f"uniform l1, {blocks} blocks of each stage out"] = lambda bench, target, blocks=blocks: uniform(
            bench, target, blocks=blocks
        )
    for step in (1, 8):
        for blocks in (0, 1, 2, 3, 4):
            name = f"Torch-Pruning, round_to {step}" + (f", {blocks} blocks of each stage out" if blocks else "")
            found[name] = lambda bench, target, step=step, blocks=blocks: torch_pruning(
                bench, target, round_to=step, blocks=blocks
            )
    found["PRACTISE's greedy blocks"] = practise
    found[FASTNAS] = fastnas
    for method in ("obs", "smoea"):
        found[method] = lambda bench, target, method=method: ours(bench, target, method=method)
        found[f"{method}, no branches"] = lambda bench, target, method=method: ours(
            bench, target, method=method, branches=False
        )
        found[f"{method}, finalists"] = lambda bench, target, method=method: ours(bench, target, method=method, finalists=True)
    return found
