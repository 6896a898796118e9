"""The same files through runtimes that are not ours: which load them, and how far their answers lie from ONNX Runtime's.

    python3 -m venv .venv-consumers && .venv-consumers/bin/pip install openvino opencv-python-headless tract
    npm install --ignore-scripts --prefix .node-consumers onnxruntime-node onnxruntime-web puppeteer-core    # and Chromium
    python benchmarks/consumers.py --images IMAGES --work DIR --python .venv-consumers/bin/python --node .node-consumers

Networks from torchvision with random weights, batch norms re-estimated on real images, half of every group's channels
removed; DenseNet also with selected inputs. ``--run RUN --data ITS_IMAGES`` adds a finished run in fp32, fp16, int8 and with
its pre-processing inside. What is in the results already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from compress.core import Cut, Plan, Topology, kept_positions, selectable, write_json
from compress.coupling import trace
from compress.data import IMAGENET, open_data
from compress.export import deviation, embed, export_verified, file_digest, judge, pixels_of, read_interface
from compress.recovery import reestimate
from compress.runtime import OrtRuntime
from compress.surgery import cut

RESULTS = Path(__file__).parent / "results" / "consumers.json"
HERE = Path(__file__).parent / "consumers"
CONSUMERS = ("openvino", "opencv", "tract", "onnxruntime-node", "onnxruntime-web")
BATCHES = (1, 2, 5)
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
LEAST_COSINE = 0.99
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], bool]] = {
    "resnet18": (models.resnet18, False),
    "mobilenet_v3_small": (models.mobilenet_v3_small, False),
    "densenet121": (models.densenet121, False),
    "densenet121 selections": (models.densenet121, True),
}


def halved(topology: Topology, rng: np.random.Generator, selections: bool) -> Plan:
    """Half of every group's channels, at random; with selections, every layer that can reads 70 % of what is left."""
    cuts = {}
    for group in topology.groups:
        kept = [sorted(rng.permutation(orbit)[: max(1, len(orbit) // 2)].tolist()) for orbit in group.orbits()]
        cuts[group.id] = Cut(tuple(sorted(channel for orbit in kept for channel in orbit)))
    plan = Plan(cuts)
    if not selections:
        return plan
    table, inputs = kept_positions(topology, plan), {}
    for layer in topology.layers:
        if selectable(topology, layer):
            arriving = table.get((layer.weight, layer.read_dim))
            if arriving is not None and len(arriving) >= 8:
                inputs[layer.name] = tuple(sorted(rng.permutation(arriving)[: int(0.7 * len(arriving))].tolist()))
    return Plan(cuts, inputs)


def network_files(work: Path, images: Tensor) -> None:
    for name, (make, selections) in NETWORKS.items():
        if (work / f"{name}.json").exists():
            continue
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.2)
        topology = trace(model, images[:1])
        plan = halved(topology, np.random.default_rng(0), selections)
        small = reestimate(cut(model, topology, plan), list(images.split(16))).eval()
        _, parity = export_verified(small, images[: sum(BATCHES)], work / f"{name}.onnx", metadata={"network": name})
        print(f"{name}: {parity.verdict}, {parity.message}", flush=True)
        facts(work, name, images[: sum(BATCHES)], {"parity": parity.to_json(), "selected layers": len(plan.inputs)})


def run_files(work: Path, run: Path, data: str) -> None:
    """A finished run in all its forms."""
    prepared = read_interface(run / "model.onnx").preprocessing
    assert prepared is not None
    images = open_data(data, preprocessing=prepared).test.images(sum(BATCHES))
    for precision in ("fp32", "fp16", "int8"):
        name = f"{run.name} {precision}"
        shutil.copyfile(run / ("model.onnx" if precision == "fp32" else f"model.{precision}.onnx"), work / f"{name}.onnx")
        facts(work, name, images, {"precision": precision})
    pixels = pixels_of(images, prepared)
    embed(run / "model.onnx", work / f"{run.name} pixels in.onnx", pixels)
    facts(work, f"{run.name} pixels in", pixels, {})


def facts(work: Path, name: str, images: Tensor, more: Mapping[str, Any]) -> None:
    array = np.ascontiguousarray(images.numpy())
    array.tofile(work / f"{name}.input.bin")
    with OrtRuntime().load(work / f"{name}.onnx") as session:
        starts = np.cumsum([0, *BATCHES])
        outputs = np.concatenate([session.run(array[a:b])[0] for a, b in pairwise(starts)])
    outputs.astype(np.float32).tofile(work / f"{name}.expected.bin")
    about = {"shape": list(array.shape[1:]), "dtype": str(array.dtype), "batches": list(BATCHES), "classes": outputs.shape[1]}
    write_json(work / f"{name}.json", {"precision": "fp32", **about, **more})


def consume(consumer: str, work: Path, name: str, python: str, node: Path) -> dict[str, Any]:
    """What one runtime makes of one file."""
    output = work / f"{name}.{consumer}.bin"
    output.unlink(missing_ok=True)
    if consumer.startswith("onnxruntime-"):
        script = HERE / ("node.cjs" if consumer.endswith("node") else "web.cjs")
        command, env = ["node", str(script), str(work), name], {"NODE_PATH": str(node / "node_modules")}
    else:
        command, env = [python, str(HERE / "consume.py"), consumer, str(work), name], {}
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=kept | env)
    except subprocess.TimeoutExpired:
        return {"verdict": "refused", "error": "no answer within 15 minutes"}
    lines = done.stdout.strip().splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if not told or "error" in told or not output.exists():
        reason = told.get("error") or f"exit code {done.returncode}: {' '.join(done.stderr.split())[-300:]}"
        return {"version": told.get("version", ""), "verdict": "refused", "error": _public(reason, work)}
    return {"version": told["version"], **compared(work, name, output)}


def compared(work: Path, name: str, output: Path) -> dict[str, Any]:
    about = json.loads((work / f"{name}.json").read_text())
    wanted, got = (
        np.fromfile(path, np.float32).reshape(-1, about["classes"]) for path in (work / f"{name}.expected.bin", output)
    )
    _, error, spread = deviation("output", wanted, got, np.arange(len(wanted)))
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    cosine = float(np.mean((wanted * got).sum(1) / np.maximum(norms, 1e-30)))
    agree = float(np.mean(wanted.argmax(1) == got.argmax(1)))
    row = {"deviation": error, "spread": spread, "cosine": cosine, "agreement": agree}
    if about["precision"] == "int8":  # rounding differs by a step here and there
        return {**row, "verdict": "equal" if cosine > LEAST_COSINE else "WRONG", "rule": f"cosine > {LEAST_COSINE}"}
    tolerance = TOLERANCE[about["precision"]]
    verdict = judge([("output", error, spread)], tolerance=tolerance, warn=tolerance).verdict
    named = {"pass": "equal", "fail": "WRONG"}.get(verdict.value, verdict.value)
    return {**row, "verdict": named, "rule": f"deviation <= {tolerance:g} of the outputs' scale"}


def _public(text: str, work: Path) -> str:
    return text.replace(str(work), "DIR")


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown for the docs."""
    lines = ["| file | " + " | ".join(CONSUMERS) + " |", "|---|" + "---|" * len(CONSUMERS)]
    for name, found in rows.items():
        cells = []
        for consumer in CONSUMERS:
            cell = found.get(consumer)
            if cell is None:
                cells.append("")
            elif cell["verdict"] == "refused":
                cells.append("refused")
            else:
                figure = f"{cell['deviation']:.0e}" if "cosine" not in cell.get("rule", "") else f"cosine {cell['cosine']:.4f}"
                cells.append(figure if cell["verdict"] == "equal" else f"**{cell['verdict']}** {figure}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="an ImageNet sample; folders start with the label index")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a finished run with model.fp16.onnx and model.int8.onnx")
    parser.add_argument("--data", help="the run's images")
    parser.add_argument("--only", nargs="*", default=list(CONSUMERS))
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = open_data(given.images, preprocessing=IMAGENET, labels="index-prefix", num_classes=1000)
    network_files(work, data.calibration.images(64))
    names = list(NETWORKS)
    if given.run:
        run_files(work, given.run, given.data)
        names += [f"{given.run.name} {form}" for form in ("fp32", "fp16", "int8", "pixels in")]
    held = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    for name in names:
        digest = file_digest(work / f"{name}.onnx")
        row = held["rows"].setdefault(name, {})
        if row.get("file") != digest:
            row.clear()
        row["file"] = digest
        for consumer in given.only:
            if consumer not in row:
                row[consumer] = consume(consumer, work, name, given.python, given.node.resolve())
                print(name, consumer, row[consumer], flush=True)
                write_json(RESULTS, {"batches": list(BATCHES), "reference": OrtRuntime().name, "rows": held["rows"]})
    print(table(held["rows"]))


if __name__ == "__main__":
    main()
