"""A report as a cell of a notebook shows it: the verdict, the red flags, what got smaller, what the network scores."""

from __future__ import annotations

from compress.core import html_table, html_text
from compress.report.formatting import clocked, judged, machine_of, score_title, scores, sizes, speed_in_words
from compress.report.model import Report
from compress.report.red_flags import flags_of, status


def notebook_html(report: Report) -> str:
    """For ``_repr_html_``; without scripts and styles, every name in it text.

    Args:
        report: of a run.
    """
    word, _ = status(report)
    parts = [f"<p><b>{html_text(report.name)}: {html_text(word)}.</b> {html_text(report.verdict)}</p>"]
    if flags := flags_of(report):
        parts.append("<ul>" + "".join(f"<li>⚠ <b>{html_text(f.label)}</b> {html_text(f.text)}</li>" for f in flags) + "</ul>")
    rows = [(row.name, row.before, row.after, row.ratio) for row in sizes(report)]
    for x in report.latency:
        before, _, after = clocked(x).partition(" -> ")
        rows.append((f"{machine_of(x)}, batch {x.batch}", before, after, speed_in_words(x)))
    parts.append(html_table("Before and after", ("", "before", "after", ""), rows))
    if report.scores:
        head = ("network", judged(report, "validation"), judged(report, "test"))
        parts.append(html_table(f"{score_title(report)} after every step", head, scores(report)))
    return "\n".join(parts)
