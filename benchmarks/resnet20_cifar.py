"""SMOEA against uniform l1 at equal MACs and equal fine-tuning, over seeds, on a CIFAR-10 network.

    python benchmarks/resnet20_cifar.py MODEL DATA --work DIR [--seeds 0 1 2] [--epochs 3] [--macs 0.5]

Every run is an ordinary run folder under DIR: a killed benchmark goes on where it stopped. The summary goes to
``benchmarks/results/<name>.json`` and, as a table, to the terminal. The test split is read once per run, at its end.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from compress_models import MODELS

from compress import checkpoint
from compress.config import make_job
from compress.data import open_data
from compress.pipeline import network_from, prune
from compress.report.model import Report


def row(report: Report) -> dict[str, Any]:
    """What one run found."""
    found = {f"{a.when} ({a.split})": a.top1 for a in report.accuracy}
    speed = report.latency[0] if report.latency else None
    return {
        "reached": report.reached,
        "accuracy": found,
        "speedup": [speed.low, speed.speedup, speed.high] if speed else None,
        "search_seconds": report.seconds.get("search"),
        "image_forwards": report.search.get("image_forwards"),
        "guard": report.guard["error"],
        "parity": report.parity["error"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="resnet20-smoea-uniform")
    parser.add_argument("--methods", nargs="+", default=["smoea", "uniform"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--budget", type=int, help="image-forwards of a search; the default depends on the network")
    parser.add_argument("--validation", type=int, default=2000, help="validation images")
    given = parser.parse_args()
    network = network_from(checkpoint.load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing, num_classes=10, validation=given.validation)
    results: dict[str, dict[str, Any]] = {m: {} for m in given.methods}
    for seed in given.seeds:
        for method in given.methods:
            flags = {"method": method, "value": given.macs, "seed": seed, "epochs": given.epochs, "budget": given.budget}
            job = make_job(flags={**flags, "latency_seconds": 8.0})
            done = prune(network, data, job, given.work / f"{given.name}-{method}-{seed}")
            results[method][str(seed)] = row(done.report)
            print(method, seed, json.dumps(results[method][str(seed)]), flush=True)
            summary = {
                "model": network.digest,
                "data": data.digests,
                "macs": given.macs,
                "epochs": given.epochs,
                "budget": given.budget,
                "runs": results,
                "mean": {m: _mean(list(r.values())) for m, r in results.items() if r},
            }
            out = Path(__file__).parent / "results" / f"{given.name}.json"
            out.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    _print(summary)


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds, of every accuracy."""
    names = list(rows[0]["accuracy"])
    values = {n: [r["accuracy"][n] for r in rows] for n in names}
    return {n: [statistics.mean(v), statistics.stdev(v) if len(v) > 1 else 0.0] for n, v in values.items()}


def _print(summary: dict[str, Any]) -> None:
    methods = list(summary["mean"])
    names = list(summary["mean"][methods[0]])
    print("| accuracy, % (mean ± sd over seeds) | " + " | ".join(methods) + " |")
    print("|---|" + "---|" * len(methods))
    for name in names:
        cells = [f"{100 * summary['mean'][m][name][0]:.2f} ± {100 * summary['mean'][m][name][1]:.2f}" for m in methods]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
