"""One run, as a story: trace, score channels, search, pick, cut, prove, recover, export, clock, report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress import checkpoint, rundir
from compress.aim import WITHIN, aimed, clocking, proposal
from compress.answers import agreements, blind, certify, on_test, save_answers, unseen
from compress.architecture import UNNAMED, Architecture
from compress.checkpoint import Loaded
from compress.config import Job
from compress.cost import count
from compress.criteria import Evidence
from compress.criteria import kernels as kernels_of
from compress.data import Data, Preprocessing, preset_for
from compress.draw import ready_to_draw
from compress.errors import ConfigError, PlanError, SearchError
from compress.evaluate import Evaluator, Material
from compress.events import Clock, Listen, ignore
from compress.files import read_json
from compress.fronts import choose, near, read_front, save_front, share_wanted, which
from compress.inspection import inspect, traced
from compress.latency.statistics import Verdict
from compress.latency.table import block_of
from compress.layer_times import profile_files
from compress.methods import METHODS
from compress.paired import Right
from compress.plan import Plan
from compress.prepare import identity, prepare
from compress.progressive import progressive
from compress.randomness import derive
from compress.realise import Network, Realised, realise
from compress.report import store
from compress.report.build import build
from compress.report.model import Measured, Report
from compress.rerouting import cuttable
from compress.runtime.ort import OrtRuntime
from compress.search.base import Front, Planner, Space, Told
from compress.search.journal import Asked, Journal, drive
from compress.search.kmeans import clusters_at
from compress.search.widths import widths_of
from compress.selections import may_select, settled
from compress.surgery import fit
from compress.tables import runtime_of, source_of
from compress.topology import Topology
from compress.train import wilson

__all__ = ["Network", "Result", "inspect", "network_from", "pick", "prune", "traced"]

_ABOVE = 1.05
"""Times its budget: what a search may spend without a word."""
_FINISHED = ("report.json", "plan.json", "model.safetensors", "model.onnx")


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


def network_from(loaded: Loaded, *, preprocessing: Preprocessing | None = None, name: str = "") -> Network:
    """A loaded file as a network; preprocessing as given, else as the file says, else the architecture's preset."""
    chosen = preprocessing or loaded.preprocessing or preset_for(loaded.architecture.name)
    return Network(
        loaded.model,
        name or loaded.architecture.name,
        loaded.architecture,
        chosen,
        loaded.digest,
        loaded.plan,
        loaded.warnings,
    )


def network_of(model: nn.Module, preprocessing: Preprocessing, name: str = "") -> Network:
    """A module that is already in memory; its files are reloaded with ``--arch package.module:factory``."""
    kind, model = type(model), cuttable(model)
    architecture = Architecture(f"{UNNAMED}{kind.__module__}.{kind.__qualname__}", {})
    return Network(model, name or kind.__name__, architecture, preprocessing, checkpoint.digest(model.state_dict()))


def prune(
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    *,
    fresh: bool = False,
    command: str = "",
    listen: Listen = ignore,
) -> Result:
    """Searches which channels can go, removes them, recovers, exports, proves and clocks.

    Args:
        network: from :func:`network_from` or :func:`network_of`.
        data: images; None uses synthetic ones and measures no accuracy.
        job: what to do.
        folder: the run's; the same call goes on where a killed one stopped.
        fresh: forget an earlier run.
        command: how the user started this, for the report.
        listen: receives events.

    Raises:
        CompressError: with what, where, and what to do next.
    """
    if job.realise == "csgd":
        ready_to_draw(job, data)
    if job.stage_epochs and (data is None or data.train is None):
        raise ConfigError(
            "stage_epochs is training, and there are no training images",
            hint="add --data with training images, or leave it out",
        )
    with rundir.claim(folder, job, identity(network, data), fresh):
        if all((folder / name).exists() for name in _FINISHED):
            return _finished(network, folder)
        clock = Clock(listen)
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        job = replace(job, round_to=space.round_to)
        space = may_select(network, space, job, folder, clock, listen)
        trained = None
        if job.stage_epochs:
            front, spent, trained = _by_stages(network, data, space, job, folder, clock, listen)
        else:
            front, spent = _search(space, evaluator, network, data, job, folder, clock, listen)
        front, notes = settled(network, space, front, job, folder, clock, listen)
        spent["notes"] += notes
        material = evaluator.material
        judged = len(material.judged) if material.metric == "agreement" else 0
        chosen, why = choose(front, space.target, space.share, _base_error(evaluator), judged)
        if job.stage_epochs:
            why = f"cut and trained stage by stage; the stages left {space.share(chosen.plan):.3f}"
        plan, shots = _aim(network, space, front, chosen.plan, job, clock)
        plan = _to_realise(network, space, plan, job)
        rundir.write_json(folder / "plan.json", plan.to_json())
        save_front(folder, front, chosen, topology, space)
        done = realise(network, topology, plan, material, data, job, folder, clock=clock, listen=listen, trained=trained)
        done = _timed(done, space, job, shots)
        search = {**spent, "points": len(front), "chosen": why, "fallback": evaluator.fallback, **shots}
        return _conclude(network, data, job, folder, topology, space, base, done, material, search, clock, command)


def pick(
    network: Network,
    data: Data | None,
    folder: Path,
    *,
    index: int | None = None,
    by: str | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    epochs: int | None = None,
    out: Path | None = None,
    listen: Listen = ignore,
) -> Result:
    """Makes another point of a run's front real, without a new search.

    Methods that have a plan for every budget (``obs``, whose elimination is nested, ``uniform``, ``global``) make one for the
    very share that is wanted where the front has none near it.

    Args:
        network: the run's unpruned network.
        data: the run's images.
        folder: the run's folder.
        index: of the point in ``front.json``.
        by: ``knee``.
        macs: the most accurate point that keeps at most this share of the MACs.
        params: the same for parameters.
        latency: the same for predicted latency, where the run searched for it.
        epochs: fine-tuning, where it is to differ from the run's: 0 leaves the network as it is recovered without training.
        out: the new folder; by default ``<folder>/picks/`` and the point's index or the share.
        listen: receives events.

    Raises:
        ConfigError: the folder is no finished search, or no such point is there.
    """
    from compress.config import make_job

    again = "run `compress prune ... --out` there first"
    held = read_json(folder / "job.json", hint=again)
    if not (folder / "front.json").exists():
        raise ConfigError(
            f"the search in {folder} has not ended", hint="give its `compress prune` command again: it goes on where it stopped"
        )
    front = read_front(folder, again)
    if not isinstance(held.get("job"), dict):
        raise ConfigError(f"{folder / 'job.json'} is no job of compress", hint=again)
    job = make_job(flags={k: tuple(v) if isinstance(v, list) else v for k, v in held["job"].items()})
    if job.stage_epochs:
        raise ConfigError(
            f"{folder} was pruned and trained stage by stage: there are weights for its own plan only",
            hint="run `compress prune` with the other target, or leave stage_epochs out",
        )
    if held.get("identity") != identity(network, data):
        raise ConfigError(
            f"{folder} was searched with another network, other images or another preprocessing",
            hint="give the files of that run, or search again",
        )
    clock = Clock(listen)
    job = job if epochs is None else replace(job, epochs=epochs)
    whole, searcher = count(traced(network)), METHODS[job.method].make(**job.options)
    wanted = share_wanted(index, by, macs, params, latency)
    if latency is not None and any(p.cost.latency is None for p in front):
        raise ConfigError(
            f"{folder} was searched without a latency table: nothing predicts its points' latency",
            hint=f"search with `compress prune --latency {latency:g}`, or measure them: compress bench {folder} --front",
        )
    if wanted is not None and isinstance(searcher, Planner) and not near(front, whole, wanted):
        job = replace(job, target=wanted.kind, value=wanted.value)  # type: ignore[arg-type]
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        plan, name = searcher.plan(space, wanted.value), f"{wanted.kind}-{wanted.value:g}"
        if space.share(plan) > wanted.value + 1e-9:
            kept = f"with these options {job.method} keeps {space.share(plan):.3f} of the {wanted.kind}"
            raise SearchError(f"{kept}, {wanted.value:g} was wanted", hint="run it again without them and with this target")
        why = f"made for {wanted.kind} {wanted.value:g} from the run's ranking, without a search"
    else:
        number = which(front, whole, job.target, index, by, wanted)
        topology, space, evaluator, base = prepare(network, data, job, clock, listen)
        plan, name = front[number].plan, str(number)
        why = f"point {number} of {folder.name}"
    out = out or folder / "picks" / (name if epochs is None else f"{name}-epochs-{epochs}")
    with rundir.claim(out, job, {**identity(network, data), "point": plan.digest}, fresh=False):
        if all((out / name).exists() for name in _FINISHED):
            return _finished(network, out)
        plan = _to_realise(network, space, plan, job)
        rundir.write_json(out / "plan.json", plan.to_json())
        done = realise(network, topology, plan, evaluator.material, data, job, out, clock=clock, listen=listen)
        search = {"points": len(front), "chosen": why, "fallback": evaluator.fallback}
        asked = {"index": index, "by": by, "macs": macs, "params": params, "latency": latency, "epochs": epochs}
        flags = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        told = shlex.join(["compress", "pick", str(folder), *flags])
        return _conclude(network, data, job, out, topology, space, base, done, evaluator.material, search, clock, told)


# ---- the chapters ----------------------------------------------------------------------------------------------------


def _search(
    space: Space,
    evaluator: Evaluator,
    network: Network,
    data: Data | None,
    job: Job,
    folder: Path,
    clock: Clock,
    listen: Listen,
) -> tuple[Front, dict[str, Any]]:
    """Drives the searcher over the journal."""
    context = json.dumps(
        {
            **identity(network, data),
            "job": {k: v for k, v in job.to_json().items() if k in ("seed", "calibration", "ignore", "streams")},
            "images": [len(evaluator.material.calibration), len(evaluator.material.judged), evaluator.material.metric],
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        sort_keys=True,
    )
    searcher = METHODS[job.method].make(**job.options)
    rng = np.random.default_rng(derive(job.seed, "search"))
    requests: dict[str, dict[str, float]] = {}
    told: list[Told] = []

    def note(event: Asked) -> None:
        row = requests.setdefault(event.fidelity, {"requests": 0, "plans": 0, "evaluated": 0})
        row["requests"] += 1
        row["plans"] += event.asked
        row["evaluated"] += event.distinct
        clock.add("search", event.earlier)
        row["spent"] = event.spent
        listen(event)

    with clock.phase("search", f"{job.method}, {space.budget} image-forwards"):
        front = drive(
            searcher.search(space, rng),
            evaluator,
            Journal(folder / "journal.jsonl", context),
            price=evaluator.price,
            budget=space.budget,
            listen=note,
            tell=told.append,
        )
    if not front:
        raise SearchError("no candidate could be scored", hint="give more or other images with --data")
    spent = max((row.pop("spent") for row in requests.values()), default=0.0)
    told += [_overspent(space, job.method, spent)] if spent > _ABOVE * space.budget else []
    judged = {"metric": evaluator.material.metric, "judged_images": len(evaluator.material.judged)}
    own = {name: value for t in told for name, value in t.figures.items()}
    notes = [note for t in told for note in t.notes]
    return front, {"budget": space.budget, "image_forwards": spent, "requests": requests, **judged, **own, "notes": notes}


def _overspent(space: Space, method: str, spent: float) -> Told:
    least = f"the least that {method} needs with these options"
    return Told({}, (f"the search spent {spent:,.0f} image-forwards, {space.budget:,} were allowed: {least}",))


def _by_stages(
    network: Network, data: Data | None, space: Space, job: Job, folder: Path, clock: Clock, listen: Listen
) -> tuple[Front, dict[str, Any], nn.Module]:
    """Searching, cutting and training stage after stage."""
    assert data is not None

    def search(part: Space, evaluator: Evaluator, current: Network) -> tuple[Front, dict[str, Any]]:
        return _search(part, evaluator, current, data, job, folder, clock, listen)

    done = progressive(network, data, space, job, folder, search, clock, listen)
    return done.front, done.spent, done.model


def _aim(network: Network, space: Space, front: Front, plan: Plan, job: Job, clock: Clock) -> tuple[Plan, dict[str, Any]]:
    """For a target of latency: the plan whose measured latency is nearest to it, and what was clocked on the way."""
    if space.target.kind != "latency" or space.table is None:
        return plan, {}
    with clock.phase("aim", "the chosen widths clocked before anything is recovered"):
        source = source_of(network, space.topology, job)
        shots = aimed(space, front, plan, clocking(source, runtime_of(job), job.seed))
    told = [{"asked": s.asked, "predicted": s.predicted, "measured": s.measured} for s in shots]
    return shots[-1].plan, {"shots": told, "table_error": asdict(space.table.error)}


def _timed(done: Realised, space: Space, job: Job, shots: Mapping[str, Any]) -> Realised:
    """What the measured latency says about the prediction and the target; and, where nothing was won, what would help."""
    notes, warnings = list(done.notes), list(done.warnings)
    found = done.latency[0].ratios["pruned"] if done.latency else None
    if shots and space.table is not None:
        last, off = shots["shots"][-1], space.table.error
        aim = f"latency of the base's: {last['predicted']:.3f} predicted by the table, {last['measured']:.3f} measured"
        notes.append(
            f"{aim} before recovery, after {len(shots['shots'])} plans; the table's error on {off.networks} networks "
            f"that it was not fitted to: median {100 * off.median:.1f} %, worst {100 * off.worst:.1f} %"
        )
        reached = 1 / found.decisive.ratio if found is not None else last["measured"]
        if abs(reached / job.value - 1) > WITHIN:
            warnings.append(f"the measured latency is {reached:.3f} of the unpruned network's, {job.value:g} was wanted")
    if found is not None and done.plan and (found.verdict is Verdict.SAME or found.decisive.high <= 1):
        block = space.table.block if space.table is not None else block_of(OrtRuntime("cpu", threads=job.threads))
        warnings.append(f"not faster than the unpruned network: {proposal(space, done.plan, block)}")
    return replace(done, notes=tuple(notes), warnings=tuple(warnings))


def _base_error(evaluator: Evaluator) -> float:
    """The unpruned network's own score, in the metric of the search."""
    if evaluator.material.metric != "accuracy":
        return 0.0
    assert evaluator.material.labels is not None
    return 1.0 - float((evaluator.wanted.argmax(dim=1) == evaluator.material.labels).float().mean())


def _to_realise(network: Network, space: Space, plan: Plan, job: Job) -> Plan:
    """The plan as it is; or, for C-SGD, clusters of filters at its widths."""
    if job.realise == "cut" or METHODS[job.method].clusters:
        return plan
    evidence = Evidence(network.model.state_dict())
    kernels = {g: kernels_of(evidence, space.topology, space.topology.by_id[g]) for g in plan.cuts}
    wanted = {g: kept for g, kept in widths_of(space, plan).items() if g in plan.cuts}
    return clusters_at(space.topology, kernels, wanted)


def _conclude(
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
        save_answers(folder, data, right)
    if done.latency:
        raw = [r.to_json() for r in done.latency]
        rundir.write_json(folder / "latency.json", raw)
        profiles, notes = profile_files(folder / "base.onnx", done.onnx, job, clock)
        rundir.write_json(folder / "profile.json", profiles)
        done = replace(done, notes=(*done.notes, *notes))
    seen = [*base, *done.accuracy, *test]
    report = build(network, data, job, folder, topology, space, seen, done, search, clock, command, bound)
    store.write(report, folder)
    return Result(done.model, done.plan, report, folder, done.onnx, exit_code(report))


def _judged(when: str, found: Right) -> Measured:
    """Answers about the test split as an accuracy."""
    right, total = int(found.sum()), len(found)
    return Measured(when, "test", right / total, *wilson(right, total), total)


def exit_code(report: Report) -> int:
    """What the run ends with: parity inconclusive before not faster before done."""
    if report.parity.get("verdict") == "inconclusive":
        return 5
    smaller = report.after.macs < report.before.macs
    won = (x.verdict == "inconclusive" or (x.high > 1.0 and not (smaller and x.verdict == "same")) for x in report.latency)
    return 0 if all(won) else 6


def _finished(network: Network, folder: Path) -> Result:
    """A run that had ended: its files are read again."""
    report = store.read(folder / "report.json")
    fresh = "start over with --fresh"
    plan = Plan.from_json(read_json(folder / "plan.json", hint=fresh))
    file = folder / "model.safetensors"
    try:
        state = load_file(file)
        model = fit(network.model, state).eval()
    except (SafetensorError, OSError, PlanError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {error}", hint=fresh) from error
    found = {"model": checkpoint.digest(state), "plan": plan.digest}
    for name, digest in found.items():
        if report.digests.get(name) != digest:
            raise ConfigError(
                f"{folder}: the {name} has digest {digest}, the report tells of {report.digests.get(name)}", hint=fresh
            )
    return Result(model, plan, report, folder, folder / "model.onnx", exit_code(report))
