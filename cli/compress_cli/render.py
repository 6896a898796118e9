"""A report on the terminal: verdict, red flags, what got smaller, what got faster, what to do next.

Reads the report and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from compress.report.figures import NONE, accuracies, changed, clocked, duration, expected, number, percent, sizes, times
from compress.report.model import Latency, Report

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
    console.print(_summary(report))
    console.print(f"[bold]{escape(expected(report))}[/]", soft_wrap=True)
    for latency in report.latency:
        for line in _latency(latency):
            console.print(line, soft_wrap=True)
    console.print(f"[dim]widths[/] {escape(widths(report))}", soft_wrap=True)
    for note in report.notes:
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    if folder is not None:
        _next(console, report, folder)


def _summary(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(("", "before", "after", "")):
        table.add_column(column, justify="left" if index in (0, 3) else "right")
    for row in sizes(report):
        table.add_row(row.name, row.before, row.after, row.ratio)
    for latency in report.latency:
        name = f"{latency.runtime}, batch {latency.batch}, {latency.threads} thread{'s' * (latency.threads != 1)}"
        table.add_row(escape(name), duration(latency.base_p50), duration(latency.pruned_p50), _coloured(latency))
    shown = accuracies(report)
    if shown:
        table.add_section()
        table.add_row("[dim]top-1 accuracy[/]", "[dim]validation[/]", "[dim]test[/]", "")
    for state, validation, test in shown:
        table.add_row(f"  {escape(state)}", validation, test, "")
    if not shown:
        table.add_row("top-1 accuracy", NONE, NONE, "[red]not measured[/]")
    return table


def _coloured(latency: Latency) -> str:
    faster = latency.verdict == "different" and latency.speedup > 1
    colour = "green" if faster else "yellow" if latency.verdict != "different" else "red"
    return f"[{colour}]{escape(clocked(latency))}[/]"


def _latency(latency: Latency) -> list[str]:
    control = times(latency.control_low, latency.control, latency.control_high)
    lines = [
        f"[dim]{escape(latency.runtime)}: {latency.rounds} paired rounds, {latency.clock} time; same file twice {control}[/]"
    ]
    return [*lines, *(f"[red]! {escape(latency.runtime)}: {escape(flag)}[/]" for flag in latency.flags)]


def widths(report: Report) -> str:
    """``conv1 64→32, layer1.0.conv1 64→24 ... and 12 more; 5 layers unchanged``."""
    cut = changed(report)
    if not cut:
        return f"unchanged in all {len(report.widths)} layers"
    listed = ", ".join(f"{w.layer} {w.before}→{w.after}" for w in cut[:_MOST_WIDTHS])
    more = f" and {len(cut) - _MOST_WIDTHS} more" if len(cut) > _MOST_WIDTHS else ""
    same = len(report.widths) - len(cut)
    return f"{listed}{more}" + (f"; {same} layer{'s' * (same != 1)} unchanged" if same else "")


def _next(console: Console, report: Report, folder: Path) -> None:
    points = report.search.get("front")
    front = f" ({points} points)" if isinstance(points, int) else ""
    console.print(
        f"\n[dim]files in[/] {escape(str(folder))}[dim]: model.onnx, model.safetensors, report.md, front.json{front}[/]",
        soft_wrap=True,
    )
    place = escape(str(folder))
    console.print(f"[dim]next:[/]  compress pick {place} --by knee", soft_wrap=True)
    if (folder / "base.onnx").exists():
        console.print(f"       compress bench {place}/base.onnx {place}/model.onnx", soft_wrap=True)
    console.print("       compress cite " + escape(report.method), soft_wrap=True)


__all__ = ["number", "percent", "show", "widths"]
