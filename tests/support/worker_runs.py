"""Small searches, and what of them may not depend on who scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress.pipeline import Job, make_job
from compress.pipeline.run_folder import JOB

BASE: dict[str, Any] = {"budget": 3_000, "calibration": 64, "epochs": 0, "latency_seconds": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "smoea": {"options": {"population": 6, "generations": 2}},
    "cluster": {"options": {"population": 6, "generations": 2}, "budget": 12_000},
    "bicnn": {"budget": 12_000},
}


def small(method: str, **more: Any) -> Job:
    return make_job(flags={**BASE, "method": method, **SMALL[method], **more})


def left_in(folder: Path) -> dict[str, Any]:
    """What may not depend on who scored: all but the seconds of the journal and their checksums."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    journal = [{k: v for k, v in line.items() if k not in ("seconds", "check")} for line in lines]
    files = {name: (folder / name).read_bytes() for name in ("plan.json", "front.json", JOB)}
    return {"journal": json.dumps(journal), **files}
