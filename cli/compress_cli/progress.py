"""The library's events as a line with a bar on a terminal, as plain lines elsewhere, and as JSON lines beside ``--json``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from compress.report import duration, percent
from compress_cli.console import writes_json
from compress_cli.positions import Position, SearchPosition, position
from compress_cli.safe_console import sentence
from compress_cli.tables import table_for

Listener = Callable[[Any], None]
EVERY = 10.0
"""Seconds between plain lines."""
_JSON_EVERY = 1.0
_NAME, _LEFT, _BAR = 13, 13, 16
"""Columns of a line for the phase, the time left, and a bar where there is room for one: the percentage says the same."""


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
    elif writes_json():
        yield _JsonLines(console.file).hear
    elif console.is_terminal:
        with _Bars(console) as bars:
            yield bars.hear
    else:
        yield _Lines(console).hear


@dataclass(slots=True)
class _Pace:
    """What a phase did since it began, for the time that is left."""

    clock: Callable[[], float] = time.monotonic
    phase: str = ""
    began: float = 0.0
    search: SearchPosition = field(default_factory=SearchPosition)
    _first: float | None = None

    def begin(self, phase: str) -> None:
        """A phase begins."""
        self.phase, self.began, self._first, self.search = phase, self.clock(), None, SearchPosition()

    def at(self, event: Any) -> Position | None:
        """Where it is."""
        where = position(event, self.search)
        if where is not None and where.done is not None and self._first is None:
            self._first = where.done  # what a resumed phase had done before is no measure of its speed
        return where

    def left(self, where: Position) -> float | None:
        """Seconds that are left at the pace of what was worked for; None where nothing was yet."""
        if where.left is not None or where.share is None or where.done is None or where.total is None:
            return where.left
        worked = where.worked if where.worked is not None else where.done - (self._first or 0.0)
        return (self.clock() - self.began) * max(0.0, where.total - where.done) / worked if worked > 0 else None


def _told_left(seconds: float | None, at_most: bool, words: tuple[str, str] = ("about", "at most")) -> str:
    return "" if seconds is None else f"{words[at_most]} {duration(seconds)}"


class _Bars:
    """One line: that of the phase under way."""

    def __init__(self, console: Console) -> None:
        self._console, self._pace = console, _Pace()
        self._task: TaskID | None = None
        bar = [BarColumn(bar_width=_BAR, table_column=Column(width=_BAR))] if console.width >= 100 else []
        self._room = console.width - _NAME - 5 - _LEFT - 3 - len(bar) * (_BAR + 1)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(width=_NAME, no_wrap=True, overflow="ellipsis")),
            *bar,
            TaskProgressColumn(table_column=Column(width=5, no_wrap=True)),
            TextColumn("[cyan]{task.fields[left]}", table_column=Column(width=_LEFT, no_wrap=True)),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, event: Any) -> None:
        """One event."""
        started, detail = _begins(event)
        if started:
            self._clear()
            self._pace.begin(started)
            self._show(started, _fitting((detail,), self._room))
        where = self._pace.at(event)
        if where is not None:
            if self._task is None:
                self._show("", "")
            assert self._task is not None
            note = escape(_fitting(where.notes, self._room))
            if where.done is None:
                self._progress.update(self._task, note=note)
            else:
                total = where.total if where.total is None else max(where.total, where.done)
                left = _told_left(self._pace.left(where), where.at_most, ("~", "≤"))
                self._progress.update(self._task, completed=where.done, total=total, note=note, left=left)
        if ended := _ends(event):
            self._clear()
            self._console.print(f"[green]✓[/] {escape(ended)}", soft_wrap=True)
        for line in _said(event, self._console.width):
            _put(self._console, line)

    def _show(self, name: str, note: str) -> None:
        self._task = self._progress.add_task(escape(name), total=None, note=escape(note), left="")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _fitting(notes: tuple[str, ...], room: int) -> str:
    """As many notes as fit, whole; of one that alone is too long, as many words as fit."""
    while len(notes) > 1 and Text(", ".join(notes)).cell_len > room:
        notes = notes[:-1]
    words = ", ".join(notes).split(" ")
    while len(words) > 1 and Text(" ".join(words)).cell_len > room:
        words = words[:-1]
    return " ".join(words).rstrip(",:")


class _Lines:
    """A line when a phase begins and ends, and now and then in between."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._pace = console, clock, _Pace(clock=clock)
        self._spoke = clock()
        self._pace.begin("")

    def hear(self, event: Any) -> None:
        """One event."""
        started, detail = _begins(event)
        if started:
            self._pace.begin(started)
            self._spoke = self._pace.began
            self._console.print(f"{escape(f'{started}: {detail}' if detail else started)} ...", soft_wrap=True)
        where = self._pace.at(event)
        if where is not None and self._clock() - self._spoke >= EVERY:
            self._spoke = self._clock()
            left = _told_left(self._pace.left(where), where.at_most)
            share = "" if where.share is None else percent(where.share, 0)
            parts = (share, left and f"{left} left", *where.notes)
            self._console.print(f"  {escape(', '.join(part for part in parts if part))}", soft_wrap=True)
        if ended := _ends(event):
            self._console.print(f"  {escape(ended)}", soft_wrap=True)
        for line in _said(event, self._console.width):
            _put(self._console, line)


class _JsonLines:
    """One JSON object a line, for a program that shows progress in its own way."""

    def __init__(self, file: TextIO | Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock, self._pace = file, clock, _Pace(clock=clock)
        self._spoke = -math.inf
        self._pace.begin("")

    def hear(self, event: Any) -> None:
        """One event."""
        from compress.core import Phase, PhaseDone, Table, Warned

        where = None
        match event:
            case Phase(name=name, detail=detail):
                self._pace.begin(name)
                self._spoke = -math.inf
                self._write({"event": "phase", "phase": name, "detail": detail})
            case PhaseDone(name=name, seconds=seconds):
                self._write({"event": "phase done", "phase": name, "seconds": round(seconds, 3)})
            case Warned(text=text):
                self._write({"event": "warning", "text": text})
            case Table(title=title, columns=columns, rows=rows):
                self._write({"event": "table", "title": title, "columns": list(columns), "rows": [list(r) for r in rows]})
            case _:
                where = self._pace.at(event)
        if where is not None and self._clock() - self._spoke >= _JSON_EVERY:
            self._spoke = self._clock()
            left = self._pace.left(where)
            known = {"share": where.share, "seconds_left": None if left is None else round(left, 1), "at_most": where.at_most}
            self._write({"event": "progress", "phase": self._pace.phase, **known, "notes": list(where.notes)})
        if said := remark(event):
            self._write({"event": "remark", "phase": self._pace.phase, "text": said})

    def _write(self, facts: dict[str, Any]) -> None:
        self._file.write(json.dumps(facts, allow_nan=False) + "\n")
        self._file.flush()


def _begins(event: Any) -> tuple[str, str]:
    """A phase that begins, and what it is about."""
    from compress.core import Phase

    return (event.name, event.detail) if isinstance(event, Phase) else ("", "")


def _ends(event: Any) -> str:
    from compress.core import PhaseDone

    return f"{event.name}, {duration(event.seconds)}" if isinstance(event, PhaseDone) else ""


def _said(event: Any, width: int) -> list[RenderableType]:
    """What is printed and stays: markup, or a table."""
    from compress.core import Table, Warned

    match event:
        case Warned(text=text):
            return [f"[red]warning: {escape(text)}[/]"]
        case Table(title=title, columns=columns, rows=rows):
            head = [str(c) if i == 0 else f">{c}" for i, c in enumerate(columns)]
            return [table_for(width, head, [[str(cell) for cell in row] for row in rows], title=title)]
    said = remark(event)
    return [f"  [dim]{escape(said)}[/]"] if said else []


def _put(console: Console, line: RenderableType) -> None:
    if isinstance(line, str):
        sentence(console, line)
    else:
        console.print(line)
