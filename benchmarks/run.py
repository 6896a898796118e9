"""Repeats rows of published tables (``benchmarks/papers/*.toml``) and sets what was measured beside what was published.

    python benchmarks/run.py                                        # counts what can be counted, writes the table
    python benchmarks/run.py --models DIR --data DIR --work DIR     # runs every row whose files are there
        [--only NAME ...] [--seeds 0 1 2] [--epochs N] [--budget N] [--minutes M] [--workers N]

A row's runs are ordinary run folders below the work folder: a killed benchmark goes on where it stopped, and with ``--minutes``
no run is begun after that time. With ``--workers`` so many runs go side by side, each in a process of one thread, and clock
alone. After every run its figures go to ``benchmarks/results/paper-NAME.json`` and the table to
``benchmarks/papers/README.md``. The weights judged are the last epoch's; the test split is read once a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.papers_schema import FOLDER, Count, PaperRow, read_all
from compress.core import Listen, write_json
from compress.errors import CompressError
from compress.workers import WorkEnded, side_by_side

RESULTS = Path(__file__).parent / "results"
TABLE = FOLDER / "README.md"


def counted(what: Count) -> dict[str, Any]:
    """MACs and parameters removed when every group keeps this share of its channels, no image needed."""
    import torch
    import torchvision
    from compress_models import MODELS

    from compress.core import count
    from compress.coupling import trace
    from compress.search import make_stages, plan_at, prunable

    name = what.architecture.removeprefix("torchvision:")
    model = MODELS[name]() if name in MODELS else torchvision.models.get_model(name, weights=None)
    topology = trace(model.eval(), torch.zeros(1, 3, what.size, what.size))
    groups, _ = prunable(topology, what.ignore)
    wanted = [group for stage in make_stages(topology, groups, streams=what.streams) for group in stage.groups]
    before, after = count(topology), count(topology, plan_at(topology, wanted, what.ratio, 1))
    return {
        "macs": before.macs,
        "params": before.params,
        "macs_removed": 1 - after.macs / before.macs,
        "params_removed": 1 - after.params / before.params,
    }


def measured(report: Any) -> dict[str, Any]:
    """What one run found."""
    tests = {a.when: a.value for a in report.scores if a.split == "test"}
    speed = report.latency[0] if report.latency else None
    return {
        "base": tests["base"],
        "pruned": tests["final"],
        "macs_removed": 1 - report.after.macs / report.before.macs,
        "params_removed": 1 - report.after.params / report.before.params,
        "validation": {a.when: a.value for a in report.scores if a.split == "validation"},
        "test_images": next(a.images for a in report.scores if a.split == "test"),
        "speedup": [speed.low, speed.speedup, speed.high] if speed else None,
        "image_forwards": report.search.get("image_forwards"),
        "seconds": dict(report.seconds),
        "job": {k: report.job[k] for k in ("epochs", "budget", "round_to", "recover", "lr", "batch", "distill")},
        "digests": dict(report.digests),
        "notes": list(report.notes),
    }


def run(row: PaperRow, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One run of one row; a finished one is only read."""
    from compress_models import MODELS

    from compress.data import open_data
    from compress.networks import load, network_from
    from compress.pipeline import prune

    job = row.job(seed, epochs=given.epochs, budget=given.budget)
    network = network_from(load(given.models / row.protocol.model, zoo=MODELS))
    # The division of the images does not follow the run's seed: every run is judged on the same ones.
    data = open_data(str(given.data / row.protocol.data), preprocessing=network.preprocessing)
    marks = "".join(f"-{k}{v}" for k, v in (("epochs", given.epochs), ("budget", given.budget)) if v is not None)
    return measured(prune(network, data, job, given.work / f"{row.name}{marks}-seed-{seed}").report)


@dataclass(frozen=True)
class RowRuns:
    """Recipe of a process that does runs beside others; they are read from their folders afterwards."""

    given: argparse.Namespace

    def __call__(self) -> Callable[[tuple[PaperRow, int], Listen], None]:
        """What does a run of a row."""
        import torch

        torch.set_num_threads(1)
        return self.do

    def do(self, item: tuple[PaperRow, int], listen: Listen) -> None:
        """The row, and the seed."""
        run(*item, self.given)


def missing(row: PaperRow, given: argparse.Namespace) -> str:
    """What is not there to run a row with; empty where all is."""
    if given.models is None or given.data is None or given.work is None:
        return "needs --models, --data and --work"
    for folder, name in ((given.models, row.protocol.model), (given.data, row.protocol.data)):
        if not (folder / name).exists():
            made = f" (made by: {row.protocol.made_by})" if name == row.protocol.model and row.protocol.made_by else ""
            return f"{name} is not there{made}"
    return ""


def keep(row: PaperRow, entries: Mapping[str, Any]) -> None:
    """Adds to a row's results, whole or not at all."""
    path = RESULTS / f"paper-{row.name}.json"
    held = json.loads(path.read_text()) if path.exists() else {"row": row.name}
    for key, value in entries.items():
        held[key] = {**held.get(key, {}), **value} if isinstance(value, Mapping) else value
    write_json(path, held)


def _forget_others(row: PaperRow, job: Mapping[str, Any]) -> None:
    """One row, one protocol: runs at another budget leave the results (their folders stay)."""
    path = RESULTS / f"paper-{row.name}.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    if any(r["job"] != job for r in held.get("runs", {}).values()):
        path.unlink()


def results() -> dict[str, dict[str, Any]]:
    """What was found so far, by row."""
    found = {p.stem.removeprefix("paper-"): json.loads(p.read_text()) for p in sorted(RESULTS.glob("paper-*.json"))}
    return {name: held for name, held in found.items() if held.get("row") == name}


# ---- the table -------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, PaperRow], found: Mapping[str, Mapping[str, Any]]) -> str:
    """Published and measured side by side, then what differs and how to run it."""
    lines = [
        "# Published tables, repeated",
        "",
        "Written by `python benchmarks/run.py`; do not edit. Accuracies in %, ± the standard deviation over the seeds; drops",
        "in points of top-1 (negative: better than before); MACs and parameters *removed*. Nothing below claims to reproduce",
        "a paper beyond what was run.",
        "",
        "| row | | base → pruned | drop | MACs | parameters | seeds, state |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        p = row.published
        removed = (_share(p.macs_removed), _share(p.params_removed))
        source = f"{row.source.where} {row.source.year}: {p.network}, {p.data}" + (f" ({p.note})" if p.note else "")
        lines.append(_line(f"`{row.name}`", "published", _arrow(p.base, p.pruned), _points(p.drop), *removed, source))
        lines.append(_line("", "measured", *_measured(row, found.get(row.name, {}))))
    for row in rows.values():
        lines += ["", f"## `{row.name}`", ""]
        lines += [f"{row.source.authors}: *{row.source.title}*, {row.source.where} {row.source.year}; {row.source.row}.", ""]
        lines += [f"Goal: {row.goal}.", ""] if row.goal else []
        lines += [*(f"- {text}" for text in row.differs), ""] if row.differs else []
        lines += ["```", row.command, "```"]
        if other := _other(row, found.get(row.name, {})):
            lines += ["", f"Measured with other settings: `{row.run_command()}{other}`"]
        if row.protocol.made_by:
            lines += ["", f"Its network: `{row.protocol.made_by}`"]
    return "\n".join(lines) + "\n"


def _measured(row: PaperRow, held: Mapping[str, Any]) -> tuple[str, ...]:
    if "counted" in held:
        got = held["counted"]
        return "", "", _share(got["macs_removed"]), _share(got["params_removed"]), "counted"
    runs = list(held.get("runs", {}).values())
    if runs:
        drops = [r["base"] - r["pruned"] for r in runs]
        arrow = f"{_percent(runs[0]['base'])} → {_spread([r['pruned'] for r in runs])}"
        shares = (_share(statistics.fmean(r[k] for r in runs)) for k in ("macs_removed", "params_removed"))
        job = runs[0]["job"]
        epochs = f"{job['epochs']} epoch{'s' if job['epochs'] != 1 else ''}"
        said = f"seeds {', '.join(sorted(held['runs']))}; {epochs}, search {_budget(job['budget'])}"
        wanted = [str(s) for s in row.protocol.seeds if str(s) not in held["runs"]]
        said += f"; not run: seeds {', '.join(wanted)}" if wanted else ""
        return arrow, f"{_spread(drops, sign=True)}", *shares, said
    why = row.protocol.reason if row.protocol.kind == "none" else held.get("not run", "no time yet; the command below runs it")
    return "", "", "", "", f"not run: {why}"


def _other(row: PaperRow, held: Mapping[str, Any]) -> str:
    """What the runs there are were told beyond their row's protocol, as flags."""
    runs = list(held.get("runs", {}).values())
    if not runs:
        return ""
    own = row.job(0).to_json()
    return "".join(f" --{k} {runs[0]['job'][k]}" for k in ("epochs", "budget") if runs[0]["job"][k] != own[k])


def _budget(budget: int | None) -> str:
    return f"{budget:,} image-forwards" if budget else "at its default budget"


def _line(*cells: str) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _arrow(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{_percent(before)} → {_percent(after)}"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"−{100 * value:.4g} %"


def _spread(values: Sequence[float], sign: bool = False) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):{'+' if sign else ''}.2f}{spread}"


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="rows by name")
    parser.add_argument("--models", type=Path, help="folder of the networks' files")
    parser.add_argument("--data", type=Path, help="folder of the images")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, help="other seeds than the rows'")
    parser.add_argument("--epochs", type=int, help="other fine-tuning than the rows'")
    parser.add_argument("--budget", type=int, help="another budget of the searches than the rows', in image-forwards")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run is begun after so long")
    parser.add_argument("--workers", type=int, help="runs side by side, each in a process of one thread")
    given = parser.parse_args(None if arguments is None else list(arguments))
    rows, end = read_all(), time.monotonic() + 60 * given.minutes
    if given.workers and given.minutes < float("inf"):
        parser.error("--minutes counts for runs one after another: leave it or --workers out")
    unknown = set(given.only or ()) - set(rows)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    if given.workers:
        _beside(rows, given)
    failed = 0
    for name in given.only or rows:
        row = rows[name]
        if row.protocol.count is not None:
            keep(row, {"counted": counted(row.protocol.count)})
        elif row.protocol.kind == "prune":
            failed += _repeat(row, given, end)
        TABLE.write_text(table(rows, results()))
    print(TABLE.read_text() if not given.only else table({n: rows[n] for n in given.only}, results()))
    return 1 if failed else 0


def _beside(rows: Mapping[str, PaperRow], given: argparse.Namespace) -> None:
    """Does what can be run, so many at a time; what fails is told when the rows are gone through."""
    wanted = [rows[name] for name in given.only or rows]
    ready = [row for row in wanted if row.protocol.kind == "prune" and not missing(row, given)]
    items = [(row, seed) for row in ready for seed in given.seeds or row.protocol.seeds]
    for said in side_by_side(RowRuns(given), items, given.workers, lambda event: print(event, file=sys.stderr)):
        if isinstance(said, WorkEnded):
            row, seed = items[said.item]
            print(f"{row.name}, seed {seed}: {said.error or 'done'}", file=sys.stderr)


def _repeat(row: PaperRow, given: argparse.Namespace, end: float) -> int:
    """Every seed of a row; how many failed."""
    lacking = missing(row, given)
    if lacking:
        print(f"{row.name}: not run: {lacking}", file=sys.stderr)
        return 0
    failed = 0
    for seed in given.seeds or row.protocol.seeds:
        if time.monotonic() > end:
            print(f"{row.name}, seed {seed}: not begun, the time is up", file=sys.stderr)
            break
        try:
            found = run(row, seed, given)
            _forget_others(row, found["job"])
            keep(row, {"runs": {str(seed): found}})
        except CompressError as error:
            failed += 1
            print(f"{row.name}, seed {seed}: {error.message}", file=sys.stderr)
            keep(row, {"not run": error.message})
        TABLE.write_text(table(read_all(), results()))
    return failed


if __name__ == "__main__":
    sys.exit(main())
