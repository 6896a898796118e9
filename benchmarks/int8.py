"""A finished run in int8 and fp16: accuracy on the test images, latency beside fp32; and which networks int8 makes slower.

    python benchmarks/int8.py RUN --data IMAGES --work DIR [--seconds 20] [--batches 1 8] [--networks resnet18 ...]

RUN is copied, not changed. ``--networks`` are torchvision's with random weights: their latency only, int8 against fp32.
The figures go to results/int8.json; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress.core import capture, write_json
from compress.data import open_data
from compress.export import Options, Quantiser, convert, export, read_interface
from compress.latency import Settings
from compress.pipeline import measure_precision

RESULTS = Path(__file__).parent / "results" / "int8.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--networks", nargs="*", default=["resnet18", "mobilenet_v3_small"])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source = given.work / "model.onnx"
    shutil.copyfile(given.run / "model.onnx", source)
    interface = read_interface(source)
    assert interface.preprocessing is not None
    data = open_data(given.data, preprocessing=interface.preprocessing)
    found: dict[str, Any] = {
        "network": interface.metadata.get("network"),
        "plan": interface.metadata.get("plan"),
        "data": data.digests,
        "conditions": {"runtime": "ort-cpu", "threads": 1, "batches": given.batches, "seed": 0},
        "precisions": [],
        "latency of random weights": {},
    }
    held = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if held.get("plan") == found["plan"] and held.get("conditions") == found["conditions"]:  # goes on where it was stopped
        found = held
    for precision in {"int8", "fp16"} - {row["precision"] for row in found["precisions"]}:
        target = given.work / f"model.{precision}.onnx"
        row = convert(source, target, precision, data, inputs=data.calibration.images(10), options=Options())
        settings = Settings(budget_seconds=given.seconds)
        rows = measure_precision(source, target, precision, batches=given.batches, settings=settings)
        found["precisions"].append({**asdict(row), "latency": [asdict(r) | {"direction": r.direction} for r in rows]})
        found["environment"] = capture().to_json()
        print(precision, row.message, [(r.batch, r.low, r.speedup, r.high, r.direction) for r in rows], flush=True)
        write_json(RESULTS, found)
    for name in set(given.networks) - set(found["latency of random weights"]):
        found["latency of random weights"][name] = direction(name, given.work, given.batches, given.seconds)
        write_json(RESULTS, found)


def direction(name: str, work: Path, batches: list[int], seconds: float) -> list[dict[str, Any]]:
    """Whether int8 pays for an architecture on this machine: its weights do not matter for that."""
    from torchvision import models

    torch.manual_seed(0)
    images = torch.randn(16, 3, 224, 224)
    source, target = work / f"{name}.onnx", work / f"{name}.int8.onnx"
    export(models.get_model(name, weights=None).eval(), images[:2], source)
    Quantiser.of(source, images, work).write(target)
    measured = measure_precision(source, target, "int8", batches=batches, settings=Settings(budget_seconds=seconds))
    rows = [asdict(r) | {"direction": r.direction} for r in measured]
    print(name, [(r["batch"], r["speedup"], r["direction"]) for r in rows], flush=True)
    return rows


if __name__ == "__main__":
    main()
