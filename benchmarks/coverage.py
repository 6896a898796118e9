"""Which networks are cut exactly? Traces, cuts and checks the convolutional networks of torchvision and timm.

    python benchmarks/coverage.py                    # everything that has no result yet, then docs/coverage.md
    python benchmarks/coverage.py --only torchvision # torchvision's classifiers; also dense, timm, or a model's name
    python benchmarks/coverage.py --again NAME       # measures it anew; --parity exports ONNX too; --page only writes the page
    python benchmarks/coverage.py --agreement --only torchvision  # only asks whether Torch-Pruning's graph has the same groups

Each network runs in a process of its own with bounded memory and time, with random weights whose batch norms hold the
statistics of the inputs, at a small size: neither changes what is coupled. Results are added to results/coverage.json one by
one, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from coverage_models import BIG, DENSE, SIZES, TIMM, classifiers

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
RATIOS = (0.3, 0.5, 0.8)
TRIED = (32, 64, 96, 224)
"""Image sizes, until one is large enough: what is coupled does not depend on it, and small ones are cheap."""
CONTEXT = multiprocessing.get_context("fork")


def make(name: str) -> Any:
    """A network with random weights; no file is fetched, and initialisers, which take longer than the rest, are skipped."""
    import torchvision
    from accelerate import init_empty_weights

    house, _, plain = name.partition(":")
    options: dict[str, Any] = {"weights": None}
    if house == "dense":
        options |= {"weights_backbone": None}
        if not plain.startswith(("fcn", "deeplab", "lraspp", "ssd")):
            options |= {"min_size": 128, "max_size": 128}
    if plain in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": True}
    with init_empty_weights(include_buffers=False):
        if house == "timm":
            import timm

            model = timm.create_model(plain, pretrained=False)
        else:
            model = torchvision.models.get_model(plain, **options)
    return filled(model).eval()


def filled(model: Any) -> Any:
    """Random numbers for every parameter, of the size that keeps activations from fading.

    They repeat after a prime number of entries, so that no two filters are equal.
    """
    import torch

    numbers = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    made: dict[int, Any] = {}
    for module in model.modules():
        for key, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in made:
                repeated = numbers.repeat(-(-old.numel() // len(numbers)))[: old.numel()].view(old.shape)
                fan = max(old[0].numel(), 1) if old.dim() > 1 else 100
                shift = 1.0 if old.dim() == 1 and key == "weight" else 0.0
                made[id(old)] = torch.nn.Parameter(repeated * (2 / fan) ** 0.5 + shift, old.requires_grad)
                numbers = numbers.roll(7919)
            module._parameters[key] = made[id(old)]
    return model


def examine(name: str, parity: bool) -> dict[str, Any]:
    """One network: traced, cut six ways, checked."""
    import torch

    from compress.core import count
    from compress.coupling import shaken, trace
    from compress.errors import CompressError
    from compress.evaluation import CriterionInputs, l1
    from compress.surgery import cuttable

    model = cuttable(make(name))
    row: dict[str, Any] = {"name": name, "params": sum(p.numel() for p in model.parameters())}
    for size in (SIZES[name],) if name in SIZES else TRIED:
        example = torch.zeros(1, 3, size, size)
        row["size"], start, cpu = size, time.perf_counter(), time.process_time()
        try:
            topology = trace(model, example)
            break
        except CompressError as error:
            if "does not run on" not in error.message or size == TRIED[-1] or name in SIZES:
                return row | {"state": "refused", "reason": error.message, "hint": error.hint}
    row["trace_s"], row["trace_cpu_s"] = (
        round(now - then, 2) for now, then in ((time.perf_counter(), start), (time.process_time(), cpu))
    )
    layers = {x.weight: topology.tensors[x.weight].sites * math.prod(topology.tensors[x.weight].shape) for x in topology.layers}
    touched = sum(macs for key, macs in layers.items() if (key, 0) in topology.slots or (key, 1) in topology.slots)
    row |= {"groups": len(topology.groups), "macs": count(topology).macs, "prunable": touched / max(count(topology).macs, 1)}
    row["frozen"] = {str(k): v for k, v in topology.frozen.items() if "network's output" not in v}
    inputs = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    trained = shaken(model, [inputs]).double()
    criterion_inputs = CriterionInputs(trained.state_dict())
    ranking = {g.id: l1(criterion_inputs, topology, g) for g in topology.groups}
    row |= guarded(trained, topology, ranking, inputs[:2])
    row |= trains(model, topology, ranking, example)
    if parity and row["state"] == "exact":
        row["parity"] = exported(trained.float(), topology, ranking, size)
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


def agreed(name: str, size: int) -> dict[str, Any]:
    """How far Torch-Pruning's graph has the groups of one network as they are traced."""
    import torch

    from compress.coupling import trace_with_agreement
    from compress.surgery import cuttable

    model, start = cuttable(make(name)), time.process_time()
    topology, found = trace_with_agreement(model, torch.zeros(1, 3, size, size))
    return {
        "cpu_s": round(time.process_time() - start, 2),
        "groups": len(topology.groups),
        "confirmed": len(found.confirmed),
        "tried": dict(found.tried),
        "corrected": dict(found.corrected),
        "why_not": found.why_not,
        "trials": found.trials,
    }


def plan_of(topology: Any, ranking: Any, ratio: float) -> Any:
    """Drops the least important channels of every orbit."""
    from compress.core import Cut, Plan
    from compress.search import ranked

    cuts = {}
    for group in topology.groups:
        keep = [int(c) for o in ranked(group, ranking[group.id]) for c in o[: max(1, len(o) - round(ratio * len(o)))]]
        if len(keep) < group.size:
            cuts[group.id] = Cut(tuple(sorted(keep)))
    return Plan(cuts)


def guarded(trained: Any, topology: Any, ranking: Any, inputs: Any) -> dict[str, Any]:
    """The guard's error at every ratio, for random and for ranked channels; counted cost against the cut network's own."""
    import numpy as np

    from compress.core import count
    from compress.errors import CompressError
    from compress.surgery import cut, random_plan, verify

    errors: dict[str, float] = {}
    seconds = 0.0
    for ratio in RATIOS:
        drawn = random_plan(topology, ratio, np.random.default_rng(int(100 * ratio)))
        for kind, plan in (("random", drawn), ("ranked", plan_of(topology, ranking, ratio))):
            try:
                start = time.perf_counter()
                small = cut(trained, topology, plan)
                seconds = max(seconds, time.perf_counter() - start)
                if sum(p.numel() for p in small.parameters()) != count(topology, plan).params:
                    return {"state": "wrong", "reason": f"{kind} {ratio}: counted parameters are not measured ones"}
                errors[f"{kind} {ratio}"] = verify(trained, topology, plan, small, inputs).error
            except CompressError as error:
                return {"state": "wrong", "reason": f"{kind} {ratio}: {error.message}", "errors": errors}
    return {"state": "exact", "errors": errors, "cut_s": round(seconds, 2)}


def trains(model: Any, topology: Any, ranking: Any, example: Any) -> dict[str, Any]:
    """Whether the cut network still trains, auxiliary heads included, where the whole one does."""
    from compress.surgery import cut, own_tensors

    def step(network: Any) -> str:
        import torch
        from torch.utils._pytree import tree_flatten

        network = own_tensors(network).train()
        try:
            outputs = tree_flatten(network(torch.rand(2, *example.shape[1:])))[0]
            sum(t.float().sum() for t in outputs).backward()
        except Exception as error:  # detectors want targets, some networks larger images
            return f"{type(error).__name__}: {error}"[:200]
        return ""

    reason = step(cut(model, topology, plan_of(topology, ranking, 0.5)))
    if reason and (whole := step(model)):
        return {"trains": None, "trains_note": f"nor does the uncut one at this size: {whole}"}
    return {"trains": not reason} | ({"trains_note": reason} if reason else {})


def exported(trained: Any, topology: Any, ranking: Any, size: int) -> dict[str, Any]:
    """The ONNX file of the network at half of its channels, against torch."""
    import torch

    from compress.errors import CompressError
    from compress.export import export_verified
    from compress.surgery import cut

    small = cut(trained, topology, plan_of(topology, ranking, 0.5)).eval()
    images = torch.randn(10, 3, size, size, generator=torch.Generator().manual_seed(2))
    with tempfile.TemporaryDirectory() as folder:
        try:
            written, parity = export_verified(small, images, Path(folder) / "small.onnx")
        except CompressError as error:
            return {"verdict": "refused", "reason": error.message[:300]}
    return {"verdict": str(parity.verdict), "error": parity.error, "exporter": written.exporter}


def measure(name: str, doing: Callable[[], dict[str, Any]], memory_gib: float, seconds: float) -> dict[str, Any]:
    """One network in a process of its own: a fork, for importing everything anew would take longer than most networks."""
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=work, args=(there, name, doing, memory_gib))
    process.start()
    there.close()
    if not here.poll(seconds):
        process.kill()
        process.join()
        return {"name": name, "state": "not measured", "reason": f"longer than {seconds:.0f} s"}
    try:
        row: dict[str, Any] = here.recv()
    except EOFError:
        row = {"name": name, "state": "not measured", "reason": "the process was killed, perhaps for want of memory"}
    process.join()
    return row


def work(pipe: Any, name: str, doing: Callable[[], dict[str, Any]], memory_gib: float) -> None:
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        pipe.send(doing())
    except Exception as error:
        traceback.print_exc()
        pipe.send({"name": name, "state": "crashed", "reason": f"{type(error).__name__}: {error}"[:300]})


def stored() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def wanted(only: list[str]) -> list[str]:
    large = [n for n in classifiers() if n.partition(":")[2] in BIG]
    small = [n for n in classifiers() if n not in large]
    houses = {"small": small, "timm": TIMM, "dense": DENSE, "large": large, "torchvision": small + large}
    if not only:
        return [n for names in houses.values() for n in names]
    all_of_them = dict.fromkeys(n for names in houses.values() for n in names)
    return [n for o in only for n in houses.get(o, [n for n in all_of_them if o in (n, n.split(":")[1])])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--again", nargs="+", default=[])
    parser.add_argument("--parity", action="store_true", help="export ONNX and compare; where it has not been done yet")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--agreement", action="store_true", help="ask Torch-Pruning's graph, where it has not been done yet")
    parser.add_argument("--memory", type=float, default=10.0, help="GiB for each network")
    parser.add_argument("--seconds", type=float, default=900.0, help="for each network")
    given = parser.parse_args()
    import timm  # noqa: F401  (before the forks)
    import torch
    from coverage_page import write_page

    from compress.core import write_json

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.agreement:
        for name in wanted(given.only):
            old = stored().get(name, {"state": "not measured"})
            if old["state"] == "exact" and "agreement" not in old:
                found = measure(name, partial(agreed, name, old["size"]), given.memory, given.seconds)
                if "groups" in found:
                    write_json(RESULTS, stored() | {name: old | {"agreement": found}})
                print(f"{name:50s} {found}", flush=True)
        return write_page(stored(), ROOT / "docs" / "coverage.md")
    again = set(wanted(given.again)) if given.again else set()
    for name in [] if given.page else wanted(given.only or given.again):
        old = stored().get(name)
        lacks_parity = given.parity and old is not None and old["state"] == "exact" and "parity" not in old
        if old is not None and name not in again and not lacks_parity:
            continue
        row = measure(name, partial(examine, name, given.parity), given.memory, given.seconds)
        if row["state"] == "exact" and "parity" not in row and old is not None and "parity" in old:
            row["parity"] = old["parity"]
        write_json(RESULTS, stored() | {name: row})
        worst = max(row.get("errors", {}).values(), default=float("nan"))
        print(f"{name:50s} {row['state']:8s} {row.get('groups', '')!s:4s} {worst:.1e} {row.get('reason', '')}", flush=True)
    write_page(stored(), ROOT / "docs" / "coverage.md")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
