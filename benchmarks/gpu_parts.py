"""The parts of `benchmarks/gpu.py`: networks cut to budgets and clocked, a latency asked for, layers explained, training.

Each part is a generator: it gives rows of plain data, one a step, and is asked for the next one only while there is time.
Widths are equal shares of every group's channels, the first ones: speed does not depend on which. Weights are random but for
the trained part.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Cut, GroupId, LatencyTable, Plan, Topology, count
from compress.coupling import trace
from compress.data import Preprocessing
from compress.errors import CompressError
from compress.latency import ModuleNetworks, Settings, collect, explain, measure, profile_modules, relative_times, table_of
from compress.networks import Network, network_of
from compress.runtime import TorchRuntime
from compress.surgery import cut, deep_copy

BUDGETS = (0.8, 0.65, 0.5, 0.35, 0.2)
MEANS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
Row = dict[str, Any]
_PROBE = 1024  # images that tell how long an epoch takes


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how large.

    Attributes:
        device: ``cuda`` or ``cpu``.
        tiny: everything so small that a CPU does it in seconds, to prove that the script runs.
        data: images of ``gpu_inputs.py data``; None trains nothing.
        models: folder of trained weights.
        plans: folder of plans.
    """

    device: str
    tiny: bool
    data: Path | None
    models: Path | None
    plans: Path

    @property
    def side(self) -> int:
        """Pixels of an image."""
        return 32 if self.tiny else 224

    @property
    def seconds(self) -> float:
        """Measuring time of one condition."""
        return 0.1 if self.tiny else 1.2


# ---- networks and budgets --------------------------------------------------------------------------------------------


def untrained(name: str) -> nn.Module:
    """torchvision's network, random weights."""
    from torchvision import models

    torch.manual_seed(0)
    return models.get_model(name, weights=None).eval()


def topology_of(model: nn.Module, shape: tuple[int, ...]) -> Topology:
    return trace(model, torch.zeros(1, *shape))


def narrowed(topology: Topology, share: float, step: int = 8) -> Plan:
    """This share of every group's channels, in multiples of a step."""
    cuts: dict[GroupId, Cut] = {}
    for group in topology.groups:
        kept: list[int] = []
        for orbit in group.orbits():
            width = max(round(share * len(orbit) / step) * step, min(step, len(orbit)))
            kept += sorted(orbit)[:width]
        if len(kept) < group.size:
            cuts[group.id] = Cut(tuple(sorted(kept)))
    return Plan(cuts)


def share_of_widths(topology: Topology, share: float) -> float:
    """The share of the MACs that is left at a share of every group's channels."""
    return count(topology, narrowed(topology, share, 1)).macs / topology.whole[0]


def at_macs(topology: Topology, wanted: float) -> Plan:
    """Equal widths at a share of the MACs."""
    return _bisected(topology, lambda plan: count(topology, plan).macs / topology.whole[0], wanted)


def without_branches(topology: Topology, enough: Callable[[Plan], bool]) -> Plan:
    """Whole widths; branches go from the network's end on until it is enough, or all are gone. Empty where it has none."""
    plan = Plan()
    for branch in reversed(topology.branches):
        plan = Plan(branches=(*plan.branches, branch.name))
        if enough(plan):
            break
    return plan


def _bisected(topology: Topology, cost: Any, wanted: float) -> Plan:
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(narrowed(topology, middle)) <= wanted else (low, middle)
    return narrowed(topology, low)


def runtime_of(place: Place, modules: Mapping[Path, nn.Module], shape: tuple[int, ...], **how: Any) -> TorchRuntime:
    def opens(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
        return deep_copy(modules[path]).eval(), shape

    device = "cuda" if place.device == "cuda" else "cpu"
    return TorchRuntime(opens=opens, device=device, **how)


# ---- parts -----------------------------------------------------------------------------------------------------------


def conditions(place: Place) -> list[tuple[int, str, bool]]:
    """Batch, number format, captured or eager; the ones that say most come first."""
    if place.device == "cpu":
        return [(1, "fp32", False), (2 if place.tiny else 8, "fp32", False)]
    return [
        (1, "fp32", False),
        (1, "fp16", True),
        (64, "fp16", True),
        (64, "fp32", False),
        (8, "fp16", True),
        (1, "fp32", True),
        (8, "fp32", False),
        (64, "fp32", True),
        (1, "fp16", False),
        (64, "fp16", False),
        (8, "fp16", False),
        (8, "fp32", True),
        (64, "tf32", False),
    ]


def latencies(name: str, place: Place, known: Sequence[Row] = ()) -> Iterator[Row]:
    """MACs against measured latency: five budgets of widths, one of depth, and the network; ``known`` is not made again."""
    model, shape = untrained(name), (3, place.side, place.side)
    topology = topology_of(model, shape)
    plans = {f"{share:.0%} of the MACs": at_macs(topology, share) for share in (BUDGETS[:2] if place.tiny else BUDGETS)}
    if short := without_branches(topology, lambda plan: count(topology, plan).macs <= topology.whole[0] / 2):
        plans["branches out"] = short
    modules = {Path("base"): model, **{Path(arm): cut(model, topology, plan) for arm, plan in plans.items()}}
    shares = {arm: count(topology, plan).macs / topology.whole[0] for arm, plan in plans.items()}
    there = {(row["runtime"], row["batch"]) for row in known if "runtime" in row}
    left = []
    for batch, precision, graph in conditions(place):
        runtime = runtime_of(place, modules, shape, precision=precision, cuda_graph=graph)
        if (runtime.name, batch) not in there:
            left.append((batch, runtime))
    planned = [f"{runtime.name} at batch {batch}" for batch, runtime in left]
    yield {"macs": topology.whole[0], "shares": shares, "branches out": len(short.branches), "planned": planned}
    for batch, runtime in left:
        where = "device" if place.device == "cuda" else "e2e"
        settings = Settings(batch=batch, budget_seconds=place.seconds, loads=1, min_rounds=10, transfer=where)
        row: Row = {"runtime": runtime.name, "batch": batch}
        try:
            found = measure(Path("base"), {arm: Path(arm) for arm in plans}, runtime=runtime, settings=settings)
        except CompressError as error:
            yield row | {"failed": error.message}
            continue
        arms = {
            arm: {
                "seconds": found.arm(arm).latency.p50,
                "speedup": [ratio.decisive.ratio, ratio.decisive.low, ratio.decisive.high],
                "verdict": str(ratio.verdict),
            }
            for arm, ratio in found.ratios.items()
        }
        base = found.arm("base").latency.p50
        control = [found.control.decisive.low, found.control.decisive.high]
        yield row | {"base": base, "control": control, "rounds": found.rounds, "flags": list(found.flags), "arms": arms}


def asked(name: str, place: Place) -> Iterator[Row]:
    """Half of the latency asked of a table that is made here, and measured: with widths, and with branches left out."""
    model, shape = untrained(name), (3, place.side, place.side)
    topology = topology_of(model, shape)
    modules: dict[Path, nn.Module] = {}
    source = ModuleNetworks(model=model, topology=topology, modules=modules, runtime=runtime_of(place, modules, shape))
    groups = [group.id for group in topology.groups]
    started = time.perf_counter()
    measured = collect(source, groups, networks=6 if place.tiny else 8, seconds=0.02 if place.tiny else 0.3)
    table = table_of(topology, measured, source.runtime, 1)
    error = {"median": table.error.median, "worst": table.error.worst}
    yield {"table": error, "seconds": time.perf_counter() - started, "machine": table.machine}
    half = {"widths": _at_latency(topology, table, 0.5)}
    half["branches"] = without_branches(topology, lambda plan: count(topology, plan, table=table).latency <= 0.5)
    for kind, plan in half.items():
        if not plan:
            continue
        source.write(Plan(), Path("base"))
        source.write(plan, Path(kind))
        ratio = relative_times(Path("base"), {kind: Path(kind)}, source.runtime, 0.2 if place.tiny else 4.0, 0)[kind]
        cost = count(topology, plan, table=table)
        yield {
            "kind": kind,
            "asked": 0.5,
            "predicted": cost.latency,
            "measured": ratio,
            "macs": cost.macs / topology.whole[0],
        }


def _at_latency(topology: Topology, table: LatencyTable, wanted: float) -> Plan:
    return _bisected(topology, lambda plan: count(topology, plan, table=table).latency, wanted)


def layers(name: str, place: Place) -> Iterator[Row]:
    """What binds the layers of a network and of half of it, at batch 1 and at a large one."""
    model, shape = untrained(name), (3, place.side, place.side)
    topology = topology_of(model, shape)
    modules = {Path("base"): model, Path("half"): cut(model, topology, at_macs(topology, 0.5))}
    runtime = runtime_of(place, modules, shape)
    for batch in (1, 2 if place.tiny else 64):
        found = [profile_modules(path, runtime=runtime, batch=batch, seconds=place.seconds, least_runs=3) for path in modules]
        for path, told in zip(modules, explain(found), strict=True):
            bound: dict[str, float] = {}
            for layer in told.layers:
                bound[layer.binds] = bound.get(layer.binds, 0.0) + layer.share
            waiting = [layer.name for layer in told.layers if layer.cause.startswith("launch-bound")]
            yield {
                "batch": batch,
                "network": str(path),
                "seconds": told.seconds,
                "share of the time by what binds": {key: round(value, 3) for key, value in sorted(bound.items())},
                "launch-bound layers": len(waiting),
                "layers": len(told.layers),
            }


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Images:
    """Images in memory, as training and scoring take them."""

    x: Tensor
    y: Tensor
    digest: str
    target_kind: str = "classes"

    def __len__(self) -> int:
        return len(self.y)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(shuffle_seed)
        order = np.arange(len(self)) if shuffle_seed is None else rng.permutation(len(self))
        order = order[:limit]
        for start in range(0, len(order), batch_size):
            chosen = torch.from_numpy(order[start : start + batch_size])
            x = self.x[chosen]
            yield (_varied(x, rng) if augment else x), self.y[chosen]


def _varied(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A shift of up to four pixels and a mirror image, the same for the whole batch but for the mirror."""
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    top, left = (int(n) for n in rng.integers(0, 9, 2))
    x = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)[:, None, None, None]
    return torch.where(mirrored, x.flip(3), x)


def images(path: Path, most: int | None = None) -> tuple[Images, Images]:
    held, parts = np.load(path, allow_pickle=False), []
    mean, std = (torch.tensor(MEANS[name])[:, None, None] for name in ("mean", "std"))
    for part in ("train", "val"):
        x = torch.from_numpy(held[f"{part}_x"][:most]).permute(0, 3, 1, 2).float() / 255
        parts.append(Images((x - mean) / std, torch.from_numpy(held[f"{part}_y"][:most]), f"{path.stem}-{part}-{len(x)}"))
    return parts[0], parts[1]


def trained(name: str, folder: Path | None) -> Network:
    """The zoo's network with the weights of a folder; random ones without it."""
    from compress_models import MODELS
    from safetensors.torch import load_file

    torch.manual_seed(0)
    model = MODELS[name]()
    if folder is not None:
        model.load_state_dict({key: value.float() for key, value in load_file(folder / f"{name}.safetensors").items()})
    return network_of(model.eval(), Preprocessing(MEANS["mean"], MEANS["std"], (32, 32)), name)


def l1_of(model: nn.Module, shape: tuple[int, ...], share: float) -> Row:
    """The ratio at which Torch-Pruning's l1 leaves at most this share of the MACs, and the layers that it leaves alone."""
    import torch_pruning_arm as arms

    example = torch.zeros(1, *shape)
    ignored, whole = arms.ignored(model, example), arms.macs(model, example)
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        kept = arms.macs(l1_at(model, shape, middle, ignored), example) / whole
        low, high = (low, middle) if kept <= share else (middle, high)
    return {"ratio": high, "ignored": ignored}


def l1_at(model: nn.Module, shape: tuple[int, ...], ratio: float, ignored: list[str], round_to: int | None = None) -> nn.Module:
    """Torch-Pruning's l1 at one ratio for all layers, as its users call it."""
    import torch_pruning as tp

    small, example = deep_copy(model).eval(), torch.zeros(1, *shape)
    left = [dict(small.named_modules())[name] for name in ignored]
    importance = tp.importance.GroupMagnitudeImportance(p=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = tp.pruner.BasePruner(
            small, (example,), importance=importance, pruning_ratio=ratio, ignored_layers=left, round_to=round_to
        )
        made.step()
    for parameter in small.parameters():
        parameter.grad = None
    return small.eval().requires_grad_(True)


def recovered(name: str, method: str, place: Place, seconds: float) -> Iterator[Row]:
    """A network cut to the MACs of C-SGD at 5/8 by one method, trained for as many epochs as fit."""
    from compress.evaluation import accuracy
    from compress.recovery import Schedule, fit, tied_slices, train_centripetal

    assert place.data is not None
    started = time.perf_counter()
    train, val = images(place.data, 32 if place.tiny else None)
    network = trained(name, place.models)
    topology, model = topology_of(network.model, network.shape), network.model
    stored = json.loads((place.plans / f"{name}-{method}.json").read_text())
    plan = Plan() if method == "l1" else Plan.from_json(stored)
    start = model if method == "csgd" else cut(model, topology, plan) if plan else l1_at(model, network.shape, **stored)
    schedule = Schedule(epochs=1, batch=16 if place.tiny else 128)
    few = Images(train.x[:_PROBE], train.y[:_PROBE], f"{train.digest}-{_PROBE}")
    fit(start, few, schedule, teacher=model)  # the first one chooses kernels and allocates
    epoch = time.perf_counter()
    fit(start, few, schedule, teacher=model)
    epoch = (time.perf_counter() - epoch) * len(train) / len(few)
    left = seconds - (time.perf_counter() - started) - 2.0  # to score and to copy
    fitting = int(left / (epoch * (1.15 if method == "csgd" else 1.0)))  # a plain epoch pulls no filters together
    schedule = replace(schedule, epochs=1 if place.tiny else max(1, fitting))
    before = accuracy(model, val)
    if method == "csgd":
        equal = train_centripetal(model, tied_slices(topology, plan), train, schedule, teacher=model)
        small = cut(equal.averaged, topology, plan)
    else:
        small = fit(start, train, schedule, teacher=model)
    after = accuracy(small.eval(), val)
    yield {
        "method": method,
        "macs": share_of_widths(topology, 5 / 8),
        "epochs": schedule.epochs,
        "images": len(train),
        "seconds an epoch": epoch,
        "base top-1": before.top1,
        "top-1": after.top1,
        "validation images": len(val),
    }
