"""Memory and open files of a long search: 10,000 candidates of a small network, in this process and by two workers.

    python benchmarks/search_memory.py [--candidates 10000] [--out benchmarks/results/search_memory.json]

SMOEA searches the digits network with a population and generations that last so long; each arm is a process of its own. After
every request the resident set and the open files of the searching process and of its workers are read; kept are those at every
500 candidates, and the growth between a tenth of the candidates and the last, as a line's slope. What has to grow is what the
search remembers: every plan with its score.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compress.core import capture, write_json

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "models" / "checkpoints" / "digits-net.safetensors"
OUT = Path(__file__).parent / "results" / "search_memory.json"
ARMS = {"here": None, "two workers": 2}
_EVERY = 500
_MIB = 1024.0


class Enough(BaseException):
    """So many candidates were scored; the library does not catch it."""


def held(pid: int) -> dict[str, float]:
    """MiB resident and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {"mib": int(status["VmRSS"].split()[0]) / _MIB, "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def searched(workers: int | None, candidates: int) -> list[dict[str, Any]]:
    """What the processes hold, request by request."""
    from compress_models import MODELS

    from compress.data import open_data
    from compress.networks import load, network_from
    from compress.pipeline import decide, make_job
    from compress.search import Asked

    network = network_from(load(REFERENCE, zoo=MODELS))
    data = open_data("digits", preprocessing=network.preprocessing)
    options = {"population": 120, "generations": 200}
    flags = {"method": "smoea", "options": options, "budget": 10_000_000, "stop_after": 0.0, "calibration": 64}
    job = make_job(flags={**flags, "workers": workers or 1, "score_threads": 1})
    rows: list[dict[str, Any]] = []
    seen = {"fresh": 0}

    def hear(event: Any) -> None:
        if not isinstance(event, Asked):
            return
        seen["fresh"] += event.fresh
        pids = [p.pid for p in multiprocessing.active_children() if p.pid]
        rows.append({"candidates": seen["fresh"], "search": held(os.getpid()), "workers": [held(pid) for pid in pids]})
        if seen["fresh"] >= candidates:
            raise Enough

    with tempfile.TemporaryDirectory() as place, contextlib.suppress(Enough):
        decide(network, data, job, Path(place) / "run", listen=hear)
    return rows


def told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Some of the rows, and how much was added a thousand candidates."""
    import numpy as np

    last = rows[-1]["candidates"]
    late = [row for row in rows if row["candidates"] >= last / 10]
    counts = np.array([row["candidates"] for row in late]) / 1000

    def slope(values: list[float]) -> float:
        return round(float(np.polyfit(counts, values, 1)[0]), 4)

    several = {f"worker {i}": [row["workers"][i] for row in late] for i in range(len(rows[-1]["workers"]))}
    processes = {"search": [row["search"] for row in late], **several}
    kept, due = [], 0
    for row in rows:
        if row["candidates"] >= due or row is rows[-1]:
            kept.append(row)
            due = row["candidates"] + _EVERY
    return {
        "candidates": last,
        "requests": len(rows),
        "from": late[0]["candidates"],
        "processes": {
            name: {
                "mib": {"first": found[0]["mib"], "last": found[-1]["mib"], "most": max(f["mib"] for f in found)},
                "mib_per_thousand": slope([f["mib"] for f in found]),
                "files": {"least": min(f["files"] for f in found), "most": max(f["files"] for f in found)},
            }
            for name, found in processes.items()
        },
        "rows": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(told(searched(ARMS[given.child], given.candidates))))
        return
    found: dict[str, Any] = {"environment": capture(threads=1).to_json()}
    for arm in ARMS:
        command = [sys.executable, __file__, "--child", arm, "--candidates", str(given.candidates)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{arm}: {done.stderr[-2000:]}")
        found[arm] = json.loads(done.stdout.splitlines()[-1])
        write_json(given.out, found)
        print(arm, json.dumps(found[arm]["processes"], indent=1), flush=True)


if __name__ == "__main__":
    main()
