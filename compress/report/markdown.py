"""A report as Markdown: what goes into a pull request or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from compress.core import markdown, markdown_block, markdown_code, plural
from compress.report.finalists_table import finalists_table
from compress.report.formatting import (
    NONE,
    certified,
    changed,
    clock_name,
    duration,
    efficiency,
    expected,
    judged,
    kept,
    machine_of,
    percent,
    plain,
    score_title,
    scores,
    sizes,
    speed_in_words,
    times,
    wanted,
)
from compress.report.fronts import told
from compress.report.model import Report
from compress.report.tables import Cell, front_latency_table

_REPOSITORY_LINE = "Made by compress (smaller-convnets)."


def report_markdown(report: Report) -> str:
    """The whole report, verdict and red flags first."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {markdown(report.name)}"
    yield ""
    yield f"**{markdown(report.verdict)}**"
    yield ""
    for warning in report.warnings:
        yield f"> ⚠️ **{markdown(warning)}**"
        yield ">"
    yield ""
    yield (
        f"{markdown(report.architecture)} pruned by {markdown(report.method)}, asked for {markdown(wanted(report))}, "
        f"{markdown(kept(report))}. Images: {markdown(report.data)}."
    )
    yield ""
    yield f"{markdown(expected(report))}."
    yield ""
    yield from table_lines(("", "before", "after", ""), [(r.name, r.before, r.after, r.ratio) for r in sizes(report)])
    yield from _section(score_title(report))
    if report.scores:
        head = (f"{report.scored_by.name} (95 % interval)", judged(report, "validation"), judged(report, "test"))
        yield from table_lines(head, scores(report))
    else:
        yield "Not measured."
        yield ""
    if report.certificate is not None:
        yield f"Certificate: {markdown(certified(report.certificate))}."
        yield ""
    yield from _section("Latency")
    if report.latency:
        columns = (
            "runtime",
            "batch",
            "threads",
            "before p50",
            "after p50",
            "p90 on the wall",
            "verdict",
            "efficiency",
            "same file twice",
        )
        yield from table_lines(
            columns,
            [
                (
                    f"{machine_of(x)}, {plural(x.rounds, 'round')} by {clock_name(x.clock)}",
                    str(x.batch),
                    str(x.threads),
                    *map(duration, x.typical),
                    f"{duration(x.base_p90)} -> {duration(x.pruned_p90)}",
                    speed_in_words(x),
                    NONE if (share := efficiency(report.speedup_macs, x.speedup)) is None else percent(share, 0),
                    times(x.control_low, x.control, x.control_high),
                )
                for x in report.latency
            ],
        )
        for flag in dict.fromkeys(f"{machine_of(x)}: {f}" for x in report.latency for f in x.flags):
            yield f"- {markdown(flag)}"
        yield ""
    else:
        yield "Not measured."
        yield ""
    yield from _section("Widths")
    rows = [(w.layer, str(w.before), str(w.after), _left(w.macs_after, w.macs_before), w.note) for w in report.widths]
    layers = table_lines(("layer", "before", "after", "MACs left", "note"), rows)
    yield from _folded(f"{len(changed(report))} of {plural(len(report.widths), 'layer')} lost channels", layers)
    if report.front_latency is not None:
        yield from _section("MACs against latency over the front")
        yield f"{markdown(told(report.front_latency))}"
        yield ""
        made = front_latency_table(report.front_latency)
        yield from table_lines([c.name for c in made.head], [[_with_about(c) for c in row] for row in made.rows])
    if report.finalists is not None:
        table = finalists_table(report.finalists, report.errors)
        yield from _section(table.title)
        yield markdown(table.about)
        yield ""
        yield from table_lines([c.name for c in table.head], [[_with_about(c) for c in row] for row in table.rows])
    yield from _section("Proof")
    yield from _facts("The ONNX file against torch", report.parity)
    yield from _facts("The cut network against the masked one", report.guard)
    yield ""
    yield from _section("Run")
    yield from _facts("Search", report.search)
    yield from _facts("Time", {name: duration(seconds) for name, seconds in report.seconds.items()})
    for note in report.notes:
        yield f"- {markdown(note)}"
    yield ""
    if report.command:
        yield from markdown_block(report.command)
        yield ""
    yield from _folded("Settings", table_lines(("setting", "value"), [(k, plain(v)) for k, v in report.job.items()]))
    yield from _folded("Machine and versions", table_lines(("", ""), [(k, plain(v)) for k, v in report.environment.items()]))
    digests = [(k, Ready(markdown_code(v))) for k, v in report.digests.items()]
    yield from _folded("Digests", table_lines(("of", "digest"), digests))
    yield from _section("Cite")
    yield f"{markdown(report.citation)}"
    yield ""
    by = report.made_by
    yield _REPOSITORY_LINE if by is None else f"Made by {markdown(by.text)} (smaller-convnets)."


def _with_about(cell: Cell) -> str:
    return f"{cell.text} ({cell.about})" if cell.about else cell.text


def _section(title: str) -> tuple[str, str]:
    return f"## {markdown(title)}", ""


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """What a pull request shows when asked."""
    yield f"<details><summary>{markdown(title)}</summary>"
    yield ""
    yield from lines
    yield "</details>"
    yield ""


def _left(after: int, before: int) -> str:
    return percent(after / before, 0) if before > 0 else NONE


def _facts(title: str, facts: Mapping[str, object]) -> Iterator[str]:
    yield f"- {title}: " + (markdown("; ".join(f"{k} {plain(v)}" for k, v in facts.items())) or NONE)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, and an empty line; every cell is text, but for :class:`Ready` ones."""
    yield "| " + " | ".join(_cell(c) for c in head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(c) for c in row) + " |"
    yield ""


class Ready(str):
    """A cell that is Markdown already."""


def _cell(text: str) -> str:
    return text if isinstance(text, Ready) else markdown(text)
