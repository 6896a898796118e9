"""Plots as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from compress.core import ERROR, Figure
from compress.report import charts
from compress.report.svg import alone, svg_of


def front_drawing(points: Sequence[Mapping[str, Any]], chosen: int, knee: int | None, counted: Figure = ERROR) -> str:
    """The search's front, drawn once for its file and for the page."""
    places = tuple((float(p["macs_share"]), float(p["error"])) for p in points)
    return _front_drawing(places, chosen, knee, counted)


@lru_cache(maxsize=1)
def _front_drawing(places: tuple[tuple[float, float], ...], chosen: int, knee: int | None, counted: Figure) -> str:
    return svg_of(lambda: charts.front(places, chosen, knee, counted))


def front_svg(points: Sequence[Mapping[str, Any]], chosen: int, knee: int | None, counted: Figure = ERROR) -> str:
    """The search's front as a file: error against the share of MACs kept; the chosen point and the knee stand out."""
    return alone(front_drawing(points, chosen, knee, counted))


def comparison_svg(
    methods: Sequence[Mapping[str, Any]], states: Sequence[str], base: float | None, title: str, axis: str = "top-1 accuracy, %"
) -> str:
    """Methods below each other, their figure after every step as a dot with its spread over seeds.

    Args:
        methods: each with ``name`` and ``states``: state -> (mean, standard deviation), as the axis counts.
        states: in the order of a run, the final figure last.
        base: the unpruned network's test figure: a line.
        title: of the figure.
        axis: its label.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "compress", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 1.4 + 0.36 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for i, state in enumerate(states):
            told = [(row, *m["states"][state]) for row, m in enumerate(methods) if state in m["states"]]
            if not told:
                continue
            rows, means, spreads = zip(*told, strict=True)
            final = state == states[-1]
            colour = "#dc2626" if final else matplotlib.colormaps["Blues"](0.35 + 0.6 * (i + 1) / len(states))
            axes.errorbar(
                list(means),
                rows,
                xerr=list(spreads),
                fmt="D" if final else "os^vPX<>"[i % 8],
                color=colour,
                ms=5,
                capsize=2,
                label=state,
            )
        if base is not None:
            axes.axvline(base, color="#6b7280", linewidth=1, linestyle=":", label="unpruned, test")
        axes.set_yticks(range(len(methods)), [m["name"] for m in methods])
        axes.invert_yaxis()
        axes.set_xlabel(axis)
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
