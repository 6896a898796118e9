"""Half of the MACs can be slower: MobileNetV2 cut to 52 % of them, to widths that suit the kernels and to others that do not.

    python benchmarks/half_the_macs.py [--seconds 20] [--work DIR] [--out benchmarks/results/half_the_macs.json]

torchvision's MobileNetV2 at 224 pixels with random weights: speed does not depend on them. Uniform widths in multiples of 1, 8
and 16; all files are measured in the same rounds, then profiled. What is in --work is not made again.
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

from compress.latency import Settings, cells, describe_all, explain, measure_all, profile, read_graph, summarise

MULTIPLES = (1, 8, 16)


def made(work: Path, multiple: int) -> Path:
    """The folder of a run, by the command that anybody would type."""
    weights, run = work / "mobilenet_v2.pt", work / f"multiples-of-{multiple}"
    if not weights.exists():
        torch.manual_seed(0)
        torch.save(torchvision.models.mobilenet_v2().state_dict(), weights)
    options = f"--arch torchvision:mobilenet_v2 --size 224 --method uniform --macs 0.52 --round-to {multiple}"
    command = [sys.executable, "-m", "compress_cli", "prune", str(weights), *options.split(), "--exporter", "legacy"]
    if not (run / "report.json").exists():
        subprocess.run([*command, "--latency-seconds", "0", "--recover", "none", "--quiet", "--out", str(run)], check=False)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--work", type=Path, default=Path("runs/half-the-macs"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/half_the_macs.json"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    runs = {multiple: made(options.work, multiple) for multiple in MULTIPLES}
    files = {"base": runs[1] / "base.onnx"} | {f"multiples of {m}": run / "model.onnx" for m, run in runs.items()}
    settings = Settings(budget_seconds=options.seconds)
    candidates = {name: path for name, path in files.items() if name != "base"}
    found = measure_all(files["base"], candidates, list(cells(["cpu"], [1], settings)), files=describe_all(files))
    result = found.results[0]
    explained = dict(zip(files, explain([(profile(path), read_graph(path)) for path in files.values()]), strict=True))
    table: dict[str, Any] = {}
    for name, ratio in result.ratios.items():
        told = ratio.decisive
        table[name] = {
            "macs kept": explained[name].macs / explained["base"].macs,
            "speed-up": [told.low, told.ratio, told.high],
            "verdict": str(ratio.verdict),
            "clock": ratio.decided_by,
            "kernels": explained["base"].seconds / explained[name].seconds,
            "why": summarise(explained["base"], explained[name]),
        }
    facts = {
        "table": table,
        "rounds": result.rounds,
        "stopped by": result.stopped_by,
        "flags": result.flags,
        "control": [result.control.decisive.low, result.control.decisive.ratio, result.control.decisive.high],
        "environment": result.environment.to_json(),
    }
    options.out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({"table": table, "flags": result.flags}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
