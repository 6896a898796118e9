"""A report on the terminal: verdict, red flags, what got smaller, what got faster, what to do next.

Reads the report, and which methods there are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from compress.core import plural
from compress.report import (
    Latency,
    Report,
    certified,
    changed,
    clock_name,
    duration,
    expected,
    judged,
    scores,
    sizes,
    speed_in_words,
    times,
    typeset,
    useful,
)
from compress.search import METHODS, Planner, behind
from compress_cli.safe_console import sentence
from compress_cli.tables import Cell, print_table

_SHOWN = ("model.onnx", "model.safetensors", "report.html", "report.md", "front.json")
_MOST_WIDTHS = 24


def show(console: Console, report: Report, folder: Path | None = None) -> None:
    """Prints a report.

    Args:
        console: where.
        report: of a finished run.
        folder: where its files are.
    """
    style = "red" if report.warnings else "green"
    console.print(
        Panel(f"[bold]{escape(typeset(report.verdict))}[/]", title=escape(report.name), border_style=style, expand=False)
    )
    for warning in report.warnings:
        sentence(console, f"[bold red]! {escape(typeset(warning))}[/]")
    _sizes(console, report)
    if report.scores:
        _scores(console, report)
    else:
        console.print(f"[red]{escape(report.figure.name if report.figure else 'score')}: not measured[/]\n")
    if report.certificate is not None:
        sentence(console, f"certificate: {escape(certified(report.certificate))}")
    sentence(console, f"[bold]{escape(expected(report))}[/]")
    for latency in report.latency:
        control = times(latency.control_low, latency.control, latency.control_high)
        rounds = plural(latency.rounds, "paired round")
        how = f"{latency.runtime}: {rounds}, {clock_name(latency.clock)}; same file twice {control}"
        sentence(console, f"[dim]{escape(how)}[/]")
    sentence(console, f"[dim]widths[/] {escape(widths(report))}")
    for note in report.notes:
        sentence(console, f"[dim]note: {escape(note)}[/]")
    if folder is not None:
        _next(console, report, folder)


def _sizes(console: Console, report: Report) -> None:
    rows: list[tuple[Cell, ...]] = [(row.name, row.before, row.after, row.ratio) for row in sizes(report)]
    for latency in report.latency:
        name = f"{latency.runtime}, batch {latency.batch}{_threads(latency.threads)}, {clock_name(latency.typical_clock)}"
        rows.append((name, *map(duration, latency.typical), _coloured(latency, useful(report.warnings))))
    print_table(console, ("", ">before", ">after", "ratio"), rows)


def _threads(threads: int) -> str:
    return "" if threads < 1 else f", {plural(threads, 'thread')}"


def _scores(console: Console, report: Report) -> None:
    head = (f"{report.scored_by.name} (95 %)", f">{judged(report, 'validation')}", f">{judged(report, 'test')}")
    print_table(console, head, scores(report))


def _coloured(latency: Latency, useful_network: bool) -> Text:
    """Green for what is certainly faster and of use."""
    faster = latency.verdict == "different" and latency.low > 1
    colour = ("green" if useful_network else "yellow") if faster else "yellow" if latency.verdict != "different" else "red"
    return Text(speed_in_words(latency), colour)


def widths(report: Report) -> str:
    """``conv1 64→32, layer1.0.conv1 64→24 ... and 12 more; 5 layers unchanged``."""
    cut = changed(report)
    if not cut:
        return f"unchanged in all {plural(len(report.widths), 'layer')}"
    listed = ", ".join(f"{w.layer} {w.before}→{w.after}" for w in cut[:_MOST_WIDTHS])
    more = f" and {len(cut) - _MOST_WIDTHS} more" if len(cut) > _MOST_WIDTHS else ""
    same = len(report.widths) - len(cut)
    return f"{listed}{more}" + (f"; {plural(same, 'layer')} unchanged" if same else "")


def _another(report: Report, folder: Path) -> Iterator[tuple[str, str]]:
    """Which other network the run can make, and what that is; nothing where there are weights for its own plan only."""
    if not (folder / "front.json").exists() or report.job.get("stage_epochs"):
        return
    points = report.search.get("points")
    if isinstance(points, int) and points > 1:
        yield "--by knee", f"the best compromise of {plural(points, 'network')} that the search found"
    elif report.method in METHODS and isinstance(METHODS[report.method].make(), Planner):
        share = min(0.95, report.after.macs / max(report.before.macs, 1) + 0.1)
        yield f"--macs {share:.2f}", "another size, without a new search"


def _next(console: Console, report: Report, folder: Path) -> None:
    points = report.search.get("points")
    about = {"front.json": f" ({plural(points, 'point')})"} if isinstance(points, int) else {}
    place = shlex.quote(str(folder))
    there = ", ".join(f"{name}{about.get(name, '')}" for name in _SHOWN if (folder / name).exists())
    console.print(f"\n[dim]files in[/] {escape(f'{folder}: {there}')}", soft_wrap=True)
    commands = [(f"compress pick {place} {point}", what) for point, what in _another(report, folder)]
    if (folder / "base.onnx").exists():
        commands.append((f"compress bench {place}/base.onnx {place}/model.onnx", "measure both files again"))
    methods = behind(report.method, str(report.job.get("realise")))
    commands += [(f"compress cite {method}", "what to cite, as BibTeX") for method in methods]
    width = max((len(command) for command, _ in commands), default=0)
    for number, (command, what) in enumerate(commands):
        head = "next:" if number == 0 else "     "
        console.print(f"[dim]{head}[/] {escape(command.ljust(width))}[dim]  # {escape(what)}[/]", soft_wrap=True)
