"""Is what a report says true? Tiny trained networks of every task, pruned at random; the truth from fresh samples.

    python benchmarks/claims.py                   # all networks that have no result yet, then results/claims.json and the table
    python benchmarks/claims.py --networks 8      # the first eight
    python benchmarks/claims.py --task detection  # those of one task
    python benchmarks/claims.py --again 17        # one anew
    python benchmarks/claims.py --page            # only the table in docs/tasks.md

A world is a generator of samples. A network is trained on some of them; others, with or without their targets, are the
images of a run whose share, method, recovery and training are drawn at random. Then 20,000 fresh ones tell what the two
networks are really worth, by formulas that are not the library's. The law: of 100 claims at 95 % at least 89 hold (claims that
are right have fewer in four of a thousand benchmarks), and at most one bound in five says nothing. Results are added one by
one: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from pages import write_between
except ImportError:  # as a module of the repository
    from benchmarks.pages import write_between

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "claims.json", ROOT / "docs" / "tasks.md"
BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
TASKS = ("classification", "binary", "multilabel", "regression:unit=px", "segmentation", "restoration", "outputs")
FIRST = 119
"""So many networks are drawn of :data:`TASKS` in turn; those after them of :data:`LATER`."""
LATER = ("detection", "multilabel:metric=F1")
NETWORKS, LEAST, FRESH = FIRST + 24, 89, 20_000
VACUOUS = 0.2
TRAIN, VALIDATION, CALIBRATION, TEST = 512, 300, 128, 300
METHODS = ("uniform", "obs", "global", "smoea", "cluster")
OPTIONS: dict[str, dict[str, Any]] = {
    "uniform": {"points": 4},
    "smoea": {"population": 6, "generations": 2},
    "cluster": {"population": 6, "generations": 2},
}
LABELLED = 0.5
"""Share of the runs whose images have targets: there intervals are claimed, elsewhere bounds without targets."""


def drawn(number: int) -> dict[str, Any]:
    """What is done with one network: everything from its number."""
    import numpy as np

    rng = np.random.default_rng([number, 2026])
    task = TASKS[number % len(TASKS)] if number < FIRST else LATER[(number - FIRST) % len(LATER)]
    labelled = bool(rng.random() < LABELLED)
    return {
        "task": task,
        "labelled": labelled or task == "detection",  # nothing is claimed of boxes that nobody knows
        "method": str(rng.choice(METHODS)),
        "target": str(rng.choice(["macs", "params"])),
        "value": round(float(rng.uniform(0.3, 0.95)), 3),
        "recover": str(rng.choice(["none", "bn", "reconstruct"])),
        "epochs": int(rng.choice([0, 0, 1, 3])),
        "distill": float(rng.choice([0.9, 0.0])),
        "lr": float(rng.choice([0.005, 0.02, 0.3])),
        "zero_kernels": float(rng.choice([0.0, 0.0, 0.0, 0.01])),
        "noise": round(float(rng.uniform(0, 1)), 3),
    }


def judge(number: int) -> dict[str, Any]:
    """Trains one network, prunes it as drawn, and holds the report against fresh samples."""
    from claims_tasks import NOISES, World, trained

    import compress

    start, choice = time.process_time(), drawn(number)
    low, high = NOISES[choice["task"].partition(":")[0]]
    world = World(choice["task"], number, low + choice["noise"] * (high - low))
    base = trained(world, 1000 * number)
    job = compress.make_job(flags=_flags(choice))
    with tempfile.TemporaryDirectory() as folder:
        network = compress.network_of(base, example=world.example, task=world.task)
        result = compress.prune(network, _images(world, number, choice["labelled"]), job, Path(folder) / "run")
    inputs, targets = world.samples(FRESH, 1000 * number + 900)
    found = [world.truth(_answers(m, inputs), targets) for m in (base, result.model)]
    report = result.report.to_json()
    return {
        "number": number,
        **choice,
        "reached": round(result.report.reached, 4),
        "refused": sorted(result.report.refused),
        **claim(report, *found, world.nothing_known(targets)),
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def _flags(choice: dict[str, Any]) -> dict[str, Any]:
    kept = {k: choice[k] for k in ("method", "target", "value", "recover", "epochs", "distill", "lr", "zero_kernels")}
    quick = {"round_to": 1, "budget": 3_000, "calibration": 64, "batch": 64, "latency_seconds": 0.0, "exporter": "legacy"}
    if choice["task"] == "outputs":  # it has no loss: it can only imitate
        kept["distill"] = 0.9
    return {**quick, **kept, "options": OPTIONS.get(choice["method"], {}), "accept_chance": True}


def _images(world: Any, number: int, labelled: bool) -> Any:
    from claims_tasks import InputsAlone, Pairs

    import compress

    parts = {}
    for part, (name, count) in enumerate(
        {"train": TRAIN, "validation": VALIDATION, "calibration": CALIBRATION, "test": TEST}.items()
    ):
        inputs, targets = world.samples(count, 1000 * number + 500 + part)
        pairs = Pairs(inputs, targets) if isinstance(targets, list) else (inputs, targets)
        parts[name] = pairs if labelled else InputsAlone(inputs)
    return compress.data_from(**parts, classes=_classes(world) if labelled else ())


def _classes(world: Any) -> int:
    return {"classification": 4, "binary": 2, "detection": 3}.get(world.name, 0)


def _answers(model: Any, inputs: Any) -> Any:
    import torch

    with torch.inference_mode():
        found = [model(part) for part in torch.split(inputs, 1000)]
    if isinstance(found[0], torch.Tensor):
        return torch.cat(found)
    return {name: torch.cat([one[name] for one in found]) for name, t in found[0].items() if isinstance(t, torch.Tensor)}


def claim(
    report: dict[str, Any], before: dict[str, float], after: dict[str, float], nothing: dict[str, float]
) -> dict[str, Any]:
    """What a report claims of a network, and whether it is so.

    Args:
        report: as JSON.
        before: the unpruned network's true figures.
        after: the pruned one's.
        nothing: those of an answer that knows nothing.
    """
    test = {s["when"]: s for s in report["scores"] if s["split"] == "test"}
    certificate = report["certificate"]
    if {"base", "final"} <= set(test):
        figure = report["figure"]
        name, one, two = figure["name"], test["base"], test["final"]
        ends = (one["low"] - two["high"], one["high"] - two["low"])
        low, high = ends if figure["higher"] else (-ends[1], -ends[0])
        lost = _lost(figure, before[name], after[name])
        known = abs(before[name] - nothing[name])
        return {
            "kind": "interval",
            "figure": name,
            "lost": lost,
            "says": [low, high],
            "holds": two["low"] <= after[name] <= two["high"],
            "drop_holds": low <= lost <= high,
            "vacuous": two["high"] - two["low"] >= known,
        }
    if certificate is not None:
        figure = certificate["figure"]
        lost = _lost(figure, before[figure["name"]], after[figure["name"]])
        known = abs(before[figure["name"]] - nothing[figure["name"]])
        bound = certificate["bound"]
        return {
            "kind": "certificate",
            "figure": figure["name"],
            "lost": lost,
            "says": [bound],
            "holds": lost <= bound,
            "drop_holds": lost <= bound,
            "vacuous": bound >= known and lost < known,
        }
    return {"kind": "none", "figure": "", "lost": None, "says": [], "holds": True, "drop_holds": True, "vacuous": False}


def _lost(figure: dict[str, Any], before: float, after: float) -> float:
    return before - after if figure["higher"] else after - before


# ---- all of them -------------------------------------------------------------------------------------------------------


def rows_of(numbers: list[int], known: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each network; those that are known are not made again."""
    for number in numbers:
        if number not in known:
            try:
                known[number] = judge(number)
            except Exception as error:  # the table says so, the others go on
                known[number] = {"number": number, **drawn(number), "failed": f"{type(error).__name__}: {error}"}
        yield known[number]


def law(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The law's figures over all claims."""
    claims = [r for r in rows if r.get("kind") in ("interval", "certificate")]
    bounds = [r for r in claims if r["kind"] == "certificate"]
    return {
        "claims": len(claims),
        "hold": sum(r["holds"] for r in claims),
        "drops_hold": sum(r["drop_holds"] for r in claims),
        "bounds": len(bounds),
        "vacuous": sum(r["vacuous"] for r in claims),
        "failed": sum("failed" in r for r in rows),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line a task."""
    lines = [
        "| task | networks | intervals that hold | largest true loss | bounds that hold | true loss over bound, median "
        "| bounds that say nothing |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in (*TASKS, *LATER):
        mine = [r for r in rows if r["task"] == task and "failed" not in r]
        intervals, bounds = ([r for r in mine if r["kind"] == kind] for kind in ("interval", "certificate"))
        shares = sorted(max(0.0, r["lost"]) / max(r["says"][0], 1e-12) for r in bounds)
        middle = f"{shares[len(shares) // 2]:.2f}" if shares else "–"
        largest = max((r["lost"] for r in mine if r["lost"] is not None), default=None)
        lines.append(
            f"| {_named(task)} | {len(mine)} | {_of(intervals, 'holds')} | "
            f"{'–' if largest is None else f'{largest:.3g}'} | {_of(bounds, 'holds')} | {middle} | {_of(bounds, 'vacuous')} |"
        )
    return "\n".join(lines)


def _named(task: str) -> str:
    return {"multilabel:metric=F1": "multilabel by F1"}.get(task, task.partition(":")[0])


def _of(rows: list[dict[str, Any]], key: str) -> str:
    return f"{sum(r[key] for r in rows)} of {len(rows)}" if rows else "–"


def main() -> int:
    """Runs what is missing; 1 where the law does not hold."""
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--again", type=int, action="append", default=[])
    parser.add_argument("--task", choices=sorted({*TASKS, *LATER}))
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    held = json.loads(given.out.read_text()) if given.out.exists() else {"rows": []}
    known = {r["number"]: r for r in held["rows"] if r["number"] not in given.again}
    numbers = sorted(known) if given.page else list(range(given.networks))
    numbers = [n for n in numbers if given.task in (None, drawn(n)["task"])]
    rows = []
    for row in rows_of(numbers, known):
        rows.append(row)
        word = "holds" if row.get("holds") else "FAILS"
        told = row.get("failed") or f"{row['kind']} {word}, lost {row['lost']}, says {row['says']}"
        print(f"{row['number']:3d} {row['task']}: {told}", flush=True)
        kept = sorted(known.values(), key=lambda r: r["number"])
        given.out.write_text(json.dumps({"law": law(kept), "fresh": FRESH, "rows": kept}, indent=1) + "\n")
    if given.out == RESULTS:
        write_between(PAGE, BEGIN, END, table(sorted(known.values(), key=lambda r: r["number"])))
    found = law(rows)
    print(json.dumps(found))
    allowed = found["claims"] * (1 - LEAST / 100)
    return int(found["claims"] - found["hold"] > allowed or found["vacuous"] > VACUOUS * max(found["claims"], 1))


if __name__ == "__main__":
    raise SystemExit(main())
