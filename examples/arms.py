"""What the two ``compare.py`` share: networks of equal measured latency by several methods, trained alike, paired intervals.

An arm is ``smoea``, ``obs`` or ``uniform``, which look for their network as ``compress prune --latency`` does (the first two
may leave branches out) and are recovered by least squares on unlabelled images; or ``tp-l1``, Torch-Pruning's L1 norms at one
ratio for all layers with its ``round_to=8``, by bisection of the measured latency, batch norms re-estimated. Four steps, each
kept in WORK and made once: ``found`` the widths and the recovered networks, ``clocked`` all of them in turn, ``trained`` alike
with every seed, ``scored`` on the test split.
``--only`` some of them lets another machine train.
"""

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import compress
from benchmarks.equal_latency import in_turn
from benchmarks.equal_latency_arms import Bench, Found, searched
from benchmarks.gpu_parts import l1_at
from benchmarks.torch_pruning_arm import macs
from compress.core import Plan, write_json
from compress.coupling import trace
from compress.pipeline import Job, make
from compress.recovery import reconstruct, reestimate

ARMS = ("smoea", "obs", "uniform", "tp-l1")
STEPS = ("found", "clocked", "trained", "scored")
DRAWS = 1000
Figure = Callable[[nn.Module], tuple[float, np.ndarray]]
"""A network's figure on the test split, and that of every draw of its images, (draws,)."""


class Widths(Bench):
    """The networks that are looked for: widths and branches alone, since weights do not matter to time."""

    @cached_property
    def images(self) -> Tensor:
        """Calibration images."""
        return self.data.calibration.images(64)

    @cached_property
    def left(self) -> list[str]:
        """The layers that Torch-Pruning is to leave alone: those that make the outputs."""
        return sorted(trace(self.network.model, self.images[:2]).frozen)

    def cut_of(self, how: Mapping[str, Any]) -> nn.Module:
        """Cut, not recovered."""
        if "ratio" in how:
            return l1_at(self.network.model, self.images.shape[1:], how["ratio"], self.left, how["round_to"])
        return compress.cut(self.network.model, self.topology, Plan.from_json(how["plan"]))

    def network_of(self, how: Mapping[str, Any]) -> nn.Module:
        """Recovered as its users do it without labels."""
        small, batches = self.cut_of(how), list(self.images.split(8))
        if "ratio" in how:
            return reestimate(small, batches)
        plan = Plan.from_json(how["plan"])
        return reconstruct(self.network.model, small, self.topology, plan, batches).model.eval()


def ours(bench: Widths, method: str, target: float) -> Found:
    """As ``compress prune --latency`` decides, without labels."""
    table = bench.work / "table.json"
    if not table.exists():
        make(
            bench.network, bench.topology, Job(), table, print, networks=bench.budget.networks, seconds=bench.budget.seconds / 2
        )
    flags = {"method": method, "target": "latency", "value": target, "table": str(table), "finalists": 0}
    flags |= {"budget": bench.budget.forwards, "calibration": len(bench.images), "epochs": 0}
    found = compress.decide(bench.network, bench.data, compress.make_job(flags=flags), bench.work / f"{method}-{target:g}")
    return {"plan": found.plan.to_json(), "why": found.why, "found_by": found.found_by}


def theirs(bench: Widths, target: float) -> Found:
    """Torch-Pruning's L1 at the ratio of this latency, in widths that kernels like."""
    found = searched(bench, target, lambda share: {"ratio": 1 - share, "round_to": 8})
    assert found is not None
    return found


def options(parent: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
    """Of both commands, beside those of the training."""
    parser = argparse.ArgumentParser(
        description=text, parents=[parent], formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    for name in ("data", "weights", "work", "result"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.7, 0.5], help="shares of the unpruned network's")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--budget", type=int, help="image-forwards of a search")
    parser.add_argument("--networks", type=int, default=60, help="of the latency table")
    parser.add_argument("--clock", type=float, default=60.0, help="seconds of the measurement of all arms in turn")
    parser.set_defaults(epochs=0)
    return parser


@dataclass(frozen=True)
class Comparison:
    """One network's arms.

    Attributes:
        told: the command's options.
        bench: what is pruned.
        train: a network and a seed to the trained network.
        figure: scores a network on the test split.
        unit: the figure's name.
    """

    told: argparse.Namespace
    bench: Widths
    train: Callable[[nn.Module, int], nn.Module]
    figure: Figure
    unit: str

    def run(self) -> None:
        """The steps that are wanted; the last one prints and writes."""
        told, names = self.told, [f"{arm}-{share:g}" for share in self.told.latency for arm in self.told.arms]
        if "found" in told.only:
            for name in names:
                self.module(name)
        if "clocked" in told.only:
            self.clocked(names)
        if "trained" in told.only and told.epochs:
            for name in names:
                for seed in told.seeds:
                    self.module(name, seed)
        if "scored" in told.only:
            self.scored(names)

    def how(self, name: str) -> Found:
        """What makes an arm's network, looked for once."""
        path, (arm, _, share) = self.bench.work / f"{name}.json", name.rpartition("-")
        if not path.is_file():
            target = float(share)
            write_json(path, theirs(self.bench, target) if arm == "tp-l1" else ours(self.bench, arm, target))
        return dict(json.loads(path.read_text()))

    def module(self, name: str, seed: int | None = None) -> nn.Module:
        """An arm's network, recovered; or trained with a seed. Made once."""
        path = self.path(name, seed, ".pt")
        if not path.is_file():
            made = self.bench.network_of(self.how(name)) if seed is None else self.train(copy.deepcopy(self.module(name)), seed)
            torch.save(made, path)
            print(path.stem, flush=True)
        found: nn.Module = torch.load(path, weights_only=False)  # of our own making, in our own folder
        return found

    def path(self, name: str, seed: int | None, ending: str) -> Path:
        """Where an arm's network or its score is kept."""
        tail = "" if seed is None else f"-{self.told.epochs}-epochs-{seed}"
        return self.bench.work / f"{name}{tail}{ending}"

    def trained(self, name: str) -> list[int]:
        """The seeds that an arm was trained with so far."""
        return [seed for seed in self.told.seeds if self.path(name, seed, ".pt").is_file()]

    def clocked(self, names: list[str]) -> dict[str, Any]:
        """The arms' latencies, all in one measurement."""
        path = self.bench.work / "clocked.json"
        if not path.is_file():
            write_json(path, in_turn(self.bench, {name: self.how(name) for name in names}))
        return dict(json.loads(path.read_text()))

    def score(self, name: str, seed: int | None = None) -> tuple[float, np.ndarray]:
        """The test figure and those of its draws, read once."""
        path = self.path(name, seed, ".npz")
        if not path.is_file():
            model = self.bench.network.model if name == "base" else self.module(name, seed)
            point, draws = self.figure(model.eval())
            np.savez(path, point=point, draws=draws)
        with np.load(path) as held:
            return float(held["point"]), held["draws"]

    def scored(self, names: list[str]) -> None:
        """Write and print all figures."""
        told, example = self.told, self.bench.images[:1]
        clocked, base, whole = self.clocked(names), self.score("base"), macs(self.bench.network.model, example)
        rows: dict[str, Any] = {}
        for name in names:
            best = f"tp-l1-{name.rpartition('-')[2]}"
            seeds = [self.score(name, seed) for seed in self.trained(name)]
            rows[name] = {**clocked["rows"][name], "macs": macs(self.module(name), example) / whole}
            rows[name]["before"] = told_of([self.score(name)], base)
            if seeds:
                rows[name]["after"] = told_of(seeds, base)
            if name != best and best in names:
                rows[name]["before"]["ahead"] = ahead([self.score(name)], [self.score(best)])
                if seeds and self.trained(name) == self.trained(best):
                    rows[name]["after"]["ahead"] = ahead(seeds, [self.score(best, seed) for seed in self.trained(best)])
        conditions = {key: getattr(told, key) for key in ("epochs", "seeds", "lr", "encoder_lr", "batch", "budget", "networks")}
        measured = {key: clocked[key] for key in ("rounds", "flags", "environment")}
        told_base = {self.unit: base[0], "interval": interval(base[1]), "macs": whole, "network": self.bench.network.digest}
        write_json(told.result, {"base": told_base, "draws": DRAWS, **conditions, "clock": measured, "arms": rows})
        print(f"base: {self.unit} {100 * base[0]:.1f}")
        for name, row in rows.items():
            said = [f"{when} {in_words(row[when])}" for when in ("before", "after") if when in row]
            print(f"{name:12} {row['latency']:.3f} of the latency, {row['macs']:.3f} of the MACs: {'; '.join(said)}")


def told_of(scores: list[tuple[float, np.ndarray]], base: tuple[float, np.ndarray]) -> dict[str, Any]:
    """The mean over the seeds, its drop from the base, and the interval of that: paired over the images."""
    points, drop = [point for point, _ in scores], ahead([base] * len(scores), scores)
    return {"seeds": points, "mean": float(np.mean(points)), "drop": drop}


def ahead(ones: list[tuple[float, np.ndarray]], others: list[tuple[float, np.ndarray]]) -> list[float]:
    """How much the ones' mean is above the others', and its 95 % interval over draws of the images."""
    point = float(np.mean([p for p, _ in ones]) - np.mean([p for p, _ in others]))
    return [point, *interval(np.mean([d for _, d in ones], axis=0) - np.mean([d for _, d in others], axis=0))]


def interval(values: np.ndarray) -> list[float]:
    """95 %, from draws."""
    return [float(x) for x in np.quantile(values, (0.025, 0.975))]


def in_words(row: Mapping[str, Any]) -> str:
    """Figure, drop and lead in per cent and points."""
    parts = [f"{100 * row['mean']:.1f}"]
    for word in ("drop", "ahead"):
        if word in row or word == "drop":
            point, low, high = (100 * x for x in row[word])
            parts.append(f"{word} {point:.1f} ({low:.1f} to {high:.1f})")
    return ", ".join(parts)
