"""What a report says in words: the verdict, the red flags; pure functions of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from compress.core import TOP1, Certificate, Difference, Figure, Measured, images_needed, plural
from compress.latency import LatencyResult
from compress.report.formatting import machine_in_words, machine_of
from compress.report.model import Latency, Report


def latency_of(result: LatencyResult, name: str = "pruned") -> Latency:
    """Base against one arm, as a report keeps it."""
    ratio, interval, control = result.ratios[name], result.ratios[name].decisive, result.control.decisive
    base, pruned = result.arm("base").latency, result.arm(name).latency
    return Latency(
        runtime=result.runtime + (" without copies" if result.settings.transfer == "device" else ""),
        batch=result.settings.batch,
        threads=result.environment.threads or 0,
        base_p50=base.p50,
        pruned_p50=pruned.p50,
        base_p90=base.p90,
        pruned_p90=pruned.p90,
        speedup=interval.ratio,
        low=interval.low,
        high=interval.high,
        verdict=ratio.verdict.value,
        clock=ratio.decided_by,
        control=control.ratio,
        control_low=control.low,
        control_high=control.high,
        rounds=result.rounds,
        flags=result.flags,
        base_decisive=_median(result, "base", ratio.decided_by),
        pruned_decisive=_median(result, name, ratio.decided_by),
    )


def _median(result: LatencyResult, name: str, clock: str) -> float:
    arm = result.arm(name)
    return statistics.median(arm.cpu if clock == "cpu" else arm.wall)


@dataclass(frozen=True)
class Scoring:
    """What a report's words need to know about scores.

    Attributes:
        task: the task's name.
        figure: what decides; None where nothing is scored.
        missing: why there is no score, where there is none.
        chance: what a network without knowledge reaches; None where nobody can say.
        bounded: what a certificate bounds; None without one.
    """

    task: str
    figure: Figure | None
    missing: str = ""
    chance: float | None = None
    bounded: Figure | None = None


def flags(scoring: Scoring, scores: Sequence[Measured], latency: Sequence[Latency]) -> list[str]:
    """The red flags of a run: what was not measured, what was destroyed, what is not faster."""
    found = []
    figure = scoring.figure
    if figure is None:
        found.append(
            f"nothing was scored: the task is {scoring.task}, the outputs were only compared with the unpruned network's; "
            "--task says what they are"
        )
    elif not scores:
        known = (
            f"how much it has {figure.worsened} is bounded by how the answers changed"
            if scoring.bounded == figure
            else "the outputs were only compared with the unpruned network's"
        )
        found.append(f"{figure.short} was not measured: {scoring.missing}; {known}")
    else:
        found += _destroyed(scores, figure, scoring.chance) or _at_chance(scores, figure, scoring.chance)
    return [*found, *speed_flags(latency)]


_TWICE_THE_NOISE = 3.0
"""Decibels."""


def _destroyed(scores: Sequence[Measured], figure: Figure, chance: float | None) -> list[str]:
    """A network that lost half of what it knew beyond chance, or whose error more than doubled."""
    split = scores[-1].split
    base, final = (next((a.value for a in row if a.split == split), 0.0) for row in (scores, scores[::-1]))
    least = chance or 0.0
    if figure.higher and figure.share:
        bad = not final - least >= (base - least) / 2
    elif figure.higher:
        bad = figure.unit == "dB" and not base - final <= _TWICE_THE_NOISE
    else:
        bad = not final <= 2 * base
    if not bad:
        return []
    places, named = (1, "") if figure.share else (2, f"{figure.name} ")
    told = f", chance is {100 * least:.3g} %" if chance is not None else ""
    fall = f"{named}{figure.text(base, places)} -> {figure.text(final, places)} ({split} images{told})"
    return [f"the pruned network is of no use as it is: {fall}; --recover reconstruct, train it (--epochs), or cut less"]


def _at_chance(scores: Sequence[Measured], figure: Figure, chance: float | None) -> list[str]:
    """A network whose figure guessing could have reached, as the unpruned one's may."""
    last = scores[-1]
    if chance is None or not figure.share or not figure.higher or last.low > chance:
        return []
    base = next((a for a in scores if a.when == "base" and a.split == last.split), None)
    too = ", nor can the unpruned one" if base is not None and base.low <= chance else ""
    seen = f"{figure.text(last.value, 1)} ({figure.range(last.low, last.high)}) on {plural(last.images, f'{last.split} image')}"
    return [
        f"the pruned network cannot be told from chance{too}: {seen}, chance is {100 * chance:.3g} %; "
        "give more images, or look at --labels, --mean and --std"
    ]


_USELESS = ("of no use as it is", "cannot be told from chance")


def useful(warnings: Sequence[str]) -> bool:
    """Whether a report's flags leave its network any use, without which no speed is good news."""
    return not any(said in warning for said in _USELESS for warning in warnings)


def speed_flags(latency: Sequence[Latency]) -> list[str]:
    """What is red about measurements: not faster, or not to be trusted."""
    flags = []
    for found in latency:
        where = machine_of(found)
        if found.high <= 1.0:
            flags.append(f"{where}: slower than the unpruned network ({found.speedup:.2f}x)")
        elif found.verdict != "different" or found.low <= 1.0:
            flags.append(f"{where}: not measurably faster ({found.speedup:.2f}x, {found.verdict})")
        flags += [f"{where}: {flag}" for flag in found.flags]
    return flags


def missed_drop(value: float, figure: Figure, scores: Sequence[Measured], certificate: Certificate | None) -> list[str]:
    """A loss beyond what was allowed, in the final figures; without labels, one that cannot be excluded.

    Args:
        value: what was allowed, a fraction or in the figure's unit.
        figure: that is to be kept.
        scores: of the run.
        certificate: without labels.
    """
    test = {a.when: a.value for a in scores if a.split == "test"}
    worse, allowed = figure.worsened, f"{value * figure.scale:g}"
    if {"base", "final"} <= set(test):
        lost = figure.worse(test["base"], test["final"])
        verb = "dropped" if figure.higher else "rose"
        return [] if lost <= value else [f"the test {figure.short} {verb} by {figure.difference(lost)}, {allowed} were allowed"]
    if certificate is None or certificate.figure != figure:
        verb = "dropped" if figure.higher else "rose"
        why = "no image was left to ask" if certificate is None else f"the {certificate.figure.name} alone is bounded"
        most = f"{allowed} {figure.step}".rstrip()
        return [f"nothing certifies that the {figure.short} {verb} by at most {most}: {why}"]
    if certificate.bound <= value:
        return []
    few = images_needed(value, certificate.confidence) if figure.share else 0
    why = f"; so few images cannot say less, at least {few} are needed" if certificate.images < few else ""
    what = "a drop" if worse == "dropped" else "a rise"
    return [
        f"without labels {what} of up to {figure.difference(certificate.bound)} cannot be excluded, {allowed} were allowed{why}"
    ]


def verdict_of(report: Report) -> str:
    """The sentence again, from what the report holds now."""
    return verdict_sentence(
        report.latency, report.scores, report.speedup_macs, report.certificate, report.figure, report.change
    )


def told_change(figure: Figure, before: float, after: float, change: Difference | None) -> str:
    """A difference of two networks on the test images, with its paired interval where they were judged image by image."""
    seen = figure.signed(after - before)
    if change is None:
        return seen
    interval = figure.signed_range(change.low, change.high)
    seen_at_all = any(digit in interval for digit in "123456789")  # a network that lost dead channels alone differs by rounding
    said = {"ahead": "better", "behind": "worse"}.get(change.verdict if seen_at_all else "", "no difference that can be told")
    return f"{seen}, {100 * change.confidence:.0f} % interval {interval} on the same {plural(change.images, 'image')}: {said}"


def verdict_sentence(
    latency: Sequence[Latency],
    scores: Sequence[Measured],
    promised: float,
    certificate: Certificate | None,
    figure: Figure | None = TOP1,
    change: Difference | None = None,
) -> str:
    """One sentence for somebody who decides."""
    if not latency:
        speed = f"{promised:.2f}x fewer MACs (latency not measured)"
    else:
        first = latency[0]
        word = (
            "faster"
            if first.low > 1 and first.verdict == "different"
            else "slower"
            if first.high <= 1
            else "not measurably faster"
        )
        interval = f"(95 % interval {first.low:.2f} to {first.high:.2f})"
        speed = f"{first.speedup:.2f}x the speed with {machine_in_words(first)} {interval}: {word}"
        speed += f", for {promised:.2f}x fewer MACs"
    test = {a.when: a.value for a in scores if a.split == "test"}
    if figure is None:
        said = "nothing scored, outputs compared only"
    elif "base" in test and "final" in test:
        base, final = test["base"], test["final"]
        told = told_change(figure, base, final, change)
        return f"{speed}; test {figure.short} {figure.text(base)} -> {figure.text(final)} ({told})"
    else:
        said = f"{figure.short} not measured"
    if certificate is not None:
        most = (
            f"{certificate.figure.difference(certificate.bound)} at most with {100 * certificate.confidence:.0f} % confidence"
        )
        subject = "" if certificate.figure == figure else f"{certificate.figure.name} "
        return f"{speed}; {said}, {subject}certified to have {certificate.figure.worsened} by {most}"
    return f"{speed}; {said}"
