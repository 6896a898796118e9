"""A report's red flags by kind, and the one word for its first measurement."""

from __future__ import annotations

from dataclasses import dataclass

from compress.report.formatting import score_title
from compress.report.model import Report
from compress.report.verdict import useful

FLAGS = (
    ("parity", "Parity", ("parity",)),
    ("lost", "Score lost", ("of no use",)),
    ("chance", "At chance", ("told from chance",)),
    ("fallback", "Fallback", ("fallback", "not available here")),
    ("slower", "Slower", ("slower than the unpruned",)),
    ("plain", "Not the fastest", ("slower than the plainest",)),
    ("speed", "Not faster", ("not measurably faster",)),
    ("score", "Score", ("accuracy", "points", "certifies", "scored", "not measured:", "were allowed")),
    ("noise", "Noisy", ("noisy", "contended", "contaminated", "drift", "unsettled", "throttled", "quota", "few rounds")),
)
"""Kinds of red flags, most serious first: key, what the page calls them, words that tell them."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One red flag."""

    label: str
    text: str


def flags_of(report: Report) -> tuple[Flag, ...]:
    """The red flags, most serious first, each with a word for what it is."""
    kinds = [kind_of_flag(text) for text in report.warnings]
    order = sorted(range(len(kinds)), key=lambda i: (kinds[i][0], i))
    return tuple(Flag(kinds[i][1], report.warnings[i]) for i in order)


def kind_of_flag(text: str) -> tuple[int, str]:
    """How serious a flag is, 0 most, and what the page calls it."""
    low = text.lower()
    for place, (_, label, words) in enumerate(FLAGS):
        if any(word in low for word in words):
            return place, f"{label} inconclusive" if "inconclusive" in low and label == "Parity" else label
    return len(FLAGS), "Warning"


def status(report: Report) -> tuple[str, bool]:
    """One word for the first measurement, and whether it is good news; no speed is, of a network that is of no use."""
    if not useful(report.warnings):
        at_chance = any(flag.label == "At chance" for flag in flags_of(report))
        return "At chance" if at_chance else f"{score_title(report)} lost", False
    if not report.latency:
        return "Latency not measured", False
    first = report.latency[0]
    if first.verdict == "different" and first.low > 1:
        return "Faster", True
    return ("Slower", False) if first.high <= 1 else ("Not measurably faster", False)
