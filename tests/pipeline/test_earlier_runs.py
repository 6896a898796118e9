"""Run folders that an earlier version wrote: read, resumed, picked from and reported by this one."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from compress_cli.app import app
from support.commands import DIGITS
from support.pages import Page
from typer.testing import CliRunner

from compress.core.plan import Plan
from compress.data import Data
from compress.networks.network import Network
from compress.pipeline import searching
from compress.pipeline.job import Job, make_job
from compress.pipeline.pruning import prune
from compress.report.model import Report

ROOT = Path(__file__).parents[2]
FINISHED, INTERRUPTED = (Path(__file__).parent / "data" / name for name in ("finished", "interrupted"))
COMPUTED_BY = {"torch": "2.14.1+cu130", "threads": 1}
"""What the scores in the interrupted run's journal were computed by."""


def compress(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def held(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def job_of(folder: Path) -> Job:
    return make_job(flags={k: tuple(v) if isinstance(v, list) else v for k, v in held(folder, "job.json")["job"].items()})


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    return Path(shutil.copytree(INTERRUPTED, tmp_path / "run"))


def test_the_command_of_a_finished_run_only_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very command that made it, as its report has it, but for the folder's place."""
    monkeypatch.chdir(ROOT)
    run = Path(shutil.copytree(FINISHED, tmp_path / "run"))
    report = held(FINISHED, "report.json")
    command = shlex.split(report["command"])[1:]
    command[command.index("--out") + 1] = str(run)
    result = compress(*command, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == as_now(report)
    kept = contents(run)
    assert {name: kept[name] for name in contents(FINISHED) if name != "inputs.json"} == {
        name: data for name, data in contents(FINISHED).items() if name != "inputs.json"
    }


def test_a_finished_run_is_picked_from(tmp_path: Path) -> None:
    run = Path(shutil.copytree(FINISHED, tmp_path / "run"))
    how = ("--index", "0", "--epochs", "0", "--model", DIGITS, "--out", tmp_path / "picked", "--json", "-q")
    result = compress("pick", run, *how)
    assert result.exit_code in (0, 6), result.output
    picked, front = json.loads(result.stdout), held(FINISHED, "front.json")["points"]
    assert picked["after"]["macs"] == front[0]["macs"]
    assert picked["before"]["macs"] == held(FINISHED, "report.json")["before"]["macs"]
    assert Plan.from_json(held(tmp_path / "picked", "plan.json")) == Plan.from_json(front[0]["plan"])
    assert list(picked["search"]) == ["points", "chosen", "fallback"], "no search, no figures of one"
    before, after = contents(FINISHED), contents(run)
    assert {name: after[name] for name in before} == before
    kept = {p.name for p in (run / "statistics").glob("*")}  # none, where another run on this machine left them
    assert {name for name in after if name not in before} <= kept


def as_now(report: dict[str, Any]) -> dict[str, Any]:
    """A report of the first version as this one shows it; in the order of its fields."""
    top1 = {"name": "top-1 accuracy", "unit": "", "higher": True, "share": True}
    rows = [{"value" if k == "top1" else k: v for k, v in row.items()} for row in report["accuracy"]]
    found = {"scores" if k == "accuracy" else k: rows if k == "accuracy" else v for k, v in report.items()}
    found["latency"] = [row | {"base_decisive": 0.0, "pruned_decisive": 0.0} for row in report["latency"]]
    found["certificate"] = report["certificate"] | {"figure": top1, "change": None}
    found |= {"task": "classification", "figure": top1, "steps": [], "schema": "compress-report-2"}
    unknown = {f.name: f.default if f.default != () else [] for f in fields(Report) if f.name not in found}
    return {f.name: (found | unknown)[f.name] for f in fields(Report)}


def test_a_finished_run_is_reported(tmp_path: Path) -> None:
    """Of the first version, it is shown as one of this: accuracies are scores, a count of disagreements bounds the top-1."""
    report = held(FINISHED, "report.json")
    shown = json.loads(compress("report", FINISHED, "--json").stdout)
    assert shown == as_now(report)
    page = compress("report", FINISHED, "--html", "--out", tmp_path / "report.html")
    assert page.exit_code == 0, page.output
    text = (tmp_path / "report.html").read_text()
    plots = {"plot-front", "plot-samples-0", "plot-rounds-0", "plot-network", "plot-dumbbells"}
    assert plots <= set(Page(text).ids) and "is damaged" not in text
    shown = compress("report", FINISHED, "--markdown").stdout
    assert all(width["layer"] in shown for width in report["widths"] if width["before"] != width["after"])


def test_an_interrupted_run_is_resumed_without_scoring_a_plan_again(
    digits: tuple[Network, Data], interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal holds for the torch and the threads that filled it only: they are told as they were then."""
    monkeypatch.setattr(searching, "_computed_by", lambda _: COMPUTED_BY)
    events: list[Any] = []
    result = prune(*digits, job_of(INTERRUPTED), interrupted, listen=events.append)
    asked = [e for e in events if type(e).__name__ == "Asked"]
    assert asked and not any(e.fresh for e in asked)
    assert contents(interrupted)["journal.jsonl"] == contents(INTERRUPTED)["journal.jsonl"]
    assert result.plan == Plan.from_json(held(INTERRUPTED, "plan.json"))
    front = held(interrupted, "front.json")
    assert "within the budget" in front.pop("why") and front.pop("found_by"), "which earlier versions did not write"
    assert front == held(INTERRUPTED, "front.json")
    earlier, now = held(FINISHED, "report.json"), held(interrupted, "report.json")
    searched = {k: v for k, v in now["search"].items() if k not in ("found_by", "found_after")}  # which those do not know
    assert list(now) == list(as_now(earlier)) and searched == earlier["search"], "the finished run searched alike"
    assert list(searched) == list(earlier["search"])


class _Asked(BaseException):
    pass


@pytest.mark.parametrize("other", [{"torch": "2.0.0"}, {"threads": 7}])
def test_scores_of_another_torch_are_not_taken(
    other: dict[str, Any], digits: tuple[Network, Data], interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_computed_by", lambda _: COMPUTED_BY | other)

    def listen(event: Any) -> None:
        if type(event).__name__ == "Asked":
            assert event.fresh == event.distinct > 0
            raise _Asked

    with pytest.raises(_Asked):
        prune(*digits, job_of(INTERRUPTED), interrupted, listen=listen)
