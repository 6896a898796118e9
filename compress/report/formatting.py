"""Figures as people read them, and the rows that the terminal and the Markdown file have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from compress.core import TOP1, Certificate, Figure, Measured
from compress.report.model import Latency, Report, Width

NONE = "–"
_FACTOR = re.compile(r"(\d)x\b")
STATES = (
    "base",
    "C-SGD",
    "averaged",
    "cut",
    "trained by stages",
    "batch norm",
    "reconstructed",
    "kernels zeroed",
    "fine-tuned",
)
"""The states of a network in the order in which a run passes through them."""
TRAINED = ("C-SGD", "trained by stages", "fine-tuned")
"""Those that training leads to."""


@dataclass(frozen=True, slots=True)
class SizeRow:
    """One line of the table of sizes.

    Attributes:
        name: what is compared.
        before: of the unpruned network.
        after: of the pruned one.
        ratio: what became of it.
    """

    name: str
    before: str
    after: str
    ratio: str


def number(value: float) -> str:
    """Three digits with a decimal prefix: ``2.93 M``."""
    if not math.isfinite(value):
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{_digits(value / size)} {unit}"
    return f"{value:,.0f}"


def byte_size(value: float) -> str:
    """``472 kB``: decimal prefixes, as file managers have them."""
    return NONE if value <= 0 else f"{number(value)}B" if value >= 1000 else f"{value:.0f} B"


def percent(fraction: float, places: int = 2) -> str:
    """``98.89 %``."""
    return f"{100 * fraction:.{places}f} %" if math.isfinite(fraction) else NONE


def duration(seconds: float) -> str:
    """``3.1 ms``, ``12 s``, ``4 min 05 s``."""
    if not math.isfinite(seconds):
        return NONE
    if seconds == 0:
        return "0 s"
    if seconds < 1e-3:
        return f"{_digits(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{_digits(seconds * 1e3)} ms"
    if seconds < 60:
        return f"{_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def ratio(before: float, after: float) -> str:
    """``÷ 2.04 (49.0 %)``: how many times smaller, and the share that is left."""
    return f"÷ {before / after:.2f} ({after / before:.1%})".replace("%", " %") if before > 0 and after > 0 else NONE


def times(low: float, middle: float, high: float) -> str:
    """``1.42× (1.40 to 1.44)``: a ratio with its interval."""
    return f"{middle:.2f}× ({low:.2f} to {high:.2f})"


def sizes(report: Report) -> tuple[SizeRow, ...]:
    """What got smaller."""
    before, after = report.before, report.after
    return (
        SizeRow("parameters", number(before.params), number(after.params), ratio(before.params, after.params)),
        SizeRow("MACs (one image)", number(before.macs), number(after.macs), ratio(before.macs, after.macs)),
        SizeRow(
            "ONNX file", byte_size(before.onnx_bytes), byte_size(after.onnx_bytes), ratio(before.onnx_bytes, after.onnx_bytes)
        ),
    )


def score_text(measured: Measured, figure: Figure = TOP1) -> str:
    """``91.40 % (90.1 to 92.5)``, ``0.331 px (0.320 to 0.342)``."""
    return f"{figure.text(measured.value)} ({figure.range(measured.low, measured.high)})"


def score_title(report: Report) -> str:
    """What a report's part about scores is called: ``Accuracy``, ``MIoU``, or ``Outputs`` where nothing scores them."""
    name = report.figure.short if report.figure is not None else "outputs"
    return name[:1].upper() + name[1:] if name.islower() else name


def judged(report: Report, split: str) -> str:
    """``validation, 270 images``: what a column of scores was measured on."""
    counts = dict.fromkeys(a.images for a in report.scores if a.split == split)
    return f"{split}, {' or '.join(map(str, counts))} images" if counts else split


def scores(report: Report) -> tuple[tuple[str, str, str], ...]:
    """(state, validation, test) for every state that was measured; a dash where a split was not.

    The test split is read once, for the base and the final network: the final one is the last state that was not taken back.
    """
    found = {(a.when, a.split): score_text(a, report.scored_by) for a in report.scores}
    states = [s for s in STATES if any(when == s for when, _ in found)]
    last = last_kept(states, report.refused)
    if ("final", "test") in found and last is not None and (last, "test") not in found:
        found[last, "test"] = found.pop(("final", "test"))
    states += [when for when, _ in found if when not in STATES]
    names = {s: f"{s}, taken back" if s in report.refused else s for s in states}
    return tuple((names[s], found.get((s, "validation"), NONE), found.get((s, "test"), NONE)) for s in dict.fromkeys(states))


def last_kept(states: Sequence[str], refused: Collection[str]) -> str | None:
    """Of several states, first to last, the one that the final network is; None where there is the base alone."""
    kept = [s for s in states if s not in refused]
    return kept[-1] if len(kept) > 1 else None


def clocked(latency: Latency) -> str:
    """``63.9 µs -> 51.1 µs``: a batch before and after, by the clock that decides."""
    before, after = latency.typical
    return f"{duration(before)} -> {duration(after)}"


def clock_name(clock: str) -> str:
    """What a clock is called: ``CPU time``."""
    return f"{'CPU' if clock == 'cpu' else clock} time"


def speed_in_words(latency: Latency) -> str:
    """The verdict of one runtime in words."""
    speed = times(latency.low, latency.speedup, latency.high)
    said = {"different": "faster" if latency.speedup > 1 else "slower", "same": "the same"}
    return f"{said.get(latency.verdict, latency.verdict)}: {speed}"


def expected(report: Report) -> str:
    """What the MACs promise beside what was measured."""
    promise = f"MACs promise {report.speedup_macs:.2f}×"
    if not report.latency:
        return f"{promise}; latency was not measured"
    return "; ".join(
        [promise, *(f"{machine_of(x)} measured {times(x.low, x.speedup, x.high)} (batch {x.batch})" for x in report.latency)]
    )


def certified(found: Certificate) -> str:
    """The certificate as a sentence."""
    figure = found.figure
    if found.disagree is not None:
        seen = f"the pruned network disagrees with the unpruned one on {found.disagree} of {found.images}"
    else:
        seen = f"the answers changed by {figure.difference(found.change or 0.0)}, as {figure.name} counts, on {found.images}"
    worse = "dropped" if figure.higher else "rose"
    return (
        f"{figure.name} {worse} by at most {figure.difference(found.bound)} ({percent(found.confidence, 0)} confidence, "
        f"no labels used): {seen} ({found.source})"
    )


def wanted(report: Report) -> str:
    """``at most 50 % of the MACs``; an allowed drop as it was given."""
    share, names = report.job.get("value"), {"macs": "MACs", "params": "parameters", "latency": "latency"}
    name = names.get(str(report.job.get("target")))
    return (
        typeset(report.target) if name is None or not isinstance(share, float) else f"at most {100 * share:g} % of the {name}"
    )


def kept(report: Report) -> str:
    """``keeps 46.27 % of the MACs``; a drop in accuracy is no share, so there it is the MACs as well."""
    names = {"params": "parameters", "latency": "predicted latency"}
    return f"keeps {percent(report.reached)} of the {names.get(str(report.job.get('target')), 'MACs')}"


def changed(report: Report) -> tuple[Width, ...]:
    """The layers that lost channels."""
    return tuple(w for w in report.widths if w.after != w.before)


def _digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def efficiency(promised: float, measured: float) -> float | None:
    """How much of the speed-up that the MACs promise arrived; None where they promise next to nothing.

    (measured speed-up - 1) / (MACs speed-up - 1): 1 is all of it, 0 none, below 0 is slower.
    """
    return (measured - 1) / (promised - 1) if promised > 1.01 else None


def machine_of(latency: Latency) -> str:
    """``ort-cpu`` here, ``ort-cuda on NVIDIA L4, model-fp16.onnx`` elsewhere."""
    where = f"{latency.runtime} on {latency.machine}" if latency.machine else latency.runtime
    return f"{where}, {latency.file}" if latency.file else where


_RUNTIMES = {
    "ort-cpu": ("ONNX Runtime", "the CPU"),
    "ort-cuda": ("ONNX Runtime", "the GPU"),
    "ort-tensorrt": ("TensorRT", "the GPU"),
    "torch-cpu": ("PyTorch", "the CPU"),
    "torch-cuda": ("PyTorch", "the GPU"),
}


def machine_in_words(latency: Latency) -> str:
    """``ONNX Runtime on the CPU``, where a sentence is read before any table; a runtime of another name keeps it."""
    name, _, how = latency.runtime.partition(" ")
    if name not in _RUNTIMES:
        return machine_of(latency)
    runs, there = _RUNTIMES[name]
    said = f"{runs} on {latency.machine or there}" + (f" {how}" if how else "")
    return f"{said}, {latency.file}" if latency.file else said


def typeset(text: str) -> str:
    """A sentence's plain signs as people read them: ``2.00×`` for ``2.00x``, arrows, ``≤``, no line's end before ``%``."""
    return _FACTOR.sub(r"\1×", text).replace(" -> ", " → ").replace("<=", "≤").replace(" %", "\u00a0%")


def plain(value: object) -> str:
    """Any setting or fact on one line."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items()) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value) or NONE
    return str(value)
