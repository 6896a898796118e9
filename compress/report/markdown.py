"""A report as Markdown: what goes into a pull request or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from compress.report.figures import (
    NONE,
    accuracies,
    certified,
    changed,
    clocked,
    duration,
    expected,
    judged,
    percent,
    sizes,
    times,
)
from compress.report.model import Report

_REPOSITORY_LINE = "Made by compress (smaller-convnets)."


def markdown(report: Report) -> str:
    """The whole report, verdict and red flags first."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {_text(report.name)}"
    yield ""
    yield f"**{_text(report.verdict)}**"
    yield ""
    for warning in report.warnings:
        yield f"> ⚠️ **{_text(warning)}**"
        yield ">"
    yield ""
    yield (
        f"{_text(report.architecture)} pruned by {_text(report.method)}, asked for {_text(report.target)}, "
        f"reached {percent(report.reached)}. Images: {_text(report.data)}."
    )
    yield ""
    yield f"{_text(expected(report))}."
    yield ""
    yield from _table(("", "before", "after", ""), [(r.name, r.before, r.after, r.ratio) for r in sizes(report)])
    yield from _section("Accuracy")
    if report.accuracy:
        yield from _table(("top-1 (95 % interval)", judged(report, "validation"), judged(report, "test")), accuracies(report))
    else:
        yield "Not measured."
        yield ""
    if report.certificate is not None:
        yield f"Certificate: {_text(certified(report.certificate))}."
        yield ""
    yield from _section("Latency")
    if report.latency:
        head = ("runtime", "batch", "threads", "before p50 / p90", "after p50 / p90", "verdict", "same file twice")
        yield from _table(
            head,
            [
                (
                    f"{x.runtime}, {x.rounds} rounds by {x.clock} time",
                    str(x.batch),
                    str(x.threads),
                    f"{duration(x.base_p50)} / {duration(x.base_p90)}",
                    f"{duration(x.pruned_p50)} / {duration(x.pruned_p90)}",
                    clocked(x),
                    times(x.control_low, x.control, x.control_high),
                )
                for x in report.latency
            ],
        )
        for flag in dict.fromkeys(f"{x.runtime}: {f}" for x in report.latency for f in x.flags):
            yield f"- {_text(flag)}"
        yield ""
    else:
        yield "Not measured."
        yield ""
    yield from _section("Widths")
    yield f"{len(changed(report))} of {len(report.widths)} layers lost channels."
    yield ""
    yield from _table(
        ("layer", "before", "after", "note"), [(w.layer, str(w.before), str(w.after), w.note) for w in report.widths]
    )
    yield from _section("Proof")
    yield from _facts("The ONNX file against torch", report.parity)
    yield from _facts("The cut network against the masked one", report.guard)
    yield ""
    yield from _section("Run")
    yield from _facts("Search", report.search)
    yield from _facts("Time", {name: duration(seconds) for name, seconds in report.seconds.items()})
    for note in report.notes:
        yield f"- {_text(note)}"
    yield ""
    if report.command:
        yield "```"
        yield report.command
        yield "```"
        yield ""
    yield from _table(("setting", "value"), [(k, _value(v)) for k, v in report.job.items()])
    yield from _section("Machine and versions")
    yield from _table(("", ""), [(k, _value(v)) for k, v in report.environment.items()])
    yield from _section("Digests")
    yield from _table(("of", "digest"), [(k, f"`{v}`") for k, v in report.digests.items()])
    yield from _section("Cite")
    yield f"{_text(report.citation)}"
    yield ""
    yield _REPOSITORY_LINE


def _section(title: str) -> tuple[str, str]:
    return f"## {title}", ""


def _facts(title: str, facts: Mapping[str, object]) -> Iterator[str]:
    yield f"- {title}: " + ("; ".join(f"{k} {_value(v)}" for k, v in facts.items()) or NONE)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(_cell(c) for c in head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(c) for c in row) + " |"
    yield ""


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """One line: names come from files and may hold anything."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _value(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value) or NONE
    return str(value)
