"""Methods against each other under one protocol: same images, same split, same recovery and training, same budget, same seeds.

Every method is an ordinary, resumable run in a folder of its own, so a comparison that was killed goes on with the same call.
Pruners that are not ours take part as *arms*: a callable that prunes a module; everything after the cut is then done alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.core import (
    Clock,
    Difference,
    Figure,
    Listen,
    Phase,
    Warned,
    capture,
    did_you_mean,
    ignore,
    make_folder,
    this_process,
    write,
    write_json,
)
from compress.data import Data
from compress.errors import CompressError, ConfigError
from compress.evaluation import AGREEMENT, CRITERIA, OUTPUT_ERROR, JudgedTest, paired_difference, read_predictions
from compress.networks import Network
from compress.pipeline.compared_run import RunFigures, compared_run
from compress.pipeline.external import ExternalPruner, Prune, prune_externally
from compress.pipeline.job import Job
from compress.pipeline.own_training import with_loop
from compress.pipeline.pruning import prune
from compress.pipeline.reporting import target_text
from compress.pipeline.run import Run, loop_for, with_task
from compress.recovery import OwnLoop
from compress.report import (
    ComparedRun,
    Comparison,
    Report,
    Summary,
    comparison_markdown,
    comparison_svg,
    states,
    summary,
)
from compress.search import METHODS
from compress.tasks import Task

UNPRUNED = "unpruned"
TORCH_PRUNING = "benchmarks.torch_pruning_arm"
"""Where the arms of Torch-Pruning's own pruner are: the library may not import it for this."""
_SHARED = (
    *"target value round_to ignore streams branches prefer_fast finalists".split(),
    *"budget stop_after calibration recover epochs lr lr_by_budget batch distill".split(),
)
_WHERE_SET = "auto_round ranking realise stage_epochs eps zero_kernels train".split()
_OFF = 0.01


@dataclass(frozen=True)
class ComparedMethod:
    """One method in a comparison.

    Attributes:
        name: in the table.
        method: of ``METHODS``; empty for an arm.
        options: the method's own.
        arm: somebody else's pruner.
        origin: where an arm comes from, ``package.module:function``.
    """

    name: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    arm: Prune | None = None
    origin: str = ""

    def job(self, shared: Job, seed: int) -> Job:
        """What one run of it does."""
        method = self.method or "uniform"
        ranking = shared.ranking if METHODS[method].ranks else Job(method=method).ranking
        return replace(shared, method=method, options=dict(self.options), seed=seed, ranking=ranking)


def entry(
    name: str, options: Mapping[str, Any] | None = None, arms: Mapping[str, tuple[str, Prune]] | None = None
) -> ComparedMethod:
    """A method by its name: of ``METHODS``, a criterion (``uniform`` by it), ``global-`` and a criterion, or an arm.

    Args:
        name: e.g. ``smoea``, ``l1``, ``global-taylor``, ``tp-group-norm``.
        options: the method's own.
        arms: name -> (where it comes from, the pruner).

    Raises:
        ConfigError: nothing has that name.
    """
    given = dict(options or {})
    if arms is not None and name in arms:
        origin, arm = arms[name]
        return ComparedMethod(name=name, arm=arm, origin=origin)
    if name in METHODS:
        return ComparedMethod(name=name, method=name, options=given)
    for prefix, method in (("global-", "global"), ("uniform-", "uniform"), ("", "uniform")):
        criterion = name.removeprefix(prefix)
        if name.startswith(prefix) and criterion in CRITERIA:
            return ComparedMethod(name=name, method=method, options={**given, "criterion": criterion})
    if name.startswith("tp-"):
        function = name.removeprefix("tp-").replace("-", "_")
        raise ConfigError(
            f"{name} is a pruner of Torch-Pruning, which compress does not run by itself",
            hint=f"add, in the root of this project's repository: --arm {name}={TORCH_PRUNING}:{function}",
        )
    known = [*METHODS, *CRITERIA, *(f"global-{c}" for c in CRITERIA), *(arms or ())]
    hint = did_you_mean(name, known, f"one of {', '.join(known)}, or another pruner with --arm {name}=...")
    raise ConfigError(f"there is no method {name!r}", hint=hint)


@dataclass(frozen=True)
class MethodComparison:
    """What is compared, under which protocol.

    Attributes:
        job: what all runs share; its method, options and seed are each run's own. Without a word about finalists there are
            none: methods are compared by what each finds itself.
        entries: from :func:`entry`.
        seeds: of the runs.
        reference: the entry that the others are set against on the same test images; added where nothing is the same.
        train: the user's own training loop, for all of them.
    """

    job: Job
    entries: Sequence[ComparedMethod]
    seeds: Sequence[int]
    reference: str = "uniform"
    train: OwnLoop | None = None

    def checked(self) -> MethodComparison:
        """The same with its reference among the entries.

        Raises:
            ConfigError: an entry or a seed is there twice, or a setting does not fit a method.
        """
        entries, reference = self.entries, self.reference
        if reference not in [e.name for e in entries]:
            wanted = entry(reference)
            twin = next((e for e in entries if _same(e, wanted)), None)
            entries, reference = (entries, twin.name) if twin else ([*entries, wanted], reference)
        names = [e.name for e in entries]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ConfigError(
                f"methods {', '.join(names)} and seeds {', '.join(map(str, self.seeds))}: each must be there once"
            )
        if self.job.target != "macs" and any(e.arm for e in entries):
            raise ConfigError("somebody else's pruners are asked for a share of the MACs", hint="give --macs")
        return replace(self, entries=entries, reference=reference)


def compare_methods(
    network: Network,
    data: Data,
    wanted: MethodComparison,
    folder: Path,
    *,
    fresh: bool = False,
    command: str = "",
    listen: Listen = ignore,
) -> Comparison:
    """Runs every method with every seed, and writes ``comparison.json``, ``.md`` and ``.svg`` after each.

    Args:
        network: unpruned.
        data: images; one division of them serves all runs.
        wanted: methods, seeds and what they share.
        folder: a run folder per method and seed goes below it.
        fresh: forget earlier runs.
        command: how the user started this.
        listen: receives events.

    Raises:
        ConfigError: a setting does not fit a method, or a folder holds another protocol's run. Other errors end one run only
            and stand in the table.
    """
    if not this_process().alone:
        raise ConfigError("a comparison runs in one process", hint="start it without torchrun or accelerate launch")
    wanted, network = wanted.checked(), with_task(network, data, listen)
    wanted = replace(wanted, train=loop_for(network, wanted.train))
    wanted = replace(wanted, job=with_loop(replace(wanted.job, finalists=wanted.job.finalists or 0), wanted.train, data))
    jobs = {(e.name, s): e.job(wanted.job, s) for s in wanted.seeds for e in wanted.entries}
    rows: list[ComparedRun] = []
    judged: dict[str, list[JudgedTest]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for seed in wanted.seeds:
        for one in wanted.entries:
            job = jobs[one.name, seed]
            place = make_folder(folder / f"{one.name}-seed-{seed}", hint="remove it, or choose another --out")
            listen(Phase(f"{one.name}, seed {seed}", f"run {len(rows) + 1} of {len(jobs)}"))
            try:
                run = Run(network=network, data=data, job=job, folder=place, clock=Clock(listen), train=wanted.train)
                row = _run(run, data, one, fresh)
            except ConfigError:
                raise
            except CompressError as error:
                row = ComparedRun(method=one.name, seed=seed, folder=place.name, failed=f"{error.message} ({error.hint})")
                listen(Warned(f"{one.name}, seed {seed}: {row.failed}"))
            else:
                row = _judged(row, place, judged)
            rows.append(row)
            found = _comparison(network, data, wanted, rows, judged, command)
            _write(found, folder)
    return found


def _run(run: Run, data: Data, one: ComparedMethod, fresh: bool) -> ComparedRun:
    """One method with one seed, ours or somebody else's."""
    if one.arm is not None:
        return prune_externally(run, data, ExternalPruner(one.name, one.origin or one.name, one.arm), fresh=fresh)
    report = prune(run.network, data, run.job, run.folder, train=run.train, fresh=fresh, listen=run.listen).report
    return _row(report, one.name, run.job.seed, run.folder)


def _same(one: ComparedMethod, other: ComparedMethod) -> bool:
    """Whether two names mean the same search: ``uniform`` and ``l1`` do, and need not run twice."""
    if one.arm or other.arm or one.method != other.method:
        return False
    made = [METHODS[e.method].make(**e.options) for e in (one, other)]
    return bool(made[0] == made[1])


def _row(report: Report, method: str, seed: int, folder: Path) -> ComparedRun:
    """What one of our own runs found."""
    figures = RunFigures(
        before=report.before,
        after=report.after,
        accuracy=report.scores,
        steps=report.steps,
        latency=report.latency,
        seconds=report.seconds,
    )
    forwards, requests = report.search.get("image_forwards", 0.0), report.search.get("requests", {})
    return replace(compared_run(method, seed, folder, figures), image_forwards=float(forwards), requests=requests)


# ---- from rows to the comparison -------------------------------------------------------------------------------------


def _judged(row: ComparedRun, folder: Path, judged: dict[str, list[JudgedTest]]) -> ComparedRun:
    """The row with its figures on the test images, and what each of them contributed remembered for the pairs."""
    found = read_predictions(folder)
    if found is None:
        return row
    judged.setdefault(row.method, []).append(found)
    judged[UNPRUNED] = [replace(found, rows={"final": found.rows["base"]} if found.rows else {})]
    return replace(row, base=found.values["base"], test=found.values["final"])


def _differences(name: str, others: Sequence[str], judged: Mapping[str, list[JudgedTest]], task: Task) -> dict[str, Difference]:
    """The method's figure minus the others', paired by image; where the figure is computed from images."""
    found = {}
    for other in others:
        ours, theirs = ([j.rows["final"] for j in judged.get(n, []) if j.rows] for n in (name, other))
        if other == name or not ours or not theirs or len({rows.shape for rows in (*ours, *theirs)}) != 1:
            continue
        found[other] = paired_difference(task, judged[name][0].figure, ours, theirs)
    return found


def _comparison(
    network: Network,
    data: Data,
    wanted: MethodComparison,
    rows: Sequence[ComparedRun],
    judged: Mapping[str, list[JudgedTest]],
    command: str,
) -> Comparison:
    job, entries = wanted.job, wanted.entries
    figure = next((j.figure for found in judged.values() for j in found), network.purpose.figure or OUTPUT_ERROR)
    others = (wanted.reference, UNPRUNED)
    summaries: list[Summary] = []
    for one in entries:
        mine = [r for r in rows if r.method == one.name]
        if mine:
            summaries.append(summary(one.name, mine, _differences(one.name, others, judged, network.purpose)))
    usual = Job().to_json()
    shared = {k: v for k, v in job.to_json().items() if k in _SHARED or (k in _WHERE_SET and v != usual.get(k))}
    options = {f"{e.name}.{k}": v for e in entries for k, v in e.options.items()}
    return Comparison(
        network=network.architecture.name,
        data=data.name,
        target=target_text(job, network.purpose.figure),
        reference=wanted.reference,
        protocol={**shared, **options, **{e.name: e.origin for e in entries if e.origin}},
        seeds=tuple(dict.fromkeys(r.seed for r in rows)),
        rows=tuple(rows),
        summaries=tuple(summaries),
        notes=_notes(job, entries, summaries, figure),
        digests={"network": network.digest, **data.digests},
        environment=capture(threads=job.threads).to_json(),
        command=command,
        labelled=figure == network.purpose.figure,
        figure=figure,
    )


def _notes(job: Job, entries: Sequence[ComparedMethod], summaries: Sequence[Summary], figure: Figure) -> tuple[str, ...]:
    notes = [
        "the last epoch's weights are judged, never the best epoch's; the test images are read once a run, at its end",
        "the interval of a difference is over the test images, answers averaged over the seeds: it speaks of these runs; "
        "± is over the seeds",
    ]
    if figure == AGREEMENT:
        notes.append(f"the images have no labels: {figure.name} is the share of them that get the unpruned network's class")
    if figure == OUTPUT_ERROR:
        notes.append(
            f"nothing scores the images: {figure.name} is the mean squared difference from the unpruned network's outputs, "
            "each channel's over its variance"
        )
    if len(entries) > 2:
        notes.append(
            f"{len(entries) - 1} methods are set against one, each at 95 %: of those that do not differ one in twenty is "
            "still called ahead or behind"
        )
    if arms := [e.name for e in entries if e.arm]:
        notes.append(f"{', '.join(arms)}: told the share and the seed; round_to, ignore and streams do not reach them")
    for s in summaries:
        kept = s.figures.get(job.target)
        if kept is not None and abs(kept.mean - job.value) > _OFF * job.value:
            notes.append(f"{s.method} keeps {kept.mean:.3f} of the {job.target}, not within {_OFF:.0%} of {job.value:g}")
    return tuple(notes)


def _write(found: Comparison, folder: Path) -> None:
    """JSON last: who finds it finds the others too."""
    scale = found.figure.scale
    shown = {**{s: s for s in states(found.rows)}, "test": found.judged}
    axis = found.figure.heading if found.labelled else f"{found.figure.name} with the unpruned network, %"
    told = [
        {
            "name": s.method,
            "states": {t: (scale * s.figures[k].mean, scale * s.figures[k].sd) for k, t in shown.items() if k in s.figures},
        }
        for s in found.summaries
    ]
    base = next((scale * r.base for r in found.rows if r.base is not None), None) if found.labelled else None
    title = f"{found.network}, {found.target}"
    write(folder / "comparison.svg", comparison_svg(told, [*shown.values()], base, title, axis))
    write(folder / "comparison.md", comparison_markdown(found))
    write_json(folder / "comparison.json", found.to_json())
