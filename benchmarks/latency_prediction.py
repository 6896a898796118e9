"""How well a latency table predicts networks that it was not fitted to.

    python benchmarks/latency_prediction.py --work DIR [--networks resnet50 mobilenet_v2 densenet121] [--held-out 12]

Torchvision's networks with random weights at 224 px. Per network: a table from 20 networks of random widths, and 12 more
networks whose latency over the unpruned one's, clocked in turn with it, is compared with what the table says. Nothing of the
12 enters the table. Resumable: every measured network is kept in DIR.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchvision

from compress.core import LatencyTable, Measured, Topology, capture, count, sizes_after, slow_layers
from compress.coupling import trace
from compress.export import Resizable, export, resizable
from compress.latency import NETWORKS, OnnxNetworks, block_of, collect, table_of
from compress.runtime import OrtRuntime
from compress.search import prunable

BOUNDS = {"median": 0.05, "worst": 0.12}


def network(name: str) -> torch.nn.Module:
    """One of torchvision's, its random weights by a seed."""
    torch.manual_seed(0)
    made: torch.nn.Module = getattr(torchvision.models, name)().eval()
    return made


def source_of(name: str, work: Path) -> tuple[Topology, Resizable]:
    """Its topology, and its file, exported once."""
    model = network(name)
    path = work / f"{name}-dynamo.onnx"
    if not path.exists():
        export(model, torch.zeros(2, 3, 224, 224), path, exporter="dynamo")
    topology = trace(model, torch.zeros(1, 3, 224, 224))
    return topology, resizable(onnx.load(str(path)), topology)


def measured(name: str, topology: Topology, source: Resizable, work: Path, seed: int, networks: int) -> list[Measured]:
    """Networks of random widths, by this seed."""
    groups, _ = prunable(topology, ())
    return collect(
        OnnxNetworks(source, OrtRuntime()),
        groups,
        kept=work / f"{name}-{seed}.jsonl",
        networks=networks,
        seconds=1.0 if "mobile" in name or "efficient" in name else 2.0,
        seed=seed,
        listen=lambda done, total: print(f"{name}, seed {seed}: {done} of {total}", flush=True),
    )


def table(name: str, work: Path) -> tuple[Topology, Resizable, LatencyTable]:
    """A network's table on this machine."""
    topology, source = source_of(name, work)
    runtime = OrtRuntime()
    return topology, source, table_of(topology, measured(name, topology, source, work, 0, NETWORKS), runtime, block_of(runtime))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "mobilenet_v2", "densenet121"])
    parser.add_argument("--held-out", type=int, default=12)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in given.networks:
        topology, source, made = table(name, given.work)
        rows = []
        for one in measured(name, topology, source, given.work, 100, given.held_out)[1:]:
            cost = count(topology, one.plan, table=made)
            assert cost.latency is not None
            slow = slow_layers(topology, sizes_after(topology, one.plan), made.block)
            rows.append(
                {
                    "macs": cost.macs / topology.whole[0],
                    "predicted": cost.latency,
                    "measured": one.ratio,
                    "error": cost.latency / one.ratio - 1,
                    "slow_layers": len(slow),
                }
            )
        errors = np.abs([r["error"] for r in rows])
        found[name] = {
            "table_networks": made.error.networks,
            "table_error": [made.error.median, made.error.worst],
            "median": float(np.median(errors)),
            "worst": float(errors.max()),
            "networks": rows,
        }
        print(f"{name}: median {100 * np.median(errors):.1f} %, worst {100 * errors.max():.1f} % of {len(rows)}", flush=True)
        every = np.array([abs(r["error"]) for n in found.values() for r in n["networks"]])
        whole = {"networks": len(every), "median": float(np.median(every)), "worst": float(every.max()), "bounds": BOUNDS}
        conditions = {"batch": 1, "threads": 1, "provider": "cpu", "pixels": 224, "weights": "random", "seeds": [0, 100]}
        text = json.dumps(
            {"all": whole, **found, "conditions": conditions, "environment": capture(threads=1).to_json()}, indent=1
        )
        (Path(__file__).parent / "results" / "latency_prediction.json").write_text(text + "\n")
    print(f"all {len(every)}: median {100 * whole['median']:.1f} %, worst {100 * whole['worst']:.1f} %")


if __name__ == "__main__":
    main()
