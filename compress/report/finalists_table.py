"""The last choice of a search as a table: what plans were worth before and after short trainings."""

from __future__ import annotations

from compress.core import Figure, plural
from compress.report.candidates import Finalist, Finalists, FinalistScore
from compress.report.formatting import NONE, number, percent
from compress.report.tables import Cell, ReportTable, heads


def finalists_table(found: Finalists, counted: Figure) -> ReportTable:
    """One row a plan, one column a round.

    Args:
        found: of a report.
        counted: what errors are counted in.
    """
    lengths = sorted({s.steps for row in found.rows for s in row.scores})
    timed = any(row.latency is not None for row in found.rows)
    head = heads("plan", ">MACs kept", *([">latency, predicted"] if timed else []), ">untrained", *_columns(lengths))
    return ReportTable(
        title="Finalists, trained a little before one was taken",
        about=f"{counted.heading}, on {plural(found.images, 'validation image')} (95 % intervals). {told(found)}.",
        head=head,
        rows=tuple(_row(row, lengths, counted, timed) for row in found.rows),
    )


def told(found: Finalists) -> str:
    """What it cost, and who was taken why."""
    won = next((row.name for row in found.rows if row.won), NONE)
    cost = f"{plural(found.steps, 'training step')} in all, {number(found.image_forwards)} image-forwards"
    return f"{cost}; taken: {won}" + (f" ({found.why})" if found.why else "")


def _columns(lengths: list[int]) -> tuple[str, ...]:
    return tuple(f">after {plural(steps, 'step')}" for steps in lengths)


def _row(row: Finalist, lengths: list[int], counted: Figure, timed: bool) -> tuple[Cell, ...]:
    scores = {s.steps: s for s in row.scores}
    return (
        Cell(text=row.name, about="taken" if row.won else ""),
        Cell(text=percent(row.macs, 1), sort=row.macs),
        *([Cell(text=NONE if row.latency is None else percent(row.latency, 1))] if timed else []),
        Cell(text=NONE if row.untrained is None else counted.number(row.untrained)),
        *(Cell(text=_score(scores.get(steps), counted), whole=True) for steps in lengths),
    )


def _score(score: FinalistScore | None, counted: Figure) -> str:
    if score is None or score.error is None:
        return "" if score is None else NONE
    if score.low is None or score.high is None:
        return counted.number(score.error)
    return f"{counted.number(score.error)} ({counted.range(score.low, score.high)})"
