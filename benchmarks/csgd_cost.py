"""What an epoch of Centripetal SGD costs beside one of plain SGD.

    python benchmarks/csgd_cost.py [--rounds 5] [--images 512] [--out benchmarks/results/csgd_cost.json]

The loop is ``train.fit``; all that C-SGD adds to it is the gradient rewrite, which is clocked inside, so both epochs are those
of the very same steps: seconds with it, over seconds without. Seconds are the process's own, so that a shared machine can be
measured on; the median and range over rounds. Random images: what is learned costs the same. No teacher, which would only make
the share of the rewrite smaller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from compress_models import MODELS
from torch import Tensor, nn

from compress.core import capture
from compress.coupling import trace
from compress.evaluation import CriterionInputs, kernels
from compress.recovery import GradientRewrite, Pull, Schedule, fit, tied_slices
from compress.search import clusters_at, orbits

NETWORKS = {"resnet20": 128, "vgg14": 32}
"""Architecture -> batch."""


@dataclass(frozen=True)
class Random:
    """Random images with random labels, in memory."""

    images: Tensor
    labels: Tensor
    digest: str = "random"

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int, **_: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """In order."""
        yield from zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)


def measure(name: str, batch: int, images: int, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch, both ways."""
    model = MODELS[name]().eval()
    topology = trace(model, torch.zeros(1, 3, 32, 32))
    criterion_inputs = CriterionInputs(model.state_dict())
    filters = {g.id: kernels(criterion_inputs, topology, g) for g in topology.groups}
    halves = {g.id: tuple(max(1, len(o) // 2) for o in orbits(g)) for g in topology.groups}
    pull = Pull(tied_slices(topology, clusters_at(topology, filters, halves)), 0.05)
    split = Random(torch.randn(images, 3, 32, 32), torch.randint(10, (images,)))
    schedule = Schedule(1, batch=batch)
    spent = 0.0

    def clocked(network: nn.Module, lr: float) -> None:
        nonlocal spent
        start = time.process_time()
        pull(network, lr)
        spent += time.process_time() - start

    ratios, steps = [], []
    for _ in range(rounds + 1):  # the first one warms up
        spent, start = 0.0, time.process_time()
        fit(model, split, schedule, rewrite=GradientRewrite(clocked))
        total = time.process_time() - start
        ratios.append(total / (total - spent))
        steps.append(spent / (images // batch))
    return {
        "network": name,
        "batch": batch,
        "steps": images // batch,
        "tensors": len(pull.tied),
        "rewrite_seconds_a_step": statistics.median(steps[1:]),
        "ratio": statistics.median(ratios[1:]),
        "ratios": sorted(ratios[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/csgd_cost.json"))
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name, batch in NETWORKS.items():
        rows.append(measure(name, batch, given.images if name == "resnet20" else given.images // 4, given.rounds))
        low, high = rows[-1]["ratios"][0], rows[-1]["ratios"][-1]
        print(f"{name}: {rows[-1]['ratio']:.3f} x plain SGD, {low:.3f} to {high:.3f}, batch {batch}")
    facts = {"threads": torch.get_num_threads(), "environment": capture().to_json(), "rows": rows}
    given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
