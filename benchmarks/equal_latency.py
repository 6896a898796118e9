"""Networks of equal measured latency, trained alike: Torch-Pruning with blocks out by hand or not, PRACTISE, and ours.

    python benchmarks/equal_latency.py MODEL DATA --work DIR [--latency 0.67] [--epochs 1] [--images N] [--seeds 0 1 2]
    python benchmarks/equal_latency.py models/checkpoints/digits-net.safetensors digits --work DIR --tiny

For every share of the unpruned network's latency (ONNX Runtime on this CPU, one thread, batch 1) each arm looks for its
network of that latency: those of one knob, the share of the MACs, by bisection of the measured latency; ours as ``compress
prune --latency`` does. Then all of them run in turn in one measurement; a row that is more than 1 % off the target is marked,
as are those that cannot be that near, since whole blocks go.

The arms: Torch-Pruning's l1, its best criterion before training (``torch_pruning_arm.py``), with its ``round_to`` 1 and 8,
alone and after equal numbers of blocks were taken out of each stage; PRACTISE's choice of blocks (Wang, Wu: CVPR 2023): those
whose removal costs least in the features behind over the latency that it saves; ModelOpt's FastNAS, where it is installed
(``fastnas_arm.py``); uniform l1 with whole streams; ``obs`` and ``smoea``, with branches, without, and with finalists' short
trainings (then the others train as many steps more).
Torch-Pruning's networks get their batch norms re-estimated, as its users do it, the others the least squares.

Then the same training for all, a run's own (the learning rate by budget): ``--images`` training images a pass (all of them by
default), ``--epochs`` passes, distilled from the unpruned network. The test images are read once a run. Every part is kept in
``results/equal-latency-NAME.json`` as soon as it is done; the same command goes on, and with ``--minutes M`` begins no part
after that time.

Networks are looked for, and clocked in turn, where latency is measured; what is kept suffices to train them elsewhere, such
as on a machine with a GPU: ``--only found clocked`` here, ``--only trained`` there (several such commands at a time, each with
a copy of the result, some ``--arms`` and its own ``--results``), and ``--merge FILE ...`` puts their results together. To train
them by another protocol (``--epochs``, ``--images``) as well, ``--networks-of FILE`` takes them over from such a result.

In place of ``--latency``, ``--params SHARE``: ``--method`` decides at that share of the parameters, and the others are brought
to its latency. ``--conditions`` clocks the same networks in turn at batch 8, with all cores, and in int8 (static, per channel,
the unpruned network too), each against the unpruned network under the same conditions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compress_models import MODELS
from torch import nn

from compress.core import capture, count, difference, write_json
from compress.data import open_data
from compress.evaluation import predict
from compress.export import Quantiser, export
from compress.latency import Settings, measure
from compress.networks import load, network_from
from compress.pipeline import Job
from compress.pipeline.steps import rate_for
from compress.recovery import Schedule, fit, steps_per_epoch
from compress.runtime import OrtRuntime

try:
    import fastnas_arm
    import torch_pruning_arm as others
    from equal_latency_arms import FASTNAS, WITHIN, Bench, Budget, Found, Some, arms, by_params
    from kept import Part, Results, bits, merged, text_of
except ImportError:  # as a module of the repository
    from benchmarks import fastnas_arm
    from benchmarks import torch_pruning_arm as others
    from benchmarks.equal_latency_arms import FASTNAS, WITHIN, Bench, Budget, Found, Some, arms, by_params
    from benchmarks.kept import Part, Results, bits, merged, text_of

RESULTS = Path(__file__).parent / "results"
CONDITIONS = ("batch 8", "all cores", "int8")
CALIBRATED = 100
"""Images that int8's ranges are measured on."""
STEPS = ("found", "clocked", "trained")


def in_turn(bench: Bench, found: Mapping[str, Found], condition: str = "") -> dict[str, Any]:
    """Every arm's latency, all in one interleaved measurement: one image, one thread, fp32, but for what the condition says."""
    batch, threads = (8 if condition == "batch 8" else 1), (os.cpu_count() or 1) if condition == "all cores" else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, files = bench.base_file, {}
        for number, (arm, how) in enumerate(found.items()):
            files[arm] = folder / f"{number}.onnx"
            made = bench.network_of(how) if condition == "int8" else bench.cut_of(how).eval()  # ranges depend on weights
            export(made, bench.images[:1], files[arm], exporter="legacy")
        if condition == "int8":
            base, *quantised = (
                in_int8(bench, file, folder / f"{n}.int8.onnx") for n, file in enumerate([base, *files.values()])
            )
            files = dict(zip(files, quantised, strict=True))
        settings = Settings(batch=batch, budget_seconds=bench.budget.last, precision=0.002, min_rounds=12, loads=2, seed=11)
        result = measure(base, files, runtime=OrtRuntime(threads=threads), settings=settings)
    rows = {}
    for name in found:
        ratio = result.ratios[name].decisive
        rows[name] = {"latency": 1 / ratio.ratio, "low": 1 / ratio.high, "high": 1 / ratio.low}
    return {
        "rows": rows,
        "rounds": result.rounds,
        "flags": list(result.flags),
        "environment": capture(threads=threads).to_json(),
    }


def in_int8(bench: Bench, source: Path, target: Path) -> Path:
    """A file in int8 as ``--precision int8`` writes it before it looks at accuracy."""
    Quantiser.of(source, bench.images[:CALIBRATED], target.parent).write(target)
    return target


def trained(bench: Bench, small: nn.Module, seed: int, extra: float) -> dict[str, Any]:
    """Answers before and after the training, image by image; ``extra`` is what is added to the passes."""
    assert bench.data.train is not None
    epochs, batch = bench.budget.epochs + int(extra), min(128, len(bench.data.train))
    schedule = Schedule(epochs, extra=extra % 1, seed=seed, batch=batch)
    steps = round((epochs + extra % 1) * steps_per_epoch(len(bench.data.train), schedule))
    schedule = replace(schedule, lr=rate_for(Job(), steps))
    after = fit(small, bench.data.train, schedule, teacher=bench.network.model)
    return {
        "params": sum(p.numel() for p in small.parameters()),
        "macs": others.macs(small, bench.images[:1]),
        "before": text_of(predict(small, bench.data.test).right),
        "after": text_of(predict(after, bench.data.test).right),
    }


def table(held: Mapping[str, Any]) -> str:
    """All shares and arms; accuracies in %, means over the seeds, differences paired by image."""
    lines = [
        "| latency wanted | arm | latency (95 %) | MACs | before | after | seeds | − Torch-Pruning's best (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for wanted, share in held.get("shares", {}).items():
        clocked, runs = share.get("in turn", {}).get("rows", {}), share.get("runs", {})
        runs = {name: mine for name, mine in runs.items() if name in clocked}
        theirs = [n for n in runs if n.startswith("Torch-Pruning") and runs[n]]
        best = max(theirs, key=lambda n: np.mean([np.mean(bits(r["after"])) for r in runs[n].values()]), default="")
        for name, mine in runs.items():
            row, seeds = clocked[name], sorted(mine)
            if not seeds:
                continue
            off = "" if abs(row["latency"] / float(wanted) - 1) <= WITHIN else " (not within 1 %)"
            before, after = ([np.mean(bits(mine[s][k])) for s in seeds] for k in ("before", "after"))
            said = ""
            if best and name != best:
                gap = difference(*([bits(r[s]["after"]) for s in sorted(r)] for r in (mine, runs[best])))
                said = f"{100 * gap.mean:+.2f} ({100 * gap.low:.2f} to {100 * gap.high:.2f})"
            spread = f" ± {100 * np.std(after, ddof=1):.2f}" if len(seeds) > 1 else ""
            cells = [
                wanted,
                name,
                f"{row['latency']:.3f} ({row['low']:.3f} to {row['high']:.3f}){off}",
                f"{mine[seeds[0]]['macs'] / held['protocol']['macs']:.3f}",
                f"{100 * np.mean(before):.2f}",
                f"{100 * np.mean(after):.2f}{spread}",
                str(len(seeds)),
                said,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def conditions_table(held: Mapping[str, Any]) -> str:
    """Latencies under the other conditions, each a share of the unpruned network's; "" where none is measured."""
    lines = []
    for wanted, share in held.get("shares", {}).items():
        there = [c for c in CONDITIONS if f"in turn, {c}" in share]
        columns = [share.get("in turn", {"rows": {}})["rows"], *(share[f"in turn, {c}"]["rows"] for c in there)]
        for name in dict.fromkeys(name for rows in columns[1:] for name in rows):
            said = {
                condition: f"{rows[name]['latency']:.3f} ({rows[name]['low']:.3f} to {rows[name]['high']:.3f})"
                for condition, rows in zip(("", *there), columns, strict=True)
                if name in rows
            }
            lines.append("| " + " | ".join([wanted, name, *(said.get(c, "") for c in ("", *CONDITIONS))]) + " |")
    heads = ["latency wanted", "arm", "batch 1, one thread, fp32", *CONDITIONS]
    return "\n".join(["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines]) if lines else ""


def clocked(bench: Bench, results: Results, place: Sequence[str], there: Mapping[str, Found], condition: str = "") -> None:
    """All in turn; anew where one of them was not there.

    Raises:
        Part: the time is up.
    """
    part = (*place, f"in turn, {condition}" if condition else "in turn")
    if not set(there) <= set(results.part(part, lambda: in_turn(bench, there, condition))["rows"]):
        del results.held["shares"][place[-1]][part[-1]]
        results.part(part, lambda: in_turn(bench, there, condition))


def run(
    bench: Bench,
    results: Results,
    shares: Sequence[float],
    names: Sequence[str],
    seeds: Sequence[int],
    only: set[str],
    conditions: Sequence[str] = (),
) -> None:
    """Part by part.

    Raises:
        Part: the time is up.
    """
    known = arms()
    for share in shares:
        place, held = ("shares", f"{share:g}"), results.held.get("shares", {}).get(f"{share:g}", {}).get("found", {})
        found = {n: held.get(n) for n in names}
        if "found" in only:
            found = {n: results.part((*place, "found", n), lambda n=n, share=share: known[n](bench, share)) for n in names}
        there = {n: how for n, how in found.items() if how is not None}
        if "clocked" in only:
            for condition in ("", *conditions):
                clocked(bench, results, place, there, condition)
        if "trained" in only:
            made = cache(lambda name, there=there: bench.network_of(there[name]))
            most = max(how.get("trained", 0.0) for how in {**held, **found}.values() if how is not None)
            for seed in seeds:
                for name in there:
                    part = (*place, "runs", name, f"{seed}")
                    extra = most - there[name].get("trained", 0.0)
                    results.part(part, lambda made=made, name=name, how=(seed, extra): trained(bench, made(name), *how))


def decided(bench: Bench, results: Results, share: float, method: str) -> tuple[list[float], str]:
    """The latency of ours at a share of the parameters, and its name among that latency's arms.

    Raises:
        Part: the time is up.
    """
    how = results.part(("params", f"{share:g}", method), lambda: by_params(bench, share, method))
    at, name = round(how["looked"], 3), f"{method}, {share:g} of the parameters"
    results.held.setdefault("shares", {}).setdefault(f"{at:g}", {}).setdefault("found", {}).setdefault(name, how)
    return [at], name


def networks_of(path: Path, protocol: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The networks of another result and their latencies, to be trained by this protocol.

    Args:
        path: of the result.
        protocol: this one's; the network and its data have to be the same.
        images: of the whole training split, which a protocol without a number takes: what finalists' trainings took is kept
            in passes, and a pass may be longer or shorter here.
    """
    held = json.loads(path.read_text())
    theirs, mine = (
        {**{k: p[k] for k in ("network", "tiny")}, "data": {k: v.partition("-")[0] for k, v in p["data"].items()}}
        for p in (held["protocol"], protocol)
    )
    if theirs != mine:
        sys.exit(f"{path} holds networks of {theirs}, now it is {mine}; give a result of the same network and data")
    rate = (held["protocol"]["images"] or images) / (protocol["images"] or images)
    shares: dict[str, Any] = {}
    for wanted, share in held.get("shares", {}).items():
        found = {
            name: how and {**how, "trained": rate * how.get("trained", 0.0)} for name, how in share.get("found", {}).items()
        }
        shares[wanted] = {"found": found, **{key: share[key] for key in share if key.startswith("in turn")}}
    return {"shares": shares, **({"params": held["params"]} if "params" in held else {})}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True, help="folder of searches and files")
    parser.add_argument("--latency", nargs="+", type=float, default=[0.67], help="shares of the unpruned network's")
    parser.add_argument("--params", type=float, help="share of the parameters for --method; its latency is the others' target")
    parser.add_argument("--method", choices=["obs", "smoea"], default="smoea", help="of --params")
    parser.add_argument("--forwards", type=int, help="image-forwards of a search; a run's default otherwise")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=[], help="to clock under as well")
    known = [n for n in arms() if n != FASTNAS or fastnas_arm.there()]
    parser.add_argument("--arms", nargs="*", choices=[*arms()], default=known, help="by default all that are installed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, help="training images a pass; all by default")
    parser.add_argument("--name", help="of the result; by default the network's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no part is begun after so long")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--networks-of", type=Path, help="a result whose networks are taken over, to be trained by this protocol"
    )
    parser.add_argument("--merge", nargs="+", type=Path, default=[], help="results of the same command to take over first")
    parser.add_argument("--tiny", action="store_true", help="next to nothing of everything, to see that it runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = network_from(load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing)
    budget = Budget(images=given.images, epochs=given.epochs, forwards=given.forwards)
    if given.tiny:
        budget = Budget(seconds=0.3, last=1.0, networks=12, forwards=500, images=256, epochs=given.epochs, trials=3, scored=50)
    every = len(data.train or ())
    if budget.images is not None:
        data = replace(data, train=Some(data.train, budget.images))
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(network=network, data=data, work=given.work, budget=budget)
    protocol = {
        "network": network.digest,
        "data": dict(data.digests),
        "images": budget.images,
        "epochs": budget.epochs,
        "rate": "by budget",
        "macs": count(bench.topology).macs,
        "tiny": given.tiny,
    }
    path = given.results / f"equal-latency-{given.name or given.model.stem}.json"
    results = Results(path, time.monotonic() + 60 * given.minutes, protocol)
    results.take(given.merge)
    if given.networks_of:
        results.held = merged(results.held, networks_of(given.networks_of, protocol, every))
        write_json(path, results.held)
    try:
        shares, names = given.latency, list(given.arms)
        if given.params:
            shares, own = decided(bench, results, given.params, given.method)
            names.append(own)
        run(bench, results, shares, names, given.seeds, set(given.only), given.conditions)
    except Part:
        print("the time is up; the same command goes on", file=sys.stderr)
    print(table(results.held) + conditions_table(results.held))
    return 0


if __name__ == "__main__":
    sys.exit(main())
