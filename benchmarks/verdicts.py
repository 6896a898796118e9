"""How often the three verdicts are right: a file against itself, and against one that is about 5 % slower.

    python benchmarks/verdicts.py [--seconds 20] [--times 20] [--threads 1] [--out benchmarks/results/verdicts.json]

The base is 20 equal convolutions (32 channels, 32 pixels) with ReLU, the slower file has 21 of them, so that it does 5 % more
work. Both kinds of comparison take turns, each with a seed of its own, in the same time budget and by the same call that
``compress bench`` makes. Each comparison is written down when it is done; the same command goes on where it stopped. What the
machine does besides is not chosen: the load average beside every comparison tells. ``--burn 2`` adds two busy processes.
With ``--threads 2`` wall time decides, which waits for whatever else runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.core import capture
from compress.export import export
from compress.latency import LatencyVerdict, Settings, measure
from compress.runtime import OrtRuntime

DEPTH = 20
KINDS = {"itself": DEPTH, "slower": DEPTH + 1}


def chain(depth: int, channels: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    return nn.Sequential(nn.Conv2d(3, channels, 1), *layers, *head).eval()


def compare(folder: Path, kind: str, seed: int, seconds: float, threads: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    files = {depth: folder / f"{depth}.onnx" for depth in KINDS.values()}
    settings = Settings(budget_seconds=seconds, seed=seed)
    found = measure(files[DEPTH], {kind: files[KINDS[kind]]}, runtime=OrtRuntime(threads=threads), settings=settings)
    ratio = found.ratios[kind]
    return {
        "kind": kind, "seed": seed, "verdict": str(ratio.verdict), "clock": ratio.decided_by,
        "ratio": ratio.decisive.ratio, "low": ratio.decisive.low, "high": ratio.decisive.high,
        "wall": [ratio.low, ratio.speedup, ratio.high], "control": str(found.control.verdict), "floor": ratio.floor,
        "rounds": found.rounds, "seconds": found.seconds, "stopped_by": found.stopped_by, "flags": list(found.flags),
        "load": round((load + os.getloadavg()[0]) / 2, 1), "base_ms": found.arm("base").latency.p50 * 1e3,
    }  # fmt: skip


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for kind in KINDS:
        rows = [row for row in done if row["kind"] == kind]
        if not rows:
            continue
        counts = {str(verdict): sum(row["verdict"] == verdict for row in rows) for verdict in LatencyVerdict}
        right = {"itself": "same", "slower": "different"}[kind]
        table[kind] = {
            "comparisons": len(rows),
            **counts,
            "right": sum(row["verdict"] == right and (kind == "itself" or row["ratio"] < 1) for row in rows),
            "median ratio": statistics.median(row["ratio"] for row in rows),
            "worst ratio, as % off the median": 100 * max(
                abs(math.log(row["ratio"]) - math.log(statistics.median(r["ratio"] for r in rows))) for row in rows
            ),
            "median wall ratio": statistics.median(row["wall"][1] for row in rows),
            "median seconds": statistics.median(row["seconds"] for row in rows),
            "load": [min(row["load"] for row in rows), max(row["load"] for row in rows)],
        }  # fmt: skip
    return table


@contextmanager
def burning(processes: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, default=32, help="of every convolution; 16 makes runs of 0.2 ms")
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--burn", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/verdicts.json"))
    options = parser.parse_args()
    asked = {
        "seconds": options.seconds,
        "burn": options.burn,
        "threads": options.threads,
        "channels": options.channels,
        "pixels": options.pixels,
    }
    done: list[dict[str, Any]] = []
    if options.out.exists():
        held = json.loads(options.out.read_text())
        if held["asked"] != asked:
            sys.exit(f"{options.out} holds {held['asked']}, now it is {asked}: choose another --out")
        done = held["comparisons"]
    with tempfile.TemporaryDirectory() as folder, burning(options.burn):
        for depth in KINDS.values():
            example = torch.randn(2, 3, options.pixels, options.pixels)
            export(chain(depth, options.channels), example, Path(folder) / f"{depth}.onnx", exporter="legacy")
        for seed in range(options.times):
            for kind in KINDS:
                if any(row["kind"] == kind and row["seed"] == seed for row in done):
                    continue
                done.append(compare(Path(folder), kind, seed, options.seconds, options.threads))
                content = {"asked": asked, "summary": summary(done), "environment": capture(threads=options.threads).to_json()}
                aside = options.out.with_suffix(".tmp")
                aside.write_text(json.dumps({**content, "comparisons": done}, indent=1) + "\n")
                aside.replace(options.out)
                row = done[-1]
                print(
                    f"{seed:3} {kind:7} {row['verdict']:13} {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}) "
                    f"floor {row['floor']:.3f}, {row['rounds']} rounds, {row['seconds']:.0f} s, load {row['load']}",
                    flush=True,
                )
    print(json.dumps(summary(done), indent=1))


if __name__ == "__main__":
    main()
