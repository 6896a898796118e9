"""What the commands print of networks that name no classes, beside what is true: six tiny ones, three commands each.

    python benchmarks/task_cases.py                 # all, then results/task_cases.json and the table in docs/tasks.md
    python benchmarks/task_cases.py --case binary   # one anew
    python benchmarks/task_cases.py --page          # only the table

Of every case the first command knows of nothing but images, as somebody would type it first; the second one is told the
task, and has an allowed loss where something without targets can bound it; the third one has the targets, too. The worlds
are those of `claims.py`: true figures are of 20,000 fresh samples, by formulas that are not the library's.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

try:
    from pages import write_between
except ImportError:  # as a module of the repository
    from benchmarks.pages import write_between

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "task_cases.json", ROOT / "docs" / "tasks.md"
BEGIN, END = "<!-- cases: begin -->", "<!-- cases: end -->"
TASKS = {
    "binary": "binary",
    "regression": "regression:unit=px",
    "multilabel": "multilabel",
    "segmentation": "segmentation",
    "restoration": "restoration",
    "detection": "detection",
}
ALLOWED = {"binary": 30.0, "regression": 2.0, "multilabel": 20.0}
"""Of the second command: points, or pixels; of the others' figures nothing without targets says anything."""
NOISE = {"binary": 3.0, "regression": 0.3, "multilabel": 1.0, "segmentation": 0.3, "restoration": 0.15, "detection": 0.3}
COUNTS = {"train": 512, "validation": 300, "calibration": 128, "test": 300}
FRESH, SEED = 20_000, 3
QUICK = ("--budget", "3000", "--latency-seconds", "0", "--exporter", "legacy", "--round-to", "1", "--epochs", "3", "-q")


def world_of(case: str) -> Any:
    """Where the samples of a case come from."""
    from claims_tasks import World

    return World(TASKS[case], SEED, NOISE[case])


def network(case: str) -> Any:
    """What ``--arch`` names: the network, untrained."""
    return world_of(case).network(SEED)


def images(case: str, targets: bool) -> Any:
    """What ``--data`` names: four splits, with their targets or without."""
    from claims_tasks import InputsAlone, Pairs

    from compress.data import data_from

    world, parts = world_of(case), {}
    for number, (name, count) in enumerate(COUNTS.items()):
        inputs, wanted = world.samples(count, 100 + number)
        parts[name] = Pairs(inputs, wanted) if targets else InputsAlone(inputs)
    classes = {"binary": 2, "detection": 3}.get(case, 0) if targets else 0
    return data_from(**parts, classes=classes)


def __getattr__(name: str) -> Any:
    """``task_cases:binary_net``, ``task_cases:binary_images`` and ``task_cases:binary_data``, as commands name them."""
    case, _, what = name.partition("_")
    made = {"net": partial(network, case), "images": partial(images, case, False), "data": partial(images, case, True)}
    if case not in TASKS or what not in made:
        raise AttributeError(name)
    return made[what]


# ---- the commands --------------------------------------------------------------------------------------------------------


def commands(case: str) -> list[list[str]]:
    """Three of them, without what only makes them quick."""
    start = ["compress", "prune", f"{case}.pt", "--arch", f"task_cases:{case}_net"]
    share = ["--macs", "0.5"]
    told = ["--task", TASKS[case]]
    allowed = ["--max-drop", f"{ALLOWED[case]:g}"] if case in ALLOWED else share
    return [
        [*start, "--data", f"task_cases:{case}_images", *share],
        [*start, "--data", f"task_cases:{case}_images", *told, *allowed, "--epochs", "0"],
        [*start, "--data", f"task_cases:{case}_data", *told, *share],
    ]


def run(case: str) -> list[dict[str, Any]]:
    """The case's rows: what each command printed, and the true figures."""
    import torch
    from claims_tasks import trained
    from compress_cli.app import app
    from typer.testing import CliRunner

    world, rows = world_of(case), []
    inputs, targets = world.samples(FRESH, 900)
    with tempfile.TemporaryDirectory() as folder:
        base = trained(world, SEED)
        torch.save(base.state_dict(), Path(folder) / f"{case}.pt")
        before = world.truth(_answers(base, inputs), targets)
        for number, command in enumerate(commands(case)):
            start, out = time.process_time(), Path(folder) / f"run{number}"
            typed = [str(Path(folder) / word) if word.endswith(".pt") else word for word in command[1:]]
            found = CliRunner().invoke(app, [typed[0], *QUICK, *typed[1:], "--out", str(out)], catch_exceptions=False)
            truth = _truth(world, out / "model.onnx", inputs, targets) if (out / "model.onnx").exists() else {}
            rows.append(
                {
                    "case": case,
                    "command": " ".join(command),
                    "exit": found.exit_code,
                    "says": _said(out, found.output),
                    "before": before,
                    "after": truth,
                    "cpu_seconds": round(time.process_time() - start, 1),
                }
            )
            print(json.dumps(rows[-1], indent=1), flush=True)
    return rows


def _said(out: Path, printed: str) -> list[str]:
    """The verdict, red flags and what is said of a certificate; of a refusal what was printed."""
    if not (out / "report.json").exists():
        return [re.sub(r"\s+", " ", printed).strip()]
    report = json.loads((out / "report.json").read_text())
    notes = [n for n in report["notes"] if "certificate" in n or "taken back" in n]
    return [report["verdict"], *(f"! {w}" for w in report["warnings"]), *notes]


def _answers(model: Any, inputs: Any) -> Any:
    from claims import _answers as answers

    return answers(model, inputs)


def _truth(world: Any, file: Path, inputs: Any, targets: Any) -> dict[str, float]:
    """Of the ONNX file that a run wrote, on fresh samples."""
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    parts = [session.run(None, {session.get_inputs()[0].name: part.numpy()}) for part in torch.split(inputs, 1000)]
    found = {n: torch.cat([torch.from_numpy(p[i]) for p in parts]) for i, n in enumerate(names)}
    return world.truth(found if world.name == "detection" else found[names[0]], targets)


# ---- the page ------------------------------------------------------------------------------------------------------------


_ASIDE = ("taken back", "! slower", "! nothing was scored")
"""What is left out of the table: recoveries, what is said of speed, and what the verdict says, too."""


def table(rows: list[dict[str, Any]]) -> str:
    """A row a command."""
    lines = ["| command (after `compress prune`) | what it says | true, on 20,000 fresh samples |", "|---|---|---|"]
    for row in rows:
        words = (
            row["command"].split(" ", 2)[2].replace("--arch task_cases:", "--arch ").replace("--data task_cases:", "--data ")
        )
        shown = [s.removeprefix("! ") for s in row["says"] if not s.startswith(_ASIDE)]
        said = "; ".join(shown).replace("|", "\\|")
        truth = ", ".join(
            f"{name} {value:.4g} → {row['after'][name]:.4g}" for name, value in row["before"].items() if row["after"]
        )
        lines.append(f"| `{words}` | {said} | {truth or 'nothing was made'} |")
    return "\n".join(lines)


def main() -> int:
    """Runs what is asked for."""
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=TASKS, action="append", default=[])
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    held = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    wanted = [] if given.page else given.case or list(TASKS)
    found = {case: [r for r in held if r["case"] == case] for case in TASKS}
    for case in wanted:
        found[case] = run(case)
        rows = [row for case in TASKS for row in found[case]]
        RESULTS.write_text(json.dumps({"fresh": FRESH, "quick": " ".join(QUICK), "rows": rows}, indent=1) + "\n")
    write_between(PAGE, BEGIN, END, table([row for case in TASKS for row in found[case]]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
