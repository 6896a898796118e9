"""Tables that lose nothing on a narrow terminal: no cell is cut off, no word broken, and what does not fit becomes a list."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Cell = str | Text
"""Plain text, or text with colours; never markup."""
_BETWEEN = 3
"""Columns of the terminal that one of the table takes beside its cells."""


def print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str = "") -> None:
    """Prints a table, laid out for the console's width.

    Args:
        console: where.
        head: names of the columns; a leading ``>`` makes one of numbers, which are set to the right and never broken.
        rows: as many cells each; the first one names the row.
        title: above it.
    """
    console.print(table_for(console.width, head, rows, title=title))


def table_for(width: int, head: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str = "") -> RenderableType:
    """The same, to be printed; see :func:`print_table`.

    Args:
        width: columns of the terminal.
        head: as there.
        rows: as there.
        title: as there.
    """
    names, right = [h.removeprefix(">") for h in head], [h.startswith(">") for h in head]
    cells = [[Text(c) if isinstance(c, str) else c for c in row] for row in rows]
    columns = list(zip(*([Text(n) for n in names], *cells), strict=True))
    least = [max(_longest(c, whole=whole) for c in column) for column, whole in zip(columns, right, strict=True)]
    natural = [max(_longest(c, whole=True) for c in column) for column in columns]
    room = width - _BETWEEN * len(head)
    if sum(least) > room:
        return _list(names, cells, title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(title) if title else None, title_justify="left")
    for name, size, to_the_right in zip(names, _fitted(natural, least, room), right, strict=True):
        table.add_column(Text(name), width=max(size, 1), justify="right" if to_the_right else "left")
    for row in cells:
        table.add_row(*row)
    return table


def _longest(cell: Text, *, whole: bool) -> int:
    """Columns of the longest part that must not be broken: a line, or a word."""
    parts = cell.plain.splitlines() if whole else cell.plain.split()
    return max((Text(part).cell_len for part in parts), default=0)


def _fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that fit: the widest columns give way first, none below its longest word."""
    widths = list(natural)
    while sum(widths) > room:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _list(names: Sequence[str], rows: Sequence[Sequence[Text]], title: str) -> RenderableType:
    """Rows below each other: the first cell, and below it each other one after its column's name."""
    parts: list[RenderableType] = [Text(title, style="italic")] if title else []
    for first, *others in rows:
        parts.append(Text.assemble(first, style="bold"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim")
        grid.add_column(overflow="fold")
        for name, cell in zip(names[1:], others, strict=True):
            if cell.plain.strip():
                grid.add_row(Text(f"  {name}".rstrip()), cell)
        parts.append(grid)
    return Group(*parts)
