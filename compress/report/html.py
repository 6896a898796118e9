"""The report as one page that needs nothing else: no network, no other file, and no script for anything but sorting a table.

Names come from files and may hold anything: every text is escaped, plots are made of text nodes, and the page's policy forbids
scripts that are not its own.
"""

from __future__ import annotations

import base64
import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compress.core import plural, printable
from compress.report import charts, fronts, plots, side_by_side, tables, timm_csv
from compress.report.candidates import FrontLatency
from compress.report.finalists_table import finalists_table
from compress.report.formatting import (
    NONE,
    byte_size,
    certified,
    clock_name,
    clocked,
    duration,
    efficiency,
    kept,
    machine_of,
    number,
    percent,
    score_title,
    times,
    typeset,
    wanted,
)
from compress.report.model import Latency, Report
from compress.report.page_layers import layers_section
from compress.report.page_parts import Plot, Tile, inline_plot, pairs, sentence
from compress.report.red_flags import Flag, flags_of, kind_of_flag, status
from compress.report.run_files import RawComparison, RunFiles
from compress.report.svg import inline
from compress.report.verdict import useful

_PARTS = Path(__file__).parent / "page"
_MOST_SAMPLED = 4
"""Comparisons whose samples are drawn."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file inside the page."""

    name: str
    label: str
    content: bytes
    kind: str = "application/json"

    @property
    def uri(self) -> str:
        """The whole file as an address."""
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode()}"

    @property
    def size(self) -> str:
        """For people."""
        return byte_size(len(self.content))


def html_page(report: Report, files: RunFiles, downloads: Sequence[Download] = ()) -> str:
    """The page of one run.

    Args:
        report: of the run.
        files: what lies beside it; parts that are missing are left out.
        downloads: files to carry along.
    """
    flags = flags_of(report)
    word, good = status(report)
    shown: dict[str, Any] = {
        "title": f"{report.name}: {word.lower()}",
        "eyebrow": f"{report.architecture} pruned by {report.method} · asked for {wanted(report)}, "
        f"{kept(report)} · {report.data}{_found_by(report)}",
        "name": report.name,
        "tone": "good" if good and not flags else "bad",
        "flags": flags,
        "word": word,
        "word_tone": "good" if good else "bad",
        "verdict": typeset(report.verdict),
        "tiles": tuple(_tiles(report)),
        "certificate": "" if report.certificate is None else sentence(certified(report.certificate)),
        "parity": pairs({k: v for k, v in report.parity.items() if k != "message"}),
        "guard": pairs(report.guard),
        "environment": pairs(report.environment),
        "digests": pairs(report.digests),
        "search": pairs(report.search),
        "seconds": tuple((k, duration(v)) for k, v in report.seconds.items()),
        "job": pairs(report.job),
        "command": report.command,
        "citation": report.citation,
        "made": "compress (smaller-convnets)" if report.made_by is None else f"{report.made_by.text} (smaller-convnets)",
        "notes": (*report.notes, *files.damaged),
        "downloads": downloads,
        **_scores(report),
        **_latency(report, files.latency),
        "precisions": None
        if files.precisions is None
        else tables.precision_table(files.precisions, of_use=useful(report.warnings)),
        **layers_section(report, files.times),
        **_front(report, files),
        "finalists": None if report.finalists is None else finalists_table(report.finalists, report.errors),
    }
    return _render("run.html.j2", shown)


def runs_page(reports: Mapping[str, Report]) -> str:
    """The page of several runs beside each other.

    Args:
        reports: name of the run -> its report.
    """
    raised = [(name, flag) for name, r in reports.items() for flag in flags_of(r)]
    flags = [
        Flag(flag.label, f"{name}: {flag.text}")
        for name, flag in sorted(raised, key=lambda each: kind_of_flag(each[1].text)[0])
    ]
    rows = [(name, r.speedup_macs, r.latency[0]) for name, r in reports.items() if r.latency]
    plots = []
    if rows:
        told = "; ".join(f"{name}: promised {p:.2f} times, measured {times(x.low, x.speedup, x.high)}" for name, p, x in rows)
        svg = inline_plot(
            partial(charts.dumbbells, rows), "plot-dumbbells", "Speed-up of every run: promised and measured", told
        )
        plots.append(Plot("Promised and measured", "By the first runtime of each run.", svg))
    dots = side_by_side.dots(reports)
    if dots:
        figure = next(r.scored_by for r in reports.values() if r.scores)
        told = "; ".join(f"{d.name}: {d.x[1]:.2f} times, {figure.text(d.y[1] / figure.scale)}" for d in dots)
        draw = partial(charts.runs, dots, "measured speed-up (95 % interval)", f"{figure.heading}, test (95 % interval)")
        title = f"{figure.short[:1].upper()}{figure.short[1:]}"
        svg = inline_plot(draw, "plot-runs", f"{title} on the test images against measured speed-up", told)
        plots.append(
            Plot(
                f"{title} against speed",
                f"{'Up' if figure.higher else 'Down'} and to the right is better.",
                svg,
            )
        )
    shown = {
        "title": f"{plural(len(reports), 'run')} compared",
        "eyebrow": " · ".join(dict.fromkeys(r.architecture for r in reports.values())),
        "name": f"{plural(len(reports), 'run')} compared",
        "tone": "bad" if flags else "good",
        "flags": flags,
        "verdicts": tuple((name, typeset(r.verdict), *status(r)) for name, r in reports.items()),
        "made": "compress (smaller-convnets)",
        "runs": side_by_side.runs_table(reports),
        "plots": plots,
        "notes": side_by_side.differences(reports),
        "downloads": (Download("timm.csv", "CSV, timm's columns", timm_csv.to_timm_csv(reports).encode(), "text/csv"),),
    }
    return _render("runs.html.j2", shown)


def _found_by(report: Report) -> str:
    """Which part of the method found the plan, where the search said so."""
    found = report.search.get("found_by")
    return f" · plan found by {found}" if isinstance(found, str) and found else ""


def _tiles(report: Report) -> Iterator[Tile]:
    promised = report.speedup_macs
    if report.latency:
        first = report.latency[0]
        interval = f"95 % interval {first.low:.2f} to {first.high:.2f}; "
        interval += f"{typeset(clocked(first))} by {clock_name(first.typical_clock)}, {_conditions(first)}"
        yield Tile("Measured speed-up", f"{first.speedup:.2f}×", interval)
        share = efficiency(promised, first.speedup)
        about = f"of the speed-up that {promised:.2f}× fewer MACs promise arrived"
        yield Tile("Efficiency", NONE if share is None else percent(share, 0), about)
    before, after = (report.measured(when, "test") for when in ("base", "final"))
    if before is not None and after is not None:
        figure = report.scored_by
        about = f"{figure.signed(after.value - before.value)} from {figure.text(before.value)}"
        if report.change is not None:
            about += f"; 95 % interval of the change {figure.signed_range(report.change.low, report.change.high)}, same images"
        else:
            about += f"; 95 % interval {figure.range(after.low, after.high)}"
        yield Tile(f"{score_title(report)}, test", figure.text(after.value), about)
    else:
        why = "not measured: no labelled images" if report.figure is not None else f"the task {report.task} is not scored"
        yield Tile(score_title(report), NONE, why)
    old, new = report.before, report.after
    for name, before_, after_ in (("MACs", old.macs, new.macs), ("Parameters", old.params, new.params)):
        divided = f"÷ {before_ / after_:.2f}" if before_ > 0 and after_ > 0 else NONE
        yield Tile(name, divided, f"{number(before_)} → {number(after_)}")
    if new.onnx_bytes:
        yield Tile("ONNX file", byte_size(new.onnx_bytes), f"from {byte_size(old.onnx_bytes)}")


def _conditions(x: Latency) -> str:
    threads = f", {plural(x.threads, 'thread')}" if x.threads else ""
    return f"{machine_of(x)}, batch {x.batch}{threads}"


def _scores(report: Report) -> dict[str, Any]:
    figure, title = report.scored_by, score_title(report)
    if not report.scores:
        bounded = report.certificate is not None and report.certificate.figure == figure
        missing = "The pruned outputs were only compared with the unpruned network's" + (
            f": that bounds how much the {figure.short} has {figure.worsened}." if bounded else "."
        )
        return {"score_title": title, "scores": None, "no_scores": missing}
    back = report.refused
    told = "; ".join(f"{a.when} ({a.split}{', taken back' * (a.when in back)}) {figure.text(a.value)}" for a in report.scores)
    svg = inline_plot(partial(charts.scores, report.scores, figure, back), "plot-scores", f"{title} after every step", told)
    about = "A dot is what was measured, the line its 95 % interval." + _steps(report)
    plot = Plot(f"Where the {figure.short} went and came back", about, svg)
    return {"score_title": title, "scores": tables.score_table(report), "scores_plot": plot}


_MEANINGS = {
    "cut": "channels removed, nothing else done",
    "batch norm": "means and variances of its normalisation measured again",
    "reconstructed": "weights behind the cut solved anew from a few images",
    "fine-tuned": "trained",
}
"""What the usual steps do, for somebody who reads their names for the first time."""


def _steps(report: Report) -> str:
    """What the steps of this run do; nothing where they are others."""
    seen = dict.fromkeys(a.when for a in report.scores)
    told = "; ".join(f"{name}: {_MEANINGS[name]}" for name in seen if name in _MEANINGS)
    return f" {sentence(told)}." if told else ""


def _latency(report: Report, results: Sequence[RawComparison]) -> dict[str, Any]:
    promised = report.speedup_macs
    if not report.latency:
        return {"dumbbells": None, "latency_sentence": f"The MACs promise {promised:.2f}×; nothing was clocked."}
    first = report.latency[0]
    share = efficiency(promised, first.speedup)
    sentence = f"The MACs promise {promised:.2f}×; {machine_of(first)} measured {times(first.low, first.speedup, first.high)}."
    if share is not None:
        sentence += f" Efficiency {percent(share, 0)}: that much of the promised speed-up arrived."
    rows = [(f"{machine_of(x)}, batch {x.batch}", promised, x) for x in report.latency]
    told = "; ".join(f"{label}: promised {p:.2f} times, measured {times(x.low, x.speedup, x.high)}" for label, p, x in rows)
    svg = inline_plot(partial(charts.dumbbells, rows), "plot-dumbbells", "Speed-up: promised by the MACs and measured", told)
    return {
        "latency_sentence": sentence,
        "dumbbells": Plot("Promised and measured", "Promised by counting MACs, and measured.", svg),
        "ratios": tables.ratio_table(report),
        "arms": tables.arm_table(report, results),
        "samples": tuple(_samples(i, c) for i, c in enumerate(results[:_MOST_SAMPLED])),
        "grid": tables.grid_table(report),
    }


def _samples(index: int, raw: RawComparison) -> dict[str, Any]:
    """The raw samples of one comparison, drawn twice; by the clock that decided."""
    result = raw.result
    where = f"{result.runtime} on {raw.machine}" if raw.machine else result.runtime
    name, decided = next(iter(result.ratios.items()))
    clock, interval = decided.decided_by, decided.decisive
    arms = {arm.name: arm.cpu if clock == "cpu" else arm.wall for arm in result.arms}
    base, again, other = arms["base"], arms["base again"], arms[name]
    repeats = result.arms[0].inner_repeats
    mean = f", each the mean of {plural(repeats, 'run')}" if repeats > 1 else ""
    medians = "; ".join(f"{name_} {duration(statistics.median(samples))}" for name_, samples in arms.items())
    spread = inline_plot(
        partial(charts.distribution, {n: arms[n] for n in ("base", "base again", name)}),
        f"plot-samples-{index}",
        f"Distribution of the samples on {where}",
        f"Medians of the {clock_name(clock)}: {medians}",
    )
    strip = inline_plot(
        partial(
            charts.rounds,
            name,
            [b / o for b, o in zip(base, other, strict=True)],
            [b / a for b, a in zip(base, again, strict=True)],
            interval.low,
            interval.ratio,
            interval.high,
        ),
        f"plot-rounds-{index}",
        f"Ratio of every round on {where}",
        f"Base over {name}: median {times(interval.low, interval.ratio, interval.high)} over {plural(result.rounds, 'round')}",
    )
    clock_words = clock_name(clock)
    slow = "the slowest hundredth is in the last bar"
    return {
        "title": f"{where}, batch {result.settings.batch}: raw samples",
        "about": f"{plural(result.rounds, 'round')}, every file once a round in random order{mean}; "
        f"the verdict is by {clock_words}; stopped by {result.stopped_by} after {duration(result.seconds)}.",
        "distribution": Plot("Distribution", f"{clock_words[0].upper()}{clock_words[1:]} a run; {slow}.", spread),
        "rounds": Plot("Round by round", "Blue band: the 95 % interval of the ratio. Grey: the base against itself.", strip),
    }


def _front(report: Report, files: RunFiles) -> dict[str, Any]:
    measured = None if report.front_latency is None else _front_latency(report.front_latency)
    if files.front is None:
        return {"front": None, "front_latency": measured, "front_sentence": ""}
    counted = report.errors
    points, chosen, knee = (files.front[k] for k in ("points", "chosen", "knee"))
    told = "; ".join(f"{percent(p['macs_share'], 1)} of the MACs, {counted.name} {counted.text(p['error'], 1)}" for p in points)
    svg = Markup(inline(plots.front_drawing(points, chosen, knee, counted), "plot-front", "The search's front", told))
    about = "Every dot is a network that compress pick makes real; its error is before fine-tuning."
    return {
        "front": Plot("Pareto front of the search", about, svg),
        "front_table": tables.front_table(points, chosen, knee, counted),
        "front_latency": measured,
        "front_sentence": f"{plural(len(points), 'network')}, none of which another one beats in both MACs and error. "
        "The knee is where fewer MACs begin to cost much more error.",
    }


def _front_latency(found: FrontLatency) -> dict[str, Any]:
    """MACs against latency over the front."""
    places = {p.index: i for i, p in enumerate(found.points)}
    dots = [charts.Dot(str(p.index), (100 * p.macs,) * 3, (100 * p.low, 100 * p.latency, 100 * p.high)) for p in found.points]
    slower = [(places[few], places[many]) for few, many in found.slower if few in places and many in places]
    told = "; ".join(
        f"point {p.index}: {percent(p.macs, 1)} of the MACs, {percent(p.latency, 1)} of the latency" for p in found.points
    )
    title = "MACs against measured latency over the front"
    svg = inline_plot(partial(charts.front_latency, dots, slower), "plot-front-latency", title, told)
    where = (
        f"{found.runtime}, batch {found.batch}, {plural(found.threads, 'thread')}"
        if found.threads > 1
        else f"{found.runtime}, batch {found.batch}"
    )
    about = (
        f"{where}; every network in the same {plural(found.rounds, 'round')}. Red: fewer MACs, and slower than one with more."
    )
    return {
        "title": title,
        "sentence": " ".join([fronts.told(found), *(f"{sentence(flag)}." for flag in found.flags)]),
        "plot": Plot("Measured latency", about, svg),
        "table": tables.front_latency_table(found),
    }


def _render(template: str, shown: Mapping[str, Any]) -> str:
    script = (_PARTS / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_PARTS / "style.css").read_text(encoding="utf-8")
    fixed = {"script": Markup(script), "style": Markup(style), "script_hash": f"sha256-{digest}"}
    return _templates().get_template(template).render(**fixed, **shown)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """What a template puts out: text without characters that hide or turn it; our own markup as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
