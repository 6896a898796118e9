"""How a run ends: what can be said without labels, the test split once, latency, the report; and how an ended one is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress.core import Accuracy, Clock, Measured, Plan, Right, Topology, read_json, write_json
from compress.data import Data
from compress.errors import ConfigError, PlanError
from compress.evaluation import Material, agreements, blind, certify, on_test, save_predictions, unseen
from compress.networks import Network, state_digest
from compress.pipeline.job import Job
from compress.pipeline.layer_times import profile_files
from compress.pipeline.realisation import Realised
from compress.pipeline.reporting import build_report
from compress.report import Report, read_report, write_report
from compress.search import Space
from compress.signature import bare
from compress.surgery import shaped_to

FINISHED = ("report.json", "plan.json", "model.safetensors", "model.onnx")
"""What an ended run leaves."""


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        model: the pruned network.
        plan: what was cut.
        report: everything measured.
        folder: where the files are.
        onnx: the exported file.
        exit_code: 0 done, 5 parity inconclusive, 6 not faster.
    """

    model: nn.Module
    plan: Plan
    report: Report
    folder: Path
    onnx: Path
    exit_code: int


def conclude(
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    topology: Topology,
    space: Space,
    base: Sequence[Measured],
    done: Realised,
    material: Material,
    search: dict[str, Any],
    clock: Clock,
    command: str,
) -> Result:
    """What can be said without labels; the test split, once; then the report."""
    test: list[Measured] = []
    bound = None
    if data is not None:
        with clock.phase("certificate", "agreement with the unpruned network, no labels"):
            agreed = agreements(network.model, done.model, unseen(data, material))
            bound, right = certify(agreed), blind(agreed, data.test)
        if data.labelled:
            with clock.phase("test", f"{len(data.test)} images, read for the first time"):
                right = on_test(network.model, done.model, data.test)
            test = [_judged(when, found) for when, found in right.items()]
        save_predictions(folder, data, right)
    if done.latency:
        raw = [r.to_json() for r in done.latency]
        write_json(folder / "latency.json", raw)
        profiles, notes = profile_files(folder / "base.onnx", done.onnx, job, clock)
        write_json(folder / "profile.json", profiles)
        done = replace(done, notes=(*done.notes, *notes))
    seen = [*base, *done.accuracy, *test]
    report = build_report(network, data, job, folder, topology, space, seen, done, search, clock, command, bound)
    write_report(report, folder)
    return Result(bare(done.model), done.plan, report, folder, done.onnx, exit_code(report))


def _judged(when: str, found: Right) -> Measured:
    """Answers about the test split as an accuracy."""
    return Accuracy(int(found.sum()), len(found)).measured(when, "test")


def exit_code(report: Report) -> int:
    """What the run ends with: parity inconclusive before not faster before done."""
    if report.parity.get("verdict") == "inconclusive":
        return 5
    smaller = report.after.macs < report.before.macs
    won = (x.verdict == "inconclusive" or (x.high > 1.0 and not (smaller and x.verdict == "same")) for x in report.latency)
    return 0 if all(won) else 6


def finished(network: Network, folder: Path) -> Result:
    """A run that had ended: its files are read again."""
    report = read_report(folder / "report.json")
    fresh = "start over with --fresh"
    plan = Plan.from_json(read_json(folder / "plan.json", hint=fresh))
    file = folder / "model.safetensors"
    try:
        state = load_file(file)
        model = shaped_to(network.model, state).eval()
    except (SafetensorError, OSError, PlanError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {error}", hint=fresh) from error
    found = {"model": state_digest(state), "plan": plan.digest}
    for name, digest in found.items():
        if report.digests.get(name) != digest:
            raise ConfigError(
                f"{folder}: the {name} has digest {digest}, the report tells of {report.digests.get(name)}", hint=fresh
            )
    return Result(bare(model), plan, report, folder, folder / "model.onnx", exit_code(report))
