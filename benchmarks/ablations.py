"""What each part is worth: one part of a run is changed, everything else stays.

    python benchmarks/ablations.py MODEL DATA --work DIR [--only GROUP ...] [--seeds 0 1 2] [--minutes M]

Every row is an ordinary, resumable run at half of the MACs; with ``--minutes`` none is begun after that time. The first row of
a group is the run as it is. What is found goes to ``results/ablations-NAME.json`` after every run; the table is printed. Judged
are the last epoch's weights; the test split is read once a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress_models import MODELS

from compress.core import write_json
from compress.data import Data, open_data
from compress.networks import Network, load, network_from
from compress.pipeline import make_job, prune

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One run with one part changed.

    Attributes:
        name: in the table.
        flags: of the job.
        options: of the method.
    """

    name: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


GROUPS: Mapping[str, tuple[Mapping[str, Any], tuple[Row, ...]]] = {
    "recovery": (
        {"method": "uniform", "epochs": 1},
        (
            Row("batch norms, least squares, distillation"),
            Row("no least squares", {"recover": "bn"}),
            Row("nothing before the epoch", {"recover": "none"}),
            Row("no distillation", {"distill": 0.0}),
        ),
    ),
    "smoea": (
        {"method": "smoea", "epochs": 0},
        (Row("readers re-solved in the objective"), Row("plain objective", {}, {"objective": "plain"})),
    ),
    "branches": (
        {"method": "smoea", "epochs": 0},
        (
            Row("branches may go"),
            Row("every branch stays", {"branches": False}),
            Row("obs, branches may go", {"method": "obs"}),
            Row("obs, every branch stays", {"method": "obs", "branches": False}),
        ),
    ),
    "stages": (
        {"method": "smoea"},
        (Row("all stages at once, 5 epochs", {"epochs": 5}), Row("1 epoch a stage, then 1", {"epochs": 1, "stage_epochs": 1})),
    ),
    "cluster": (
        {"method": "cluster", "epochs": 0},
        (
            Row("crowding distance"),
            Row("random inside a cluster", {}, {"keep": "random"}),
            Row("largest l1 norm inside a cluster", {}, {"keep": "l1"}),
            Row("by obs inside a cluster", {}, {"keep": "obs"}),
            Row("fitness after batch norms only", {}, {"fitness": "bn"}),
        ),
    ),
    "bicnn": (
        {"method": "bicnn", "epochs": 0},
        (
            Row("as it is"),
            Row("no migration", {}, {"migrate": False}),
            Row("no warm start", {}, {"warm_start": False}),
            Row("a lower search for every offspring", {}, {"rho": 1.0}),
            Row("nested", {}, {"rho": 1.0, "warm_start": False, "migrate": False, "patience": 99}),
        ),
    ),
}


def run(network: Network, data: Data, group: str, row: Row, seed: int, folder: Path) -> dict[str, Any]:
    """One run; a finished one is only read."""
    shared, _ = GROUPS[group]
    flags = {**shared, **row.flags, "options": dict(row.options), "seed": seed, "latency_seconds": 0.0}
    report = prune(network, data, make_job(flags=flags), folder).report
    tests = {a.when: a.value for a in report.scores if a.split == "test"}
    told = {k: report.search[k] for k in ("image_forwards", "lower_evaluations", "upper_evaluations") if k in report.search}
    return {
        "base": tests["base"],
        "test": tests["final"],
        "macs": report.reached,
        "validation": {a.when: a.value for a in report.scores if a.split == "validation"},
        "seconds": dict(report.seconds),
        **told,
    }


def table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Group by group; means and standard deviations over the seeds, in %."""
    lines = [
        "| | | seeds | + batch norms | + least squares | trained | test | search, image-forwards | lower evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group, (_, rows) in GROUPS.items():
        for row in rows:
            runs = list(found.get(group, {}).get(row.name, {}).values())
            if runs:
                states = [_mean([r["validation"].get(k) for r in runs]) for k in ("batch norm", "reconstructed", "fine-tuned")]
                spent = [_count([r.get(k) for r in runs]) for k in ("image_forwards", "lower_evaluations")]
                cells = [group, row.name, str(len(runs)), *states, _mean([r["test"] for r in runs]), *spent]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    there = [100 * v for v in values if v is not None]
    if not there:
        return ""
    return f"{statistics.fmean(there):.1f}" + (f" ± {statistics.stdev(there):.1f}" if len(there) > 1 else "")


def _count(values: Sequence[float | None]) -> str:
    there = [v for v in values if v is not None]
    return f"{statistics.fmean(there):,.0f}" if there else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=[*GROUPS], default=[*GROUPS], help="groups of rows")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--name", default="resnet20", help="of the result")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run is begun after so long")
    given = parser.parse_args()
    network = network_from(load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing)
    path, end = RESULTS / f"ablations-{given.name}.json", time.monotonic() + 60 * given.minutes
    wanted = [(s, g, n, row) for s in given.seeds for g in given.only for n, row in enumerate(GROUPS[g][1])]
    for seed, group, number, row in wanted:
        if time.monotonic() > end:
            print("the time is up; the same command goes on", file=sys.stderr)
            break
        print(f"{group}: {row.name}, seed {seed}", file=sys.stderr, flush=True)
        one = run(network, data, group, row, seed, given.work / f"{group}-{number}-seed-{seed}")
        _keep(path, group, row.name, seed, one, {"network": network.digest, **data.digests})
    print(table(json.loads(path.read_text())["found"] if path.exists() else {}))
    return 0


def _keep(path: Path, group: str, row: str, seed: int, one: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Adds a run to the results, whole or not at all."""
    held = json.loads(path.read_text()) if path.exists() else {"found": {}}
    held["digests"] = dict(digests)
    held["found"].setdefault(group, {}).setdefault(row, {})[str(seed)] = dict(one)
    write_json(path, held)


if __name__ == "__main__":
    sys.exit(main())
