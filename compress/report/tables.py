"""The tables of the page, as plain data: what stands in a cell, what it sorts by, how long its bars are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.report.evidence import Clocked
from compress.report.figures import (
    NONE,
    accuracies,
    clocked,
    duration,
    efficiency,
    judged,
    machine_of,
    number,
    percent,
    times,
)
from compress.report.model import Latency, Report, Width

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
        bars: lengths of bars above the text, in [0, 1].
    """

    text: str
    sort: float | None = None
    tone: str = ""
    whole: bool = False
    bars: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column's head; numbers stand to the right."""

    name: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Table:
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


def accuracy_table(report: Report) -> Table:
    """Top-1 after every step."""
    rows = tuple(tuple(Cell(text, whole=i > 0) for i, text in enumerate(row)) for row in accuracies(report))
    head = heads("network", f">{judged(report, 'validation')}", f">{judged(report, 'test')}")
    about = "95 % Wilson intervals; the test images are read once, for the last figure."
    return Table("Top-1 after every step", about, head, rows)


def ratio_table(report: Report) -> Table:
    """Measured beside promised, per comparison."""
    rows = []
    for x in report.latency:
        share = efficiency(report.speedup_macs, x.speedup)
        rows.append(
            (
                Cell(machine_of(x)),
                Cell(str(x.batch)),
                Cell(times(x.low, x.speedup, x.high), x.speedup, tone=tone(x), whole=True),
                Cell(x.verdict if x.verdict != "different" else "faster" if x.speedup > 1 else "slower"),
                Cell(NONE if share is None else percent(share, 0)),
                Cell(times(x.control_low, x.control, x.control_high), whole=True),
            )
        )
    head = heads("runtime", ">batch", ">speed-up (95 %)", "verdict", ">efficiency", ">base against itself")
    about = "Efficiency: (measured speed-up − 1) ÷ (MACs speed-up − 1)."
    return Table("Measured against promised", about, head, tuple(rows))


def tone(x: Latency) -> str:
    """Green only for what is certainly faster."""
    return "good-text" if x.verdict == "different" and x.low > 1 else "bad-text" if x.high <= 1 else ""


def arm_table(report: Report, results: Sequence[Clocked]) -> Table:
    """Every file that was clocked; from the raw samples where they are there."""
    head = heads(
        "file", "runtime and provider", ">batch", ">threads", ">p50", ">p90", ">p95", ">p99", ">images/s", ">load", ">first run"
    )
    rows: list[tuple[Cell, ...]] = []
    for each in results:
        result = each.result
        for arm in result.arms:
            found = arm.latency
            p99 = NONE if found.p99 is None else duration(found.p99)
            texts = [str(result.settings.batch), str(result.environment.threads or NONE)]
            texts += [duration(x) for x in (found.p50, found.p90, found.p95)]
            texts += [p99, f"{arm.images_per_second:,.0f}", duration(arm.load_seconds), duration(arm.first_run_seconds)]
            where = ", ".join(filter(None, (result.runtime, arm.providers[0], each.machine, arm.fallback and "fallback")))
            named = Cell(arm.name), Cell(where, tone="bad-text" if arm.fallback else "")
            rows.append((*named, *(Cell(t, whole=True) for t in texts)))
    if not results:
        for x in report.latency:
            for name, p50, p90 in (("base", x.base_p50, x.base_p90), ("pruned", x.pruned_p50, x.pruned_p90)):
                texts = [str(x.batch), str(x.threads or NONE), duration(p50), duration(p90), NONE, NONE]
                texts += [f"{x.batch / p50:,.0f}" if p50 > 0 else NONE, NONE, NONE]
                rows.append((Cell(name), Cell(machine_of(x)), *(Cell(t, whole=True) for t in texts)))
    about = "Wall time a batch, what a user waits for. p99 from 1,000 rounds on. “base again” is the same file as the base."
    return Table("Every file that was clocked", about, head, tuple(rows))


def grid_table(report: Report) -> Table | None:
    """Speed-ups by runtime and batch, where more than one batch was measured."""
    batches = sorted({x.batch for x in report.latency})
    if len(batches) < 2:
        return None
    names = list(dict.fromkeys(machine_of(x) for x in report.latency))
    found = {(machine_of(x), x.batch): x for x in report.latency}
    rows = []
    for name in names:
        cells = [found.get((name, batch)) for batch in batches]
        texts = [Cell(NONE) if x is None else Cell(clocked(x), tone=tone(x)) for x in cells]
        rows.append((Cell(name), *texts))
    return Table("Speed-up by batch", "95 % intervals.", heads("runtime", *(f">batch {b}" for b in batches)), tuple(rows))


def alignment(channels: int) -> int:
    """The largest power of two, up to 32, that divides a width: how wide a kernel its channels fill."""
    return min(channels & -channels, _BLOCK) if channels > 0 else 0


def layer_table(layers: Sequence[Width], seconds: Mapping[str, tuple[float, float]], binds: Mapping[str, str]) -> Table:
    """Every layer before and after.

    Args:
        layers: in forward order.
        seconds: layer -> time before and after, from the profiles; empty without them.
        binds: layer -> what keeps it from being faster.
    """
    names = ["layer", "kind", ">channels", ">kept", ">aligned to", ">MACs", ">MACs left", ">activations left"]
    most = max((t for pair in seconds.values() for t in pair), default=0.0)
    rows = []
    for number_, w in enumerate(layers, 1):
        changed = w.before != w.after
        aligned = alignment(w.after)
        odd = aligned < 4 and w.after > 4 and changed
        cells = [
            Cell(str(number_), number_),
            Cell(w.layer),
            Cell(w.kind.replace("_", " ") or NONE),
            Cell(_from_to(f"{w.before:,}", f"{w.after:,}"), w.after, "cut" if changed else "", True),
            Cell(_share(w.after, w.before), w.after / max(w.before, 1)),
            Cell(str(aligned), aligned, "bad-text" if odd else ""),
            Cell(_from_to(number(w.macs_before), number(w.macs_after)), w.macs_after, whole=True),
            Cell(_share(w.macs_after, w.macs_before), w.macs_after / max(w.macs_before, 1)),
            Cell(_share(w.activations_after, w.activations_before), w.activations_after / max(w.activations_before, 1)),
        ]
        if seconds:
            cells += _clocked(seconds.get(w.layer), most)
            cells.append(Cell(binds.get(w.layer, "")))
        rows.append((*cells, Cell(w.note)))
    if seconds:
        names += [">time", ">time left", "what binds it"]
    about = (
        "In forward order; the heads sort. “Aligned to”: the largest power of two that divides the channels left; "
        "below 4 the fast kernels are lost."
    )
    return Table("Layers before and after", about, heads(">#", *names, "note"), tuple(rows), sortable=True, named=1)


def front_table(points: Sequence[Mapping[str, float]], chosen: int, knee: int) -> Table:
    """The front's networks, by the numbers that ``compress pick --index`` takes."""
    marks = {knee: "knee", chosen: "chosen"} if knee != chosen else {chosen: "chosen, knee"}
    rows = []
    for i, p in enumerate(points):
        cells = [
            Cell(str(i)),
            Cell(percent(p["macs_share"], 1)),
            Cell(percent(p["params_share"], 1)),
            Cell(percent(p["error"], 1)),
        ]
        rows.append((*cells, Cell(marks.get(i, ""), tone="cut" if i == chosen else "")))
    head = heads("point", ">MACs kept", ">params kept", ">error", "")
    return Table("Networks on the front", "Make one real with compress pick RUN --index POINT.", head, tuple(rows))


def _clocked(pair: tuple[float, float] | None, most: float) -> list[Cell]:
    if pair is None:
        return [Cell(NONE), Cell(NONE)]
    before, after = pair
    left = after / before if before > 0 else 0.0
    bars = (before / most, after / most) if most > 0 else ()
    slower = "bad-text" if left > 1.02 else ""
    return [Cell(f"{duration(before)} → {duration(after)}", after, whole=True, bars=bars), Cell(percent(left, 0), left, slower)]


def _from_to(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _share(after: float, before: float) -> str:
    return percent(after / before, 0) if before > 0 else NONE
