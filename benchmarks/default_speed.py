"""Half of the MACs by the usual command against equal shares with whole streams: which network is faster, measured in turn.

    python benchmarks/default_speed.py [--networks resnet50 ...] [--methods auto smoea] [--budget N] [--work DIR]

torchvision's networks at 224 pixels with random weights: speed does not depend on them. Each method makes its network by the
command that anybody would type, with ``--macs 0.5`` and nothing that asks for time; the baseline is ``--method uniform
--no-streams``. No recovery: it changes no shape. What is in --work is not made again; ``results/default_speed.json`` keeps
every network that was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

from compress.core import write_json
from compress.latency import Settings, measure
from compress.runtime import OrtRuntime

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
BASELINE = "uniform l1, whole streams"
"""With the streams cut as well where so much cannot be reached without (EfficientNet-B0)."""
RESULT = Path(__file__).parent / "results" / "default_speed.json"


def made(work: Path, network: str, method: str, budget: int | None) -> Path:
    """The folder of a run of this method."""
    weights, run = work / f"{network}.pt", work / f"{network}-{method.split()[0]}"
    if not weights.exists():
        torch.manual_seed(0)
        torch.save(torchvision.models.get_model(network).state_dict(), weights)
    kinds = [["uniform", "--no-streams"], ["uniform"]] if method == BASELINE else [[method]]
    spent = ["--budget", str(budget)] if budget is not None and method != BASELINE else []
    command = [sys.executable, "-m", "compress_cli", "prune", str(weights), "--arch", f"torchvision:{network}", "--size", "224"]
    how = ["--macs", "0.5", "--latency-seconds", "0", "--recover", "none", "--exporter", "legacy", "--quiet", "--out", str(run)]
    for kind in kinds:
        if not (run / "report.json").exists():
            subprocess.run([*command, "--method", *kind, *spent, *how], check=kind == kinds[-1])
    return run


def measured(runs: dict[str, Path], seconds: float) -> dict[str, Any]:
    """Each method's MACs and time over the unpruned network's, all in the same rounds."""
    files = {method: run / "model.onnx" for method, run in runs.items()}
    settings = Settings(budget_seconds=seconds, precision=0.002, min_rounds=12, loads=2)
    found = measure(next(iter(runs.values())) / "base.onnx", files, runtime=OrtRuntime(), settings=settings)
    rows = {}
    for method, run in runs.items():
        told = json.loads((run / "report.json").read_text())
        ratio = found.ratios[method].decisive
        rows[method] = {"macs": told["reached"], "speed-up": [ratio.ratio, ratio.low, ratio.high]}
    return {"rows": rows, "rounds": found.rounds, "flags": list(found.flags), "environment": found.environment.to_json()}


def table(held: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| network | method | MACs | speed-up (95 %) | over the baseline |", "|---|---|---|---|---|"]
    for network, told in held.items():
        base = told["rows"][BASELINE]["speed-up"][0]
        for method, row in told["rows"].items():
            middle, low, high = row["speed-up"]
            cells = [network, method, f"{row['macs']:.3f}", f"{middle:.2f}× ({low:.2f} to {high:.2f})", f"{middle / base:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=["auto", "smoea"])
    parser.add_argument("--budget", type=int, help="image-forwards of a search; a run's default otherwise")
    parser.add_argument("--seconds", type=float, default=40.0, help="of a network's measurement")
    parser.add_argument("--work", type=Path, default=Path("runs/default-speed"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    held: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for network in given.networks:
        runs = {method: made(given.work, network, method, given.budget) for method in [*given.methods, BASELINE]}
        held[network] = measured(runs, given.seconds) | {"budget": given.budget}
        write_json(RESULT, held)
    print(table(held))


if __name__ == "__main__":
    main()
