"""Plots as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def front_svg(points: Sequence[Mapping[str, Any]], chosen: int) -> str:
    """The search's front: error against the share of MACs kept; the chosen point stands out."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "compress", "font.family": "sans-serif"}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        x = [100 * p["macs_share"] for p in points]
        y = [p["error"] for p in points]
        axes.step(x, y, where="post", color="#6b7280", linewidth=1)
        axes.scatter(x, y, color="#2563eb", s=22, zorder=3, label="realisable networks")
        axes.scatter([x[chosen]], [y[chosen]], color="#dc2626", s=60, zorder=4, label="chosen")
        axes.set_xlabel("MACs kept, % of the original")
        axes.set_ylabel(f"error before fine-tuning ({points[chosen]['fidelity']})")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def comparison_svg(
    methods: Sequence[Mapping[str, Any]], states: Sequence[str], base: float | None, title: str, axis: str = "top-1 accuracy, %"
) -> str:
    """Methods below each other, their accuracy after every step as a dot with its spread over seeds.

    Args:
        methods: each with ``name`` and ``states``: state -> (mean, standard deviation).
        states: in the order of a run, the final figure last.
        base: the unpruned network's test accuracy: a line.
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
                [100 * x for x in means],
                rows,
                xerr=[100 * x for x in spreads],
                fmt="D" if final else "os^vPX<>"[i % 8],
                color=colour,
                ms=5,
                capsize=2,
                label=state,
            )
        if base is not None:
            axes.axvline(100 * base, color="#6b7280", linewidth=1, linestyle=":", label="unpruned, test")
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
