"""The page's part about layers: widths and branches drawn, what cutting each of them alone does, where the time goes."""

from __future__ import annotations

from functools import partial
from typing import Any

from compress.core import plural
from compress.report import layer_charts, tables
from compress.report.formatting import changed, percent, typeset
from compress.report.model import Report
from compress.report.page_parts import Plot, inline_plot
from compress.report.run_files import LayerTimes


def layers_section(report: Report, times: LayerTimes | None) -> dict[str, Any]:
    """What the template shows of the layers."""
    cut = changed(report)
    lost, total = sum(w.before - w.after for w in report.widths), sum(w.before for w in report.widths)
    said = f"{len(cut)} of {plural(len(report.widths), 'layer')} lost channels, {lost:,} of {total:,} in all."
    gone = [b.name for b in report.branches if b.left_out]
    if report.branches:
        said += f" {len(gone)} of {plural(len(report.branches), 'branch')} beside shortcuts left out."
    return {
        "layers_sentence": said,
        "network": _network(report) if report.widths else None,
        "sensitivity": _sensitivity(report) if report.sensitivity else None,
        "layers": tables.layer_table(report.widths, () if times is None else times.rows),
        **_times(report, times),
    }


def _network(report: Report) -> Plot:
    told = ", ".join(f"{w.layer} {w.before} to {w.after}" for w in changed(report)[:60]) or "no layer lost channels"
    if gone := ", ".join(b.name for b in report.branches if b.left_out):
        told += f"; left out: {gone}"
    known = {w.layer for w in report.widths}
    branches = [b for b in report.branches if {b.first, b.last} <= known]
    svg = inline_plot(
        partial(layer_charts.network, report.widths, branches), "plot-network", "Widths of every layer, before and after", told
    )
    about = "From input to output; as wide as a layer has channels."
    return Plot("The network before and after", about, svg)


def _sensitivity(report: Report) -> Plot:
    told = "; ".join(
        f"{s.layer}: {percent(s.halved, 1)} with half of its channels"
        + ("" if s.chosen is None else f", {percent(s.chosen, 1)} as cut")
        for s in report.sensitivity[:60]
    )
    svg = inline_plot(
        partial(layer_charts.sensitivity, report.sensitivity), "plot-sensitivity", "Sensitivity of every layer", told
    )
    about = (
        "Each layer cut alone, with the weights of the layers that read it solved anew (least squares). "
        "Far to the left, a layer can lose channels at little cost."
    )
    return Plot("How sensitive each layer is", about, svg)


def _times(report: Report, times: LayerTimes | None) -> dict[str, Any]:
    """Why the layers take the time they take; and the kernels that are no layer of the table."""
    if times is None:
        return {"others": None, "why": (), "layer_notes": ()}
    known = {w.layer for w in report.widths}
    rest = [t for t in times.rows if t.name not in known]
    most = max((s for t in times.rows for s in (t.before, t.after) if s is not None), default=0.0)
    sides = [[(t.name, (t.before, t.after)[side] or 0.0) for t in times.rows] for side in (0, 1)]
    other = [sum(s for name, s in side if name not in known) / max(sum(s for _, s in side), 1e-12) for side in sides]
    watched = "from ONNX Runtime's profiler on the CPU"
    if times.runtime.startswith("torch-"):
        watched = f"those of torch's modules one by one on {times.runtime}"
    slow = f"Times are {watched}, which slows what it watches: they are shares of each other"
    rest_of_it = (
        f"kernels that are no layer above take {percent(other[0], 0)} of the time before and {percent(other[1], 0)} after"
    )
    return {
        "others": tables.others_table(rest, most) if rest else None,
        "why": tuple(typeset(text) for text in times.summary),
        "layer_notes": (f"{slow}, not the latencies above; {rest_of_it}.",),
    }
