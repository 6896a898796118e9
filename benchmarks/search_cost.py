"""What one candidate costs beyond the forward pass, here and in the loop that everybody writes first; and a whole search.

    python benchmarks/search_cost.py [--rounds 7] [--out benchmarks/results/search_cost.json]
    python benchmarks/search_cost.py --old PATH [--network resnet50] [--size 224] [--method smoea] [--budget N]
        [--work DIR] [--out FILE]

Naive: deep copy, rebuild Torch-Pruning's graph, prune every group, forward. Here: sliced weights put into a private copy.
Both prune the same groups to the same widths; rounds are interleaved and the median of the paired ratios is reported.
A second table sets a SMOEA candidate on its cached sub-network against a whole forward of the unpruned network.

With ``--old``, a checkout of an earlier revision, both run one whole search on synthetic inputs and random weights,
each in a process of its own with one thread: CPU seconds of what comes before the search, of the search, and of the
same preparation again with what the first one kept; the error of both plans' outputs on inputs that neither has seen,
recovered by this revision; and the forward passes alone as a bound: image-forwards times MACs over the rate of a matrix
product, measured beside each search. What has ended is kept in ``--work``: the same command goes on with the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
import torchvision
from compress_models import MODELS
from torch import nn

try:
    from compress.core import Plan
    from compress.coupling import symbolic_graph, trace
    from compress.evaluation import StageRunner, cutout
    from compress.search import make_stages, prunable
    from compress.surgery import cut, random_plan
except ImportError:  # the child of a revision before the rooms, which only searches
    pass

warnings.simplefilter("ignore")


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def naive(model: nn.Module, example: torch.Tensor, ratio: float) -> nn.Module:
    network = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=(example,))
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    groups = list(graph.get_all_groups(ignored_layers=[head], root_module_types=[nn.Conv2d]))
    for group in groups:
        layer, prune = group[0].dep.target.module, group[0].dep.handler
        drop = list(range(int(ratio * layer.out_channels)))
        again = graph.get_pruning_group(layer, prune, idxs=drop)
        if graph.check_pruning_group(again):
            again.prune()
    return network


def overhead(name: str, model: nn.Module, size: int, rounds: int) -> dict[str, Any]:
    """Seconds beyond the forward pass of the smaller network, paired."""
    model.eval()
    example = torch.randn(1, 3, size, size)
    images = torch.randn(8, 3, size, size).contiguous(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    topology = trace(model, example, probe=False)
    groups, _ = prunable(topology, [])
    graph = symbolic_graph(model)
    runner = StageRunner(model, graph, topology, cutout(graph, topology, groups), Plan(), images)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(rounds):
        plan = random_plan(topology, 0.5, rng)
        rows.append(
            (
                seconds(lambda: naive(model, example, 0.5)),
                seconds(lambda plan=plan: runner._install(plan)),
                seconds(lambda plan=plan: cut(model, topology, plan)),
            )
        )
    table = np.array(rows)
    return {
        "network": name,
        "size": size,
        "rounds": rounds,
        "naive_seconds": float(np.median(table[:, 0])),
        "here_seconds": float(np.median(table[:, 1])),
        "cut_seconds": float(np.median(table[:, 2])),
        "ratio": float(np.median(table[:, 0] / table[:, 1])),
        "ratio_low": float((table[:, 0] / table[:, 1]).min()),
        "ratio_cut": float(np.median(table[:, 0] / table[:, 2])),
    }


def stages(name: str, images: int, rounds: int) -> dict[str, Any]:
    """A SMOEA candidate on its sub-network against a whole forward, interleaved, averaged over the stages."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(memory_format=torch.channels_last)
    batch = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    topology = trace(model, batch[:1], probe=False)
    graph = symbolic_graph(model)
    rng = np.random.default_rng(0)
    found, before = [], Plan()
    for stage in make_stages(topology, prunable(topology, [])[0]):
        runner = StageRunner(model, graph, topology, cutout(graph, topology, stage.groups), before, batch)
        plan = random_plan(topology, 0.5, rng, list(stage.groups))
        whole_plan = Plan({**before.cuts, **plan.cuts})
        runner.error(whole_plan, images)
        ratios = []
        with torch.no_grad():
            model(batch)
            for _ in range(rounds):
                whole = seconds(lambda: model(batch))
                ratios.append(whole / seconds(lambda runner=runner, p=whole_plan: runner.error(p, images)))
        found.append({"stage": stage.name, "ratio": statistics.median(ratios), "cache_mib": runner.bytes() / 2**20})
        before = whole_plan
    return {
        "network": name,
        "images": images,
        "stages": found,
        "mean_ratio": statistics.mean(f["ratio"] for f in found),
        "ratio_of_means": len(found) / sum(1 / f["ratio"] for f in found),
    }


def peak(kind: str) -> float:
    """Peak resident memory, MiB, of a process that evaluates candidates plainly (``full``) or on stages."""
    code = f"import runpy; runpy.run_path({__file__!r})['_peak']({kind!r})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def _peak(kind: str) -> None:
    from compress.evaluation import Evaluator, Material
    from compress.search import Ask, Fidelity

    torch.manual_seed(0)
    model = MODELS["vgg14"]().eval()
    images = torch.randn(128, 3, 32, 32)
    topology = trace(model, images[:1], probe=False)
    parts = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, parts, Material(images, images, None, "output"))
    rng = np.random.default_rng(0)
    for number, stage in enumerate(parts):
        plans = [random_plan(topology, 0.5, rng, list(stage.groups)) for _ in range(4)]
        evaluator(Ask(plans, Fidelity.FULL if kind == "full" else Fidelity.STAGE, number, 48))
    # Not ru_maxrss: a child inherits its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(float(status["VmHWM"].split()[0]) / 1024)


# ---- a whole search, old and new -----------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent


class Ended(BaseException):
    """What was to be measured is over; the library does not catch it."""


def network_of(name: str, size: int) -> Any:
    """The network with random weights, as either revision takes it."""
    import compress

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    try:
        return compress.network_of(model, example=torch.zeros(1, 3, size, size))
    except TypeError:  # the first revisions took images only
        return compress.network_of(model, compress.Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=(size, size)))


def searched(given: argparse.Namespace, last: str, folder: Path) -> dict[str, Any]:
    """CPU seconds per phase of this process's revision, up to the end of a phase."""
    import compress

    torch.set_num_threads(1)
    phases: dict[str, float] = {}
    seen = {"spent": 0.0, "began": 0.0, "over": False}

    def listen(event: Any) -> None:
        kind, now = type(event).__name__, time.process_time()
        if seen["over"]:
            raise Ended
        if kind == "Phase":
            seen["began"] = now
            if event.name == last == "search" or event.name != "search":
                return
            raise Ended  # the preparation was wanted
        if kind == "PhaseDone":
            phases[event.name] = phases.get(event.name, 0.0) + now - seen["began"]
            seen["over"] = event.name == last
        if kind == "Asked":
            seen["spent"] = event.spent

    flags = {"method": given.method, "target": "macs", "value": 0.5, "epochs": 0, "latency_seconds": 0.0}
    flags |= {"budget": given.budget} if given.budget else {}
    network, start = network_of(given.network, given.size), time.process_time()
    with contextlib.suppress(Ended):
        compress.prune(network, None, compress.make_job(flags=flags), folder, listen=listen)
    whole = time.process_time() - start
    search = phases.get("search", 0.0)
    plan = folder / "plan.json"
    return {
        "cpu_s": {"before": round(whole - search, 2), "search": round(search, 2), "phases": phases},
        "image_forwards": seen["spent"],
        "plan": json.loads(plan.read_text()) if plan.exists() else None,
    }


def rate() -> float:
    """Multiply-accumulates a second of a matrix product in one thread: the best of some, by CPU time."""
    torch.set_num_threads(1)
    one, other, found = torch.randn(1024, 1024), torch.randn(1024, 1024), 0.0
    for _ in range(10):
        start = time.process_time()
        one @ other
        found = max(found, 1024**3 / (time.process_time() - start))
    return found


def judged(given: argparse.Namespace, plans: dict[str, Any]) -> dict[str, Any]:
    """Share of the MACs, and the outputs' relative error of each plan after least squares, on inputs that nothing has seen."""
    from compress.core import count
    from compress.evaluation import matched_inputs, outputs_apart
    from compress.recovery import reconstruct

    torch.set_num_threads(1)
    network = network_of(given.network, given.size)
    model, topology = network.model, trace(network.model, torch.zeros(1, 3, given.size, given.size))
    solving, fresh = (matched_inputs(model, network.shape, 16, seed=s).images for s in (101, 102))
    whole, found = count(topology).macs, {}
    for arm, held in plans.items():
        plan = Plan.from_json(held)
        small = reconstruct(model, cut(model, topology, plan), topology, plan, [solving]).model.eval()
        found[arm] = {"macs": count(topology, plan).macs / whole, "error": outputs_apart(model, small, fresh)}
    return {"macs": whole, "plans": found}


def child(given: argparse.Namespace, *what: str, root: Path = ROOT, cache: Path) -> dict[str, Any]:
    """One measurement in a process of its own, by the revision in ``root``."""
    path = os.pathsep.join(str(root / part) for part in ("", "cli", "models"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COMPRESS_CACHE": str(cache)}
    wanted = ["--network", given.network, "--size", str(given.size), "--method", given.method, "--budget", str(given.budget)]
    command = [sys.executable, __file__, *wanted, "--child", *what]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what[0]}: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def kept(folder: Path, given: argparse.Namespace, arm: str, kind: str, root: Path) -> dict[str, Any]:
    """The row of one arm, with the machine's rate beside it: as it was found before with the same settings, or found now."""
    file = folder / f"{arm}-{given.network}-{given.size}-{given.method}-{given.budget}.json"
    if not file.exists():
        place, cache = folder / arm, folder / "cache"
        shutil.rmtree(place, ignore_errors=True)
        if arm == "new":  # nobody has prepared before it
            shutil.rmtree(cache, ignore_errors=True)
        speed = child(given, "rate", "", cache=cache)
        row = child(given, kind, str(place), root=root, cache=cache) | speed
        row["load"] = [round(x, 1) for x in os.getloadavg()]
        file.write_text(json.dumps(row))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def whole_search(given: argparse.Namespace) -> None:
    """Both revisions' searches, the second preparation, the bound and the judgement."""
    with contextlib.ExitStack() as stack:
        folder = (given.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = {
            "old": kept(folder, given, "old", "search", given.old.resolve()),
            "new": kept(folder, given, "new", "search", ROOT),
            "again": kept(folder, given, "again", "prepare", ROOT),
        }
        for arm in ("old", "new"):
            rows[arm]["plans_scored"] = len((folder / arm / "journal.jsonl").read_text().splitlines())
        plans = json.dumps({arm: rows[arm]["plan"] for arm in ("old", "new")})
        (folder / "plans.json").write_text(plans)
        seen = child(given, "judge", str(folder / "plans.json"), cache=folder / "cache")
    for row in rows.values():
        row.pop("plan")
    cpu = {arm: sum(rows[arm]["cpu_s"][part] for part in ("before", "search")) for arm in ("old", "new")}
    bound = {arm: rows[arm]["image_forwards"] * seen["macs"] / rows[arm]["macs_per_second"] for arm in ("old", "new")}
    result = {
        "network": given.network,
        "size": given.size,
        "method": given.method,
        "budget": given.budget or "default",
        "threads": 1,
        "torch": torch.__version__,
        "macs": seen["macs"],
        "rows": rows,
        "plans": seen["plans"],
        "ratio": round(cpu["new"] / cpu["old"], 3),
        "preparation_again": round(rows["again"]["cpu_s"]["before"] / rows["new"]["cpu_s"]["before"], 3),
        "over_bound": {arm: round(rows[arm]["cpu_s"]["search"] / bound[arm], 2) for arm in bound},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def answer(given: argparse.Namespace) -> dict[str, Any]:
    """What a child was started for."""
    kind, where = given.child
    if kind == "rate":
        return {"macs_per_second": rate()}
    if kind == "judge":
        return judged(given, json.loads(Path(where).read_text()))
    return searched(given, "search" if kind == "search" else "", Path(where))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--method", default="smoea")
    parser.add_argument("--budget", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where what has ended is kept; else the next call begins anew")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = Path(__file__).parent / "results"
    if given.child:
        print(json.dumps(answer(given)))
        return
    if given.old is not None:
        given.out = given.out or results / "search_whole.json"
        whole_search(given)
        return
    given.out = given.out or results / "search_cost.json"
    torch.manual_seed(0)
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "overhead": [
            overhead("resnet56", MODELS["resnet56p"](), 32, given.rounds),
            overhead("densenet121", torchvision.models.densenet121(weights=None), 64, max(3, given.rounds // 2)),
        ],
        "stages": [stages("vgg14", 48, given.rounds), stages("resnet20", 48, given.rounds)],
        "peak_mib": {kind: peak(kind) for kind in ("full", "stage")},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
