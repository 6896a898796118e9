"""Methods beside each other under one protocol: what every run found, the means over seeds, and who is ahead of whom."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compress.core import TOP1, Difference, Figure, finite_json, markdown, markdown_block
from compress.report.formatting import NONE, STATES, TRAINED, duration, number
from compress.report.markdown import table_lines
from compress.report.model import Latency

SCHEMA = "compress-comparison-2"


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run of one method.

    Attributes:
        method: as it was named.
        seed: of the search and the training.
        folder: of the run, below the comparison's.
        macs: share kept.
        params: share kept.
        validation: state of the network -> the task's figure.
        base: the unpruned network's figure on the test images.
        test: the final network's; without targets both are held against the unpruned network.
        latency: per runtime.
        search_seconds: importance and search; for somebody else's pruner all of its work.
        image_forwards: that the search spent; 0 where it is not counted.
        requests: fidelity -> requests, plans in them, different ones.
        seconds: phase -> wall time, as in a report.
        failed: why there is nothing else here; empty where the run ended well.
    """

    method: str
    seed: int
    folder: str
    macs: float = math.nan
    params: float = math.nan
    validation: Mapping[str, float] = field(default_factory=dict)
    base: float | None = None
    test: float | None = None
    latency: tuple[Latency, ...] = ()
    search_seconds: float = 0.0
    image_forwards: float = 0.0
    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation over seeds (0 of one)."""

    mean: float
    sd: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A method over its seeds.

    Attributes:
        method: as it was named.
        figures: ``macs``, ``params``, ``test``, every state of validation, ``speedup``, ``search seconds``, ``image-forwards``.
        requests: fidelity -> requests, plans and evaluated plans, means over seeds.
        latency: lowest and highest end of the seeds' intervals of the first runtime's speed-up.
        against: name -> the figure of this method minus that one's on the same test images.
        failed: why seeds are missing.
    """

    method: str
    figures: Mapping[str, Spread]
    requests: Mapping[str, Mapping[str, float]]
    latency: tuple[float, float] | None
    against: Mapping[str, Difference]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it.

    Attributes:
        network: name of the architecture.
        data: the images.
        target: what every method was asked for.
        reference: the method that the others are set against.
        protocol: the settings that all runs share.
        seeds: of the runs.
        rows: every run.
        summaries: every method, in the order asked for.
        notes: what a reader should know.
        digests: of the network and the images.
        environment: the machine and the versions.
        command: how to run it again.
        labelled: whether the test images are scored; otherwise they are held against the unpruned network.
        figure: what the final figure is.
    """

    network: str
    data: str
    target: str
    reference: str
    protocol: Mapping[str, Any]
    seeds: tuple[int, ...]
    rows: tuple[ComparedRun, ...]
    summaries: tuple[Summary, ...]
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    labelled: bool = True
    figure: Figure = TOP1
    schema: str = field(default=SCHEMA)

    @property
    def judged(self) -> str:
        """What the final figure is."""
        return "test" if self.labelled else self.figure.name

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; numbers that JSON does not have become null."""
        plain: dict[str, Any] = finite_json(asdict(self))
        return plain


def summary(method: str, rows: Sequence[ComparedRun], against: Mapping[str, Difference]) -> Summary:
    """Means and spreads of a method's runs."""
    good = [r for r in rows if not r.failed]
    figures: dict[str, Sequence[float]] = {"macs": [r.macs for r in good], "params": [r.params for r in good]}
    for state in states(good):
        figures[state] = [r.validation[state] for r in good if state in r.validation]
    figures["test"] = [r.test for r in good if r.test is not None]
    figures["speedup"] = [r.latency[0].speedup for r in good if r.latency]
    figures["search seconds"] = [r.search_seconds for r in good]
    figures["image-forwards"] = [r.image_forwards for r in good]
    ends = [(r.latency[0].low, r.latency[0].high) for r in good if r.latency]
    return Summary(
        method=method,
        figures={name: _spread(values) for name, values in figures.items() if values},
        requests=_requests(good),
        latency=(min(low for low, _ in ends), max(high for _, high in ends)) if ends else None,
        against=dict(against),
        failed=tuple(f"seed {r.seed}: {r.failed}" for r in rows if r.failed),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def _requests(rows: Sequence[ComparedRun]) -> dict[str, dict[str, float]]:
    kinds = dict.fromkeys(kind for r in rows for kind in r.requests)
    names = dict.fromkeys(name for r in rows for counts in r.requests.values() for name in counts)
    return {k: {n: statistics.fmean(r.requests.get(k, {}).get(n, 0.0) for r in rows) for n in names} for k in kinds}


def states(rows: Iterable[ComparedRun]) -> tuple[str, ...]:
    """The states that were measured, in the order in which a run passes through them."""
    found = dict.fromkeys(state for r in rows for state in r.validation)
    known = [s for s in STATES if s in found and s != "base"]
    return (*known, *(s for s in found if s not in STATES))


def comparison_table(found: Comparison, brief: bool = False) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns' names and a row of cells for every method.

    Args:
        found: the comparison.
        brief: for a terminal: means only, of the last states before and after training; what the search spent left out.
    """
    seen = states(found.rows)
    if brief:
        clocked = any(s.latency for s in found.summaries)
        steps = ("untrained", "trained") if seen else ()
        short = ("method", "MACs", *steps, found.judged, f"− {found.reference} (95 %)", *(["speed-up"] if clocked else []))
        told = []
        for s in found.summaries:
            start = (s.method, _mean(s, "macs", TOP1), *_untrained_trained(s, found.figure)[: len(steps)])
            told.append((*start, _spelt(s, "test", found.figure), _gap(s, found), _speed(s)))
        return short, [row if clocked else row[:-1] for row in told]
    versus = f"{found.judged} − {found.reference} (95 %)"
    head = ("method", "MACs kept", *seen, found.judged, versus, "speed-up", "search", "image-forwards", "evaluated")
    rows = []
    for s in found.summaries:
        cells = [s.method, _spelt(s, "macs", TOP1, 1), *(_spelt(s, state, found.figure) for state in (*seen, "test"))]
        versus_text = difference_text(s, found.reference, found.figure)
        rows.append((*cells, versus_text, _speed(s), _seconds(s), _forwards(s), _asked(s)))
    return head, rows


def comparison_markdown(found: Comparison) -> str:
    """The comparison as one table and what has to be said about it."""
    head, rows = comparison_table(found)
    lines = [f"# {markdown(f'{found.network} on {found.data}, {found.target}')}", ""]
    seeds = ", ".join(map(str, found.seeds))
    spread = ": mean ± standard deviation" if len(found.seeds) > 1 else ""
    lines += [f"Seeds {seeds}{spread}. Figures are {found.figure.heading}, validation unless {found.judged} is said.", ""]
    lines += table_lines(head, rows)
    base = next((r.base for r in found.rows if r.base is not None), None)
    if base is not None and found.labelled:
        lines += [f"Unpruned: {found.figure.text(base)} on the test images.", ""]
    lines += [f"- {markdown(text)}" for text in found.notes]
    lines += [f"- {markdown(f'{s.method}, {why}')}" for s in found.summaries for why in s.failed]
    lines += ["", "Protocol: " + markdown("; ".join(f"{k} {v}" for k, v in found.protocol.items())), ""]
    if found.command:
        lines += [*markdown_block(found.command), ""]
    return "\n".join(lines)


def difference_text(found: Summary, reference: str, figure: Figure = TOP1) -> str:
    """``+0.42 (-0.10 to 0.94): not distinguishable``, in points or the figure's unit."""
    gap = found.against.get(reference)
    if gap is None:
        return NONE
    sign = "+" if gap.mean >= 0 else ""
    return f"{sign}{figure.number(gap.mean)} ({figure.range(gap.low, gap.high, 2)}): {gap.verdict}"


def _untrained_trained(found: Summary, figure: Figure) -> list[str]:
    """The last state that no training led to, and the last one that some did; C-SGD trains before it cuts."""
    seen = [s for s in STATES if s in found.figures]
    first = next((i for i, s in enumerate(seen) if s in TRAINED), len(seen))
    return [_mean(found, part[-1], figure) if part else NONE for part in (seen[:first], seen[first:])]


def _gap(found: Summary, whole: Comparison) -> str:
    return difference_text(found, whole.reference, whole.figure).partition(":")[0]


def _mean(found: Summary, name: str, figure: Figure) -> str:
    spread = found.figures.get(name)
    return NONE if spread is None else figure.number(spread.mean, 1)


def _spelt(found: Summary, name: str, figure: Figure, places: int = 2) -> str:
    """A mean, and its spread over several seeds; as the figure's heading counts, shares of MACs in percent like any."""
    spread = found.figures.get(name)
    if spread is None:
        return NONE
    middle = figure.number(spread.mean, places)
    return f"{middle} ± {figure.number(spread.sd, places)}" if spread.seeds > 1 else middle


def _speed(found: Summary) -> str:
    if found.latency is None:
        return NONE
    return f"{found.figures['speedup'].mean:.2f}× ({found.latency[0]:.2f} to {found.latency[1]:.2f})"


def _seconds(found: Summary) -> str:
    return duration(found.figures["search seconds"].mean) if "search seconds" in found.figures else NONE


def _forwards(found: Summary) -> str:
    spread = found.figures.get("image-forwards")
    return NONE if spread is None or not spread.mean else number(spread.mean)


def _asked(found: Summary) -> str:
    return "; ".join(f"{kind} {counts.get('evaluated', 0):.0f}" for kind, counts in found.requests.items()) or NONE
