"""What the page draws of the layers: the network's widths, the branches beside its shortcuts, each layer's sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.report.model import BranchSpan, Sensitivity, Width
from compress.report.svg import BAD, BASE, INK, MUTED, NARROW, PRUNED, RULE, bare, clean, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 60
_FLOOR = 1e-4
"""Below it an error is drawn as so much: nothing is lost."""


def _height(rows: int) -> float:
    """Inches a row: readable names as long as they fit, else as little as a bar takes."""
    return 0.2 if rows <= 30 else 0.165 if rows <= _NAMED else 0.07


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Layers from top to bottom, by name where there are few, else by their numbers in the table."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    if len(names) <= _NAMED:
        axes.set_yticks(range(len(names)), [clean(name, 26) for name in names], size="small")
    else:
        axes.set_yticks(range(9, len(names), 10), [str(i + 1) for i in range(9, len(names), 10)])
        axes.set_ylabel("layer, numbered as in the table")


def network(layers: Sequence[Width], branches: Sequence[BranchSpan] = ()) -> Figure:
    """The network from top to bottom: each layer as wide as it has channels, before and after, and branches as brackets.

    Args:
        layers: in forward order.
        branches: beside shortcuts; those that are left out are drawn in red, and their layers empty.
    """
    made, axes = figure(NARROW, 0.9 + _height(len(layers)) * len(layers))
    place = {w.layer: i for i, w in enumerate(layers)}
    gone = {name for b in branches if b.left_out for name in b.layers}
    widest = max((w.before for w in layers), default=1) or 1
    for row, w in enumerate(layers):
        lost = w.layer in gone
        box = {"height": 0.72, "align": "center"}
        axes.barh(row, w.before, left=-w.before / 2, color=BASE, alpha=0.25, **box)
        if not lost:
            axes.barh(row, w.after, left=-w.after / 2, color=PRUNED, alpha=0.8, **box)
        axes.barh(
            row,
            w.before,
            left=-w.before / 2,
            fill=False,
            edgecolor=BAD if lost else BASE,
            linewidth=0.8,
            linestyle=(0, (3, 2)) if lost else "solid",
            **box,
        )
        if len(layers) <= _NAMED:
            said = "out" if lost else f"{w.before}→{w.after}" if w.before != w.after else f"{w.before}"
            beside = {"va": "center", "size": "x-small", "color": BAD if lost else INK if w.before != w.after else MUTED}
            axes.annotate(said, (w.before / 2, row), (3, 0), textcoords="offset points", **beside)
    lanes = _lanes([(place[b.first], place[b.last]) for b in branches])
    for b, lane in zip(branches, lanes, strict=True):
        x, colour = widest * (0.72 + 0.07 * lane), BAD if b.left_out else MUTED
        first, last = place[b.first] - 0.4, place[b.last] + 0.4
        stub = x - 0.03 * widest
        style = (0, (3, 2)) if b.left_out else "solid"
        axes.plot([stub, x, x, stub], [first, first, last, last], color=colour, linewidth=1.2, linestyle=style)
    axes.set_xlim(-widest * 0.52, widest * (0.76 + 0.07 * max(lanes, default=0)))
    _rows(axes, [w.layer for w in layers])
    axes.set_xticks([])
    bare(axes, grid="none")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _legend(axes, branches, any(b.left_out for b in branches))
    return made


def _legend(axes: Axes, branches: Sequence[BranchSpan], some_gone: bool) -> None:
    axes.plot([], [], "s", ms=7, color=PRUNED, label="kept")
    axes.plot([], [], "s", ms=7, color=BASE, alpha=0.4, label="removed")
    if branches:
        axes.plot([], [], color=MUTED, linewidth=1.2, label="beside a shortcut")
    if some_gone:
        axes.plot([], [], color=BAD, linewidth=1.2, linestyle=(0, (3, 2)), label="left out")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, handlelength=1.2, columnspacing=0.9, borderaxespad=0.3)


def _lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
    """A column for each bracket, so that those that overlap stand beside each other."""
    ends: list[int] = []
    found = []
    for first, last in spans:
        lane = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        found.append(lane)
    return found


def sensitivity(rows: Sequence[Sensitivity]) -> Figure:
    """What cutting one layer alone does to those that read it: half of its channels, and as many as went.

    Args:
        rows: in forward order.
    """
    made, axes = figure(NARROW, 0.9 + _height(len(rows)) * len(rows))
    for y, row in enumerate(rows):
        ends = [max(row.halved, _FLOOR), max(row.chosen if row.chosen is not None else row.halved, _FLOOR)]
        axes.plot(ends, [y, y], color=RULE, linewidth=2.4, solid_capstyle="round", zorder=1)
        axes.plot([ends[0]], [y], "o", ms=6, mfc="none", mec=BASE, mew=1.5, zorder=2)
        if row.chosen is not None:
            axes.plot([ends[1]], [y], "o", ms=6, color=PRUNED, zorder=3)
    axes.set_xscale("log")
    worst = max([1.0, *(e for row in rows for e in (row.halved, row.chosen) if e is not None)])
    axes.set_xlim(_FLOOR / 1.5, 1.5 * worst)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    _rows(axes, [row.layer for row in rows])
    axes.set_xlabel("relative error of what reads the layer")
    axes.plot([], [], "o", ms=6, mfc="none", mec=BASE, mew=1.5, label="half of its channels gone")
    axes.plot([], [], "o", ms=6, color=PRUNED, label="as many as went")
    bare(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, handletextpad=0.2, borderaxespad=0.3)
    return made
