"""Methods against each other under one protocol: same images, same split, same recovery and training, same budget, same seeds.

Every method is an ordinary, resumable run in a folder of its own, so a comparison that was killed goes on with the same call.
Pruners that are not ours take part as *arms*: a callable that prunes a module; everything after the cut is then done alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from compress.core import Difference, Figure, Listen, capture, ignore, this_process, write, write_json
from compress.data import Data
from compress.errors import ConfigError
from compress.evaluation import AGREEMENT, OUTPUT_ERROR, JudgedTest, paired_difference, read_predictions
from compress.networks import Network
from compress.pipeline.compared_method import ComparedMethod, MethodComparison
from compress.pipeline.compared_runs import ComparedRuns, RunKey, check_room, performed
from compress.pipeline.job import Job
from compress.pipeline.own_training import with_loop
from compress.pipeline.reporting import target_text
from compress.pipeline.run import loop_for, with_task
from compress.report import ComparedRun, Comparison, Summary, comparison_markdown, comparison_svg, states, summary
from compress.tasks import Task

UNPRUNED = "unpruned"
_SHARED = (
    *"target value round_to ignore streams branches prefer_fast prefer_large finalists".split(),
    *"budget stop_after calibration recover epochs lr lr_by_budget batch distill".split(),
)
_WHERE_SET = "auto_round ranking realise stage_epochs eps zero_kernels train".split()
_OFF = 0.01


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
    loop = loop_for(network, wanted.train)
    wanted = replace(wanted, job=with_loop(replace(wanted.job, finalists=wanted.job.finalists or 0), loop, data))
    for seed in wanted.seeds:
        for one in wanted.entries:
            one.job(wanted.job, seed)  # says so where a setting does not fit
    runs = ComparedRuns(network, data, wanted, folder)
    check_room(runs)
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[RunKey, ComparedRun] = {}
    judged: dict[RunKey, JudgedTest] = {}
    for key, found in performed(runs, fresh, listen):
        test = None if found.failed else read_predictions(runs.place(key))
        rows[key] = found if test is None else replace(found, base=test.values["base"], test=test.values["final"])
        if test is not None:
            judged[key] = test
        there = [rows[k] for k in runs.keys if k in rows]
        comparison = _comparison(network, data, wanted, there, _by_method(judged, runs.keys), command)
        _write(comparison, folder)
    return comparison


# ---- from rows to the comparison -------------------------------------------------------------------------------------


def _by_method(found: Mapping[RunKey, JudgedTest], keys: Sequence[RunKey]) -> dict[str, list[JudgedTest]]:
    """What each method's runs contributed on the test images, for the pairs, and the unpruned network's."""
    judged: dict[str, list[JudgedTest]] = {}
    for key in keys:
        if key in found:
            test = found[key]
            judged.setdefault(key[0], []).append(test)
            judged[UNPRUNED] = [replace(test, rows={"final": test.rows["base"]} if test.rows else {})]
    return judged


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
