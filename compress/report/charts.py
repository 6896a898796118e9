"""What the page draws; each takes plain figures and gives a matplotlib figure in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core import ERROR, Measured, plural
from compress.core import Figure as ScoredBy
from compress.report.formatting import STATES, duration, last_kept
from compress.report.model import Latency
from compress.report.svg import (
    BAD,
    BASE,
    CONTROL,
    INK,
    MUTED,
    NARROW,
    PRUNED,
    RULE,
    TEST,
    bare,
    clean,
    figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_DOTS = 600
_ROW = 0.42  # inches


@dataclass(frozen=True, slots=True)
class Dot:
    """A run, or a point of a front, with its intervals; ``x`` and ``y`` are (low, middle, high)."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    marked: bool = False


def dumbbells(rows: Sequence[tuple[str, float, Latency]]) -> Figure:
    """What the MACs promise and what was measured, joined by the distance between them.

    Args:
        rows: label, speed-up that the MACs promise, measurement.
    """
    made, axes = figure(NARROW, 0.95 + _ROW * 1.35 * len(rows))
    for y, (_, promised, found) in enumerate(rows):
        axes.plot([promised, found.speedup], [y, y], color=RULE, linewidth=3, solid_capstyle="round", zorder=1)
        axes.plot([found.low, found.high], [y, y], color=PRUNED, linewidth=1.6, zorder=2)
        axes.plot([promised], [y], "o", ms=9, mfc="none", mec=BASE, mew=2, zorder=3)
        axes.plot([found.speedup], [y], "o", ms=9, color=PRUNED, zorder=4)
        left = found.speedup <= promised
        end = found.low if left else found.high  # beyond the interval, not on it
        for value, place, side, colour in ((found.speedup, end, left, PRUNED), (promised, promised, not left, MUTED)):
            axes.annotate(
                f"{value:.2f}×",
                (place, y),
                (-9 if side else 9, 0),
                textcoords="offset points",
                ha="right" if side else "left",
                va="center",
                color=colour,
                fontweight="bold" if colour == PRUNED else "normal",
            )
    told = [x for _, promised, found in rows for x in (1.0, promised, found.low, found.high)]
    reach = max(max(told) - min(told), 0.2)
    axes.set_xlim(min(told) - 0.24 * reach, max(told) + 0.24 * reach)
    axes.set_ylim(len(rows) - 0.4, -0.75)
    axes.axvline(1.0, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    axes.annotate("as fast as before", (1.0, -0.72), (4, 0), textcoords="offset points", va="top", color=MUTED, size="small")
    axes.set_yticks(range(len(rows)), [clean(label, 30) for label, _, _ in rows])
    axes.set_xlabel("speed-up:  ○ promised by MACs  ● measured")
    bare(axes, grid="x")
    axes.spines["left"].set_visible(False)
    return made


def scores(measured: Sequence[Measured], by: ScoredBy, refused: Collection[str] = ()) -> Figure:
    """The task's figure after every step, with its interval; test apart, and hollow what was taken back."""
    states = [s for s in STATES if any(a.when == s for a in measured)]
    if (last := last_kept(states, refused)) is not None:
        measured = [replace(a, when=last) if a.when == "final" else a for a in measured]
    states = list(dict.fromkeys([*states, *(a.when for a in measured)]))
    made, axes = figure(NARROW, 0.8 + _ROW * len(states))
    scaled = [replace(a, low=by.scale * a.low, value=by.scale * a.value, high=by.scale * a.high) for a in measured]
    for split, colour, shift in (("validation", PRUNED, -0.12), ("test", TEST, 0.12)):
        found = [a for a in scaled if a.split == split]
        if not found:
            continue
        rows = [states.index(a.when) + shift for a in found]
        for y, a in zip(rows, found, strict=True):
            axes.plot([a.low, a.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="round", alpha=0.55)
        shape = "o" if split == "validation" else "D"
        for fill, label in (("full", f"{split}, {plural(found[-1].images, 'image')}"), ("none", None)):
            dots = [(a.value, y) for a, y in zip(found, rows, strict=True) if (a.when in refused) == (fill == "none")]
            places = [x for x, _ in dots], [y for _, y in dots]
            axes.plot(*places, shape, ms=6, color=colour, label=label, fillstyle=fill)
    axes.set_yticks(range(len(states)), [clean(s, 24) for s in states])
    axes.set_ylim(len(states) - 0.5, -0.5)
    low, high = axes.get_xlim()
    if by.share:
        axes.set_xlim(max(low, -2), min(high, 102))
    axes.set_xlabel(f"{by.heading} (95 % interval)")
    bare(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, 1.0 + 0.5 / len(states)), ncols=2, handletextpad=0.2, borderaxespad=0)
    return made


def distribution(arms: Mapping[str, Sequence[float]]) -> Figure:
    """How the samples of the base and the others lie, cut off at the slowest hundredth.

    Args:
        arms: name -> seconds per run; ``base`` and ``base again`` are known.
    """
    made, axes = figure(NARROW, 2.5)
    values = np.concatenate([np.asarray(v) for v in arms.values()])
    top, bottom = float(np.percentile(values, 99)), float(values.min())
    unit, scale = ("µs", 1e6) if top < 1e-3 else ("ms", 1e3) if top < 1 else ("s", 1.0)
    edges = np.linspace(bottom, max(top, bottom * 1.01), 56) * scale
    for name, samples in arms.items():
        heights, _ = np.histogram(np.clip(np.asarray(samples) * scale, edges[0], edges[-1]), edges)
        share = 100 * heights / max(heights.sum(), 1)
        colour = {"base": BASE, "base again": CONTROL}.get(name, PRUNED)
        if name == "base again":
            axes.stairs(share, edges, color=colour, linewidth=1.1, label="base again")
        else:
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            said = f"{clean(name, 24)}, median {duration(float(np.median(samples)))}"
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=said)
    for name, samples in arms.items():
        if name != "base again":
            axes.axvline(float(np.median(samples)) * scale, color=BASE if name == "base" else PRUNED, linewidth=1, zorder=0)
    axes.set_xlabel(f"{unit} a run")
    axes.set_ylabel("% of the rounds")
    axes.set_xlim(edges[0], edges[-1])
    bare(axes, grid="y")
    axes.legend(loc="upper right", handlelength=1.2, borderaxespad=0)
    return made


def rounds(name: str, ratios: Sequence[float], control: Sequence[float], low: float, middle: float, high: float) -> Figure:
    """Base over pruned, and the base over itself, round by round.

    Args:
        name: of the arm that is compared.
        ratios: of the rounds, in order.
        control: of the same rounds.
        low: the interval of the ratio's median.
        middle: the median.
        high: the interval's upper end.
    """
    made, axes = figure(NARROW, 2.5)
    step = max(1, math.ceil(len(ratios) / _MOST_DOTS))
    for series, colour, label in ((control, CONTROL, "base ÷ base again"), (ratios, PRUNED, f"base ÷ {clean(name, 20)}")):
        x, y = np.arange(1, len(series) + 1)[::step], np.asarray(series)[::step]
        # One path of segments without length: their round ends are the dots, at a tenth of the text of as many markers.
        gaps = np.full(len(x), np.nan)
        dots = [np.stack([side, side, gaps], axis=1).ravel() for side in (x, y)]
        axes.plot(*dots, color=colour, linewidth=2.6, solid_capstyle="round", alpha=0.5)
        axes.plot([], [], "o", ms=4, color=colour, label=label)
    axes.axhspan(low, high, color=PRUNED, alpha=0.18, linewidth=0)
    axes.axhline(middle, color=PRUNED, linewidth=1.2)
    axes.axhline(1.0, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    seen = np.concatenate([np.asarray(ratios), np.asarray(control), [1.0, low, high]])
    bottom, top = np.percentile(seen, [2, 98])
    room = max(0.25 * (top - bottom), 0.02)
    axes.set_ylim(min(bottom, low) - room, max(top, high) + room)
    axes.set_xlim(0, len(ratios) + 1)
    axes.set_xlabel("round" + (f" (every {_ordinal(step)} drawn)" if step > 1 else ""))
    axes.set_ylabel("ratio")
    bare(axes, grid="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.1, borderaxespad=0.2)
    return made


def _ordinal(n: int) -> str:
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def front(points: Sequence[tuple[float, float]], chosen: int, knee: int | None, counted: ScoredBy = ERROR) -> Figure:
    """The search's front.

    Args:
        points: share of the MACs kept, and error.
        chosen: index of the point that was made real.
        knee: index of the knee, if there is one.
        counted: what the errors are.
    """
    made, axes = figure(NARROW, 2.7)
    x, y = [100 * macs for macs, _ in points], [counted.scale * error for _, error in points]
    axes.step(x, y, where="post", color=RULE, linewidth=1.4, zorder=1)
    axes.plot(x, y, "o", ms=5, color=BASE, zorder=2)
    axes.plot([x[chosen]], [y[chosen]], "o", ms=9, color=PRUNED, zorder=3)
    marked = {chosen: "chosen"}
    if knee is not None and 0 <= knee < len(points):
        marked[knee] = "chosen, knee" if knee == chosen else "knee"
        axes.plot([x[knee]], [y[knee]], "o", ms=11, mfc="none", mec=INK, mew=1.2, zorder=4)
    for index, label in marked.items():
        right = x[index] < (min(x) + max(x)) / 2
        place = (-4 if right else 4, -18 if index == chosen else 10)  # apart, where the two are neighbours
        axes.annotate(label, (x[index], y[index]), place, textcoords="offset points", ha="left" if right else "right")
    axes.margins(0.09, 0.2)
    axes.set_xlabel("MACs kept, %")
    axes.set_ylabel(", ".join([f"{counted.name} before fine-tuning", *counted.heading.split(", ")[1:]]))
    bare(axes)
    return made


def front_latency(dots: Sequence[Dot], slower: Sequence[tuple[int, int]]) -> Figure:
    """Measured latency of a front's networks against their MACs, both relative to the base.

    Args:
        dots: share of the MACs and of the latency, in %, cheapest first.
        slower: (fewer MACs, more MACs): pairs of which the first is slower all the same.
    """
    made, axes = figure(NARROW, 3.0)
    _crosses(axes, dots, PRUNED)
    wrong = sorted({i for pair in slower for i in pair[:1]})
    if wrong:
        axes.plot([dots[i].x[1] for i in wrong], [dots[i].y[1] for i in wrong], "o", ms=7, color=BAD, zorder=4)
    for few, many in slower:
        axes.plot([dots[few].x[1], dots[many].x[1]], [dots[few].y[1], dots[many].y[1]], color=BAD, linewidth=0.8, zorder=1)
    ends = [0.0, max([100.0, *(side[2] for d in dots for side in (d.x, d.y))])]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": MUTED}
    axes.annotate("as the MACs promise", (ends[1], ends[1]), (-4, -16), size="small", **beside)
    axes.plot([100], [100], "s", ms=6, color=BASE)
    axes.annotate("base", (100, 100), (-7, 3), **beside)
    axes.set_xlim(0, ends[1] * 1.04)
    axes.set_ylim(0, ends[1] * 1.08)
    axes.set_xlabel("MACs, % of the base")
    axes.set_ylabel("latency, % of the base")
    bare(axes)
    return made


def runs(dots: Sequence[Dot], x_label: str, y_label: str) -> Figure:
    """Runs beside each other, named where they stand."""
    made, axes = figure(NARROW, 3.0)
    _crosses(axes, dots, PRUNED)
    middle = np.median([d.x[1] for d in dots])
    for d in dots:
        left = d.x[1] > middle
        place = (-7 if left else 7, 6)
        axes.annotate(clean(d.name, 24), (d.x[1], d.y[1]), place, textcoords="offset points", ha="right" if left else "left")
    axes.margins(0.2, 0.2)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    bare(axes)
    return made


def _crosses(axes: Axes, dots: Sequence[Dot], colour: str) -> None:
    """Dots with their intervals both ways."""
    for d in dots:
        axes.plot([d.x[0], d.x[2]], [d.y[1], d.y[1]], color=colour, linewidth=1.4, alpha=0.55)
        axes.plot([d.x[1], d.x[1]], [d.y[0], d.y[2]], color=colour, linewidth=1.4, alpha=0.55)
        axes.plot([d.x[1]], [d.y[1]], "o", ms=8 if d.marked else 6, color=INK if d.marked else colour, zorder=3)
