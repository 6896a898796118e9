"""What tracing a network costs, and how many trial cuts it takes: this revision against an earlier one.

    python benchmarks/trace_cost.py --old PATH [--rounds 5] [--only resnet50 ...] [--out benchmarks/results/trace_cost.json]

PATH is a checkout of the earlier revision (``git worktree add``). Every measurement runs in a process of its own, one thread,
old and new by turns; the figure is the process's CPU time for the trace alone, after the imports: the graph's own import is
measured beside it. ``alone`` is this revision without Torch-Pruning's graph.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ("resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0")
SIZE = 224


def child(arm: str, name: str) -> dict[str, Any]:
    """One trace in this process."""
    import time
    import warnings

    import torch
    import torchvision

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, example = torchvision.models.get_model(name, weights=None).eval(), torch.zeros(1, 3, SIZE, SIZE)
    row: dict[str, Any] = {}
    if arm == "old":
        try:
            from compress.coupling import trace, trial_cut
        except ImportError:  # before the rooms
            from compress.trace import trace

            from compress import probe as trial_cut
        cuts, cut = [], trial_cut.cut
        trial_cut.cut = lambda *given: (cuts.append(1), cut(*given))[1]
        start = time.process_time()
        topology = trace(model, example)
        row["cpu_s"], row["trials"] = time.process_time() - start, len(cuts)
    else:
        from compress.coupling import dependency_graph, trace_with_agreement

        start = time.process_time()
        if arm == "new":
            dependency_graph._torch_pruning()
        row["import_s"] = time.process_time() - start
        start = time.process_time()
        topology, agreement = trace_with_agreement(model, example, graph=arm == "new")
        row["cpu_s"], row["trials"] = time.process_time() - start, agreement.trials
        row["said"] = list(agreement.sentences())
    return row | {"digest": topology.digest, "groups": len(topology.groups)}


def measure(arm: str, name: str, root: Path) -> dict[str, Any]:
    path = os.pathsep.join(str(root / part) for part in ("", "cli", "models"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", arm, name]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} {name}: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def summary(rows: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Medians, and the digests' agreement."""
    found: dict[str, Any] = {}
    for name, arms in rows.items():
        digests = {row["digest"] for arm in arms.values() for row in arm}
        found[name] = {
            "groups": arms["new"][0]["groups"],
            "same_topology": len(digests) == 1,
            "said": arms["new"][0]["said"],
            **{
                arm: {
                    "cpu_s": round(statistics.median(r["cpu_s"] for r in seen), 3),
                    "range_s": [round(f(r["cpu_s"] for r in seen), 3) for f in (min, max)],
                    "trials": seen[0]["trials"],
                }
                for arm, seen in arms.items()
            },
        }
        found[name]["ratio"] = round(found[name]["new"]["cpu_s"] / found[name]["old"]["cpu_s"], 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "trace_cost.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    if given.old is None or not (given.old / "compress").is_dir():
        parser.error("--old PATH of a checkout of an earlier revision is needed: git worktree add PATH REVISION")
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    imports = []
    for turn in range(given.rounds):
        for name in given.only:
            for arm in ("old", "new", "alone"):
                row = measure(arm, name, given.old.resolve() if arm == "old" else ROOT)
                rows.setdefault(name, {}).setdefault(arm, []).append(row)
                imports += [row["import_s"]] if arm == "new" else []
                print(f"{turn} {name} {arm}: {row['cpu_s']:.2f} s, {row['trials']} trial cuts", flush=True)
    result = {
        "size": SIZE,
        "rounds": given.rounds,
        "threads": 1,
        "import_of_torch_pruning_s": round(statistics.median(imports), 3),
        "networks": summary(rows),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print("\n| network | groups | CPU s before | now | ratio | without the graph | trial cuts before, now, without the graph |")
    print("|---|---|---|---|---|---|---|")
    for name, r in result["networks"].items():
        cuts = ", ".join(str(r[arm]["trials"]) for arm in ("old", "new", "alone"))
        times = " | ".join(f"{r[arm]['cpu_s']:.2f}" for arm in ("old", "new"))
        print(f"| `{name}` | {r['groups']} | {times} | {r['ratio']:.2f} | {r['alone']['cpu_s']:.2f} | {cuts} |")


if __name__ == "__main__":
    main()
