"""How a run ends: what can be said without labels, the test split once, latency, the report; and how an ended one is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import GraphProto
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress.core import Plan, plural, read_json, write_json
from compress.data import Data
from compress.errors import CompressError, ConfigError, PlanError
from compress.evaluation import Agreement, JudgedTest, agreements, blind, certify, change_of, on_test, save_predictions, unseen
from compress.latency import Explained, LayerShape, Profile, explain, outweighed, profile, profile_modules, read_graph
from compress.networks import Network
from compress.pipeline.module_files import of_torch, torch_runtime
from compress.pipeline.preparation import Prepared
from compress.pipeline.realisation import Realised
from compress.pipeline.reporting import build_report
from compress.pipeline.run import Run, measured
from compress.pipeline.search_summary import SearchSummary
from compress.report import Report, notebook_html, verified, write_report
from compress.signature import bare
from compress.surgery import shaped_to
from compress.workers import alone

_FINISHED = ("report.json", "plan.json", "model.safetensors", "model.onnx")
"""What an ended run leaves."""
_PROFILED_SECONDS = 2.0
"""A file; the ten runs that are done at least may take longer."""


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<Result of {self.report.name}: {self.report.verdict}; in {self.folder}>"

    def _repr_html_(self) -> str:
        return notebook_html(self.report)


def conclude(run: Run, prepared: Prepared, done: Realised, search: SearchSummary) -> Result:
    """What can be said without labels; the test split, once; then the report."""
    bound, change = None, None
    if run.data is not None:
        agreed: Sequence[Agreement] = ()
        if run.task.bounded is not None:
            with run.clock.phase("certificate", "agreement with the unpruned network, no labels"):
                parts = unseen(run.data, prepared.material, run.scored, decided=run.scored and not run.log.all_kept)
                agreed = agreements(run.network.model, done.model, parts, run.task)
                bound = certify(agreed, run.task)
        judged = final_predictions(run, run.data, done.model, agreed)
        change = change_of(judged, run.task)
        if judged is not None:
            run.log.scores += [measured(found, when, "test") for when, found in judged.scores.items()]
    if done.latency:
        write_json(run.folder / "latency.json", [r.to_json() for r in done.latency])
        times = layer_times(run, done)
        write_json(run.folder / "profile.json", times.to_json() if times is not None else {})
    report = build_report(run, prepared, done, search, certificate=bound, change=change)
    write_report(report, run.folder)
    return Result(
        model=bare(done.model),
        plan=done.plan,
        report=report,
        folder=run.folder,
        onnx=done.onnx,
        exit_code=exit_code(report),
    )


def final_predictions(run: Run, data: Data, small: nn.Module, agreed: Sequence[Agreement] | None = None) -> JudgedTest | None:
    """What both networks are worth on the test images, read for the first time; ``answers.json`` keeps it.

    Args:
        run: its network and folder.
        data: without targets of the task both are held against the unpruned network.
        small: the pruned network.
        agreed: the networks' agreement on the test images, where it is known already.
    """
    before, task = run.network.model, run.task
    if run.scored:
        with run.clock.phase("test", f"{plural(len(data.test), 'image')}, read for the first time"):
            found: JudgedTest | None = on_test(before, small, data.test, task)
    else:
        found = blind(before, small, data.test, task, agreed)
    save_predictions(run.folder, data, found)
    return found


@dataclass(frozen=True)
class ProfiledPair:
    """Where the time of a run's two files goes, layer by layer and why.

    Attributes:
        base: of the unpruned network's file.
        pruned: of the pruned one's.
        summary: what took the time that the MACs did not promise, in sentences.
    """

    base: Explained
    pruned: Explained
    summary: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``profile.json`` keeps it."""
        return {"base": self.base.to_json(), "pruned": self.pruned.to_json(), "summary": list(self.summary)}


def layer_times(run: Run, done: Realised) -> ProfiledPair | None:
    """The layers of base and pruned on the CPU, else where torch runs them; None where the job measures on neither, or they
    cannot be profiled.

    Through ONNX Runtime a GPU's kernels are not profiled: what it writes down there is the time of handing them over.
    """
    names = [name for name in run.job.runtimes if name == "cpu" or of_torch(name)]
    if not names or run.job.latency_seconds == 0:
        return None
    with alone(), run.clock.phase("profile", "time of every layer, before and after"):
        try:
            before, after = explain(_profiled(run, done, "cpu" if "cpu" in names else names[0]))
        except CompressError as error:
            run.note(f"the layers were not profiled: {error.message}")
            return None
        return ProfiledPair(before, after, outweighed(before, after))


def _profiled(run: Run, done: Realised, name: str) -> list[tuple[Profile, GraphProto | Mapping[str, LayerShape]]]:
    """Both networks' layer times on a runtime: of their files, or in torch of the modules."""
    seconds = min(_PROFILED_SECONDS, run.job.latency_seconds)
    if not of_torch(name):
        files, runtime = (run.folder / "base.onnx", done.onnx), run.runtime(name)
        return [(profile(path, runtime=runtime, seconds=seconds), read_graph(path)) for path in files]
    modules = {Path("base"): run.network.model, Path("pruned"): done.model}
    in_torch = torch_runtime(run.network, name, threads=run.job.threads, modules=modules)
    return [profile_modules(path, runtime=in_torch, seconds=seconds) for path in modules]


def exit_code(report: Report) -> int:
    """What the run ends with: parity inconclusive before not faster before done."""
    if report.parity.get("verdict") == "inconclusive":
        return 5
    smaller = report.after.macs < report.before.macs
    won = (x.verdict == "inconclusive" or (x.high > 1.0 and not (smaller and x.verdict == "same")) for x in report.latency)
    return 0 if all(won) else 6


def finished(network: Network, folder: Path) -> Result | None:
    """The run in a folder, its files read again; None where none has ended.

    Raises:
        ConfigError: a file is damaged, or belongs to another run.
    """
    if not all((folder / name).exists() for name in _FINISHED):
        return None
    report = verified(folder)
    assert report is not None
    fresh = "start over with --fresh"
    plan = Plan.from_json(read_json(folder / "plan.json", hint=fresh))
    file = folder / "model.safetensors"
    try:
        model = shaped_to(network.model, load_file(file)).eval()
    except (SafetensorError, OSError, PlanError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {error}", hint=fresh) from error
    return Result(
        model=bare(model), plan=plan, report=report, folder=folder, onnx=folder / "model.onnx", exit_code=exit_code(report)
    )
