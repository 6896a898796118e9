"""Every network of a front, made real without training and clocked beside the base: MACs against latency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from compress.core import Clock, Cost, Listen, Plan, Topology, count, ignore, make_folder, plural, read_json, widths, write_json
from compress.errors import ConfigError
from compress.evaluation import matched_inputs
from compress.export import export_verified
from compress.latency import Settings, measure
from compress.networks import Network
from compress.pipeline.front import read_front
from compress.pipeline.inspection import traced
from compress.pipeline.job import Job
from compress.pipeline.run import Run
from compress.pipeline.steps import guarded_cut
from compress.report import FrontLatency, front_latency, read_report, verified, write_report
from compress.runtime import Runtime
from compress.search import Front

FILE = "front-latency.json"
_FOLDER = "front"
"""Where the files lie until all are measured."""
_IMAGES = 10
_SECONDS_A_POINT = 5.0


def clock_front(
    network: Network,
    folder: Path,
    job: Job,
    runtime: Runtime,
    settings: Settings,
    *,
    points: int | None = None,
    listen: Listen = ignore,
) -> FrontLatency:
    """Realises a front's networks and measures them all in the same rounds.

    Nothing is trained or recovered, because speed does not depend on it. The files lie in ``RUN/front`` until all are measured,
    so that a killed call goes on with them.

    Args:
        network: the run's unpruned network.
        folder: the run's.
        job: the run's: how files are exported.
        runtime: where to measure.
        settings: how long and how precisely; there are five seconds for every network at least.
        points: how many networks, spread over the front; all by default.
        listen: receives events.

    Raises:
        ConfigError: the folder holds no front, or fewer than two networks of it are wanted.
        GuardError: wrong surgery.
    """
    report = verified(folder) or read_report(folder)
    front = read_front(folder, "give the folder of a finished search")
    try:
        chosen = int(read_json(folder / "front.json", hint="search again with --fresh")["chosen"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'front.json'} is damaged: {error!r:.100}", hint="search again with --fresh") from error
    run = Run(network=network, data=None, job=job, folder=folder, clock=Clock(listen))
    clock, topology = run.clock, traced(network)
    wanted = spread(front, points, chosen)
    files = folder / _FOLDER
    make_folder(files, hint="remove it: files of a front that is being measured lie there")
    with clock.phase("images", "synthetic, matched to the batch norms"):
        images = matched_inputs(network.model, network.shape, _IMAGES).images
    made = {}
    for index in wanted:
        made[index] = _made(run, topology, front[index].plan, images, f"point {index}")
    base = folder / "base.onnx"
    if not base.exists():
        base = _made(run, topology, Plan(), images, "base")
    settings = replace(settings, budget_seconds=max(settings.budget_seconds, _SECONDS_A_POINT * len(wanted)))
    with clock.phase("latency", f"{plural(len(wanted), 'network')} and the base in turn"):
        arms = {f"point {index}": path for index, path in made.items()}
        result = measure(base, arms, runtime=runtime, settings=settings, listen=listen)
    whole, everything = count(topology), activations(topology, Plan())
    shares = []
    for index in wanted:
        plan = front[index].plan
        written = activations(topology, plan) / max(everything, 1)
        shares.append((index, f"point {index}", count(topology, plan).macs / max(whole.macs, 1), written))
    found = front_latency(result, shares)
    report = replace(report, front_latency=found)
    write_json(folder / FILE, {**report.to_json()["front_latency"], "measurement": result.to_json()})
    write_report(report, folder)
    for path in files.glob("*.onnx"):
        path.unlink()
    files.rmdir()
    return found


def spread(front: Front, points: int | None, chosen: int) -> tuple[int, ...]:
    """Indices of a front's points, evenly over its MACs, the ends and the chosen one among them.

    Raises:
        ConfigError: fewer than two.
    """
    if len(front) < 2 or (points is not None and points < 2):
        wanted = len(front) if points is None else points
        raise ConfigError(
            f"a front of {plural(wanted, 'network')} tells nothing, at least 2 are wanted",
            hint="--points 8, or a search that finds more: --method smoea",
        )
    if points is None or points >= len(front):
        return tuple(range(len(front)))
    costs: list[Cost] = [p.cost for p in front]
    low, high = costs[0].macs, costs[-1].macs
    taken = {0, len(front) - 1, chosen}
    for step in range(points):
        macs = low + (high - low) * step / (points - 1)
        free = [i for i in range(len(front)) if i not in taken]
        if len(taken) < points and free:
            taken.add(min(free, key=lambda i: abs(costs[i].macs - macs)))
    return tuple(sorted(taken))


def activations(topology: Topology, plan: Plan) -> int:
    """Numbers that convolutions and linear layers write for one image; transposed ones, whose places are unknown, left out."""
    total = 0
    for name, (_, after) in widths(topology, plan).items():
        layer = topology.by_layer[name]
        total += after * topology.tensors[layer.weight].sites if layer.kind != "conv_transpose" else 0
    return total


def _made(run: Run, topology: Topology, plan: Plan, images: Tensor, name: str) -> Path:
    """A plan as a proven file, or the one that an earlier call left."""
    path, model = run.folder / _FOLDER / f"{plan.digest}.onnx", run.network.model
    if not path.exists():
        with run.clock.phase("export", name):
            small = model if not plan else guarded_cut(model, topology, plan, images)[0]
            export_verified(small, images, path, metadata={"plan": plan.digest}, exporter=run.job.exporter)
    return path
