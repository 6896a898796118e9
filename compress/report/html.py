"""The report as one page that needs nothing else: no network, no other file, and no script for anything but sorting a table.

Names come from files and may hold anything: every text is escaped, plots are made of text nodes, and the page's policy forbids
scripts that are not its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
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
from compress.report.formatting import (
    NONE,
    byte_size,
    certified,
    changed,
    clock_name,
    clocked,
    duration,
    efficiency,
    kept,
    machine_of,
    number,
    percent,
    plain,
    score_title,
    times,
)
from compress.report.model import FrontLatency, Latency, Report
from compress.report.run_files import LayerTimes, RawComparison, RunFiles
from compress.report.svg import inline, svg_of
from compress.report.verdict import told_change, useful

_PARTS = Path(__file__).parent / "page"
_FACTOR = re.compile(r"(\d)x\b")
_MOST_SAMPLED = 4
"""Comparisons whose samples are drawn."""

FLAGS = (
    ("parity", "Parity", ("parity",)),
    ("lost", "Score lost", ("of no use",)),
    ("chance", "At chance", ("told from chance",)),
    ("fallback", "Fallback", ("fallback", "not available here")),
    ("slower", "Slower", ("slower than the unpruned",)),
    ("speed", "Not faster", ("not measurably faster",)),
    ("score", "Score", ("accuracy", "points", "certifies", "scored", "not measured:", "were allowed")),
    ("noise", "Noisy", ("noisy", "contended", "contaminated", "drift", "unsettled", "throttled", "quota", "few rounds")),
)
"""Kinds of red flags, most serious first: key, what the page calls them, words that tell them."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One red flag."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and what is said above it."""

    title: str
    about: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the few large figures."""

    name: str
    value: str
    about: str


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
        "eyebrow": f"{report.architecture} pruned by {report.method} · asked for {_typeset(report.target)}, "
        f"{kept(report)} · {report.data}",
        "name": report.name,
        "tone": "good" if good and not flags else "bad",
        "flags": flags,
        "word": word,
        "word_tone": "good" if good else "bad",
        "verdict": _typeset(report.verdict),
        "tiles": tuple(_tiles(report)),
        "certificate": "" if report.certificate is None else _sentence(certified(report.certificate)),
        "parity": _pairs({k: v for k, v in report.parity.items() if k != "message"}),
        "guard": _pairs(report.guard),
        "environment": _pairs(report.environment),
        "digests": _pairs(report.digests),
        "search": _pairs(report.search),
        "seconds": tuple((k, duration(v)) for k, v in report.seconds.items()),
        "job": _pairs(report.job),
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
        **_layers(report, files.times),
        **_front(report, files),
    }
    return _render("run.html.j2", shown)


def runs_page(reports: Mapping[str, Report]) -> str:
    """The page of several runs beside each other.

    Args:
        reports: name of the run -> its report.
    """
    raised = [(name, flag) for name, r in reports.items() for flag in flags_of(r)]
    flags = [Flag(flag.label, f"{name}: {flag.text}") for name, flag in sorted(raised, key=lambda each: _kind(each[1].text)[0])]
    rows = [(name, r.speedup_macs, r.latency[0]) for name, r in reports.items() if r.latency]
    plots = []
    if rows:
        told = "; ".join(f"{name}: promised {p:.2f} times, measured {times(x.low, x.speedup, x.high)}" for name, p, x in rows)
        svg = _plot(partial(charts.dumbbells, rows), "plot-dumbbells", "Speed-up of every run: promised and measured", told)
        plots.append(Plot("Promised and measured", "By the first runtime of each run.", svg))
    dots = side_by_side.dots(reports)
    if dots:
        figure = next(r.scored_by for r in reports.values() if r.scores)
        told = "; ".join(f"{d.name}: {d.x[1]:.2f} times, {figure.text(d.y[1] / figure.scale)}" for d in dots)
        draw = partial(charts.runs, dots, "measured speed-up (95 % interval)", f"{figure.heading}, test (95 % interval)")
        title = f"{figure.short[:1].upper()}{figure.short[1:]}"
        svg = _plot(draw, "plot-runs", f"{title} on the test images against measured speed-up", told)
        plots.append(
            Plot(
                f"{title} against speed",
                f"{'Up' if figure.higher else 'Down'} and to the right is better.",
                svg,
            )
        )
    shown = {
        "title": f"{len(reports)} runs compared",
        "eyebrow": " · ".join(dict.fromkeys(r.architecture for r in reports.values())),
        "name": f"{len(reports)} runs compared",
        "tone": "bad" if flags else "good",
        "flags": flags,
        "verdicts": tuple((name, _typeset(r.verdict), *status(r)) for name, r in reports.items()),
        "made": "compress (smaller-convnets)",
        "runs": side_by_side.runs_table(reports),
        "plots": plots,
        "notes": side_by_side.differences(reports),
        "downloads": (Download("timm.csv", "CSV, timm's columns", timm_csv.to_timm_csv(reports).encode(), "text/csv"),),
    }
    return _render("runs.html.j2", shown)


def _typeset(text: str) -> str:
    """A terminal's signs as a page has them."""
    return _FACTOR.sub(r"\1×", text).replace(" -> ", " → ").replace("<=", "≤").replace(" %", "\u00a0%")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def flags_of(report: Report) -> tuple[Flag, ...]:
    """The red flags, most serious first, each with a word for what it is."""
    kinds = [_kind(text) for text in report.warnings]
    order = sorted(range(len(kinds)), key=lambda i: (kinds[i][0], i))
    return tuple(Flag(kinds[i][1], report.warnings[i]) for i in order)


def _kind(text: str) -> tuple[int, str]:
    low = text.lower()
    for place, (_, label, words) in enumerate(FLAGS):
        if any(word in low for word in words):
            return place, f"{label} inconclusive" if "inconclusive" in low and label == "Parity" else label
    return len(FLAGS), "Warning"


def status(report: Report) -> tuple[str, bool]:
    """One word for the first measurement, and whether it is good news; no speed is, of a network that is of no use."""
    if not useful(report.warnings):
        at_chance = any(flag.label == "At chance" for flag in flags_of(report))
        return "At chance" if at_chance else f"{score_title(report)} lost", False
    if not report.latency:
        return "Latency not measured", False
    first = report.latency[0]
    if first.verdict == "different" and first.low > 1:
        return "Faster", True
    return ("Slower", False) if first.high <= 1 else ("Not measurably faster", False)


def _tiles(report: Report) -> Iterator[Tile]:
    promised = report.speedup_macs
    if report.latency:
        first = report.latency[0]
        interval = f"95 % interval {first.low:.2f} to {first.high:.2f}; "
        interval += f"{_typeset(clocked(first))} by {clock_name(first.typical_clock)}, {_conditions(first)}"
        yield Tile("Measured speed-up", f"{first.speedup:.2f}×", interval)
        share = efficiency(promised, first.speedup)
        about = f"of the speed-up that {promised:.2f}× fewer MACs promise arrived"
        yield Tile("Efficiency", NONE if share is None else percent(share, 0), about)
    before, after = (report.measured(when, "test") for when in ("base", "final"))
    if before is not None and after is not None:
        figure = report.scored_by
        told = told_change(figure, before.value, after.value, report.change)
        about = f"from {figure.text(before.value)}: {told}"
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
        missing = "The pruned outputs were only compared with the unpruned network's."
        return {"score_title": title, "scores": None, "no_scores": missing}
    back = report.refused
    told = "; ".join(f"{a.when} ({a.split}{', taken back' * (a.when in back)}) {figure.text(a.value)}" for a in report.scores)
    svg = _plot(partial(charts.scores, report.scores, figure, back), "plot-scores", f"{title} after every step", told)
    about = "A dot is what was measured, the line its 95 % interval."
    drawn = Plot(f"Where the {figure.short} went and came back", about, svg)
    return {"score_title": title, "scores": tables.score_table(report), "scores_plot": drawn}


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
    svg = _plot(partial(charts.dumbbells, rows), "plot-dumbbells", "Speed-up: promised by the MACs and measured", told)
    return {
        "latency_sentence": sentence,
        "dumbbells": Plot("Promised and measured", "The distance between the dots is what the MACs do not tell.", svg),
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
    mean = f", each the mean of {repeats} runs" if repeats > 1 else ""
    medians = "; ".join(f"{name_} {duration(statistics.median(samples))}" for name_, samples in arms.items())
    spread = _plot(
        partial(charts.distribution, {n: arms[n] for n in ("base", "base again", name)}),
        f"plot-samples-{index}",
        f"Distribution of the samples on {where}",
        f"Medians of the {clock_name(clock)}: {medians}",
    )
    strip = _plot(
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
        f"Base over {name}: median {times(interval.low, interval.ratio, interval.high)} over {result.rounds} rounds",
    )
    clock_words = clock_name(clock)
    slow = "the slowest hundredth is in the last bar"
    return {
        "title": f"{where}, batch {result.settings.batch}: raw samples",
        "about": f"{result.rounds:,} rounds, every file once a round in random order{mean}; the verdict is by {clock_words}; "
        f"stopped by {result.stopped_by} after {duration(result.seconds)}.",
        "distribution": Plot("Distribution", f"{clock_words[0].upper()}{clock_words[1:]} a run; {slow}.", spread),
        "rounds": Plot("Round by round", "Blue band: the 95 % interval of the ratio. Grey: the base against itself.", strip),
    }


def _layers(report: Report, times: LayerTimes | None) -> dict[str, Any]:
    cut = changed(report)
    told = ", ".join(f"{w.layer} {w.before} to {w.after}" for w in cut[:60]) or "no layer lost channels"
    svg = _plot(partial(charts.staircase, report.widths), "plot-staircase", "Channels per layer, before and after", told)
    lost, total = sum(w.before - w.after for w in report.widths), sum(w.before for w in report.widths)
    return {
        "layers_sentence": f"{len(cut)} of {len(report.widths)} layers lost channels, {lost:,} of {total:,} in all.",
        "staircase": Plot("Channel staircase", "Forward order from left to right.", svg),
        "layers": tables.layer_table(report.widths, () if times is None else times.rows),
        **_times(report, times),
    }


def _times(report: Report, times: LayerTimes | None) -> dict[str, Any]:
    """Why the layers take the time they take; and the kernels that are no layer of the table."""
    if times is None:
        return {"others": None, "why": (), "layer_notes": ()}
    known = {w.layer for w in report.widths}
    rest = [t for t in times.rows if t.name not in known]
    most = max((s for t in times.rows for s in (t.before, t.after) if s is not None), default=0.0)
    sides = [[(t.name, (t.before, t.after)[side] or 0.0) for t in times.rows] for side in (0, 1)]
    other = [sum(s for name, s in side if name not in known) / max(sum(s for _, s in side), 1e-12) for side in sides]
    slow = "Times are from ONNX Runtime's profiler on the CPU, which slows what it watches: they are shares of each other"
    rest_of_it = (
        f"kernels that are no layer above take {percent(other[0], 0)} of the time before and {percent(other[1], 0)} after"
    )
    return {
        "others": tables.others_table(rest, most) if rest else None,
        "why": tuple(_typeset(text) for text in times.summary),
        "layer_notes": (f"{slow}, not the latencies above; {rest_of_it}.",),
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
        "front_sentence": f"{len(points)} networks, none of which another one beats in both MACs and error.",
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
    svg = _plot(partial(charts.front_latency, dots, slower), "plot-front-latency", title, told)
    where = (
        f"{found.runtime}, batch {found.batch}, {found.threads} threads"
        if found.threads > 1
        else f"{found.runtime}, batch {found.batch}"
    )
    about = f"{where}; every network in the same {found.rounds:,} rounds. Red: fewer MACs, and slower than one with more."
    return {
        "title": title,
        "sentence": " ".join([fronts.told(found), *(f"{_sentence(flag)}." for flag in found.flags)]),
        "plot": Plot("Measured latency", about, svg),
        "table": tables.front_latency_table(found),
    }


def _plot(draw: Any, name: str, title: str, description: str) -> Markup:
    return Markup(inline(svg_of(draw), name, title, description))


def _pairs(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(k).replace("_", " "), plain(v)) for k, v in facts.items())


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
