"""A report on the terminal: verdict, red flags, what got smaller, what got faster, what to do next.

Reads the report, and which methods there are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

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
    useful,
)
from compress.search import METHODS, Planner, behind

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
    console.print(Panel(f"[bold]{escape(report.verdict)}[/]", title=escape(report.name), border_style=style, expand=False))
    for warning in report.warnings:
        console.print(f"[bold red]! {escape(warning)}[/]", soft_wrap=True)
    console.print(_sizes(report))
    if report.scores:
        console.print(_scores(report))
    else:
        console.print(f"[red]{escape(report.figure.name if report.figure else 'score')}: not measured[/]\n")
    if report.certificate is not None:
        console.print(f"certificate: {escape(certified(report.certificate))}", soft_wrap=True)
    console.print(f"[bold]{escape(expected(report))}[/]", soft_wrap=True)
    for latency in report.latency:
        control = times(latency.control_low, latency.control, latency.control_high)
        how = f"{latency.runtime}: {latency.rounds} paired rounds, {latency.clock} time; same file twice {control}"
        console.print(f"[dim]{escape(how)}[/]", soft_wrap=True)
    console.print(f"[dim]widths[/] {escape(widths(report))}", soft_wrap=True)
    for note in report.notes:
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    if folder is not None:
        _next(console, report, folder)


def _sizes(report: Report) -> Table:
    table = _table("", "before", "after", "")
    for row in sizes(report):
        table.add_row(row.name, row.before, row.after, row.ratio)
    for latency in report.latency:
        name = f"{latency.runtime}, batch {latency.batch}{_threads(latency.threads)}, {clock_name(latency.typical_clock)}"
        table.add_row(escape(name), *map(duration, latency.typical), _coloured(latency, useful(report.warnings)))
    return table


def _threads(threads: int) -> str:
    return "" if threads < 1 else f", {plural(threads, 'thread')}"


def _scores(report: Report) -> Table:
    table = _table(f"{report.scored_by.name} (95 %)", judged(report, "validation"), judged(report, "test"))
    for row in scores(report):
        table.add_row(*map(escape, row))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if column and index else "left")
    return table


def _coloured(latency: Latency, useful_network: bool) -> str:
    """Green for what is certainly faster and of use."""
    faster = latency.verdict == "different" and latency.low > 1
    colour = ("green" if useful_network else "yellow") if faster else "yellow" if latency.verdict != "different" else "red"
    return f"[{colour}]{escape(speed_in_words(latency))}[/]"


def widths(report: Report) -> str:
    """``conv1 64→32, layer1.0.conv1 64→24 ... and 12 more; 5 layers unchanged``."""
    cut = changed(report)
    if not cut:
        return f"unchanged in all {len(report.widths)} layers"
    listed = ", ".join(f"{w.layer} {w.before}→{w.after}" for w in cut[:_MOST_WIDTHS])
    more = f" and {len(cut) - _MOST_WIDTHS} more" if len(cut) > _MOST_WIDTHS else ""
    same = len(report.widths) - len(cut)
    return f"{listed}{more}" + (f"; {plural(same, 'layer')} unchanged" if same else "")


def _another(report: Report, folder: Path) -> Iterator[str]:
    """Which other network the run can make, without a search; nothing where there are weights for its own plan only."""
    if not (folder / "front.json").exists() or report.job.get("stage_epochs"):
        return
    points = report.search.get("points")
    if isinstance(points, int) and points > 1:
        yield "--by knee"
    elif report.method in METHODS and isinstance(METHODS[report.method].make(), Planner):
        yield f"--macs {min(0.95, report.after.macs / max(report.before.macs, 1) + 0.1):.2f}"


def _next(console: Console, report: Report, folder: Path) -> None:
    points = report.search.get("points")
    about = {"front.json": f" ({points} points)"} if isinstance(points, int) else {}
    place = shlex.quote(str(folder))
    there = ", ".join(f"{name}{about.get(name, '')}" for name in _SHOWN if (folder / name).exists())
    console.print(f"\n[dim]files in[/] {escape(f'{folder}: {there}')}", soft_wrap=True)
    commands = [f"compress pick {place} {point}" for point in _another(report, folder)]
    if (folder / "base.onnx").exists():
        commands.append(f"compress bench {place}/base.onnx {place}/model.onnx")
    commands += [f"compress cite {method}" for method in behind(report.method, str(report.job.get("realise")))]
    for number, command in enumerate(commands):
        console.print(f"[dim]{'next:' if number == 0 else '     '}[/] {escape(command)}", soft_wrap=True)
