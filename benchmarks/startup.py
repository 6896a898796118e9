"""What a start costs in CPU time: the first use of the library, and the commands that only look something up.

    python benchmarks/startup.py [--old PATH] [--rounds 5] [--out benchmarks/results/startup.json]

Each start is a process of its own on one thread; its CPU time is what the kernel says of it when it ends (user and system, with
its children), so that other work on the machine matters less than it would to a clock. The starts are taken in turn, of this
checkout and of the one at PATH, after a round that is not counted and leaves byte code behind; the table has the medians.
A start that one of the two does not know is left empty.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from compress.core import capture, write_json

HERE = Path(__file__).parents[1]
RUN = "prune models/checkpoints/digits-net.safetensors --data digits --method uniform --epochs 0 --latency-seconds 0 -q"
IN_PYTHON = ("import torch", "import compress", "import compress; compress.prune")
COMMANDS = ("--version", "--help", "models", "methods", "cite", "report RUN", "report --csv RUN", "report --markdown RUN")


def environment(root: Path) -> dict[str, str]:
    """That of a process which sees the packages of one checkout only."""
    paths = os.pathsep.join(map(str, (root, root / "cli", root / "models")))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def words_of(start: str, run: Path) -> list[str]:
    """A start as a command line."""
    if start in IN_PYTHON:
        return [sys.executable, "-c", start]
    return [sys.executable, "-m", "compress_cli", *(str(run) if word == "RUN" else word for word in start.split())]


def cpu_seconds(words: list[str], root: Path) -> float | None:
    """User and system time of a process and its children; None where it failed."""
    with tempfile.TemporaryDirectory() as elsewhere:  # no checkout's packages are on the path because they lie here
        child = subprocess.Popen(
            words, cwd=elsewhere, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime if child.returncode == 0 else None


def measured(roots: dict[str, Path], run: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Start -> checkout -> CPU seconds, one a round."""
    found: dict[str, dict[str, list[float]]] = {s: {name: [] for name in roots} for s in (*IN_PYTHON, *COMMANDS)}
    for number in range(rounds + 1):
        for start, rows in found.items():
            for name, root in roots.items():
                seconds = cpu_seconds(words_of(start, run), root)
                if number and seconds is not None:
                    rows[name].append(seconds)
        print(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Medians in Markdown."""
    names = list(next(iter(found.values())))
    lines = [f"| start | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for start, rows in found.items():
        cells = [f"{statistics.median(rows[name]):.2f} s" if rows[name] else "" for name in names]
        said = start if start in IN_PYTHON else f"compress {start}"
        lines.append(f"| `{said}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "startup.json")
    given = parser.parse_args()
    roots = {"old": given.old.absolute()} if given.old else {}
    roots["new"] = HERE
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [sys.executable, "-m", "compress_cli", *shlex.split(RUN), "--out", str(run)]
        subprocess.run(words, cwd=HERE, env=environment(HERE), check=True, stdout=subprocess.DEVNULL)
        found = measured(roots, run, given.rounds)
    here = capture()
    write_json(
        given.out,
        {
            "cpu": here.cpu,
            "cores": here.cores,
            "python": platform.python_version(),
            "versions": dict(here.versions),
            "load": [before, os.getloadavg()[0]],
            "rounds": given.rounds,
            "seconds": found,
            "median": {s: {n: statistics.median(v) if v else None for n, v in rows.items()} for s, rows in found.items()},
        },
    )
    print(table(found))
    print(f"\nMedians of {given.rounds} rounds, load {before:.1f} to {os.getloadavg()[0]:.1f} on {here.cores} cores.")


if __name__ == "__main__":
    main()
