from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from compress_models import MODELS
from torch import nn

from compress.core.cost import Cost, count
from compress.core.events import Progressed
from compress.core.plan import Cut, Plan
from compress.core.topology import GroupId
from compress.coupling.tracer import trace
from compress.data import Data, Preprocessing
from compress.errors import ConfigError, DataError, GuardError, SearchError
from compress.evaluation.criteria import CRITERIA
from compress.networks import checkpoint
from compress.networks.network import Network, network_of
from compress.pipeline.conclusion import Result
from compress.pipeline.front import choose
from compress.pipeline.inspection import inspect
from compress.pipeline.job import Job, make_job
from compress.pipeline.picking import pick
from compress.pipeline.pruning import prune
from compress.pipeline.steps import epochs_for, guarded_cut
from compress.search.front import Fidelity, Point
from compress.search.space import Target

ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {
    "method": "smoea",
    "options": {"population": 6, "generations": 2},
    "epochs": 1,
    "latency_seconds": 0.0,
    "budget": 6_000,
    "calibration": 64,
    "exporter": "legacy",
}
UNIFORM: dict[str, Any] = {**QUICK, "method": "uniform", "epochs": 0, "options": {"points": 6}}


@pytest.fixture(scope="module")
def finished(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[Any]]:
    events: list[Any] = []
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return prune(*digits, make_job(flags=QUICK), folder, listen=events.append), events


def test_a_run_leaves_what_it_promises(digits: tuple[Network, Data], finished: tuple[Result, list[Any]]) -> None:
    result, events = finished
    network, data = digits
    topology = trace(network.model, torch.zeros(1, 1, 8, 8))
    report = result.report
    assert report.reached == count(topology, result.plan).macs / count(topology).macs <= 0.5
    assert report.reached > (0.2 if result.plan.branches else 0.3)  # without its two branches: 0.203
    real = sum(p.numel() for p in result.model.parameters())
    assert report.after.params == real == count(topology, result.plan).params
    names = {p.name for p in result.folder.iterdir()}
    assert {"plan.json", "front.json", "front.svg", "journal.jsonl", "model.safetensors", "model.onnx", "base.onnx"} <= names
    assert {"report.json", "report.md", "job.json"} <= names and not [n for n in names if n.endswith(".tmp")]
    whens = [a.when for a in report.scores]
    assert whens == ["base", "cut", "batch norm", "reconstructed", "fine-tuned", "base", "final"]
    assert report.guard["error"] <= 1e-5 and report.parity["verdict"] == "pass"
    assert {"Phase", "PhaseDone", "Table", "Asked", "EpochDone"} <= {type(e).__name__ for e in events}
    session = onnxruntime.InferenceSession(result.onnx, providers=["CPUExecutionProvider"])
    images = data.calibration.images(5)
    with torch.no_grad():
        wanted = result.model(images).numpy()
    assert np.abs(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0] - wanted).max() < 1e-4
    said = session.get_modelmeta().custom_metadata_map
    assert said["parent"] == network.digest and said["plan"] == result.plan.digest


def test_the_pruned_file_reloads_without_the_original(finished: tuple[Result, list[Any]]) -> None:
    result, _ = finished
    again = checkpoint.load(result.folder / "model.safetensors", zoo=MODELS)
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.model(images), result.model.eval()(images))
    assert again.plan == result.plan


def test_the_test_split_is_read_once_at_the_end(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    seen: list[str] = []

    class Spy:
        def __init__(self, split: Any) -> None:
            self.split = split

        def __len__(self) -> int:
            return len(self.split)

        def __getattr__(self, name: str) -> Any:
            seen.append(name)
            return getattr(self.split, name)

    watched = replace(data, test=Spy(data.test))  # type: ignore[arg-type]
    phases: list[tuple[str, int]] = []

    def listen(event: Any) -> None:
        if type(event).__name__ == "Phase":
            phases.append((event.name, sum(n in ("batches", "images") for n in seen)))

    prune(network, watched, make_job(flags=UNIFORM), tmp_path / "r", listen=listen)
    before = dict(phases)
    assert before["test"] == 0 and sum(n == "batches" for n in seen) == 2  # base and final


def test_the_same_call_again_only_reads(digits: tuple[Network, Data], finished: tuple[Result, list[Any]]) -> None:
    result, _ = finished
    events: list[Any] = []
    again = prune(*digits, make_job(flags=QUICK), result.folder, listen=events.append)
    assert not events and again.report == result.report and again.plan == result.plan
    with pytest.raises(ConfigError, match="seed"):
        prune(*digits, make_job(flags={**QUICK, "seed": 1}), result.folder)


def test_another_point_is_picked_without_a_search(
    digits: tuple[Network, Data], finished: tuple[Result, list[Any]], tmp_path: Path
) -> None:
    result, _ = finished
    front = json.loads((result.folder / "front.json").read_text())["points"]
    assert [p["macs"] for p in front] == sorted(p["macs"] for p in front)
    events: list[Any] = []
    picked = pick(*digits, result.folder, index=0, out=tmp_path / "first", listen=events.append)
    assert picked.report.after.macs == front[0]["macs"]
    assert "Asked" not in {type(e).__name__ for e in events}
    measured = [e.note for e in events if isinstance(e, Progressed)]
    assert "trial cuts" in measured and not {*measured} & {*CRITERIA, "gradients", "moments"}, "the run knows its channels"
    for wrong in ({"index": 99}, {"macs": 0.001}, {}, {"by": "magic"}, {"index": 0, "macs": 0.5}):
        with pytest.raises(ConfigError):
            pick(*digits, result.folder, **wrong)


@pytest.mark.slow
def test_one_run_every_budget(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """A nested order has a plan for any share; it is made without a search and exactly as a run for that share makes it (which
    may try other places on its line too)."""
    quick = {**UNIFORM, "method": "obs", "branches": False, "prefer_fast": False, "options": {"line": ()}}
    run = prune(*digits, make_job(flags=quick), tmp_path / "half")
    events: list[Any] = []
    picked = pick(*digits, run.folder, macs=0.37, listen=events.append)
    assert "Asked" not in {type(e).__name__ for e in events}
    assert picked.folder == run.folder / "picks" / "macs-0.37" and picked.report.target == "macs <= 0.37"
    assert 0.25 < picked.report.reached <= 0.37 and "without a search" in picked.report.search["chosen"]
    fresh = prune(*digits, make_job(flags={**quick, "value": 0.37}), tmp_path / "fresh")
    assert fresh.plan == picked.plan
    assert fresh.report.measured("final", "test") == picked.report.measured("final", "test")
    share = run.report.reached  # a point that the front has is taken from it
    assert pick(*digits, run.folder, macs=share + 1e-6).plan == run.plan
    by_params = pick(*digits, run.folder, params=0.3, epochs=1, out=tmp_path / "params")
    assert by_params.report.after.params / by_params.report.before.params <= 0.3
    assert by_params.report.measured("fine-tuned", "validation")
    with pytest.raises(SearchError, match="at least"):
        pick(*digits, run.folder, macs=0.001)


def test_answers_are_kept_image_by_image(finished: tuple[Result, list[Any]]) -> None:
    result, _ = finished
    kept = json.loads((result.folder / "answers.json").read_text())
    for when in ("base", "final"):
        seen = result.report.measured(when, "test")
        assert seen is not None and len(kept["right"][when]) == seen.images
        assert kept["right"][when].count("1") / seen.images == seen.value


def test_without_data_nothing_is_claimed(digits: tuple[Network, Data], tmp_path: Path) -> None:
    result = prune(digits[0], None, make_job(flags=UNIFORM), tmp_path / "blind")
    assert result.report.scores == ()
    assert any("accuracy was not measured" in w for w in result.report.warnings)
    assert result.onnx.exists()


def test_targets(digits: tuple[Network, Data], tmp_path: Path) -> None:
    by_params = prune(*digits, make_job(flags={**UNIFORM, "target": "params", "value": 0.4}), tmp_path / "params")
    assert by_params.report.after.params / by_params.report.before.params <= 0.4


def test_what_went_wrong_is_said(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """A network that a cut destroyed, a budget that was too small, a certificate that nobody could give."""
    job = make_job(flags={**UNIFORM, "recover": "none", "value": 0.3, "budget": 100})
    report = prune(*digits, job, tmp_path / "r").report
    assert any(w.startswith("the pruned network is of no use as it is: 99.4 % -> ") for w in report.warnings)
    assert any("100 were allowed" in n for n in report.notes) == (report.search["image_forwards"] > 105)
    assert any(n.startswith("no certificate") for n in report.notes) == (report.certificate is None)
    good = prune(*digits, make_job(flags={**UNIFORM, "value": 0.8}), tmp_path / "good").report
    assert not any("of no use" in w for w in good.warnings) and not any("were allowed" in n for n in good.notes)


def test_a_drop_is_told_in_points(digits: tuple[Network, Data], tmp_path: Path) -> None:
    job = make_job(flags={**UNIFORM, "target": "max_drop", "value": 5.0})
    result = prune(*digits, job, tmp_path / "r")
    assert "allowed drop" in result.report.search["chosen"]
    share = result.report.after.macs / result.report.before.macs
    assert f"max drop ≤ 5 points, keeps {100 * share:.2f} % of the MACs" in (tmp_path / "r" / "report.md").read_text()
    with pytest.raises(ConfigError, match="max_drop is -1, but must be above 0"):
        make_job(flags={"target": "max_drop", "value": -1.0})


def test_a_pick_says_what_is_missing(digits: tuple[Network, Data], finished: tuple[Result, list[Any]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a latency table"):
        pick(*digits, finished[0].folder, latency=0.5)
    (tmp_path / "job.json").write_bytes((finished[0].folder / "job.json").read_bytes())
    with pytest.raises(ConfigError, match="has not ended") as caught:
        pick(*digits, tmp_path, index=0)
    assert "goes on where it stopped" in caught.value.hint


def test_an_unreachable_target_names_the_nearest(digits: tuple[Network, Data], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="at least") as caught:
        prune(*digits, make_job(flags={**QUICK, "value": 0.001}), tmp_path / "r")
    nearest = float(caught.value.hint.split("--macs ")[1].split(";")[0])
    assert nearest < 0.2
    assert not (tmp_path / "r" / "plan.json").exists()


def test_an_untrained_network_stops(digits: tuple[Network, Data], tmp_path: Path) -> None:
    untrained = network_of(MODELS["digits_net"]().eval(), digits[0].preprocessing)
    with pytest.raises(DataError, match="normalisation or labels"):
        prune(untrained, digits[1], make_job(flags=QUICK), tmp_path / "r")


def test_everything_ignored_is_an_error(digits: tuple[Network, Data], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no group"):
        prune(*digits, make_job(flags={**QUICK, "ignore": ("*",)}), tmp_path / "r")


def test_wrong_surgery_leaves_no_model(digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.pipeline import steps

    def wrong(model: nn.Module, topology: Any, plan: Plan) -> nn.Module:
        small = right(model, topology, plan)
        with torch.no_grad():
            next(p for p in small.parameters() if p.dim() == 4).mul_(1.01)
        return small

    right = steps.cut
    monkeypatch.setattr(steps, "cut", wrong)
    with pytest.raises(GuardError, match="computes something else"):
        prune(*digits, make_job(flags=UNIFORM), tmp_path / "r")
    assert not {p.name for p in (tmp_path / "r").iterdir()} & {"model.safetensors", "model.onnx", "report.json"}


def test_counted_parameters_must_be_real(digits: tuple[Network, Data]) -> None:
    network, _ = digits
    topology = trace(network.model, torch.zeros(1, 1, 8, 8))
    small, seen = guarded_cut(network.model, topology, Plan(), torch.randn(3, 1, 8, 8))
    assert seen.error == 0.0 and all(p.requires_grad for p in small.parameters())


def test_inspection_says_what_and_why(digits: tuple[Network, Data]) -> None:
    found = inspect(digits[0], Job(ignore=("layer1.*",)))
    assert sum(r.macs for r in found.layers) == found.cost.macs
    reasons = {r.name: r.why_not for r in found.layers if not r.group}
    assert "output" in reasons["classifier"]  # type: ignore[index]
    assert 0 < found.least["macs"] < 1 and found.least_unaligned["macs"] <= found.least["macs"]


@pytest.mark.parametrize(("kind", "value", "index"), [("macs", 0.5, 2), ("macs", 0.25, 1), ("max_drop", 0.05, 2)])
def test_choice(kind: str, value: float, index: int) -> None:
    figures = ((0.1, 0.4), (0.2, 0.3), (0.45, 0.12), (0.8, 0.1))
    points = [
        Point(Plan({GroupId("g"): Cut((i,))}), error, Cost(int(1000 * share), 1), Fidelity.FULL)
        for i, (share, error) in enumerate(figures)
    ]
    shares = {p.plan: p.cost.macs / 1000 for p in points}
    chosen, why = choose(tuple(points), Target(kind, value), lambda plan: shares[plan], 0.1)
    assert points.index(chosen) == index and why


def test_nothing_within_the_budget_is_an_error() -> None:
    point = Point(Plan(), 0.1, Cost(500, 1), Fidelity.FULL)
    with pytest.raises(SearchError, match=r"keeps 0\.500"):
        choose((point,), Target("macs", 0.05), lambda plan: 0.5, 0.1)


def test_a_drop_needs_images(digits: tuple[Network, Data], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images"):
        prune(digits[0], None, make_job(flags={**UNIFORM, "target": "max_drop", "value": 1.0}), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_another_preprocessing_is_another_run(
    digits: tuple[Network, Data], finished: tuple[Result, list[Any]], tmp_path: Path
) -> None:
    other = replace(digits[0], preprocessing=replace(digits[0].preprocessing, mean=(0.1,)))
    with pytest.raises(ConfigError, match="preprocessing"):
        prune(other, digits[1], make_job(flags=QUICK), finished[0].folder)
    with pytest.raises(ConfigError, match="preprocessing"):
        pick(other, digits[1], finished[0].folder, index=0, out=tmp_path / "p")


def test_a_damaged_result_is_named(digits: tuple[Network, Data], tmp_path: Path) -> None:
    folder = tmp_path / "r"
    prune(digits[0], None, make_job(flags=UNIFORM), folder)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="damaged"):
        prune(digits[0], None, make_job(flags=UNIFORM), folder)


@pytest.mark.parametrize("method", ["cluster", *(pytest.param(m, marks=pytest.mark.slow) for m in ("smoea", "obs"))])
def test_low_targets_and_coarse_widths(digits: tuple[Network, Data], tmp_path: Path, method: str) -> None:
    options = {"obs": {}, "cluster": {"population": 4, "generations": 2}}.get(method, QUICK["options"])
    coarse = {**UNIFORM, "method": method, "options": options, "round_to": 32, "value": 0.7, "recover": "bn"}
    result = prune(*digits, make_job(flags=coarse), tmp_path / "r")
    assert result.report.reached <= 0.7


def test_epochs_by_the_number_of_images() -> None:
    assert epochs_for(Job(), 43_000) == 3 and epochs_for(Job(), 990) == 30 and epochs_for(Job(epochs=7), 10) == 7


def test_a_module_in_memory_is_pruned_in_three_lines(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS["lenet"](size=28, in_channels=1)
    network = network_of(model.eval(), Preprocessing((0.5,), (0.5,), (28, 28), None))
    result = prune(network, None, make_job(flags=UNIFORM), tmp_path / "r")
    assert result.report.after.macs < result.report.before.macs


def _forked(digits: tuple[Network, Data], folder: Path) -> int:
    """The same call in a child of its own; gives its process id."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            prune(*digits, make_job(flags=QUICK), folder)
            os._exit(0)
        os._exit(1)
    return child


def _until(child: int, reached: Callable[[], bool]) -> None:
    """Kills a run as soon as it has come so far."""
    deadline = time.monotonic() + 120
    while not reached() and time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_killed_and_called_again_it_ends_with_the_same_plan(
    digits: tuple[Network, Data], finished: tuple[Result, list[Any]], tmp_path: Path
) -> None:
    """Killed in the search, in the training and before the report. At 50 random moments: benchmarks/faults.py."""
    folder = tmp_path / "r"
    for wanted in ("journal.jsonl", "finetune/fit.safetensors", "base.onnx"):
        _until(_forked(digits, folder), (folder / wanted).exists)
        assert (folder / wanted).exists() and not (folder / "report.json").exists()
        for path in folder.glob("*.json"):
            json.loads(path.read_text())  # whole, or not there
    events: list[Any] = []
    again = prune(*digits, make_job(flags=QUICK), folder, listen=events.append)
    asked = [e for e in events if type(e).__name__ == "Asked"]
    assert asked and not any(e.fresh for e in asked), "every score was written down before it was used"
    assert again.report.search["requests"] == finished[0].report.search["requests"], "evaluations of all sittings count"
    scored = [json.loads(line)["seconds"] for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert again.report.seconds["search"] >= sum(scored) - 0.01 > 0, "and so does their time"
    for name in ("plan.json", "front.json"):
        assert (folder / name).read_bytes() == (finished[0].folder / name).read_bytes()
    assert again.report.digests == finished[0].report.digests
    assert not [p for p in folder.glob(".*") if p.name != ".lock"]


@pytest.mark.slow
def test_the_fault_suite_in_short(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "faults.py", "--work", tmp_path, "--result", tmp_path / "result.json"]
    subprocess.run([*command, "--kills", "3", "--only", "kills", "limits", "twice"], check=True)
    kinds = json.loads((tmp_path / "result.json").read_text())["kinds"]
    assert sum(k["passed"] for k in kinds.values()) == sum(k["trials"] for k in kinds.values()) == 14
