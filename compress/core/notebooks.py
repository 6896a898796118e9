"""What a notebook shows of plain data: a table as HTML, every cell of it text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from compress.core.text import printable

MOST_ROWS = 40
"""Rows that are shown; the others are counted."""


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table for ``_repr_html_``.

    Args:
        caption: above it.
        head: names of the columns.
        rows: cells; from the ``MOST_ROWS``-th on they are only counted.
    """
    listed = list(rows)
    lines = [f"<table><caption>{html_text(caption)}</caption>", _row("th", head)]
    lines += [_row("td", row) for row in listed[:MOST_ROWS]]
    if len(listed) > MOST_ROWS:
        lines.append(_row("td", [f"and {len(listed) - MOST_ROWS:,} more", *[""] * (len(head) - 1)]))
    return "\n".join([*lines, "</table>"])


def html_text(text: object) -> str:
    """Text as an element holds it: no tag, no entity, nothing unseen."""
    return escape(printable(text))


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html_text(cell)}</{tag}>" for cell in cells) + "</tr>"
