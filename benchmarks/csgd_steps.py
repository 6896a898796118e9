"""C-SGD to 5/8 of every width in steps, through 13/16 and 11/16, as its authors come to their published widths.

    python benchmarks/csgd_steps.py MODEL DATA --work DIR [--epochs 3 3 4] [--seed 0] [--minutes M]
    python benchmarks/csgd_steps.py models/checkpoints/digits-net.safetensors digits --work DIR --tiny

Every step is an ordinary run (``--method csgd --round-to 1``) of the network that the one before left, without a fine-tuning;
its target is the share of the MACs at which the widths are those of the step. One step of as many epochs is
``run.py --only csgd-resnet56``. A killed run goes on where it stopped; with ``--minutes`` no step is begun after that time.
The test split is read once a step.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from compress_models import MODELS

from compress.core import count
from compress.coupling import trace
from compress.data import open_data
from compress.networks import Network, load, network_from, network_of
from compress.pipeline import Result, make_job, prune
from compress.search import plan_at, prunable

try:
    from kept import Results
except ImportError:  # as a module of the repository
    from benchmarks.kept import Results

RESULTS = Path(__file__).parent / "results"
SIXTEENTHS = (13, 11, 10)


def target(network: Network, share: float) -> float:
    """The share of the MACs that is left where every group keeps this share of its channels."""
    topology = trace(network.model, torch.zeros(1, *network.preprocessing.shape))
    groups, _ = prunable(topology, ())
    return count(topology, plan_at(topology, groups, share, 1)).macs / count(topology).macs


def step(network: Network, data: Any, share: float, epochs: int, seed: int, folder: Path) -> Result:
    """One run to a share of the widths; an ended one is only read."""
    flags = {
        "method": "csgd",
        "target": "macs",
        "value": target(network, share) + 1e-6,
        "round_to": 1,
        "epochs": epochs,
        "seed": seed,
    }
    return prune(network, data, make_job(flags=flags), folder)


def facts(result: Result) -> dict[str, Any]:
    """What is kept of a run."""
    report = result.report
    speed = report.latency[0] if report.latency else None
    return {
        "test": {score.when: score.value for score in report.scores if score.split == "test"},
        "images": max((score.images for score in report.scores if score.split == "test"), default=0),
        "macs": report.after.macs,
        "params": report.after.params,
        "seconds": report.seconds.get("C-SGD"),
        "speedup": [speed.low, speed.speedup, speed.high] if speed else None,
        "notes": list(report.notes),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", nargs=len(SIXTEENTHS), type=int, default=[3, 3, 4], help="of every step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the result; by default the network's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no step is begun after so long")
    parser.add_argument(
        "--tiny", action="store_true", help="six epochs a step: fewer cannot make the filters of digits-net equal"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = network_from(load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing)
    epochs = [6] * len(SIXTEENTHS) if given.tiny else given.epochs
    whole = count(trace(network.model, torch.zeros(1, *network.preprocessing.shape)))
    protocol = {"network": network.digest, "data": dict(data.digests), "epochs": epochs, "seed": given.seed}
    path = given.results / f"csgd-steps-{given.name or given.model.stem}.json"
    results, before = Results(path, time.monotonic() + 60 * given.minutes, protocol), 16
    for sixteenths, passes in zip(SIXTEENTHS, epochs, strict=True):
        if time.monotonic() > results.end:
            print("the time is up; the same command goes on", file=sys.stderr)
            return 0
        folder = given.work / f"{sixteenths}-{passes}-seed-{given.seed}"
        left = step(network, data, sixteenths / before, passes, given.seed, folder)
        seen = results.part(("steps", f"{sixteenths}/16"), lambda left=left: facts(left))
        told = ", ".join(f"{when} {100 * value:.2f} %" for when, value in seen["test"].items())
        print(f"{sixteenths}/16 of the widths, {seen['macs'] / whole.macs:.3f} of the MACs: {told}", flush=True)
        network, before = network_of(left.model, network.preprocessing, f"{network.name}-{sixteenths}"), sixteenths
    return 0


if __name__ == "__main__":
    sys.exit(main())
