"""Hours that a search would take on one core, and on nodes of 32: an estimate, of measured costs and of requests' sizes.

    python benchmarks/search_hours.py [--out benchmarks/results/search_hours.json]

Measured here: CPU seconds of one image through each network, one thread, batches of 8. Read: what a search of ResNet-50 cost
beyond its forward passes, how long its preparation took and how many plans it scored (``results/search_whole.json``,
``search_cost.py --old``), and requests' sizes and the searcher's own time a plan (``results/workers.json``, ``workers.py``).
Assumed: every worker is as fast as this core; a request's plans cost the same and are waited for, so that W workers take
ceil(plans / W) turns; preparation and searcher are one core's, and scale as the forward pass does and as plans do; transport
costs nothing (8 KiB a request). Not contained: recovery, training and measuring after the search.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.core import capture, write_json

RESULTS = Path(__file__).parent / "results"
NETWORKS = {"resnet50": 224, "efficientnet_b4": 380, "convnext_base": 224}
WORKERS = {"1 core": 1, "1 node of 32": 32, "8 nodes": 256, "64 nodes": 2048}
_BATCH, _ROUNDS = 8, 3


def image_seconds(name: str, size: int) -> tuple[float, int]:
    """CPU seconds of one image in one thread, the best of some batches, and its multiply-accumulates."""
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    model = torchvision.models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
    images = torch.randn(_BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    best = math.inf
    with torch.no_grad():
        with FlopCounterMode(display=False) as counted:
            model(images[:1])
        for _ in range(_ROUNDS):
            start = time.process_time()
            model(images)
            best = min(best, (time.process_time() - start) / _BATCH)
    return best, counted.get_total_flops() // 2


def turns(sizes: Sequence[int], workers: int) -> float:
    """Of a worker, in plans, for each plan of such requests."""
    return sum(math.ceil(size / workers) for size in sizes) / sum(sizes)


def estimated(forward: float, forwards: float, known: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Hours of a search on so many workers, and which part of it no worker shortens."""
    scoring = forwards * forward * known["times_forward"]
    plans = known["plans"] * forwards / known["forwards"]
    alone = known["before"] * forward / known["forward"] + plans * known["own_a_plan"]
    hours = {name: (alone + scoring * turns(known["sizes"], count)) / 3600 for name, count in WORKERS.items()}
    return {name: {"hours": value, "alone": alone / 3600 / value} for name, value in hours.items()}


def measured() -> dict[str, Any]:
    """What a search of ResNet-50 and the requests of the simulated width say."""
    whole = json.loads((RESULTS / "search_whole.json").read_text())
    width = json.loads((RESULTS / "workers.json").read_text())["width"]
    new = whole["rows"]["new"]
    forward, _ = image_seconds("resnet50", NETWORKS["resnet50"])
    return {
        "forward": forward,
        "forwards": new["image_forwards"],
        "plans": new["plans_scored"],
        "before": new["cpu_s"]["before"],
        "times_forward": new["cpu_s"]["search"] / (new["image_forwards"] * forward),
        "sizes": width["plans"],
        "own_a_plan": width["generator"] / sum(width["plans"]),
    }


def main() -> None:
    from compress.pipeline import make_job
    from compress.pipeline.preparation import search_budget

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "search_hours.json")
    given = parser.parse_args()
    known, found = measured(), {}
    for name, size in NETWORKS.items():
        forward, macs = (known["forward"], image_seconds(name, size)[1]) if name == "resnet50" else image_seconds(name, size)
        budget = search_budget(make_job(), macs, images=True)
        found[name] = {
            "size": size,
            "macs": macs,
            "image_seconds": forward,
            "budget": budget,
            "search": estimated(forward, budget, known),
        }
    write_json(given.out, {"environment": capture(threads=1).to_json(), "known": known, "networks": found})
    print("| network | image-forwards | " + " | ".join(WORKERS) + " |\n|---|---|" + "---|" * len(WORKERS))
    for name, row in found.items():
        cells = [f"{each['hours']:.2f}" for each in row["search"].values()]
        print(f"| {name}, {row['size']} px | {row['budget']:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
