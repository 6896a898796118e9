"""Runs beside each other: one table, one row a run, and what keeps them from being comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from compress.core import markdown, plural
from compress.report.charts import Dot
from compress.report.formatting import NONE, efficiency, machine_of, percent, ratio, score_text, speed_in_words
from compress.report.markdown import table_lines
from compress.report.model import Report
from compress.report.tables import Cell, ReportTable, heads, tone

_ALIKE: tuple[tuple[str, Callable[[Report], object]], ...] = (
    ("tasks", lambda r: (r.task, r.figure)),
    ("unpruned networks", lambda r: r.digests.get("network")),
    ("test images", lambda r: r.digests.get("test")),
    ("machines", lambda r: r.environment.get("digest")),
    ("runtimes or batches", lambda r: [(x.runtime, x.batch, x.threads) for x in r.latency[:1]]),
)


def runs_table(reports: Mapping[str, Report]) -> ReportTable:
    """One row a run.

    Args:
        reports: name of the run -> its report.
    """
    rows = []
    for name, report in reports.items():
        first = report.latency[0] if report.latency else None
        final, base = (report.measured(when, "test") for when in ("final", "base"))
        share = None if first is None else efficiency(report.speedup_macs, first.speedup)
        figure = report.scored_by
        told = NONE if final is None else score_text(final, figure)
        change = NONE if final is None or base is None else figure.signed(final.value - base.value)
        if report.change is not None:
            change = f"{change} ({figure.signed_range(report.change.low, report.change.high)})"
        rows.append(
            (
                Cell(text=name),
                Cell(text=report.method),
                Cell(text=percent(report.after.macs / max(report.before.macs, 1), 1)),
                Cell(text=percent(report.after.params / max(report.before.params, 1), 1)),
                Cell(text=told, sort=None if final is None else final.value, whole=True),
                Cell(text=change),
                Cell(text="not measured")
                if first is None
                else Cell(text=speed_in_words(first), sort=first.speedup, tone=tone(report, first), whole=True),
                Cell(text=NONE if share is None else percent(share, 0)),
                Cell(text=str(len(report.warnings)), tone="bad-text" if report.warnings else ""),
            )
        )
    sizes, speeds = (">MACs kept", ">params kept"), (">speed-up (95 %)", ">efficiency", ">flags")
    names = " or ".join(dict.fromkeys(r.scored_by.name for r in reports.values() if r.scores)) or "score"
    head = heads("run", "method", *sizes, f">{names}, test (95 %)", ">change", *speeds)
    about = "Change: against the run's own unpruned network, 95 % interval by pairs of the same images. "
    about += "Efficiency: (measured speed-up − 1) ÷ (MACs speed-up − 1)."
    return ReportTable(title="Side by side", about=about, head=head, rows=tuple(rows), sortable=True)


def differences(reports: Mapping[str, Report]) -> tuple[str, ...]:
    """What sets the runs apart beyond the method, so that their figures are not simply comparable."""
    found = []
    for what, read in _ALIKE:
        if len({str(read(r)) for r in reports.values()}) > 1:
            found.append(f"the runs have different {what}: compare their figures with care")
    return tuple(found)


def dots(reports: Mapping[str, Report]) -> tuple[Dot, ...]:
    """Speed-up and test score of the runs that have both; empty where they are scored by different figures."""
    if len({r.scored_by for r in reports.values() if r.scores}) > 1:
        return ()
    found = []
    for name, report in reports.items():
        final = report.measured("final", "test")
        if final is not None and report.latency:
            x = report.latency[0]
            scale = report.scored_by.scale
            found.append(Dot(name, (x.low, x.speedup, x.high), (scale * final.low, scale * final.value, scale * final.high)))
    return tuple(found)


def runs_markdown(reports: Mapping[str, Report]) -> str:
    """The comparison for a pull request."""
    return "\n".join(_lines(reports)).rstrip() + "\n"


def _lines(reports: Mapping[str, Report]) -> Iterator[str]:
    made = runs_table(reports)
    yield f"# {plural(len(reports), 'run')}"
    yield ""
    yield from table_lines([c.name for c in made.head], [[c.text for c in row] for row in made.rows])
    for name, report in reports.items():
        size = ratio(report.before.macs, report.after.macs)
        where = ", ".join(f"{machine_of(x)}, batch {x.batch}" for x in report.latency) or "not clocked"
        yield f"- **{markdown(name)}**: {markdown(report.verdict)} (MACs {size}; {markdown(where)})"
        for warning in report.warnings:
            yield f"  - ⚠️ {markdown(warning)}"
    for note in differences(reports):
        yield f"- {markdown(note)}"
