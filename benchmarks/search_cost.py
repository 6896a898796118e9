"""What scoring one candidate costs beyond the forward pass, here and in the loop that everybody writes first.

    python benchmarks/search_cost.py [--rounds 7] [--out benchmarks/results/search_cost.json]

Naive: deep copy, rebuild Torch-Pruning's graph, prune every group, forward. Here: sliced weights put into a private copy.
Both prune the same groups to the same widths; rounds are interleaved and the median of the paired ratios is reported.
A second table sets a SMOEA candidate on its cached sub-network against a whole forward of the unpruned network.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
import torchvision
from compress_models import MODELS
from torch import nn

from compress.core import Plan
from compress.coupling import symbolic_graph, trace
from compress.evaluation import StageRunner, cutout
from compress.search import make_stages, prunable
from compress.surgery import cut, random_plan

warnings.simplefilter("ignore")


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def naive(model: nn.Module, example: torch.Tensor, ratio: float) -> nn.Module:
    network = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=(example,))
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    groups = list(graph.get_all_groups(ignored_layers=[head], root_module_types=[nn.Conv2d]))
    for group in groups:
        layer, prune = group[0].dep.target.module, group[0].dep.handler
        drop = list(range(int(ratio * layer.out_channels)))
        again = graph.get_pruning_group(layer, prune, idxs=drop)
        if graph.check_pruning_group(again):
            again.prune()
    return network


def overhead(name: str, model: nn.Module, size: int, rounds: int) -> dict[str, Any]:
    """Seconds beyond the forward pass of the smaller network, paired."""
    model.eval()
    example = torch.randn(1, 3, size, size)
    images = torch.randn(8, 3, size, size).contiguous(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    topology = trace(model, example, probe=False)
    groups, _ = prunable(topology, [])
    graph = symbolic_graph(model)
    runner = StageRunner(model, graph, topology, cutout(graph, topology, groups), Plan(), images)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(rounds):
        plan = random_plan(topology, 0.5, rng)
        rows.append(
            (
                seconds(lambda: naive(model, example, 0.5)),
                seconds(lambda plan=plan: runner._install(plan)),
                seconds(lambda plan=plan: cut(model, topology, plan)),
            )
        )
    table = np.array(rows)
    return {
        "network": name,
        "size": size,
        "rounds": rounds,
        "naive_seconds": float(np.median(table[:, 0])),
        "here_seconds": float(np.median(table[:, 1])),
        "cut_seconds": float(np.median(table[:, 2])),
        "ratio": float(np.median(table[:, 0] / table[:, 1])),
        "ratio_low": float((table[:, 0] / table[:, 1]).min()),
        "ratio_cut": float(np.median(table[:, 0] / table[:, 2])),
    }


def stages(name: str, images: int, rounds: int) -> dict[str, Any]:
    """A SMOEA candidate on its sub-network against a whole forward, interleaved, averaged over the stages."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(memory_format=torch.channels_last)
    batch = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    topology = trace(model, batch[:1], probe=False)
    graph = symbolic_graph(model)
    rng = np.random.default_rng(0)
    found, before = [], Plan()
    for stage in make_stages(topology, prunable(topology, [])[0]):
        runner = StageRunner(model, graph, topology, cutout(graph, topology, stage.groups), before, batch)
        plan = random_plan(topology, 0.5, rng, list(stage.groups))
        whole_plan = Plan({**before.cuts, **plan.cuts})
        runner.error(whole_plan, images)
        ratios = []
        with torch.no_grad():
            model(batch)
            for _ in range(rounds):
                whole = seconds(lambda: model(batch))
                ratios.append(whole / seconds(lambda runner=runner, p=whole_plan: runner.error(p, images)))
        found.append({"stage": stage.name, "ratio": statistics.median(ratios), "cache_mib": runner.bytes() / 2**20})
        before = whole_plan
    return {
        "network": name,
        "images": images,
        "stages": found,
        "mean_ratio": statistics.mean(f["ratio"] for f in found),
        "ratio_of_means": len(found) / sum(1 / f["ratio"] for f in found),
    }


def peak(kind: str) -> float:
    """Peak resident memory, MiB, of a process that evaluates candidates plainly (``full``) or on stages."""
    code = f"import runpy; runpy.run_path({__file__!r})['_peak']({kind!r})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def _peak(kind: str) -> None:
    from compress.evaluation import Evaluator, Material
    from compress.search import Ask, Fidelity

    torch.manual_seed(0)
    model = MODELS["vgg14"]().eval()
    images = torch.randn(128, 3, 32, 32)
    topology = trace(model, images[:1], probe=False)
    parts = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, parts, Material(images, images, None, "output"))
    rng = np.random.default_rng(0)
    for number, stage in enumerate(parts):
        plans = [random_plan(topology, 0.5, rng, list(stage.groups)) for _ in range(4)]
        evaluator(Ask(plans, Fidelity.FULL if kind == "full" else Fidelity.STAGE, number, 48))
    # Not ru_maxrss: a child inherits its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(float(status["VmHWM"].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_cost.json")
    given = parser.parse_args()
    torch.manual_seed(0)
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "overhead": [
            overhead("resnet56", MODELS["resnet56p"](), 32, given.rounds),
            overhead("densenet121", torchvision.models.densenet121(weights=None), 64, max(3, given.rounds // 2)),
        ],
        "stages": [stages("vgg14", 48, given.rounds), stages("resnet20", 48, given.rounds)],
        "peak_mib": {kind: peak(kind) for kind in ("full", "stage")},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
