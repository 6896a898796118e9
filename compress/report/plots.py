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
        axes.set_ylabel(f"error before recovery ({points[chosen]['fidelity']})")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
