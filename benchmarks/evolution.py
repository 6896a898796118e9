"""What SMOEA's evolution is worth where branches may go: its whole front at several budgets, beside the closed forms'.

    python benchmarks/evolution.py MODEL DATA --work DIR [--value 0.67] [--parts 1 0.25] [--evolved 0.125 0.7] [--seeds 0 1 2]
    python benchmarks/evolution.py MODEL DATA --work DIR --target macs --value 0.5
    python benchmarks/evolution.py models/checkpoints/digits-net.safetensors digits --work DIR --tiny

``smoea`` is asked for a share of the latency (the table's, one thread, batch 1) or of the MACs, with parts of the budget that
a network of this size has by default, and with so much of it at the most for the evolution itself (``evolved``; what closed
forms are judged with comes first). Its front is then asked for other shares: the most accurate point within each, as
``compress pick`` takes it. ``obs`` is asked for every share by itself, with the whole of that budget. All plans are recovered
by least squares as a run recovers them, without training, and judged on the validation images that no search has seen. The
result says as well what found the plan, and what the search cost in CPU seconds.

Every part is kept in ``results/evolution-NAME.json`` as soon as it is done; the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compress_models import MODELS

from compress.core import Plan, count, difference
from compress.data import open_data
from compress.evaluation import predict
from compress.networks import load, network_from
from compress.pipeline import Job, decide, make_job
from compress.pipeline.preparation import MOST_JUDGED, search_budget
from compress.search import Target

try:
    from equal_latency_arms import Bench, Budget
    from kept import Part, Results, bits, text_of
except ImportError:  # as a module of the repository
    from benchmarks.equal_latency_arms import Bench, Budget
    from benchmarks.kept import Part, Results, bits, text_of

RESULTS = Path(__file__).parent / "results"
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)


def searched(bench: Bench, method: str, target: Target, budget: int, seed: int, **options: Any) -> dict[str, Any]:
    """One search: its front, what found its plan, and its cost."""
    flags = {
        "method": method,
        "target": target.kind,
        "value": target.value,
        **({"table": str(bench.table)} if target.kind == "latency" else {}),
        "budget": budget,
        "finalists": 0,
        "seed": seed,
        "options": options,
    }
    begun = time.process_time()
    folder = (
        bench.work / f"{method}-{target.kind}-{target.value:g}-{budget}-{seed}{''.join(f'-{x:g}' for x in options.values())}"
    )
    found = decide(bench.network, bench.data, make_job(flags=flags), folder)
    whole = count(found.topology)
    points = [{"plan": p.plan.to_json(), "error": p.error, "share": target.share(p.cost.share_of(whole))} for p in found.front]
    return {"found_by": found.found_by, "cpu_seconds": round(time.process_time() - begun, 1), "points": points}


def shares_of(target: float) -> list[float]:
    """The shares that fronts are asked for, that which was searched for among them."""
    return sorted({*SHARES, target})


def judged(bench: Bench, plan: Mapping[str, Any]) -> str:
    """Which of the fresh validation images a plan's recovered network gets right."""
    right = predict(bench.network_of({"plan": plan}), bench.data.validation).right
    return text_of(right[MOST_JUDGED:] if len(right) > 2 * MOST_JUDGED else right)


def within(points: Sequence[Mapping[str, Any]], share: float) -> Mapping[str, Any] | None:
    """The most accurate point of a front within a share of the cost; None where there is none."""
    return min((p for p in points if p["share"] <= share + 1e-9), key=lambda p: p["error"], default=None)


def run(
    bench: Bench, results: Results, target: Target, rows: Sequence[tuple[float, float]], seeds: Sequence[int], whole: int
) -> None:
    """Part by part; equal plans are judged once.

    Raises:
        Part: the time is up.
    """

    def judge(plan: Mapping[str, Any]) -> None:
        results.part(("plans", Plan.from_json(dict(plan)).digest), lambda: judged(bench, plan))

    for seed in seeds:
        for share in shares_of(target.value):
            asked = replace(target, value=share)
            found = results.part(("obs", f"{seed}", f"{share:g}"), lambda t=asked, n=seed: searched(bench, "obs", t, whole, n))
            if (point := within(found["points"], share)) is not None:
                judge(point["plan"])
        for part, evolved in rows:
            how = (target, int(part * whole), seed)
            place = ("smoea", f"{part:g}, {evolved:g} for the evolution", f"{seed}")
            found = results.part(place, lambda how=how, e=evolved: searched(bench, "smoea", *how, evolved=e))
            for share in shares_of(target.value):
                if (point := within(found["points"], share)) is not None:
                    judge(point["plan"])


def table(held: Mapping[str, Any], target: float) -> str:
    """Accuracies in %, means over the seeds; in brackets the difference to ``obs``, paired by image."""
    right = {digest: bits(text) for digest, text in held.get("plans", {}).items()}

    def at(points: Sequence[Mapping[str, Any]], share: float) -> Any:
        point = within(points, share)
        return None if point is None else right[Plan.from_json(point["plan"]).digest]

    shares = shares_of(target)
    lines = [f"| part of the budget | CPU s | found by, at {target:g} | " + " | ".join(f"{s:g}" for s in shares) + " |"]
    lines.append("|" + "---|" * (3 + len(shares)))
    obs = held.get("obs", {})
    theirs = {share: [at(obs[seed][f"{share:g}"]["points"], share) for seed in sorted(obs)] for share in shares}
    cost = np.mean([sum(row["cpu_seconds"] for row in rows.values()) for rows in obs.values()])
    cells = [f"{100 * np.mean(rows):.2f}" for rows in theirs.values()]
    lines.append("| " + " | ".join(["`obs`, each by itself", f"{cost:.0f}", "", *cells]) + " |")
    for part, runs in held.get("smoea", {}).items():
        cells = []
        for share, rivals in theirs.items():
            mine = [at(runs[seed]["points"], share) for seed in sorted(runs)]
            if any(one is None for one in mine):
                cells.append("none")
                continue
            gap = difference(mine, rivals)
            said = f"{100 * gap.mean:+.2f}, {100 * gap.low:.2f} to {100 * gap.high:.2f}"
            cells.append(f"{100 * np.mean(mine):.2f} ({said})")
        cost = np.mean([row["cpu_seconds"] for row in runs.values()])
        by = Counter(row["found_by"] for row in runs.values())
        said = ", ".join(f"{name} ({count})" for name, count in by.most_common())
        lines.append("| " + " | ".join([part, f"{cost:.0f}", said, *cells]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True, help="folder of searches and files")
    parser.add_argument("--target", choices=["latency", "macs"], default="latency")
    parser.add_argument("--value", type=float, default=0.67, help="share of the unpruned network's that smoea is asked for")
    parser.add_argument("--parts", nargs="+", type=float, default=[1.0, 0.25], help="of the default budget")
    parser.add_argument("--evolved", nargs="+", type=float, default=[0.125, 0.7], help="of that, for the evolution at the most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--name", help="of the result; by default the network's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no part is begun after so long")
    parser.add_argument("--tiny", action="store_true", help="next to nothing of everything, to see that it runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = network_from(load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing)
    budget = Budget(seconds=0.3, networks=12) if given.tiny else Budget()
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(network=network, data=data, work=given.work, budget=budget)
    whole = 2_000 if given.tiny else search_budget(Job(), count(bench.topology).macs, images=True)
    protocol = {
        "network": network.digest,
        "data": dict(data.digests),
        "target": [given.target, given.value],
        "budget": whole,
        "tiny": given.tiny,
    }
    rows = [(part, evolved) for part in given.parts for evolved in given.evolved]
    path = given.results / f"evolution-{given.name or given.model.stem}.json"
    results = Results(path, time.monotonic() + 60 * given.minutes, protocol)
    try:
        run(bench, results, Target(given.target, given.value), rows, given.seeds, whole)
    except Part:
        print("the time is up; the same command goes on", file=sys.stderr)
    else:
        print(f"{whole:,} image-forwards by default\n\n{table(results.held, given.value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
