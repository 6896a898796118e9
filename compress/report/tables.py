"""The tables of the page, as plain data: what stands in a cell, what it sorts by, how long its bars are."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.core import ERROR, Figure
from compress.export import Precisions
from compress.report.candidates import FrontLatency
from compress.report.formatting import (
    NONE,
    byte_size,
    clock_name,
    duration,
    efficiency,
    judged,
    machine_of,
    number,
    percent,
    score_title,
    scores,
    speed_in_words,
    times,
)
from compress.report.model import Latency, Report, Width
from compress.report.run_files import RawComparison, Timed
from compress.report.verdict import useful

_RATES = re.compile(r"(\d+)% of the best compute rate here, (\d+)% of the best memory rate")
_BLOCK = 32
"""Kernels of common processors work on 4 to 32 channels at once: alignment beyond it gains nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        sort: what it sorts by, where that is not its text.
        tone: class names.
        whole: it is not broken over lines.
        bars: lengths of bars before the text, in [0, 1].
        about: a remark below it.
    """

    text: str
    sort: float | None = None
    tone: str = ""
    whole: bool = False
    bars: tuple[float, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column's head; numbers stand to the right."""

    name: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table with its caption; ``named`` is the column that names the row."""

    title: str
    about: str
    head: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False
    named: int = 0


def heads(*names: str) -> tuple[Column, ...]:
    """Columns from names; a leading ``>`` makes one of numbers."""
    return tuple(Column(name.removeprefix(">"), name.startswith(">")) for name in names)


def score_table(report: Report) -> ReportTable:
    """The task's figure after every step."""
    rows = tuple(tuple(_score_cell(text, whole=i > 0) for i, text in enumerate(row)) for row in scores(report))
    head = heads("network", f">{judged(report, 'validation')}", f">{judged(report, 'test')}")
    about = "95 % intervals; the test images are read once, for the last figure."
    return ReportTable(title=f"{score_title(report)} after every step", about=about, head=head, rows=rows)


def _score_cell(text: str, *, whole: bool) -> Cell:
    """The interval below its value: beside it both would be wider than half a page where a figure is near 100 %."""
    value, _, interval = text.partition(" (")
    return Cell(text=value, whole=whole, about=f"({interval}" if interval else "")


def ratio_table(report: Report) -> ReportTable:
    """Measured beside promised, per comparison."""
    rows = []
    for x in report.latency:
        share = efficiency(report.speedup_macs, x.speedup)
        rows.append(
            (
                Cell(text=machine_of(x)),
                Cell(text=str(x.batch)),
                Cell(text=times(x.low, x.speedup, x.high), sort=x.speedup, tone=tone(report, x), whole=True),
                Cell(text=_in_a_word(x), about=f"by {clock_name(x.clock)}"),
                Cell(text=NONE if share is None else percent(share, 0)),
                Cell(text=times(x.control_low, x.control, x.control_high), whole=True),
            )
        )
    head = heads("runtime", ">batch", ">speed-up (95 %)", "verdict", ">efficiency", ">base against itself")
    about = "Efficiency: (measured speed-up − 1) ÷ (MACs speed-up − 1)."
    return ReportTable(title="Measured against promised", about=about, head=head, rows=tuple(rows))


def _in_a_word(x: Latency) -> str:
    return x.verdict if x.verdict != "different" else "faster" if x.speedup > 1 else "slower"


def tone(report: Report, x: Latency) -> str:
    """Green only for what is certainly faster, and of any use."""
    if x.verdict == "different" and x.low > 1:
        return "good-text" if useful(report.warnings) else ""
    return "bad-text" if x.high <= 1 else ""


def arm_table(report: Report, results: Sequence[RawComparison]) -> ReportTable:
    """Every file that was clocked; from the raw samples where they are there."""
    head = heads(
        "file",
        "runtime and provider",
        ">batch",
        ">threads",
        ">p50",
        ">wall p50",
        ">wall p90",
        ">wall p95",
        ">wall p99",
        ">images/s",
        ">load",
        ">first run",
    )
    rows: list[tuple[Cell, ...]] = []
    for each in results:
        result = each.result
        clock = next(iter(result.ratios.values()), result.control).decided_by
        for arm in result.arms:
            found = arm.latency
            p99 = NONE if found.p99 is None else duration(found.p99)
            texts = [str(result.settings.batch), str(result.environment.threads or NONE)]
            decisive = arm.cpu if clock == "cpu" else arm.wall
            texts += [duration(x) for x in (statistics.median(decisive), found.p50, found.p90, found.p95)]
            texts += [
                p99,
                f"{arm.images_per_second:,.0f}",
                duration(arm.load_seconds),
                duration(arm.first_run_seconds),
            ]
            where = ", ".join(filter(None, (result.runtime, arm.providers[0], each.machine, arm.fallback and "fallback")))
            named = Cell(text=arm.name), Cell(text=where, tone="bad-text" if arm.fallback else "")
            rows.append((*named, *(Cell(text=t, whole=True) for t in texts)))
    if not results:
        for x in report.latency:
            before, after = x.typical
            for name, typical, p50, p90 in (
                ("base", before, x.base_p50, x.base_p90),
                ("pruned", after, x.pruned_p50, x.pruned_p90),
            ):
                texts = [str(x.batch), str(x.threads or NONE), duration(typical), duration(p50), duration(p90), NONE, NONE]
                texts += [f"{x.batch / p50:,.0f}" if p50 > 0 else NONE, NONE, NONE]
                rows.append((Cell(text=name), Cell(text=machine_of(x)), *(Cell(text=t, whole=True) for t in texts)))
    about = (
        "p50 is by the clock that decides, named above; wall time a batch is what a user waits for, a busy processor included. "
        "“base again” is the same file as the base. p99 from 1,000 rounds on."
    )
    return ReportTable(title="Every file that was clocked", about=about, head=head, rows=tuple(rows))


def grid_table(report: Report) -> ReportTable | None:
    """Speed-ups by runtime and batch, where more than one batch was measured."""
    batches = sorted({x.batch for x in report.latency})
    if len(batches) < 2:
        return None
    names = list(dict.fromkeys(machine_of(x) for x in report.latency))
    found = {(machine_of(x), x.batch): x for x in report.latency}
    rows = []
    for name in names:
        cells = [found.get((name, batch)) for batch in batches]
        texts = [Cell(text=NONE) if x is None else Cell(text=speed_in_words(x), tone=tone(report, x)) for x in cells]
        rows.append((Cell(text=name), *texts))
    return ReportTable(
        title="Speed-up by batch",
        about="95 % intervals.",
        head=heads("runtime", *(f">batch {b}" for b in batches)),
        rows=tuple(rows),
    )


def precision_table(found: Precisions, *, of_use: bool = True) -> ReportTable:
    """Other precisions of the pruned network: what they had to pass, and how fast they are beside fp32 at every batch.

    Args:
        found: in the run's folder.
        of_use: whether the network is worth a green word.
    """
    batches = sorted({batch for _, batch in found.grid()})
    rows = []
    for entry in found.entries:
        score = NONE
        if entry.score is not None and entry.drop is not None:
            change = -entry.drop if entry.figure.higher else entry.drop
            score = f"{entry.figure.text(entry.score)} ({entry.figure.signed(change)})"
        agreement = NONE if entry.agreement is None else percent(entry.agreement, 1)
        cells = [
            Cell(text=entry.precision, about=f"{entry.verdict}: {entry.message}"),
            Cell(text=byte_size(entry.bytes)),
            Cell(text=score),
        ]
        cells.append(Cell(text=agreement))
        for batch in batches:
            x = found.grid().get((entry.precision, batch))
            good = "good-text" if of_use and x is not None and x.direction == "faster" else ""
            bad = "bad-text" if x is not None and x.direction == "slower" else ""
            cells.append(
                Cell(text=NONE)
                if x is None
                else Cell(text=f"{x.direction}: {times(x.low, x.speedup, x.high)}", tone=good or bad)
            )
        rows.append(tuple(cells))
    name = next((e.figure.name for e in found.entries if e.score is not None), "score")
    head = heads("precision", ">file", f">{name}", ">agrees with fp32", *(f">batch {b}" for b in batches))
    about = f"Speed-ups are against {found.source} in fp32, {byte_size(found.source_bytes)}, not against the unpruned network."
    return ReportTable(title="Batch × precision", about=about, head=head, rows=tuple(rows))


def alignment(channels: int) -> int:
    """The largest power of two, up to 32, that divides a width: how wide a kernel its channels fill."""
    return min(channels & -channels, _BLOCK) if channels > 0 else 0


def layer_table(layers: Sequence[Width], times: Sequence[Timed] = ()) -> ReportTable:
    """Every layer before and after.

    Args:
        layers: in forward order.
        times: from the profiles; without them the columns of times are left out.
    """
    names = ["layer", ">channels", ">aligned to", ">MACs", ">activations left"]
    timed = {t.name: t for t in times}
    most = _longest(times)
    rows = []
    for number_, w in enumerate(layers, 1):
        changed = w.before != w.after
        aligned = alignment(w.after)
        odd = aligned < 4 and w.after > 4 and changed
        cells = [
            Cell(text=str(number_), sort=number_),
            Cell(text=w.layer, about=", ".join(filter(None, (w.kind.replace("_", " "), w.note)))),
            Cell(text=_from_to(f"{w.before:,}", f"{w.after:,}"), sort=w.after, tone="cut" if changed else "", whole=True),
            Cell(text=str(aligned), sort=aligned, tone="bad-text" if odd else ""),
            Cell(
                text=_from_to(number(w.macs_before), number(w.macs_after)),
                sort=w.macs_after,
                whole=True,
                about=f"{_share(w.macs_after, w.macs_before)} left" if w.macs_before else "",
            ),
            Cell(
                text=_share(w.activations_after, w.activations_before), sort=w.activations_after / max(w.activations_before, 1)
            ),
        ]
        if times:
            cells += _timed(timed.get(w.layer, Timed(name=w.layer, before=None, after=None)), most)
        rows.append(tuple(cells))
    if times:
        names += [">time", ">time left", "what binds it"]
    about = (
        "In forward order; the heads sort. “Aligned to”: the largest power of two that divides the channels left; "
        "below 4 the fast kernels are lost. “What binds it” gives the shares of the best rates that any layer reached here."
    )
    return ReportTable(
        title="Layers before and after", about=about, head=heads(">#", *names), rows=tuple(rows), sortable=True, named=1
    )


def others_table(times: Sequence[Timed], most: float) -> ReportTable:
    """Kernels that are no convolution or linear layer: additions, pooling, norms, changes of how numbers lie in memory."""
    ordered = sorted(times, key=lambda t: -max(t.before or 0, t.after or 0))
    rows = tuple((Cell(text=t.name.strip("()")), *_timed(t, most)) for t in ordered)
    about = (
        "Next to no MACs, and time all the same; Reorder kernels change how numbers lie in memory for the layer beside them."
    )
    return ReportTable(
        title="Other kernels",
        about=about,
        head=heads("kernel", ">time", ">time left", "what binds it"),
        rows=rows,
        sortable=True,
    )


def front_table(points: Sequence[Mapping[str, float]], chosen: int, knee: int, counted: Figure = ERROR) -> ReportTable:
    """The front's networks, by the numbers that ``compress pick --index`` takes."""
    marks = {knee: "knee", chosen: "chosen"} if knee != chosen else {chosen: "chosen, knee"}
    rows = []
    for i, p in enumerate(points):
        cells = [
            Cell(text=str(i)),
            Cell(text=percent(p["macs_share"], 1)),
            Cell(text=percent(p["params_share"], 1)),
            Cell(text=counted.text(p["error"], 1)),
        ]
        rows.append((*cells, Cell(text=marks.get(i, ""), tone="cut" if i == chosen else "")))
    head = heads("point", ">MACs kept", ">params kept", f">{counted.name}", "")
    return ReportTable(
        title="Networks on the front", about="Make one real with compress pick RUN --index POINT.", head=head, rows=tuple(rows)
    )


def front_latency_table(found: FrontLatency) -> ReportTable:
    """The front's networks as they were clocked."""
    worse = dict(found.slower)
    rows = []
    for p in found.points:
        arrived = efficiency(1 / p.macs, 1 / p.latency) if p.macs > 0 and p.latency > 0 else None
        cells = [Cell(text=percent(p.macs, 1), sort=p.macs), Cell(text=percent(p.activations, 1), sort=p.activations)]
        cells.append(
            Cell(text=f"{percent(p.latency, 1)} ({100 * p.low:.1f} to {100 * p.high:.1f})", sort=p.latency, whole=True)
        )
        cells.append(Cell(text=NONE if arrived is None else percent(arrived, 0), sort=arrived))
        note = f"slower than {worse[p.index]}" if p.index in worse else ""
        rows.append((Cell(text=str(p.index), tone="bad-text" if note else "", about=note), *cells))
    head = heads("point", ">MACs", ">activations", ">latency (95 %)", ">efficiency")
    return ReportTable(
        title="Shares of the base", about="Made real without training and clocked in turn.", head=head, rows=tuple(rows)
    )


def _longest(times: Sequence[Timed]) -> float:
    return max((t for row in times for t in (row.before, row.after) if t is not None), default=0.0)


def _timed(t: Timed, most: float) -> list[Cell]:
    texts = [NONE if s is None else duration(s) for s in (t.before, t.after)]
    bars = tuple((s or 0.0) / most for s in (t.before, t.after)) if most > 0 and texts != [NONE, NONE] else ()
    left = t.after / t.before if t.before and t.after is not None else None
    slower = "bad-text" if left is not None and left > 1.02 else ""
    clock = Cell(text=NONE if texts == [NONE, NONE] else " → ".join(texts), sort=t.after, whole=True, bars=bars)
    return [
        clock,
        Cell(text=NONE if left is None else percent(left, 0), sort=left, tone=slower),
        Cell(text=t.binds, about=_RATES.sub(r"\1 % compute, \2 % memory", t.why)),
    ]


def _from_to(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _share(after: float, before: float) -> str:
    return percent(after / before, 0) if before > 0 else NONE
