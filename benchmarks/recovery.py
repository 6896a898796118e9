"""What a cut costs before any training, recovery by recovery: accuracy on the validation split.

    python benchmarks/recovery.py MODEL DATA [--name NAME] [--macs 0.5 0.35] [--images 1024] [--labels index-prefix]

The arms: uniform widths by l1 as they are, with batch norms re-estimated, with the readers that lost inputs solved again,
with all readers solved; the same widths by obs; and obs with widths allocated by marginal error per MAC. Only the channels
inside blocks are cut, unless ``--streams`` is given. The images that solve are calibration images, and no label is used.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compress_models import MODELS
from torch import Tensor, nn

from compress.core import Plan, Topology, count
from compress.coupling import trace
from compress.data import Preprocessing, open_data, preset_for
from compress.evaluation import accuracy, gather, l1, obs_and_curves
from compress.networks import load
from compress.recovery import ReconstructionSettings, collect, reconstruct, reestimate
from compress.search import ChannelStatistics, CostModel, Space, Target, Uniform, make_stages, plan_for, prunable
from compress.surgery import cut

# The published EfficientNet-Lite0 was trained on pixels scaled by (x - 127) / 128.
LITE0 = Preprocessing((0.498, 0.498, 0.498), (0.502, 0.502, 0.502), (224, 224), 256, "bicubic")


def arms(model: nn.Module, topology: Topology, plans: dict[str, Plan], batches: Sequence[Tensor]) -> dict[str, Any]:
    """Name -> how the cut network is made."""

    def raw(plan: Plan) -> nn.Module:
        return cut(model, topology, plan)

    def norms(plan: Plan) -> nn.Module:
        return reestimate(raw(plan), batches)

    def solved(plan: Plan, every: bool) -> nn.Module:
        settings = ReconstructionSettings(every=every)
        return reconstruct(model, raw(plan), topology, plan, batches, settings=settings).model

    ways: dict[str, Callable[[Plan], nn.Module]] = {
        "as it is": raw,
        "batch norms": norms,
        "lossy readers": lambda p: solved(p, False),
        "all readers": lambda p: solved(p, True),
    }
    table = {(name, way): (ways[way], plan) for name, plan in plans.items() for way in ways}
    return {f"{name}, {way}": made for (name, way), made in table.items()}


def network_of(path: Path, arch: str | None, data: str, labels: str) -> tuple[nn.Module, str, Any]:
    loaded = load(path, zoo=MODELS, arch=arch)
    name = loaded.architecture.name
    lite = arch is not None and arch.startswith("lite0")
    preprocessing = LITE0 if lite else loaded.preprocessing or preset_for(name)
    return loaded.model.eval(), name, open_data(data, preprocessing=preprocessing, labels=labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--name")
    parser.add_argument("--arch", help="where it cannot be recognised")
    parser.add_argument("--labels", default="sorted")
    parser.add_argument("--macs", nargs="+", type=float, default=[0.5, 0.35])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--limit", type=int, help="validation images")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--streams", action="store_true")
    args = parser.parse_args()

    model, name, data = network_of(args.model, args.arch, args.data, args.labels)
    topology = trace(model, torch.zeros(1, *data.preprocessing.shape))
    stages = make_stages(topology, prunable(topology, ())[0], streams=args.streams)
    groups = [g for s in stages for g in s.groups]
    batches = [x for x, _ in data.calibration.batches(args.batch, limit=args.images)]
    start = time.perf_counter()
    criterion_inputs = replace(gather(model, []), moments=collect(model, topology, batches))
    collected = time.perf_counter()
    obs, curves = obs_and_curves(criterion_inputs, topology, groups)
    eliminated = time.perf_counter()
    importance = {"obs": obs, "l1": {g: l1(criterion_inputs, topology, topology.by_id[g]) for g in groups}}
    base = accuracy(model, data.validation, limit=args.limit)
    result: dict[str, Any] = {
        "architecture": name,
        "data": data.digests,
        "images": sum(len(b) for b in batches),
        "threads": torch.get_num_threads(),
        "seconds": {"moments": collected - start, "elimination": eliminated - collected},
        "unpruned": base.top1,
        "validation_images": base.total,
        "rows": [],
    }
    print(f"{name}: {100 * base.top1:.2f} %, {result['seconds']}", flush=True)
    for macs in args.macs:
        cost, known = CostModel(topology, Target("macs", macs)), ChannelStatistics(importance=importance, curves=curves)
        space = Space(cost=cost, stages=stages, statistics=known, budget=10**9, round_to=args.round_to)
        plans = {
            "l1": Uniform("l1").plan(space, macs),
            "obs": Uniform("obs").plan(space, macs),
            "obs, allocated": plan_for(space, macs),
        }
        for arm, (make, plan) in arms(model, topology, plans, batches).items():
            start = time.perf_counter()
            small = make(plan)
            seconds = time.perf_counter() - start
            top1 = accuracy(small, data.validation, limit=args.limit).top1
            share = count(topology, plan).macs / count(topology).macs
            result["rows"].append({"macs": macs, "share": share, "arm": arm, "top1": top1, "seconds": seconds})
            print(f"{share:.3f} of the MACs, {arm}: {100 * top1:.2f} %, {seconds:.1f} s", flush=True)
            out = Path(__file__).parent / "results" / f"recovery-{args.name or name}.json"
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
