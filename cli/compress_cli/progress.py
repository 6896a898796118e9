"""The library's events as bars on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from compress.report import duration, percent

Listener = Callable[[Any], None]
EVERY = 10.0
"""Seconds between plain lines."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a phase is.

    Attributes:
        done: in the phase's own unit; None where that is not known yet.
        total: of the same unit; None where it is unknown.
        note: what goes beside it.
    """

    done: float | None
    total: float | None
    note: str = ""


def position(event: Any) -> Position | None:
    """Where an event of the library says that its phase is; None for events that say nothing about it."""
    from compress.core import Progressed
    from compress.latency import MeasuringProgress
    from compress.pipeline import Measuring
    from compress.recovery import TrainingProgress
    from compress.search import Asked
    from compress.serving import Tried
    from compress.workers import ScoresArrived

    match event:
        case Progressed(done=done, total=total, note=note):
            return Position(done, total, note)
        case Tried(arm=arm, round=number, rounds=rounds, rate=rate, kept=kept):
            where = f"round {number} of {rounds}" if number else "confirming"
            return Position(
                number - 1 if number else rounds, rounds, f"{where}: {arm}, {rate:.4g}/s {'kept' if kept else 'lost'}"
            )
        case Measuring(done=done, total=total):
            return Position(done, total, f"{done} of {total} networks")
        case Asked(spent=spent, budget=budget, best=best):
            return Position(spent, budget, f"error {best:.4f}" if best == best else "")
        case ScoresArrived(done=done, asked=asked, workers=workers):
            return Position(None, None, f"{done} of {asked} plans, {workers} workers")
        case TrainingProgress(epoch=epoch, epochs=epochs, step=step, steps=steps, loss=loss):
            return Position((epoch - 1) * steps + step, epochs * steps, f"epoch {epoch} of {epochs}, loss {loss:.3f}")
        case MeasuringProgress(elapsed=elapsed, budget=budget, half_width=width):
            return Position(elapsed, budget, "" if width is None else f"± {percent(width, 1)}")
    return None


def remark(event: Any) -> str:
    """What an event says in words; empty where it only moves the bar, as short epochs do but for the last."""
    from compress.recovery import EpochDone, Resumed

    match event:
        case EpochDone(epoch=epoch, epochs=epochs, loss=loss, accuracy=accuracy, seconds=seconds):
            seen = "" if accuracy is None else f"training accuracy {percent(accuracy, 1)}, "
            told = seconds >= EVERY or epoch == epochs
            return f"epoch {epoch} of {epochs}: loss {loss:.3f}, {seen}{duration(seconds)}" if told else ""
        case Resumed(epoch=epoch, epochs=epochs, step=step):
            return f"goes on at epoch {epoch} of {epochs}, step {step}"
    return ""


@contextmanager
def listening(console: Console, *, quiet: bool) -> Iterator[Listener]:
    """A listener for one command.

    Args:
        console: where to write.
        quiet: write nothing.
    """
    if quiet:
        yield lambda event: None
    elif console.is_terminal:
        with _Bars(console) as bars:
            yield bars.hear
    else:
        yield _Lines(console).hear


class _Bars:
    """One bar: that of the phase under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=16, table_column=Column(width=16)),
            TaskProgressColumn(table_column=Column(width=4, no_wrap=True)),
            TimeRemainingColumn(table_column=Column(width=7, no_wrap=True)),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            expand=True,
        )

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, event: Any) -> None:
        """One event."""
        started, ended, said = _phases(event)
        if started:
            self._clear()
            self._task = self._progress.add_task(escape(started), total=None, note="")
        where = position(event)
        if where is not None:
            if self._task is None:
                self._task = self._progress.add_task("", total=None, note="")
            if where.done is None:
                self._progress.update(self._task, note=escape(where.note))
            else:
                total = where.total if where.total is None else max(where.total, where.done)
                self._progress.update(self._task, completed=where.done, total=total, note=escape(where.note))
        if ended:
            self._clear()
            self._console.print(f"[green]✓[/] {escape(ended)}", soft_wrap=True)
        for line in said:
            self._console.print(line, soft_wrap=True)

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class _Lines:
    """A line when a phase begins and ends, and now and then in between."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._began = self._spoke = clock()
        self._first: float | None = None

    def hear(self, event: Any) -> None:
        """One event."""
        started, ended, said = _phases(event)
        now = self._clock()
        if started:
            self._began = self._spoke = now
            self._first = None
            self._console.print(f"{escape(started)} ...", soft_wrap=True)
        where = position(event)
        if where is not None and where.done is not None and self._first is None:
            self._first = where.done  # what a resumed phase had done before is no measure of its speed
        if where is not None and now - self._spoke >= EVERY:
            self._spoke = now
            self._console.print(f"  {escape(self._line(where, now - self._began))}", soft_wrap=True)
        if ended:
            self._console.print(f"  {escape(ended)}", soft_wrap=True)
        for line in said:
            self._console.print(line, soft_wrap=True)

    def _line(self, where: Position, elapsed: float) -> str:
        if where.done is None or where.total is None or where.total <= 0:
            return where.note
        progressed = where.done - (self._first or 0.0)
        left = f", about {duration(elapsed * max(0.0, where.total - where.done) / progressed)} left" if progressed > 0 else ""
        return ", ".join(part for part in (f"{percent(min(1.0, where.done / where.total), 0)}{left}", where.note) if part)


def _phases(event: Any) -> tuple[str, str, list[Any]]:
    """(phase that begins, phase that ended, what is printed)."""
    from compress.core import Phase, PhaseDone, Table, Warned

    match event:
        case Phase(name=name, detail=detail):
            return f"{name}: {detail}" if detail else name, "", []
        case PhaseDone(name=name, seconds=seconds):
            return "", f"{name}, {duration(seconds)}", []
        case Warned(text=text):
            return "", "", [f"[red]warning: {escape(text)}[/]"]
        case Table(title=title, columns=columns, rows=rows):
            return "", "", [plain_table(title, columns, rows)]
    said = remark(event)
    return "", "", [f"  [dim]{escape(said)}[/]"] if said else []


def plain_table(title: str, columns: Any, rows: Any) -> Table:
    """A table as the library describes one."""
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(escape(str(column)), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table
