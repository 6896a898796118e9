"""Reports as CSV, the columns named as timm's own result files name them, so that the same scripts read both."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from compress.core import TOP1, csv_cell
from compress.report.model import Latency, Report

COLUMNS = (
    "model",
    "top1",
    "top1_err",
    "param_count",
    "img_size",
    "infer_samples_per_sec",
    "infer_step_time",
    "infer_batch_size",
    "infer_img_size",
    "infer_gmacs",
    "infer_macts",
)
"""timm's: percent, millions of parameters, milliseconds a batch, 1e9 MACs, 1e6 activations. One of ours comes after them."""
RUNTIME = "runtime"


def to_timm_csv(reports: Mapping[str, Report]) -> str:
    """Two rows a run and measurement: the unpruned network and the pruned one.

    Args:
        reports: name of the run -> its report.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, (*COLUMNS, RUNTIME), lineterminator="\n", restval="")
    writer.writeheader()
    for name, report in reports.items():
        writer.writerows(_rows(name, report))
    return text.getvalue()


def _rows(name: str, report: Report) -> Iterator[dict[str, str]]:
    latency: Sequence[Latency | None] = report.latency or (None,)
    for x in latency:
        for when, size, suffix in (("base", report.before, "base"), ("final", report.after, report.method)):
            row = {"model": csv_cell(f"{name}.{suffix}"), "param_count": f"{size.params / 1e6:.2f}"}
            row["infer_gmacs"] = f"{size.macs / 1e9:.4g}"
            activations = sum(w.activations_before if when == "base" else w.activations_after for w in report.widths)
            row |= {"infer_macts": f"{activations / 1e6:.4g}"} if activations else {}
            if report.image:
                row |= {"img_size": str(report.image[-1]), "infer_img_size": str(report.image[-1])}
            top1 = report.measured(when, "test") if report.figure == TOP1 else None
            if top1 is not None:
                row |= {"top1": f"{100 * top1.value:.3f}", "top1_err": f"{100 - 100 * top1.value:.3f}"}
            if x is not None:
                seconds = x.base_p50 if when == "base" else x.pruned_p50
                row |= {"infer_step_time": f"{1e3 * seconds:.4g}", "infer_batch_size": str(x.batch)}
                row |= {"infer_samples_per_sec": f"{x.batch / seconds:.2f}"} if seconds > 0 else {}
                row |= {RUNTIME: csv_cell(f"{x.runtime} on {x.machine}" if x.machine else x.runtime)}
            yield row
